"""Atomic writing of files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART_PREFIX = ".part-"


def sync(path: Path) -> None:
    """Bring what was written to a file or a folder to the disk, where a power failure does not reach it.

    Raises:
        OSError: it cannot be written.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def atomic_write(path: Path, *, is_synced: bool = True) -> Iterator[Path]:
    """Yield a temporary path whose file replaces ``path`` at the end of the block.

    Readers of ``path`` find either the old or the complete new content, also after a crash or on a full disk. The
    temporary path is in the same folder and has the same extension. Concurrent writers of a file must use a lock.

    Args:
        path: path of the file.
        is_synced: whether the content is flushed to the disk before it replaces ``path``, so that a power failure
            cannot leave an empty file.

    Raises:
        OSError: the file cannot be written; ``path`` is unchanged.
    """
    part = path.with_name(f"{PART_PREFIX}{path.name}")
    try:
        yield part
        if is_synced:
            sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
