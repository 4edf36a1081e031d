"""DICOM files of several frames: slices of a volume, points in time, or both.

Enhanced CT and MR say for each frame where it lies, in functional groups. The frames of other files, such as cine
ultrasound, angiography and secondary captures, lie all at the same place.
"""

from __future__ import annotations

import tempfile
from collections.abc import MutableSequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.pixel_data_handlers.util import get_expected_length
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from causal_sam.errors import InputError
from causal_sam.imaging.colour import luminance
from causal_sam.imaging.dicom_geometry import (
    SlicePlane,
    even_stacks,
    item,
    numbers,
    pixel_spacing,
    slice_thickness,
    stack_affine,
)
from causal_sam.imaging.directions import RAS_LPS
from causal_sam.imaging.volume import Volume, check_frame

# Header elements that this needs.
FRAME_TAGS = (
    "DimensionIndexSequence",
    "FrameIncrementPointer",
    "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
)
# Dimensions that say which slice a frame is, and not when or how it was made.
_DIMENSIONS_IN_SPACE = frozenset(Tag(keyword) for keyword in ("ImagePositionPatient", "InStackPositionNumber"))
# Elements by which modalities other than CT and MR place frames.
_OTHER_PLACES = frozenset(Tag(keyword) for keyword in ("SliceVector", "GridFrameOffsetVector"))
_OTHER_GROUPS = ("PlanePositionVolumeSequence", "PlanePositionSlideSequence")
_PIXEL_GROUPS = (0x0028, 0x7FE0)


def has_frames(header: pydicom.Dataset) -> bool:
    """Return True if a file must be read by `read_frames`."""
    return int(header.get("NumberOfFrames") or 1) > 1 or "PerFrameFunctionalGroupsSequence" in header


def read_frames(file: Path, header: pydicom.Dataset, frame: int) -> Volume:
    """Read a volume from a file of several frames.

    Args:
        file: the file.
        header: its elements of `FRAME_TAGS`, and those that place an image.
        frame: index of the point in time or of the sequence, where several lie at the same place.

    Returns:
        The voxels in the units of the modality, or the luminance of colours, on their grid; k runs along the slices
        in the direction that the file has them in.

    Raises:
        InputError: there is no such frame; the slices are missing, doubled or not parallel; it is not said where they
            lie; the file is damaged, or a segmentation.
    """
    if header.get("Modality") == "SEG":
        raise InputError(f"{file.name} is a segmentation; give the image that it belongs to.")
    stacks = frame_stacks(header, file.name)
    check_frame(frame, len(stacks), file)
    stack = stacks[frame]
    pixels = _decoded(file)[stack]
    pixels = luminance(pixels) if pixels.ndim == 4 else _rescaled(pixels, header, stack)
    return Volume(pixels.T, frames_affine(header, stack, file.name), source=file, frame=frame, frames=len(stacks))


def frame_groups(header: pydicom.Dataset) -> list[list[pydicom.Dataset]]:
    """Return for each frame of a file the functional groups of it, those of all frames, and the header itself."""
    per_frame, shared = (header.get(f"{kind}FunctionalGroupsSequence", []) for kind in ("PerFrame", "Shared"))
    count = int(header.get("NumberOfFrames") or 1)
    return [[*per_frame[index : index + 1], *shared, header] for index in range(count)]


def frame_stacks(header: pydicom.Dataset, name: str) -> list[list[int]]:
    """Return for each point in time the frames of the volume, in the order of its slices.

    Raises:
        InputError: the frames are no even stack, or do not say where they lie.
    """
    groups = frame_groups(header)
    if not any("PlanePositionSequence" in each for frame in groups for each in frame):
        pointers = _listed(header.get("FrameIncrementPointer"))
        if _OTHER_PLACES.intersection(pointers) or any(
            key in each for frame in groups for each in frame[:-1] for key in _OTHER_GROUPS
        ):
            raise InputError(
                f"{name} does not say where its frames lie as CT and MR do; give single-frame files or a NIfTI file."
            )
        return [[index] for index in range(len(groups))]
    planes = [
        SlicePlane.of(
            f"frame {index + 1} of {name}",
            item(frame, "PlaneOrientationSequence").get("ImageOrientationPatient"),
            item(frame, "PlanePositionSequence").get("ImagePositionPatient"),
            (*_time(frame), index),
        )
        for index, frame in enumerate(groups)
    ]
    stacks = even_stacks(planes, name)
    # ITK, and so the viewers, count the slices as the file does.
    is_reversed = (planes[-1].position - planes[0].position) @ planes[0].normal < 0
    return [stack[::-1] for stack in stacks] if is_reversed else stacks


def frames_affine(header: pydicom.Dataset, stack: list[int], name: str) -> NDArray[np.float64]:
    """Return the affine of a stack of frames: column, row and slice -> RAS+ millimetre.

    Missing values have ITK's defaults: axial, pixels of 1 mm.
    """
    groups = frame_groups(header)
    frame, last = groups[stack[0]], groups[stack[-1]]
    orientation = item(frame, "PlaneOrientationSequence").get("ImageOrientationPatient") or (1, 0, 0, 0, 1, 0)
    ends = [item(each, "PlanePositionSequence").get("ImagePositionPatient") for each in (frame, last)]
    if len(stack) == 1:
        ends = [ends[0] or (0, 0, 0)] * 2
    ends = [numbers(end, "ImagePositionPatient", 3, name) for end in ends]
    measures = item(frame, "PixelMeasuresSequence")
    spacing = pixel_spacing(measures) or pixel_spacing(header) or (1.0, 1.0)
    directions = numbers(orientation, "ImageOrientationPatient", 6, name)
    return RAS_LPS @ stack_affine(directions, spacing, np.array(ends), len(stack), slice_thickness(measures))


def _time(frame: list[pydicom.Dataset]) -> tuple[int, ...]:
    """Return a frame's indices along the file's own dimensions, without those that identify its slice."""
    pointers = [each.get("DimensionIndexPointer") for each in frame[-1].get("DimensionIndexSequence", [])]
    values = _listed(item(frame, "FrameContentSequence").get("DimensionIndexValues"))
    return tuple(value for pointer, value in zip(pointers, values, strict=False) if pointer not in _DIMENSIONS_IN_SPACE)


def _listed(value: Any) -> list[Any]:
    """Return the values of an element as a list, for one value, several or none."""
    if isinstance(value, MutableSequence):
        return list(value)
    return [] if value is None else [value]


def _decoded(file: Path) -> NDArray[np.generic]:
    """Pixels as they are stored, or red, green and blue: (frames, rows, columns) or (frames, rows, columns, 3)."""
    try:
        whole = pydicom.dcmread(file, force=True)  # read files without a preamble too
        # A file without a preamble may have no transfer syntax either; then use the encoding that pydicom detects.
        syntax = whole.file_meta.get("TransferSyntaxUID") or (
            ImplicitVRLittleEndian if whole.is_implicit_VR else ExplicitVRLittleEndian
        )
        # pydicom returns the part of a truncated file that is there; GDCM would fill in the rest.
        if not syntax.is_compressed and len(whole.PixelData) < get_expected_length(whole):
            raise ValueError("the file was cut off")
        # GDCM refuses frames that all lie at one place, and knows just one slope for all. It gets the pixels alone.
        bare = pydicom.Dataset()
        for group in _PIXEL_GROUPS:
            bare.update(whole.group_dataset(group))
        for keyword in ("RescaleSlope", "RescaleIntercept"):
            bare.pop(keyword, None)
        bare.file_meta = FileMetaDataset()
        bare.file_meta.TransferSyntaxUID = syntax
        bare.SOPClassUID = bare.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        bare.SOPInstanceUID = bare.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        bare.is_little_endian, bare.is_implicit_VR = whole.is_little_endian, whole.is_implicit_VR
        with tempfile.TemporaryDirectory(prefix="causal-sam-frames-") as folder:
            copy = Path(folder) / "pixels.dcm"
            pydicom.dcmwrite(copy, bare, write_like_original=False)
            decoded = sitk.GetArrayFromImage(sitk.ReadImage(str(copy), imageIO="GDCMImageIO"))
    except (RuntimeError, OSError, EOFError, ValueError, AttributeError) as error:
        raise InputError(f"The pixels of {file.name} cannot be decoded: the DICOM data are damaged.") from error
    return decoded


def _rescaled(pixels: NDArray[np.generic], header: pydicom.Dataset, stack: list[int]) -> NDArray[np.generic]:
    """Stored values (slices, rows, columns) in the units of the modality; each frame has its own slope."""
    frames = frame_groups(header)
    groups = [item(frames[index], "PixelValueTransformationSequence") for index in stack]
    slopes, intercepts = (
        np.array([float(default if group.get(keyword) is None else group.get(keyword)) for group in groups])
        for keyword, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    if (slopes == 1).all() and (intercepts == 0).all():
        return pixels
    values = pixels * slopes[:, None, None] + intercepts[:, None, None]
    is_whole = all((part % 1 == 0).all() for part in (slopes, intercepts))
    return values.astype(np.int32) if is_whole else values
