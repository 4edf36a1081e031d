"""Consistency of a label file with the names of its values: a checksum beside the names identifies the file.

A data store that saves a label first writes a pending file beside the old one, then the names with the checksum into
the index, and then renames the pending file. If it is killed in between, readers find the pending file by its checksum.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from causal_sam.errors import InputError

CHECKSUM = "checksum"
"""Key of the checksum in the info of a label."""
# Not an extension of images or labels, so that listings of the folder skip the file.
PART = ".part"


class ChangedLabelError(InputError):
    """A label file is not the one that its names were saved with."""


def pending_path(path: Path) -> Path:
    """Return the path of the pending file of a label."""
    return path.with_name(f".{path.name}{PART}")


def checksum(path: Path) -> str:
    """Return the checksum of a file in MONAI Label's form: "SHA256:" and hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return f"SHA256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


@contextmanager
def label_copy(path: Path, info: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a private copy of the file that was saved with an info.

    Args:
        path: path of the label.
        info: info of the label; without a checksum, it fits any file.

    Raises:
        ChangedLabelError: neither file has the checksum.
        OSError: the file cannot be read.
    """
    expected = info.get(CHECKSUM)
    with tempfile.TemporaryDirectory(prefix="causal-sam-label-") as folder:
        copy = Path(folder) / path.name
        for candidate in (path, pending_path(path)):
            if candidate == path or candidate.is_file():
                shutil.copyfile(candidate, copy)
                if expected is None or checksum(copy) == expected:
                    yield copy
                    return
        raise ChangedLabelError(
            f"The file {path.name} is not the one that was saved with its names: it was changed or saved again since. "
            "Save the label once more with its names."
        )
