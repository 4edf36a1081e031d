"""Writing masks on the exact grid of their image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import nibabel
import nrrd
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import DTypeLike, NDArray

from causal_sam.atomic import atomic_write
from causal_sam.errors import InputError
from causal_sam.imaging.directions import RAS_LPS
from causal_sam.imaging.volume import Volume

MASK_EXTENSIONS = (".nii.gz", ".nii", ".nrrd")
# Masks are nearly all zeros: the quickest level is within a few percent of the best one.
QUICK_GZIP = 1
SCANNER_SPACE = 1
# Behind the header, four bytes say that there is no extension of it.
NO_EXTENSION = 4
# Typed arrays of JavaScript hold no longer whole numbers.
MAX_WHOLE_BYTES = 4
PART_BYTES = 4 * 2**20
# Image files store their first axis fastest. A large mask made in this memory order is written many times as fast.
FILE_ORDER: Final = "F"
# Cosines of the angles between the axes: rounded headers have less, and ITK makes the axes perpendicular.
SHEAR_TOLERANCE = 1e-3


def write_mask(
    mask: NDArray, like: Volume, path: Path, *, compress: bool = True, dtype: DTypeLike | None = None
) -> Path:
    """Write a label map on the grid of a volume.

    The file appears whole or not at all: it is written under another name in the same folder and then renamed.

    Args:
        mask: (I, J, K) in the voxel order of ``like``: bool, or whole numbers from 0 to 65535.
        like: volume whose shape and affine the file gets.
        path: ends in one of `MASK_EXTENSIONS`.
        compress: gzip the voxels of an NRRD; the extension decides for NIfTI.
        dtype: type of the written voxels; by default uint8, or uint16 where the labels need it.

    Returns:
        ``path``.

    Raises:
        InputError: the shape differs, the values are no labels, the extension is unknown or its format cannot hold the
            grid, or the folder is missing.
    """
    path = Path(path)
    extension = next((e for e in MASK_EXTENSIONS if path.name.lower().endswith(e)), None)
    if extension is None:
        raise InputError(f"A mask is written as {', '.join(MASK_EXTENSIONS)}, not as {path.name}.")
    if mask.shape != like.shape:
        raise InputError(f"The mask has shape {mask.shape}, its image {like.shape}: they must be the same.")
    if not path.parent.is_dir():
        raise InputError(f"The folder {path.parent} does not exist.")
    labels = _as_labels(mask, dtype)
    write = _write_nrrd if extension == ".nrrd" else _write_nifti
    with atomic_write(path, is_synced=False) as part:
        write(labels, like.affine, str(part), compress)
    return path


def write_image(frames: Sequence[Volume], path: Path) -> Path:
    """Write an image as NIfTI; it appears whole or not at all.

    Args:
        frames: frames of the image, on one grid; several lie along a fourth axis.
        path: ends in ``.nii.gz``.

    Returns:
        ``path``.
    """
    arrays = [frame.array for frame in frames]
    array = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=3)
    with atomic_write(path, is_synced=False) as part:
        _write_nifti(array, frames[0].affine, str(part), compress=True)
    return path


def stream_image(volume: Volume) -> tuple[int, Iterator[bytes]]:
    """Give an image as an uncompressed NIfTI-1 file, part by part, so that it is nowhere in memory as a whole.

    The voxels are whole numbers of at most 32 bits, or else float32.

    Returns:
        Number of bytes, and the parts.

    Raises:
        InputError: NIfTI cannot hold the sheared grid of the image.
    """
    array = volume.array
    kind = array.dtype if array.dtype.kind in "iu" and array.dtype.itemsize <= MAX_WHOLE_BYTES else np.dtype(np.float32)
    kind = kind.newbyteorder("<")
    # A header needs the shape and the type alone.
    header = _nifti(np.broadcast_to(np.zeros((), kind), array.shape), volume.affine).header
    header.set_slope_inter(1, 0)
    header["vox_offset"] = start = header.sizeof_hdr + NO_EXTENSION
    step = max(1, PART_BYTES // (array.shape[0] * array.shape[1] * kind.itemsize))

    def parts() -> Iterator[bytes]:
        yield header.binaryblock + bytes(NO_EXTENSION)
        for first in range(0, array.shape[2], step):
            yield array[..., first : first + step].T.astype(kind, order="C", copy=False).tobytes()

    return start + array.size * kind.itemsize, parts()


def _as_labels(mask: NDArray, dtype: DTypeLike | None) -> NDArray:
    largest = int(mask.max(initial=0))
    if mask.dtype.kind not in "biu" or mask.min(initial=0) < 0 or largest > np.iinfo(np.uint16).max:
        raise InputError("A mask holds whole numbers from 0 to 65535.")
    if dtype is None:
        dtype = np.uint8 if largest <= np.iinfo(np.uint8).max else np.uint16
    wanted = np.dtype(dtype)
    if wanted.kind not in "iuf" or (wanted.kind != "f" and largest > np.iinfo(wanted).max):
        raise InputError(f"Label {largest} does not fit into voxels of type {wanted}; uint16 holds all labels.")
    return mask.astype(wanted)


def _nifti(array: NDArray, affine: NDArray[np.float64]) -> nibabel.Nifti1Image:
    directions = affine[:3, :3] / voxel_sizes(affine)
    if np.abs(directions.T @ directions - np.eye(3)).max() > SHEAR_TOLERANCE:
        raise InputError("NIfTI cannot hold the sheared grid of the image as the viewers read it; write .nrrd.")
    image = nibabel.Nifti1Image(array, affine)
    image.set_sform(affine, code=SCANNER_SPACE)
    image.set_qform(affine, code=SCANNER_SPACE)
    image.header.set_xyzt_units("mm")
    return image


def _write_nifti(labels: NDArray, affine: NDArray[np.float64], path: str, compress: bool) -> None:
    image = _nifti(labels, affine)
    if not path.endswith(".gz"):
        nibabel.save(image, path)
        return
    with nibabel.openers.Opener(path, "wb", compresslevel=QUICK_GZIP) as stream:
        image.to_stream(stream)  # type: ignore[arg-type]  # nibabel writes to its own Opener


def _write_nrrd(labels: NDArray, affine: NDArray[np.float64], path: str, compress: bool) -> None:
    lps = RAS_LPS @ affine
    header = {
        "space": "left-posterior-superior",
        "space directions": lps[:3, :3].T,
        "space origin": lps[:3, 3],
        "kinds": ["domain"] * 3,
        "endian": "little",
        "encoding": "gzip" if compress else "raw",
    }
    nrrd.write(path, labels, header, compression_level=QUICK_GZIP, index_order="F")
