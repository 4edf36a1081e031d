"""Reading DICOM: voxels and geometry by ITK and GDCM, as MONAI Label does, the acquisition tags by pydicom."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError

from causal_sam.errors import InputError
from causal_sam.imaging.itk import to_volume
from causal_sam.imaging.volume import Volume

# How the image was made. Only these leave the header: none of them can hold a name, a date or an identifier.
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
# Slice distances may differ by this share of the usual one: headers are rounded, missing slices double it.
SLICE_DISTANCE_TOLERANCE = 0.25


def read_dicom(path: Path) -> Volume:
    """Read one DICOM file, or a folder that holds the files of one series.

    Args:
        path: a file, single-frame or multi-frame, or a folder; files in it that are not DICOM are left out.

    Returns:
        The volume with modality and acquisition tags; i runs along the columns, j along the rows, and k along the
        slices in the direction of the cross product of the two.

    Raises:
        InputError: no DICOM image, several series in a folder, a slice missing, or more than one number for each
            voxel.
    """
    files = [str(path)] if path.is_file() else _files_of_series(path)
    header = _header(files[0], path)
    if int(header.get("SamplesPerPixel", 1)) != 1:
        raise InputError(f"{path.name} holds colour pictures; it must be an image with one number for each voxel.")
    if len(files) > 1:
        _check_slices(files, path)
    try:
        if len(files) == 1:
            reader = sitk.ImageFileReader()
            reader.SetImageIO("GDCMImageIO")
            reader.SetFileName(files[0])
        else:
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(files)
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"The pixels of {path.name} cannot be decoded; the DICOM file is damaged or unusual.") from error
    if image.GetDimension() not in (2, 3):
        raise InputError(f"{path.name} has {image.GetDimension()} axes; it must be a 2D or 3D image.")
    return to_volume(image, modality=str(header.get("Modality", "")), tags=_acquisition_tags(header), source=path)


def _files_of_series(folder: Path) -> list[str]:
    """Files of the one series in a folder, sorted along the normal of the slices."""
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise InputError(f"The folder {folder.name} holds no DICOM image.")
    if len(series) > 1:
        raise InputError(f"The folder {folder.name} holds {len(series)} DICOM series; give the folder of one of them.")
    return list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0]))


def _header(file: str, path: Path) -> pydicom.Dataset:
    try:
        return pydicom.dcmread(file, stop_before_pixels=True)
    except (InvalidDicomError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{path.name} is not a readable image: its format is not known, nor is it DICOM.") from error


def _check_slices(files: list[str], path: Path) -> None:
    """Refuse a series in which a slice is missing, or there twice: ITK would close the gap and shift the anatomy."""
    headers = [pydicom.dcmread(f, stop_before_pixels=True, specific_tags=_GEOMETRY_TAGS) for f in files]
    if any("ImagePositionPatient" not in h or "ImageOrientationPatient" not in h for h in headers):
        return
    orientation = np.array(headers[0].ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    positions = np.array([normal @ np.array(h.ImagePositionPatient, float) for h in headers])
    distances = np.diff(positions)
    usual = float(np.median(distances))
    if usual == 0 or (distances == 0).any():
        double = Counter(np.round(positions, 3)).most_common(1)[0][0]
        raise InputError(f"{path.name} has two slices at the same place ({double:g} mm); it must be one 3D series.")
    wrong = np.flatnonzero(np.abs(distances - usual) > SLICE_DISTANCE_TOLERANCE * abs(usual))
    if wrong.size:
        before, after = positions[wrong[0]], positions[wrong[0] + 1]
        raise InputError(
            f"{path.name} is not evenly spaced: {abs(after - before):.2f} mm lie between the slices at {before:.2f} and "
            f"{after:.2f} mm, {abs(usual):.2f} mm elsewhere; a slice is missing."
        )


_GEOMETRY_TAGS = ["ImagePositionPatient", "ImageOrientationPatient"]


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
