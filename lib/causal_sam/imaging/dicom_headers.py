"""Headers of DICOM images: what is read of them, and what is done where they are damaged."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydicom
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from causal_sam.errors import InputError
from causal_sam.imaging.dicom_frames import FRAME_TAGS
from causal_sam.imaging.dicom_geometry import SPACING_TAGS, finite
from causal_sam.imaging.limits import check_deflated_dicom

# Acquisition settings. Only these leave the header; none of them holds a name, date or identifier of a patient.
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
# Elements that give the pixel values their meaning.
VALUE_TAGS = ("BitsAllocated", "BitsStored", "PixelRepresentation", "RescaleIntercept", "RescaleSlope")
# One whole number each; without them nothing can be read.
_COUNTS = ("Columns", "NumberOfFrames", "Rows", "SamplesPerPixel")
# Other elements that decide how the files of a series form one grid.
_GRID_TAGS = (
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InstanceNumber",
    "Modality",
    "PhotometricInterpretation",
    "SeriesInstanceUID",
    "SliceThickness",
    *SPACING_TAGS,
    *FRAME_TAGS,
)
# An image is read without these where they are damaged.
_OPTIONAL = ("InstanceNumber", *ACQUISITION_TAGS)
# Siemens' private element: number of slices side by side in one picture.
_IMAGES_IN_MOSAIC = Tag(0x0019, 0x100A)
_PIXEL_TAGS = tuple(map(Tag, ("FloatPixelData", "DoubleFloatPixelData", "PixelData")))
_UNDEFINED_LENGTH = 0xFFFFFFFF
_PREAMBLE = 128


def is_dicom(file: Path) -> bool:
    """Return True if a file begins as DICOM does: with the preamble or, in old files, with the first elements."""
    with file.open("rb") as stream:
        start = stream.read(_PREAMBLE + 4)
    return start[_PREAMBLE:] == b"DICM" or (
        start[:4] in (b"\x02\0\0\0", b"\x02\0\1\0", b"\x02\0\2\0", b"\x02\0\x10\0")
        or (start[:2] == b"\x08\0" and start[3:4] == b"\0")
    )


def read_header(file: Path) -> pydicom.Dataset:
    """Read what places an image and how it was made; values are checked, and optional ones that are damaged left out.

    Raises:
        InputError: the file is no DICOM, damaged, or a mosaic.
    """
    try:
        if not is_dicom(file):
            raise ValueError("it does not begin as DICOM does")
        check_deflated_dicom(file)
        header, has_pixels = _read_to_pixels(file)
    except InputError:
        raise
    except Exception as error:  # pydicom fails in many ways on damaged files
        raise InputError(
            f"{file.name} is not a readable image: its format is unknown, or its data are damaged."
        ) from error
    # pydicom converts values at the first access: access them here, where a damaged one can be reported.
    for keyword in (*_COUNTS, *VALUE_TAGS, *_GRID_TAGS, *ACQUISITION_TAGS):
        try:
            _check(keyword, header.get(keyword))
        except Exception as error:
            if keyword not in _OPTIONAL:
                raise InputError(f"{file.name} has no valid {keyword}: its value is damaged.") from error
            del header[keyword]
    if "Rows" in header and not has_pixels:
        raise InputError(f"{file.name} is a damaged DICOM file: it ends before its pixels.")
    if _is_mosaic(header):
        raise InputError(
            f"{file.name} is a mosaic: all slices lie side by side in one picture; convert the series to NIfTI, for "
            "example with dcm2niix."
        )
    return header


def _read_to_pixels(file: Path) -> tuple[pydicom.Dataset, bool]:
    """Read the wanted elements; the second value says whether the pixels follow.

    Where lengths do not fit, GDCM would take memory for them and look for the pixels anywhere.
    """
    has_pixels, size = False, file.stat().st_size

    def is_at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal has_pixels
        if length != _UNDEFINED_LENGTH and length > size:
            raise ValueError("an element is longer than the file")
        has_pixels = tag in _PIXEL_TAGS
        return has_pixels

    wanted = (*_COUNTS, *VALUE_TAGS, *_GRID_TAGS, *ACQUISITION_TAGS, _IMAGES_IN_MOSAIC)
    with file.open("rb") as stream:
        header = read_partial(stream, is_at_pixels, force=True, specific_tags=[Tag(each) for each in wanted])
    return header, has_pixels


def _check(keyword: str, value: Any) -> None:
    """Raise an error if a value is not one finite number, or two of a spacing, where it must be."""
    if value in (None, ""):
        return
    if keyword in SPACING_TAGS and finite(value, 2) is None:
        raise ValueError(keyword)
    if keyword in (*_COUNTS, *VALUE_TAGS, "InstanceNumber"):
        number = float(value)
        if not math.isfinite(number) or (keyword in _COUNTS and (number < 1 or number % 1)):
            raise ValueError(keyword)


def has_image(header: pydicom.Dataset, file: Path) -> bool:
    """Tell images from reports and the like; pydicom reads the head of a file that was cut off without a word.

    Raises:
        InputError: the file ends before its pixels.
    """
    has_rows = header.get("Rows") not in (None, "")
    if not has_rows and header.file_meta.get("MediaStorageSOPClassUID", pydicom.uid.UID("")).name.endswith(
        "Image Storage"
    ):
        raise InputError(f"{file.name} is a damaged DICOM file: it ends before its pixels.")
    return has_rows


def acquisition_tags(header: pydicom.Dataset) -> dict[str, str | float]:
    """Return what of `ACQUISITION_TAGS` a header has, as numbers or texts."""
    tags: dict[str, str | float] = {}
    for keyword in ACQUISITION_TAGS:
        value = header.get(keyword)
        if value is None or value == "":
            continue
        if isinstance(value, MultiValue):
            value = "\\".join(str(part) for part in value)
        tags[keyword] = float(value) if isinstance(value, int | float) else str(value)
    return tags


def check_length(header: pydicom.Dataset, file: Path) -> None:
    """Refuse an image that is not compressed and too short, before memory is taken for what its header claims.

    Raises:
        InputError: the file is shorter than its pixels.
    """
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and (syntax.is_compressed or syntax.is_deflated):
        return
    counts = [int(header.get(keyword) or 1) for keyword in _COUNTS]
    if math.prod(counts) * int(header.get("BitsAllocated") or 8) // 8 > file.stat().st_size:
        raise InputError(f"{file.name} is a damaged DICOM file: it is too short for the image that its header claims.")


def _is_mosaic(header: pydicom.Dataset) -> bool:
    if "MOSAIC" in str(header.get("ImageType")):
        return True
    with suppress(Exception):  # of another maker the element is anything
        value = header[_IMAGES_IN_MOSAIC].value
        count = int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
        return "siemens" in str(header.get("Manufacturer")).lower() and 1 < count < 1000
    return False
