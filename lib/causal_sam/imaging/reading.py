"""Reading images of every format that the clients and the data stores use into a `Volume`."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from causal_sam.errors import InputError, NotFoundError
from causal_sam.imaging.dicom import read_dicom
from causal_sam.imaging.directions import RAS_LPS
from causal_sam.imaging.itk import to_volume
from causal_sam.imaging.volume import Volume

NIFTI = (".nii", ".nii.gz")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
# Magnitude images of MR are never negative and z-scores never reach this; air in Hounsfield units does, and a single
# wrong voxel is no air.
CT_BELOW = -200.0
CT_SHARE = 1e-3
NOT_SPATIAL = "it must be a 2D or 3D image with one number for each voxel"


def read_volume(path: Path | str) -> Volume:
    """Read an image or a label map.

    Formats: NIfTI, NRRD and MetaImage by extension, PNG and other grey pictures, and DICOM: a folder with the files of
    one series, or one file. Voxel indices are those that ITK, and so 3D Slicer, OHIF and MONAI Label, use for the
    same file: i runs along the columns and k along the slices of a DICOM series.

    NIfTI, NRRD and MetaImage do not say their modality: it is "CT" if a thousandth of the finite voxels or
    more lies below -200 (air, in Hounsfield units), else unknown ("").

    Args:
        path: file or folder.

    Raises:
        NotFoundError: there is nothing at ``path``.
        InputError: the file is broken, not of a known format, or not a 2D or 3D image of single numbers (4D, RGB);
            the folder holds no DICOM series, several, or one with a slice missing.
    """
    path = Path(path)
    if not path.exists():
        raise NotFoundError(f"There is no file or folder {path.name}.")
    name = path.name.lower()
    if path.is_dir():
        return read_dicom(path)
    if name.endswith(NIFTI):
        return _read_nifti(path)
    if name.endswith(ITK):
        return _read_itk(path)
    if name.endswith(PICTURES):
        return _read_picture(path)
    return read_dicom(path)


def _guess_modality(array: NDArray) -> str:
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    return "CT" if finite.size and (finite < CT_BELOW).mean() >= CT_SHARE else ""


def _read_nifti(path: Path) -> Volume:
    try:
        image = nibabel.load(path)
        array = np.asanyarray(image.dataobj)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, MemoryError, zlib.error) as error:
        raise InputError(f"{path.name} is not a readable NIfTI file ({_reason(error, path)}).") from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or array.dtype.fields is not None:
        raise InputError(f"{path.name} has shape {array.shape} and type {array.dtype}; {NOT_SPATIAL}.")
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype == np.float64:  # what nibabel makes of integers with a slope
        array = array.astype(np.float32)
    affine = image.affine
    if isinstance(image, nibabel.Nifti1Image) and not (image.header["sform_code"] or image.header["qform_code"]):
        # Nothing says where the patient is. ITK's convention, because the viewers draw with it: columns run to the
        # left, rows to posterior, from the origin.
        affine = RAS_LPS @ np.diag([*image.header["pixdim"][1:4], 1.0])
    return Volume(array, affine, modality=_guess_modality(array), source=path)


def _read_itk(path: Path) -> Volume:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(
            f"{path.name} is not a readable image: it is damaged, or not of the format it is named by."
        ) from error
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() not in (2, 3):
        raise InputError(
            f"{path.name} has {image.GetDimension()} axes and {image.GetNumberOfComponentsPerPixel()} numbers for each "
            f"voxel; {NOT_SPATIAL}."
        )
    volume = to_volume(image, source=path)
    return replace(volume, modality=_guess_modality(volume.array))


def _read_picture(path: Path) -> Volume:
    try:
        with Image.open(path) as picture:
            frames = getattr(picture, "n_frames", 1)
            # A palette's numbers are no intensities: its colours are.
            pixels = np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path.name} is not a readable picture ({_reason(error, path)}).") from error
    if frames > 1:
        raise InputError(f"{path.name} holds {frames} pictures; it must hold one.")
    if pixels.ndim == 3 and pixels.shape[2] >= 3 and (pixels[..., :3] == pixels[..., :1]).all():
        pixels = pixels[..., 0]  # grey, saved as colour
    if pixels.ndim != 2:
        raise InputError(f"{path.name} is a colour picture; {NOT_SPATIAL}.")
    # Shown as a radiograph is: columns run to the patient's left, rows downwards; a pixel counts as 1 mm.
    return Volume(pixels.T[..., None], RAS_LPS, source=path)


def _reason(error: BaseException, path: Path) -> str:
    """What the library says in its first line, without the folders of the path."""
    return (str(error).splitlines() or [type(error).__name__])[0].replace(str(path), path.name).rstrip(".")
