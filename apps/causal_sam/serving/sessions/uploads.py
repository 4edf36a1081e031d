"""Uploaded files on disk: each in a private folder of its own, under a name of the server's, and removed in the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fastapi import UploadFile

from causal_sam.errors import InputError
from causal_sam.imaging.limits import TooLargeError, check_data_file
from causal_sam.imaging.reading import META_IMAGE, NIFTI, NRRD, PICTURES
from serving.data.incoming_labels import RAW

UPLOAD_PREFIX = "causal-sam-upload-"
DICOM = ".dcm"
DEFAULT_EXTENSION = ".nii.gz"
# The longest first, for ".nii.gz" ends with ".gz" alone too.
_EXTENSIONS = sorted((*NIFTI, *NRRD, *META_IMAGE, *PICTURES, RAW), key=len, reverse=True)
_CHUNK = 2**20


def stored_extension(name: str | None) -> str:
    """Return the extension under which an upload is kept: all that stays of the name that the client gave.

    Args:
        name: name of the client's file; a file without a name is taken for compressed NIfTI, as MONAI Label does.
    """
    if not name:
        return DEFAULT_EXTENSION
    return next((extension for extension in _EXTENSIONS if name.lower().endswith(extension)), DICOM)


def copy_limited(source: BinaryIO, target: Path, limit: int, what: str) -> int:
    """Write a stream to a new file; return its size in bytes.

    Args:
        source: stream that is read to its end.
        target: the file.
        limit: maximum number of bytes.
        what: noun for the sentence.

    Raises:
        TooLargeError: there is more; what was written lies in ``target``.
    """
    size = 0
    with target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise TooLargeError(f"{what} is larger than {limit} bytes, which is the most allowed.")
            file.write(chunk)
    return size


def check_upload(path: Path) -> None:
    """Refuse an uploaded image that has its voxels in another file; it lies alone in its folder.

    Raises:
        InputError: it is empty, or its header is damaged or names another file.
    """
    if not path.stat().st_size:
        raise InputError("The uploaded file is empty.")
    if path.suffix in (*NRRD, *META_IMAGE):
        check_data_file(path, is_nrrd=path.suffix in NRRD)


@contextmanager
def received(upload: UploadFile, kind: str) -> Iterator[Path]:
    """Keep an uploaded file on disk within the block.

    Nothing else lies in its folder, so a header cannot name another file as its voxels.

    Args:
        upload: upload of a request.
        kind: the file's name without extension.

    Raises:
        InputError: it is empty, or its header is damaged or names another file.
    """
    folder = Path(tempfile.mkdtemp(prefix=UPLOAD_PREFIX))
    try:
        path = folder / f"{kind}{stored_extension(upload.filename)}"
        with path.open("xb") as file:
            shutil.copyfileobj(upload.file, file, _CHUNK)
        check_upload(path)
        yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)
