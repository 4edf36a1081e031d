"""Append-only files with one JSON object per line, safe for concurrent threads and processes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

# The files may contain text of clinicians.
MODE = 0o600


class JsonLines:
    """Entries in ``<stem>.jsonl`` of a folder, with older ones in ``<stem>.1.jsonl``, ``<stem>.2.jsonl`` and so on.

    A line that was truncated by a crash is skipped on reading and does not affect the next one. All changes are made
    under a lock, which is released when its process ends.

    Args:
        folder: folder of the files, created with the first entry, and again after a removal.
        stem: stem of the file names.
        largest: size in bytes beyond which the next entry starts a new file.
        is_synced: whether an entry is flushed to the disk before `append` returns.
    """

    def __init__(self, folder: Path, stem: str, largest: int, *, is_synced: bool = True) -> None:
        self.folder, self.path = folder, folder / f"{stem}.jsonl"
        self._stem, self._largest, self._is_synced = stem, largest, is_synced

    def append(self, *entries: Mapping[str, Any]) -> None:
        """Append entries, all of them or none.

        Args:
            entries: JSON-serialisable entries.

        Raises:
            OSError: they cannot be written; the file is unchanged.
        """
        if not entries:
            return
        lines = b"".join(json.dumps(each, ensure_ascii=False, allow_nan=False).encode() + b"\n" for each in entries)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX):
            self._rotate()
            self._write(lines)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Iterate over the entries that exist when the iteration starts, the oldest first."""
        with ExitStack() as stack:
            try:
                with self._locked(os.O_RDONLY, fcntl.LOCK_SH):  # no file is renamed before all are open
                    files = self._opened(stack)
            except FileNotFoundError:  # files of an earlier version, or a copy, have no lock file yet
                files = self._opened(stack)
            for file in files:
                for line in file:
                    try:
                        entry = json.loads(line)
                    except ValueError:  # truncated by a crash
                        continue
                    if isinstance(entry, dict):
                        yield entry

    def _opened(self, stack: ExitStack) -> list[BinaryIO]:
        paths = [*self._rotated(), self.path]
        return [stack.enter_context(path.open("rb")) for path in paths if path.exists()]

    @contextmanager
    def _locked(self, flags: int, how: int) -> Iterator[None]:
        path = self.folder / f"{self._stem}.lock"
        while True:
            file = os.open(path, flags, MODE)
            try:
                fcntl.flock(file, how)
                # After a clean-up, another file may have the path; then the lock of that file is needed.
                if _is_there(file, path):
                    yield
                    return
            finally:
                os.close(file)

    def _rotate(self) -> None:
        if self.path.is_file() and self.path.stat().st_size >= self._largest:
            number = 1 + max((self._number(path) for path in self._rotated()), default=0)
            self.path.rename(self.path.with_name(f"{self._stem}.{number}.jsonl"))

    def _rotated(self) -> list[Path]:
        paths = self.folder.glob(f"{self._stem}.*.jsonl")
        return sorted((path for path in paths if self._number(path)), key=self._number)

    def _number(self, path: Path) -> int:
        middle = path.name.removeprefix(f"{self._stem}.").removesuffix(".jsonl")
        return int(middle) if middle.isdecimal() else 0

    def _write(self, lines: bytes) -> None:
        """Append lines; incomplete ones are removed."""
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, MODE)
        try:
            before = os.fstat(file).st_size
            if before and os.pread(file, 1, before - 1) != b"\n":
                lines = b"\n" + lines
            try:
                if os.write(file, lines) < len(lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self._is_synced:
                    os.fsync(file)
            except OSError:
                os.ftruncate(file, before)
                raise
        finally:
            os.close(file)


def _is_there(file: int, path: Path) -> bool:
    """Return whether an open file is still the one at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
