"""Files that are there whole or not at all."""

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
    """Give a path to write at; what is written there takes the place of ``path`` at the end of the block.

    Whoever reads ``path`` finds the old content or all of the new one, also after a crash or where the disk is full.
    The path given lies in the same folder and ends as ``path`` does, for writers that go by the extension. Two that
    write the same file at once must agree between them.

    Args:
        path: of the file.
        is_synced: whether the content is on the disk before it takes the place of ``path``, so that a power failure
            cannot leave an empty file.

    Raises:
        OSError: it cannot be written; ``path`` is as it was.
    """
    part = path.with_name(f"{PART_PREFIX}{path.name}")
    try:
        yield part
        if is_synced:
            sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
