"""The journal of notes: what clinicians wrote, what became of it, and what the masks were before. JSON Lines."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from causal_sam.errors import CausalSamError

NAME = "notes.jsonl"
# A file that has become so large is put aside, and a new one begun. None is ever deleted: people learn from them.
LARGEST_FILE = 16 * 2**20


class JournalError(CausalSamError):
    """The journal cannot be written, so what it was to record must not happen."""


class Journal:
    """Entries in ``notes.jsonl`` of a folder, the older ones in ``notes.1.jsonl``, ``notes.2.jsonl`` and so on.

    Each entry is one line, written and synced before `append` returns; a line cut off by a crash is skipped when the
    entries are read, and does not spoil the next one. Any number of threads and processes may share a folder.

    Args:
        folder: is made with the first entry.
        largest: size of a file in bytes beyond which the next entry begins a new one.
    """

    def __init__(self, folder: Path, largest: int = LARGEST_FILE) -> None:
        self.folder, self._largest = folder, largest
        self._lock = threading.Lock()

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write an entry.

        Args:
            entry: what JSON can hold.

        Raises:
            JournalError: it cannot be written; the file is as it was.
        """
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        path = self.folder / NAME
        try:
            with self._lock:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._put_aside(path)
                _append(path, line)
        except OSError as error:
            raise JournalError(
                f"The journal of notes {path} cannot be written ({error.strerror}), so nothing was changed: make room "
                "there, or make it writable."
            ) from error

    def entries(self) -> Iterator[dict[str, Any]]:
        """Read all entries, the oldest first."""
        for path in [*self._aside(), self.folder / NAME]:
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:
                continue
            for line in lines:
                try:
                    entry = json.loads(line)
                except ValueError:  # cut off by a crash
                    continue
                if isinstance(entry, dict):
                    yield entry

    def _put_aside(self, path: Path) -> None:
        if path.is_file() and path.stat().st_size >= self._largest:
            number = 1 + max((_number(aside) for aside in self._aside()), default=0)
            path.rename(path.with_name(f"notes.{number}.jsonl"))

    def _aside(self) -> list[Path]:
        return sorted((p for p in self.folder.glob("notes.*.jsonl") if _number(p)), key=_number)


def _number(path: Path) -> int:
    middle = path.name.removeprefix("notes.").removesuffix(".jsonl")
    return int(middle) if middle.isdecimal() else 0


def _append(path: Path, line: bytes) -> None:
    """Append a line and sync it; what could not be written whole is taken back."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        before = os.fstat(file).st_size
        if before and os.pread(file, 1, before - 1) != b"\n":
            line = b"\n" + line
        try:
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)
