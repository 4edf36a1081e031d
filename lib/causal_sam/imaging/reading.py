"""Reading images of every format that the clients and the data stores use into a `Volume`."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from causal_sam.errors import InputError, NotFoundError
from causal_sam.imaging.colour import luminance
from causal_sam.imaging.dicom import read_dicom
from causal_sam.imaging.directions import RAS_LPS
from causal_sam.imaging.intensity import with_modality
from causal_sam.imaging.itk import to_volume
from causal_sam.imaging.limits import MAX_VOXELS, check_data_file, check_voxels
from causal_sam.imaging.nifti import NIFTI, NOT_SPATIAL, read_nifti, reason
from causal_sam.imaging.volume import Volume, check_frame

NRRD, META_IMAGE = (".nrrd", ".nhdr"), (".mha", ".mhd")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
# Others, PostScript among them, are not even looked at, whatever a file is called.
PICTURE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
# Kinds of an NRRD axis that holds colours; any other axis outside of space holds frames.
NRRD_COLOURS = ("RGB-color", "RGBA-color")
COMPLEX = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)


def read_volume(path: Path | str, frame: int = 0, max_voxels: int = MAX_VOXELS) -> Volume:
    """Read an image or a label map.

    Formats: NIfTI, NRRD and MetaImage by extension, PNG and other pictures, and DICOM: a folder with the files of one
    series, or one file. Voxel indices are those that ITK, and so 3D Slicer, OHIF and MONAI Label, use for the same
    file: i runs along the columns and k along the slices of a DICOM series.

    A file or series may hold several frames, which are points in time, MR sequences, or other numbers of each voxel:
    a fourth axis, vectors, several DICOM images at each place, the pages of a TIFF. One of them is read, on the grid
    that all have. Colours, where the file calls them so, become their luminance.

    NIfTI, NRRD and MetaImage do not say their modality: `with_modality` decides it by their values.

    Args:
        path: file or folder.
        frame: index of the frame, counted from 0.
        max_voxels: limit of what the header claims, all frames together, checked before anything is decoded.

    Raises:
        NotFoundError: there is nothing at ``path``.
        TooLargeError: the header claims more than ``max_voxels``.
        InputError: the file is broken, not of a known format, or not a 2D or 3D image; it has no such frame; the
            folder holds no DICOM series, several, or one with a slice missing.
    """
    path = Path(path)
    if not path.exists():
        raise NotFoundError(f"There is no file or folder {path.name}.")
    try:
        return _read(path, frame, max_voxels)
    except (InputError, MemoryError):
        raise
    except OSError as error:
        raise InputError(f"{path.name} is not a readable image ({reason(error, path)}).") from error
    except Exception as error:  # the libraries fail on damaged files in ways of their own
        raise InputError(f"{path.name} is not a readable image: it is damaged.") from error


def _read(path: Path, frame: int, max_voxels: int) -> Volume:
    name = path.name.lower()
    if path.is_dir():
        return read_dicom(path, frame, max_voxels)
    if name.endswith(NIFTI):
        return with_modality(read_nifti(path, frame, max_voxels))
    if name.endswith((*NRRD, *META_IMAGE)):
        return _read_itk(path, frame, max_voxels)
    if name.endswith(PICTURES):
        return _read_picture(path, frame, max_voxels)
    return read_dicom(path, frame, max_voxels)


def _read_itk(path: Path, frame: int, max_voxels: int) -> Volume:
    is_nrrd = path.name.lower().endswith(NRRD)
    check_data_file(path, is_nrrd=is_nrrd)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    # Or any format would be tried that ITK knows, those that read other files beside it among them.
    reader.SetImageIO("NrrdImageIO" if is_nrrd else "MetaImageIO")
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()
        check_voxels(path, size, max_voxels, reader.GetNumberOfComponents())
        # The two parts of a complex number are no frames; such voxels are refused.
        numbers = 1 if reader.GetPixelID() in COMPLEX else reader.GetNumberOfComponents()
        is_colour = "NRRD_kinds[pixel]" in reader.GetMetaDataKeys() and (
            reader.GetMetaData("NRRD_kinds[pixel]") in NRRD_COLOURS
        )
        frames = (1 if is_colour else numbers) * math.prod(size[3:])
        if len(size) not in (2, 3, 4) or (len(size) == 4 and size[3] not in (1, frames)):
            raise InputError(f"{path.name} has {len(size)} axes and {numbers} numbers for each voxel; {NOT_SPATIAL}.")
        check_frame(frame, frames, path)
        if len(size) == 4:
            reader.SetExtractIndex((0, 0, 0, frame if size[3] > 1 else 0))
            reader.SetExtractSize((*size[:3], 0))
        image = reader.Execute()
    except RuntimeError as error:
        if "domain axes" in str(error):
            raise InputError(
                f"{path.name} has an axis outside of space that the viewers cannot read either: its kind must be list."
            ) from error
        raise InputError(
            f"{path.name} is not a readable image: it is damaged, or not of the format it is named by."
        ) from error
    if numbers > 1 and not is_colour:
        image = sitk.VectorIndexSelectionCast(image, frame)
    return replace(with_modality(to_volume(image, path)), frame=frame, frames=frames)


def _read_picture(path: Path, frame: int, max_voxels: int) -> Volume:
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as picture:
            check_voxels(path, picture.size, max_voxels, getattr(picture, "n_frames", 1))
            frames = getattr(picture, "n_frames", 1)
            check_frame(frame, frames, path)
            picture.seek(frame)
            pixels = _pixels(picture)
    except InputError:
        raise
    except Exception as error:  # damaged files fail in their own ways
        raise InputError(f"{path.name} is not a readable picture ({reason(error, path)}).") from error
    # Shown as a radiograph is: columns run to the patient's left, rows downwards; a pixel counts as 1 mm.
    return Volume(pixels.T[..., None], RAS_LPS, source=path, frame=frame, frames=frames)


def _pixels(picture: Image.Image) -> NDArray:
    """Rows x columns of grey values; opacity does not count."""
    if picture.mode == "LA":
        picture = picture.getchannel("L")
    # A palette's numbers are no intensities: its colours are.
    if len(picture.getbands()) == 1 and picture.mode != "P":
        return np.asarray(picture)
    return luminance(np.asarray(picture.convert("RGB")))
