"""Records in a file, one JSON line each, so that an interrupted benchmark can continue."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from causal_sam.errors import InputError

Record = TypeVar("Record")


def append_line(path: Path, line: bytes) -> None:
    """Append a JSON line and flush it to the disk.

    A half-written last line, left by an interruption, is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path, parse: Callable[[bytes], Record]) -> list[Record]:
    """Read the records of a file in order; a file that does not exist yet has none.

    A half-written last line, left by an interruption, is ignored.

    Args:
        path: file to read.
        parse: turns a line into a record; raises ValueError if the line is not a record.

    Raises:
        InputError: another line is not a record.
    """
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.is_file() else (), 1):
        try:
            records.append(parse(line))
        except ValueError as error:
            raise InputError(f"{path}, line {number}: this is not a record of the benchmark ({error}).") from error
    return records
