"""A label's file and the names of its values are one pair: a checksum beside the names says which bytes they belong to.

A data store that saves a label writes its bytes beside the old file, then the names with the checksum into the index,
then puts the bytes in place. Whoever is killed in between leaves the bytes under `part_of`, and the next one who looks
finds them by their checksum.
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
# No extension of images or labels, so those who list the folder do not see it.
PART = ".part"


class ChangedLabelError(InputError):
    """The bytes of a label are not those that its names were saved with."""


def part_of(path: Path) -> Path:
    """Where the bytes of a label wait until the index names them."""
    return path.with_name(f".{path.name}{PART}")


def checksum(path: Path) -> str:
    """Return the checksum of a file, in the form of MONAI Label: "SHA256:" and hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return f"SHA256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


@contextmanager
def label_copy(path: Path, info: Mapping[str, Any]) -> Iterator[Path]:
    """Give a copy of the bytes that were saved with an info; nobody writes to it.

    Args:
        path: of the label.
        info: of the label. One without a checksum, of a store that writes none, goes with any bytes.

    Raises:
        ChangedLabelError: the file holds other bytes.
        OSError: the file cannot be read.
    """
    expected = info.get(CHECKSUM)
    with tempfile.TemporaryDirectory(prefix="causal-sam-label-") as folder:
        copy = Path(folder) / path.name
        for candidate in (path, part_of(path)):
            if candidate == path or candidate.is_file():
                shutil.copyfile(candidate, copy)
                if expected is None or checksum(copy) == expected:
                    yield copy
                    return
        raise ChangedLabelError(
            f"The file {path.name} is not the one that was saved with its names: it was changed or saved again since. "
            "Save the label once more with its names."
        )
