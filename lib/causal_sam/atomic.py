"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART_PREFIX = ".part-"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a path to write at; what is written there takes the place of ``path`` at the end of the block.

    Whoever reads ``path`` finds the old content or all of the new one, also after a crash or where the disk is full.
    The path given lies in the same folder and ends as ``path`` does, for writers that go by the extension. Two that
    write the same file at once must agree between them.

    Raises:
        OSError: it cannot be written; ``path`` is as it was.
    """
    part = path.with_name(f"{PART_PREFIX}{path.name}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
