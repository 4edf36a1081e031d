"""Reading DICOM: order, geometry and acquisition tags by pydicom, voxels by ITK and GDCM, as MONAI Label does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from causal_sam.errors import InputError
from causal_sam.imaging.dicom_frames import FRAME_TAGS, has_frames, read_frames
from causal_sam.imaging.dicom_geometry import numbers, pixel_spacing, slice_normal, slice_thickness, sorted_stacks
from causal_sam.imaging.intensity import with_modality
from causal_sam.imaging.itk import to_volume
from causal_sam.imaging.limits import MAX_VOXELS, check_deflated_dicom, check_voxels
from causal_sam.imaging.volume import Volume, check_frame

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
    "ImagerPixelSpacing",
    "InstanceNumber",
    "Modality",
    "NominalScannedPixelSpacing",
    "PhotometricInterpretation",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SeriesInstanceUID",
    "SliceThickness",
    *FRAME_TAGS,
)


def read_dicom(path: Path, frame: int = 0, max_voxels: int = MAX_VOXELS) -> Volume:
    """Read one DICOM image, or a folder that holds the images of one series.

    Args:
        path: a file, or a folder (not its sub folders). Files in the folder that are not DICOM, or are DICOM objects
            without pixels, are left out.
        frame: which one, where several images lie at each place: points in time, or sequences.
        max_voxels: limit of what the headers claim together, checked before pixels are decoded.

    Returns:
        The volume with modality and acquisition tags; i runs along the columns, j along the rows, and k along the
        slices: those of a series in the direction of the cross product of the two, those of a file in its own order.
        Voxels are in the units of the modality, Hounsfield units for CT; of a colour picture they are its luminance.

    Raises:
        TooLargeError: the headers claim more than ``max_voxels``.
        InputError: no DICOM image, a damaged one, several series in a folder, slices that are missing, doubled, not
            parallel or of different size, no such frame, or frames that do not say where they lie.
    """
    if path.is_file():
        headers = {path: _header(path)}
        if not _has_image(headers[path], path):
            raise InputError(f"{path.name} is a DICOM object without an image.")
    else:
        headers = _headers_in(path)
    file, first = next(iter(headers.items()))
    check_voxels(path, _claimed_shape(headers), max_voxels, int(first.get("SamplesPerPixel") or 1))
    if has_frames(first) and len(headers) == 1:
        volume = read_frames(file, first, frame)
    else:
        stacks = _sorted_slices(headers, path) if len(headers) > 1 else [[file]]
        check_frame(frame, len(stacks), path)
        image = _read_slices(stacks[frame], headers, path)
        volume = replace(to_volume(image, path), frame=frame, frames=len(stacks))
    return with_modality(replace(volume, tags=_acquisition_tags(first), source=path), str(first.get("Modality") or ""))


def _claimed_shape(headers: dict[Path, pydicom.Dataset]) -> tuple[int, int, int]:
    rows, columns = (
        max(int(header.get(keyword) or 0) for header in headers.values()) for keyword in ("Rows", "Columns")
    )
    return columns, rows, sum(max(1, int(header.get("NumberOfFrames") or 1)) for header in headers.values())


def _is_grey(header: pydicom.Dataset) -> bool:
    return str(header.get("PhotometricInterpretation", "MONOCHROME2")).startswith("MONOCHROME")


def _read_slices(files: list[Path], headers: dict[Path, pydicom.Dataset], path: Path) -> sitk.Image:
    """Decode single-frame files as one image."""
    first = headers[files[0]]
    reader = sitk.ImageSeriesReader() if len(files) > 1 else sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    if len(files) > 1:
        reader.SetFileNames([str(file) for file in files])
        if len({(headers[file].get("RescaleSlope"), headers[file].get("RescaleIntercept")) for file in files}) > 1:
            # ITK gives all slices the type that the first one needs, and would round the others.
            reader.SetOutputPixelType(sitk.sitkFloat64)
    else:
        reader.SetFileName(str(files[0]))
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"The pixels of {path.name} cannot be decoded: the DICOM data are damaged.") from error
    # Of radiographs GDCM knows the spacing on the detector alone, and of one slice not how thick it is.
    between_rows, between_columns = pixel_spacing(first) or (1.0, 1.0)
    thickness = image.GetSpacing()[2] if len(files) > 1 else slice_thickness(first)
    image.SetSpacing((between_columns, between_rows, thickness))
    return image


def _header(file: Path) -> pydicom.Dataset:
    try:
        check_deflated_dicom(file)
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*_GRID_TAGS, *ACQUISITION_TAGS])
        # pydicom converts values when they are first asked for: ask here, where a damaged one can be told.
        for keyword in _GRID_TAGS:
            header.get(keyword)
    except InputError:
        raise
    except Exception as error:  # pydicom fails in many ways on damaged files
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


def _sorted_slices(headers: dict[Path, pydicom.Dataset], folder: Path) -> list[list[Path]]:
    """Files along the normal of the slices, for each point in time.

    A series that is no even stack is refused, for ITK would bend it into one.
    """
    for file, header in headers.items():
        if has_frames(header):
            raise InputError(f"{file.name} holds several frames and lies beside other files: give that file alone.")
    sizes = sorted({(int(header.Rows), int(header.Columns)) for header in headers.values()})
    if len(sizes) > 1:
        (a, b), (c, d) = sizes[:2]
        raise InputError(
            f"The slices in {folder.name} differ in size ({a} x {b} and {c} x {d}): they are no 3D series."
        )
    if len({_is_grey(header) for header in headers.values()}) > 1:
        raise InputError(f"The slices in {folder.name} are grey and coloured: they are no 3D series.")
    orientations, positions = (
        [numbers(header.get(keyword), keyword, count, file.name) for file, header in headers.items()]
        for keyword, count in (("ImageOrientationPatient", 6), ("ImagePositionPatient", 3))
    )
    along = np.array(positions) @ slice_normal(orientations, folder.name)
    # Scanners number the images of a place in the order of time, whichever of the two they count first.
    order = [header.get("InstanceNumber") or 0 for header in headers.values()]
    files = list(headers)
    return [[files[index] for index in stack] for stack in sorted_stacks(along, order, folder.name)]


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
