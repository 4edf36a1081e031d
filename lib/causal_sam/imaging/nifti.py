"""Reading NIfTI: voxels by nibabel, which refuses damaged files, and the affine that ITK gives."""

from __future__ import annotations

import gzip
import math
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk
from nibabel.arrayproxy import ArrayProxy
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
from numpy.lib.recfunctions import structured_to_unstructured
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging.colour import luminance
from causal_sam.imaging.itk import affine_of
from causal_sam.imaging.limits import check_claimed_bytes, check_voxels
from causal_sam.imaging.volume import Volume, check_frame

NIFTI = (".nii", ".nii.gz", ".hdr")
# Bytes behind the voxels; writers pad files to whole blocks.
MAX_TAIL = 2**20
NOT_SPATIAL = "it must be a 2D or 3D image, or frames of one, with one number for each voxel"
# Header fields by which ITK places an image.
_GEOMETRY = (
    "pixdim",
    "qform_code",
    "sform_code",
    *(f"quatern_{axis}" for axis in "bcd"),
    *(f"qoffset_{axis}" for axis in "xyz"),
    *(f"srow_{axis}" for axis in "xyz"),
    "xyzt_units",
)
_NIFTI2_HEADER = 540
_GZIP_MAGIC = b"\x1f\x8b"
# CIFTI files, which hold values of brain surfaces, are NIfTI-2 files with one of these intents.
_CIFTI_INTENTS = range(3000, 3100)


def read_nifti(path: Path, frame: int, max_voxels: int) -> Volume:
    """Read a NIfTI file, or the header and the image of a pair.

    Args:
        path: a file whose name ends in one of `NIFTI`; beside a ``.hdr`` lies its ``.img``.
        frame: index of the frame, counted from 0.
        max_voxels: limit of what the header claims, checked before anything is decoded.

    Raises:
        TooLargeError: the header claims more than ``max_voxels``.
        InputError: the file is damaged, or not a 2D or 3D image or frames of one; ITK gives it no place; or it has no
            such frame.
    """
    try:
        with _opened(path) as file:
            header = _header(file.read(_NIFTI2_HEADER), path)
        dtype, offset = header.get_data_dtype(), header.get_data_offset()
        # ITK counts an axis of no voxels behind the third as one of one.
        shape = header.get_data_shape()
        shape = (*shape[:3], *(max(size, 1) for size in shape[3:]))
        # Vectors lie along the fifth axis.
        frames = math.prod(shape[3:])
        if len(shape) < 2 or min(shape) < 1 or frames != max(shape[3:], default=1):
            raise InputError(f"{path.name} has shape {shape}; {NOT_SPATIAL}.")
        check_voxels(path, shape, max_voxels)
        check_frame(frame, frames, path)
        data = path if header.is_single else path.with_suffix(".img")
        check_claimed_bytes(data, math.prod(shape) * dtype.itemsize)
        if header.is_single and offset < header.sizeof_hdr:
            raise InputError(f"{path.name} is damaged: by its vox_offset the voxels begin inside of its header.")
        with _opened(data) as file:
            voxels = ArrayProxy(file, (shape, dtype, offset, *_scale(header)))
            # Only the requested frame is kept in memory, also when the file is compressed.
            array = np.asanyarray(voxels[(..., *(frame if size > 1 else 0 for size in shape[3:]))])
            if isinstance(file, gzip.GzipFile):
                _read_to_checksum(file, offset + math.prod(shape) * dtype.itemsize)
    except InputError:
        raise
    except Exception as error:  # damaged files fail in their own ways
        raise InputError(f"{path.name} is not a readable NIfTI file ({reason(error, path)}).") from error
    if array.dtype.fields is not None:
        array = luminance(structured_to_unstructured(array))
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype == np.float64 != dtype:  # what nibabel makes of integers with a slope
        array = array.astype(np.float32)
    return Volume(array, _itk_affine(header, path), source=path, frame=frame, frames=frames)


def reason(error: BaseException, path: Path) -> str:
    """Return what a library says in its first line, without the folders of the path."""
    return (str(error).splitlines() or [type(error).__name__])[0].replace(str(path), path.name).rstrip(".")


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    """Open a file, which is compressed or not whatever it is called; ITK does so where the name ends in .gz."""
    with path.open("rb") as file:
        is_compressed = file.read(2) == _GZIP_MAGIC
    if is_compressed and path.suffix.lower() != ".gz":
        raise InputError(f"{path.name} is compressed: its name must end in {path.suffix}.gz.")
    return gzip.open(path) if is_compressed else path.open("rb")


def _header(content: bytes, path: Path) -> Nifti1Header:
    """The header as it is in the file: nibabel's checks would correct it, and otherwise than ITK."""
    if content[344:347] in (b"n+1", b"ni1"):
        kinds: tuple[type[Nifti1Header], type[Nifti1Header]] = Nifti1Header, Nifti1PairHeader
    elif content[4:7] in (b"n+2", b"ni2"):
        kinds = Nifti2Header, Nifti2PairHeader
    else:
        raise InputError(f"{path.name} is not a readable NIfTI file: its header is damaged, or of another format.")
    kind = kinds[path.suffix.lower() == ".hdr"]
    header = kind(content[: kind.sizeof_hdr], check=False)
    if int(header["intent_code"]) in _CIFTI_INTENTS:
        raise InputError(f"{path.name} holds values of surfaces or connections (CIFTI), and no image.")
    return header


def _scale(header: Nifti1Header) -> tuple[float, float]:
    """Slope and intercept as ITK has them: a slope that is 0 or no number is 1, an intercept that is no number is 0."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    return slope if slope and math.isfinite(slope) else 1.0, intercept if math.isfinite(intercept) else 0.0


def _itk_affine(header: Nifti1Header, path: Path) -> NDArray[np.float64]:
    """Ask ITK where it places an image of this geometry.

    The file itself is not given to ITK, which refuses NIfTI-2 and some intents, and makes flat images 2D.
    """
    bare = Nifti1Header()
    bare.set_data_dtype(np.uint8)
    bare.set_data_shape((1, 1, 1))
    bare["vox_offset"] = bare.single_vox_offset
    for field in _GEOMETRY:
        bare[field] = header[field]
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NiftiImageIO")
    with tempfile.TemporaryDirectory(prefix="causal-sam-nifti-") as folder:
        copy = Path(folder) / "header.nii"
        copy.write_bytes(bare.binaryblock.ljust(bare.single_vox_offset + 1, b"\0"))
        reader.SetFileName(str(copy))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise InputError(
                f"{path.name} has no place in the patient: its sform is sheared or singular, and there is no qform. "
                "Resample it to a grid with perpendicular axes."
            ) from error
    return affine_of(reader)


def _read_to_checksum(file: gzip.GzipFile, expected: int) -> None:
    """Read the rest of a compressed file, whose checksum lies at its end; a bomb has much more there than voxels."""
    while file.tell() <= expected + MAX_TAIL and file.read(2**20):
        pass
    if file.tell() > expected + MAX_TAIL:
        raise ValueError("it goes on far beyond its voxels")
