"""Reading DICOM: order, geometry and acquisition tags by pydicom, voxels by ITK and GDCM, as MONAI Label does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from causal_sam.errors import InputError
from causal_sam.imaging.itk import to_volume
from causal_sam.imaging.volume import Volume

# How the image was made. Only these leave the header: no name, date or identifier of a patient has its place in them.
ACQUISITION_TAGS = (
    "BodyPartExamined",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "EchoTime",
    "EchoTrainLength",
    "FlipAngle",
    "InversionTime",
    "KVP",
    "MagneticFieldStrength",
    "Manufacturer",
    "ManufacturerModelName",
    "MRAcquisitionType",
    "PixelBandwidth",
    "RepetitionTime",
    "ScanningSequence",
    "ScanOptions",
    "SequenceName",
    "SequenceVariant",
    "SliceThickness",
    "SpacingBetweenSlices",
    "XRayTubeCurrent",
)
# What decides how the files of a series become one grid.
_GRID_TAGS = (
    "Columns",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "InstanceNumber",
    "Modality",
    "NumberOfFrames",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SamplesPerPixel",
    "SeriesInstanceUID",
)
# Slice distances may differ by this share of the usual one: headers are rounded, missing slices double it.
SLICE_DISTANCE_TOLERANCE = 0.25
# Components of unit vectors that differ by more than this (about 0.06 degrees) are not the same direction.
ORIENTATION_TOLERANCE = 1e-3
# Slices nearer to each other than this (mm) are at the same place.
SAME_PLACE_MM = 1e-3


def read_dicom(path: Path) -> Volume:
    """Read one DICOM image, or a folder that holds the images of one series.

    Args:
        path: a single-frame file, or a folder (not its sub folders). Files in the folder that are not DICOM, or are
            DICOM objects without pixels, are left out.

    Returns:
        The volume with modality and acquisition tags; i runs along the columns, j along the rows, and k along the
        slices in the direction of the cross product of the two. Voxels are in the units of the modality, Hounsfield
        units for CT.

    Raises:
        InputError: no DICOM image, a damaged one, several series in a folder, slices that are missing, doubled, not
            parallel or of different size, several frames in a file, or more than one number for each voxel.
    """
    if path.is_file():
        headers = {path: _header(path)}
        if not _has_image(headers[path], path):
            raise InputError(f"{path.name} is a DICOM object without an image.")
    else:
        headers = _headers_in(path)
    first = next(iter(headers.values()))
    for file, header in headers.items():
        if int(header.get("SamplesPerPixel", 1)) != 1:
            raise InputError(f"{file.name} holds a colour picture; it must be an image with one number for each voxel.")
        if int(header.get("NumberOfFrames") or 1) != 1:
            raise InputError(
                f"{file.name} holds {header.NumberOfFrames} frames; give single-frame files or a NIfTI file."
            )
    files = [str(file) for file in (_sorted_slices(headers, path) if len(headers) > 1 else headers)]
    reader = sitk.ImageSeriesReader() if len(files) > 1 else sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    if len(files) > 1:
        reader.SetFileNames(files)
        if len({(header.get("RescaleSlope"), header.get("RescaleIntercept")) for header in headers.values()}) > 1:
            # ITK gives all slices the type that the first one needs, and would round the others.
            reader.SetOutputPixelType(sitk.sitkFloat64)
    else:
        reader.SetFileName(files[0])
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"The pixels of {path.name} cannot be decoded: the DICOM data are damaged.") from error
    thickness = first.get("SliceThickness")
    if len(files) == 1 and isinstance(thickness, float) and thickness > 0:
        # GDCM knows no distance of slices here and says 1 mm, which would make volumes in ml wrong.
        image.SetSpacing((*image.GetSpacing()[:2], thickness))
    return to_volume(image, modality=str(first.get("Modality", "")), tags=_acquisition_tags(first), source=path)


def _header(file: Path) -> pydicom.Dataset:
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*_GRID_TAGS, *ACQUISITION_TAGS])
        # pydicom converts values when they are first asked for: ask here, where a damaged one can be told.
        for keyword in _GRID_TAGS:
            header.get(keyword)
    except (InvalidDicomError, OSError, EOFError, ValueError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"{file.name} is not a readable image: its format is unknown, or its data are damaged."
        ) from error
    return header


def _has_image(header: pydicom.Dataset, file: Path) -> bool:
    """Tell images from reports and the like; pydicom reads the head of a file that was cut off without a word."""
    if "Rows" not in header and header.file_meta.get("MediaStorageSOPClassUID", pydicom.uid.UID("")).name.endswith(
        "Image Storage"
    ):
        raise InputError(f"{file.name} is a damaged DICOM file: it ends before its pixels.")
    return "Rows" in header


def _headers_in(folder: Path) -> dict[Path, pydicom.Dataset]:
    """Headers of the images of the one series in a folder."""
    headers = {}
    for file in sorted(folder.iterdir()):
        if file.is_dir() or file.name.startswith("."):
            continue
        if not pydicom.misc.is_dicom(file):
            if file.suffix.lower() == ".dcm":
                raise InputError(f"{file.name} in the folder {folder.name} is not DICOM: it is damaged.")
            continue
        header = _header(file)
        if _has_image(header, file):
            headers[file] = header
    if not headers:
        raise InputError(f"The folder {folder.name} holds no DICOM image.")
    series = {header.get("SeriesInstanceUID") for header in headers.values()}
    if len(series) > 1:
        raise InputError(f"The folder {folder.name} holds {len(series)} DICOM series; give a folder with one of them.")
    return headers


def _sorted_slices(headers: dict[Path, pydicom.Dataset], folder: Path) -> list[Path]:
    """Files along the normal of the slices; refuses a series that is no even stack, for ITK would bend it into one."""
    sizes = sorted({(int(header.Rows), int(header.Columns)) for header in headers.values()})
    if len(sizes) > 1:
        (a, b), (c, d) = sizes[:2]
        raise InputError(
            f"The slices in {folder.name} differ in size ({a} x {b} and {c} x {d}): they are no 3D series."
        )
    orientations = np.array([_numbers(header, "ImageOrientationPatient", 6, file) for file, header in headers.items()])
    if np.abs(orientations - orientations[0]).max() > ORIENTATION_TOLERANCE:
        raise InputError(f"The slices in {folder.name} are not parallel: they are no 3D series.")
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    positions = np.array([_numbers(h, "ImagePositionPatient", 3, file) for file, h in headers.items()]) @ normal
    order = np.argsort(positions)
    _check_distances(positions[order], folder)
    files = list(headers)
    return [files[n] for n in order]


def _numbers(header: pydicom.Dataset, keyword: str, count: int, file: Path) -> NDArray[np.float64]:
    try:
        numbers = np.array(header.get(keyword), dtype=np.float64)
    except (ValueError, TypeError):
        numbers = np.array(np.nan)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise InputError(
            f"{file.name} has no valid {keyword}: it must be {count} numbers that say where the slice lies."
        )
    return numbers


def _check_distances(positions: NDArray[np.float64], folder: Path) -> None:
    """Refuse missing and doubled slices; ``positions`` are sorted, in mm along the normal."""
    distances = np.diff(positions)
    same = np.flatnonzero(distances < SAME_PLACE_MM)
    if same.size:
        raise InputError(
            f"{folder.name} has several slices at the same place ({positions[same[0]]:.2f} mm along the normal): "
            "they are no 3D series."
        )
    usual = float(np.percentile(distances, 50, method="lower"))
    wrong = np.flatnonzero(np.abs(distances - usual) > SLICE_DISTANCE_TOLERANCE * usual)
    if wrong.size:
        before, after = positions[wrong[0]], positions[wrong[0] + 1]
        raise InputError(
            f"{folder.name} is not evenly spaced: {after - before:.2f} mm lie between the slices at {before:.2f} and "
            f"{after:.2f} mm, {usual:.2f} mm elsewhere; a slice is missing."
        )


def _acquisition_tags(header: pydicom.Dataset) -> dict[str, str | float]:
    tags: dict[str, str | float] = {}
    for keyword in ACQUISITION_TAGS:
        value = header.get(keyword)
        if value is None or value == "":
            continue
        if isinstance(value, pydicom.multival.MultiValue):
            value = "\\".join(str(part) for part in value)
        tags[keyword] = float(value) if isinstance(value, int | float) else str(value)
    return tags
