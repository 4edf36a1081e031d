"""Checks of image files before anything of them is decoded: how large they say they are, and where their voxels lie.

An image may come from anybody. Its header is a claim: of more voxels than there is memory, or of voxels in any file of
this machine.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from causal_sam.errors import InputError

# 512 x 512 x 4096: far more than any scanner makes, and still in the memory of a workstation.
MAX_VOXELS = 2**30
GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot do better.
MAX_DEFLATE_RATIO = 1040
MAX_INFLATED_DICOM = 2**28
MAX_HEADER_LINES = 10_000
MAX_LINE = 10_000

_META_LINE = re.compile(r"(?P<key>[A-Za-z]\w{0,99})\s*[=:]\s*(?P<value>\S.*)", re.ASCII)
# MetaIO reads as many numbers as there should be, from the following lines too: those must not be hidden so.
_META_VECTORS = {"DimSize", "Offset", "Position", "Origin", "CenterOfRotation", "ElementSpacing", "ElementSize"}
_META_MATRICES = {"TransformMatrix", "Rotation", "Orientation"}
# No folder, no address, no standard input ("-"), no pattern of numbered files.
_PLAIN_NAME = re.compile(r"[^\s/\\:%.-][^\s/\\:%]*")
_NRRD_MAGIC = re.compile(r"NRRD000\d")


class TooLargeError(InputError):
    """An image, an upload or an archive is larger than the limits allow."""

    status = 413


def check_voxels(path: Path, shape: Sequence[int], max_voxels: int, values: int = 1) -> None:
    """Refuse an image that is too large to decode.

    Args:
        path: path of the file.
        shape: lengths of all axes, as its header claims.
        max_voxels: limit of the numbers in it, those of all frames together.
        values: numbers for each voxel.

    Raises:
        TooLargeError: it claims more.
    """
    if math.prod(map(int, shape)) * values > max_voxels:
        size = " x ".join(map(str, shape)) + (f" x {values}" if values > 1 else "")
        raise TooLargeError(f"{path.name} claims {size} voxels; at most {max_voxels} are read here.")


def check_claimed_bytes(path: Path, claimed: int) -> None:
    """Refuse a file that cannot hold what its header claims, before memory is taken for it.

    Args:
        path: path of the file, compressed by gzip or not at all.
        claimed: bytes of its voxels when they are decompressed.

    Raises:
        InputError: it is too short.
    """
    with path.open("rb") as file:
        ratio = MAX_DEFLATE_RATIO if file.read(2) == GZIP_MAGIC else 1
    if claimed > path.stat().st_size * ratio:
        raise InputError(f"{path.name} is not a readable NIfTI file (it is too short for the size in its header).")


def check_deflated_dicom(path: Path) -> None:
    """Refuse a DICOM file whose elements are deflated and become too large for memory; pydicom inflates all at once.

    Args:
        path: path of the file.

    Raises:
        TooLargeError: it becomes larger than 256 MiB.
        OSError, EOFError, ValueError: it cannot be read.
    """
    with path.open("rb") as file:
        read_preamble(file, force=True)
        if _read_file_meta_info(file).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while chunk := file.read(2**16):
            while chunk:
                size += len(inflate.decompress(chunk, 2**20))
                chunk = inflate.unconsumed_tail
                if size > MAX_INFLATED_DICOM:
                    raise TooLargeError(f"{path.name} inflates to more than {MAX_INFLATED_DICOM} bytes.")


def check_data_file(path: Path, *, is_nrrd: bool) -> None:
    """Refuse the header of an NRRD or MetaImage file whose voxels lie anywhere but in it or in one file beside it.

    Args:
        path: path of the file.
        is_nrrd: True to read the file as NRRD, False as MetaImage.

    Raises:
        InputError: the voxels lie elsewhere, in several files or in none, or programs could read the header in
            different ways.
    """
    lines = _header_lines(path)
    name = _nrrd_data_file(lines, path) if is_nrrd else _meta_data_file(lines, path)
    if name is None:
        return
    elsewhere = InputError(
        f"The voxels of {path.name} must be in the file itself, or in one file beside it whose plain name is given."
    )
    if not _PLAIN_NAME.fullmatch(name) or name.upper().startswith("LIST"):
        raise elsewhere
    data = path.parent / name
    if data.resolve().parent != path.parent.resolve() or data.resolve() == path.resolve():
        raise elsewhere
    if not data.is_file():
        raise InputError(f"{path.name} has its voxels in another file, which is missing: give an image in one file.")


def _header_lines(path: Path) -> Iterator[str]:
    """Lines of a text header; what programs split in different ways is refused."""
    with path.open("rb") as file:
        for line in islice(iter(lambda: file.readline(MAX_LINE + 1), b""), MAX_HEADER_LINES):
            text = line.removesuffix(b"\n").removesuffix(b"\r")
            if len(text) > MAX_LINE or any(byte < 32 and byte != 9 for byte in text):
                break
            yield text.decode("utf-8", "replace")


def _nrrd_data_file(lines: Iterator[str], path: Path) -> str | None:
    """The data file of an NRRD header; None where the voxels follow the header."""
    name = None
    if not _NRRD_MAGIC.match(next(lines, "")):
        raise InputError(f"{path.name} is not a readable image: its header is damaged, or of another format.")
    for line in lines:
        if not line:
            return name
        key, _, value = line.partition(":")
        if "".join(key.split()).lower() == "datafile":
            if name is not None:
                raise InputError(f"The header of {path.name} names several data files; give an image in one file.")
            name = value.strip() or "."
    if name is None:
        raise InputError(f"The header of {path.name} is damaged: it does not end.")
    return name


def _meta_data_file(lines: Iterator[str], path: Path) -> str | None:
    """The data file of a MetaImage header; None where the voxels follow the header."""
    damaged = InputError(f"{path.name} is not a readable image: its header is damaged, or of another format.")
    axes: int | None = None
    seen = set()
    for line in lines:
        found = _META_LINE.fullmatch(line)
        if found is None or found["key"] in seen:
            raise damaged
        key, value = found["key"], found["value"].strip()
        if key == "ElementDataFile":
            return None if value in ("LOCAL", "Local", "local") else value
        seen.add(key)
        if key == "NDims":
            axes = int(value) if re.fullmatch("[1-9]", value) else None
        numbers = (axes or 10) if key in _META_VECTORS else (axes or 10) ** 2 if key in _META_MATRICES else 1
        if len(value.split()) < numbers:
            raise damaged
    raise damaged
