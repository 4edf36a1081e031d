"""DICOM SEG of any program, read as a label map; `causal_sam.export.dicom_seg` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from highdicom.seg import SegmentationTypeValues
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.export.source_images import MAX_LABEL
from causal_sam.imaging import Volume
from causal_sam.imaging.dicom_geometry import item, stack_affine, vector
from causal_sam.imaging.directions import RAS_LPS
from causal_sam.imaging.label_maps import align_to_grid

# Smallest fraction at which a voxel of a fractional segment belongs to it.
MIN_FRACTION = 0.5
LABEL_MAP = "LABELMAP"
# A frame lies this close to a slice of the image, in voxels.
GRID_TOLERANCE = 0.1


def read_dicom_seg(file: Path, image: Volume) -> tuple[NDArray[np.uint16], list[dict[str, Any]]]:
    """Read a DICOM SEG, of whatever program, as a label map of its image.

    Args:
        file: the DICOM SEG. Its frames may be a part of the image's slices and pixels, in any order and direction.
        image: (I, J, K).

    Returns:
        (I, J, K) the number of the segment of each voxel, and for each segment its ``name`` and ``idx``, the number.

    Raises:
        InputError: segments overlap, the frames do not lie on the grid of the image, or the file is damaged.
    """
    try:
        segmentation = pydicom.dcmread(file)
        label = _label_of(segmentation, image)
        return align_to_grid(label, image), _names_of(segmentation)
    except InputError:
        raise
    except Exception as error:  # foreign objects fail in their own ways
        raise InputError(f"The DICOM SEG cannot be read: it is damaged, or of an unknown kind ({error}).") from error


def _label_of(header: pydicom.Dataset, image: Volume) -> Volume:
    """Read the frames of a DICOM SEG into a volume on their own pixels and the slices of the image."""
    shared = header.get("SharedFunctionalGroupsSequence", [])
    groups = [[frame, *shared] for frame in header.PerFrameFunctionalGroupsSequence]
    orientations, positions, spacings = (
        np.array([vector(group, keyword, count, "The DICOM SEG") for group in groups])
        for keyword, count in (("ImageOrientationPatient", 6), ("ImagePositionPatient", 3), ("PixelSpacing", 2))
    )
    if not np.allclose(orientations, orientations[0], atol=1e-4) or not np.allclose(spacings, spacings[0], rtol=1e-3):
        raise InputError("The frames of the DICOM SEG differ in direction or size.")
    normal = np.cross(orientations[0][:3], orientations[0][3:])
    # The slices of the image tell the distance of the frames: those without voxels may have been left out.
    steps = (RAS_LPS @ image.affine)[:3, :3]
    axis = np.abs(normal @ (steps / np.linalg.norm(steps, axis=0))).argmax()
    lps = stack_affine(orientations[0], spacings[0], [positions[0], positions[0] + steps[:, axis]], 2)
    offsets = (positions - positions[0]) @ np.linalg.inv(lps[:3, :3]).T
    slices = np.rint(offsets[:, 2]).astype(int)
    if np.abs(offsets - slices[:, None] * (0, 0, 1)).max() > GRID_TOLERANCE:
        raise InputError("The frames of the DICOM SEG do not lie on slices of the image.")
    if np.ptp(slices) >= image.shape[axis]:
        raise InputError("The frames of the DICOM SEG reach beyond the image.")
    lps[:3, 3] = positions[0] + slices.min() * lps[:3, 2]
    array = np.zeros((header.Columns, header.Rows, np.ptp(slices) + 1), np.uint16, order="F")
    for group, place, frame in zip(groups, slices - slices.min(), _frames(header), strict=True):
        _add(array[:, :, place], frame.T, group, header)
    return Volume(array, RAS_LPS @ lps)


def _frames(segmentation: pydicom.Dataset) -> Iterator[NDArray[np.integer]]:
    """Decode frames, rows x columns; those of one bit one by one, for all of them may be large.

    highdicom's reader of single frames takes too few bytes where a frame does not begin with a byte.
    """
    shape = (int(segmentation.Rows), int(segmentation.Columns))
    count, size = int(segmentation.NumberOfFrames), shape[0] * shape[1]
    if segmentation.BitsAllocated > 1:
        yield from segmentation.pixel_array.reshape(count, *shape)
        return
    packed = np.frombuffer(segmentation.PixelData, np.uint8)
    for start in range(0, count * size, size):
        bits = np.unpackbits(packed[start // 8 : (start + size + 7) // 8], bitorder="little")
        yield bits[start % 8 :][:size].reshape(shape)


def _add(plane: NDArray[np.uint16], frame: NDArray, groups: Iterable[pydicom.Dataset], header: pydicom.Dataset) -> None:
    """Add a frame to its slice of the label map, in place."""
    kind = header.SegmentationType
    if kind == LABEL_MAP:
        inside, number = frame > 0, frame
    else:
        full = header.MaximumFractionalValue if kind == SegmentationTypeValues.FRACTIONAL.value else 1
        inside = frame >= MIN_FRACTION * full
        number = int(item(groups, "SegmentIdentificationSequence").ReferencedSegmentNumber)
    if taken := int(plane[inside].max(initial=0)):
        raise InputError(f"Segments {taken} and {number} of the DICOM SEG overlap; a label map has one for each voxel.")
    np.copyto(plane, np.asarray(number, np.uint16), where=inside)


def _names_of(header: pydicom.Dataset) -> list[dict[str, Any]]:
    entries = []
    for segment in header.SegmentSequence:
        label, described = str(segment.get("SegmentLabel", "")), str(segment.get("SegmentDescription", ""))
        # A name that is too long for a label is whole in the description.
        name = described if described.startswith(label) and len(label) == MAX_LABEL else label
        entries.append({"name": name.strip() or f"segment {segment.SegmentNumber}", "idx": int(segment.SegmentNumber)})
    return [entry for entry in entries if entry["idx"] > 0]
