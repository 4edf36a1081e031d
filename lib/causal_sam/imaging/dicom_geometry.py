"""Position of DICOM images: checks the numbers, and sorts images into stacks that are even grids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from causal_sam.errors import InputError, join_limited

# Where slices lie may differ from an even stack by this share of their distance.
EVEN_TOLERANCE = 0.01
# Headers round positions to hundredths of a millimetre, and the components of directions to four digits.
ROUNDED_MM, ROUNDED_DIRECTION = 0.01, 1e-4
# Components of unit vectors that differ by more than this (about 0.06 degrees) are not the same direction.
ORIENTATION_TOLERANCE = 1e-3
# Rows and columns are unit vectors and perpendicular, as far as rounded headers go.
UNIT_TOLERANCE = 1e-2
# In the order in which they count.
SPACING_TAGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
# Element that places a frame -> the functional group that holds it.
FRAME_SEQUENCES = {
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "PixelSpacing": "PixelMeasuresSequence",
}
MAX_NAMED = 3  # files in a sentence


@dataclass(frozen=True)
class SlicePlane:
    """Plane and position of an image.

    Attributes:
        label: its name in a sentence: the name of its file, or the number of its frame.
        orientation: (6,) as in ImageOrientationPatient.
        position: (3,) as in ImagePositionPatient, LPS+ millimetre.
        order: key that tells and orders the images at one place.
    """

    label: str
    orientation: NDArray[np.float64]
    position: NDArray[np.float64]
    order: Any

    @classmethod
    def of(cls, label: str, orientation: Any, position: Any, order: Any) -> SlicePlane:
        """Make a plane of the values in a header.

        Raises:
            InputError: they are missing, or no numbers that can place an image.
        """
        directions = numbers(orientation, "ImageOrientationPatient", 6, label)
        rows, columns = directions.reshape(2, 3)
        if np.abs([rows @ rows - 1, columns @ columns - 1, rows @ columns]).max() > UNIT_TOLERANCE:
            raise InputError(
                f"{label} has no valid ImageOrientationPatient: rows and columns must be perpendicular unit vectors."
            )
        return cls(label, directions, numbers(position, "ImagePositionPatient", 3, label), order)

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,) unit vector, the cross product of the directions of rows and columns."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return normal / np.linalg.norm(normal)


def even_stacks(planes: Sequence[SlicePlane], name: str) -> list[list[int]]:
    """Sort images into even stacks: one, or, where several lie at each place, one for each point in time or sequence.

    The one test of what makes a series a volume: parallel slices at equal distances, one above the other. NIfTI, ITK
    and DICOM SEG have no other grids, and put the voxels of any other series in the wrong place without a word.

    Args:
        planes: planes of the images, in any order.
        name: name of the file or folder, for the sentences.

    Returns:
        For each stack the indices of its images along the normal.

    Raises:
        InputError: slices are not parallel, missing, doubled, not evenly spaced, or shifted against each other as by
            a tilted gantry; the sentence names them.
    """
    directions = np.array([plane.orientation for plane in planes])
    usual = np.percentile(directions, 50, axis=0, method="lower")
    if np.ptp(directions, axis=0).max() > ORIENTATION_TOLERANCE:
        odd = np.flatnonzero(np.abs(directions - usual).max(axis=1) > ORIENTATION_TOLERANCE)
        raise InputError(
            f"The slices in {name} are not parallel: {join_limited([planes[index].label for index in odd], MAX_NAMED)} "
            f"{'lies' if len(odd) == 1 else 'lie'} in another direction than the rest."
        )
    normal = planes[0].normal
    along = np.array([plane.position for plane in planes]) @ normal
    by_place = np.argsort(along, kind="stable")
    starts = np.flatnonzero(np.diff(along[by_place]) > ROUNDED_MM) + 1
    places = [sorted(place.tolist(), key=lambda index: planes[index].order) for place in np.split(by_place, starts)]
    crowded = max(places, key=len)
    is_doubled = any(len({planes[index].order for index in place}) < len(place) for place in places)
    if is_doubled or any(len(place) < len(crowded) for place in places):
        raise InputError(
            f"{name} has several slices at the same place ({along[crowded[0]]:.2f} mm along the normal: "
            f"{join_limited([planes[index].label for index in crowded], MAX_NAMED)}): they are no 3D series."
        )
    stacks = [list(stack) for stack in zip(*places, strict=True)]
    for stack in stacks:
        _check_even([planes[index] for index in stack], normal, name)
    return stacks


def numbers(value: Any, keyword: str, count: int, name: str) -> NDArray[np.float64]:
    """Check a value that says where an image lies.

    Args:
        value: value in the header; None if it is not there.
        keyword: keyword of the element, for the sentence.
        count: required number of numbers.
        name: name of the file, for the sentence.

    Raises:
        InputError: it is not so many finite numbers.
    """
    checked = finite(value, count)
    if checked is None:
        raise InputError(f"{name} has no valid {keyword}: it must be {count} numbers that say where the slice lies.")
    return checked


def pixel_spacing(header: pydicom.Dataset) -> tuple[float, float] | None:
    """Return the distances of neighbouring rows and of neighbouring columns in millimetre; None if nothing says them.

    In a radiograph PixelSpacing is that in the patient, by calibration, and ImagerPixelSpacing that on the detector.
    NominalScannedPixelSpacing is that of a digitised film.
    """
    for keyword in SPACING_TAGS:
        spacing = finite(header.get(keyword), 2)
        if spacing is not None and (spacing > 0).all():
            return float(spacing[0]), float(spacing[1])
    return None


def slice_thickness(header: pydicom.Dataset) -> float:
    """Return the thickness of a slice in millimetre; 1 if nothing says it."""
    thickness = finite(header.get("SliceThickness"), 1)
    return float(thickness[0]) if thickness is not None and thickness[0] > 0 else 1.0


def item(groups: Iterable[pydicom.Dataset], sequence: str) -> pydicom.Dataset:
    """Return the one item of a sequence in the first of some data sets that has it, or the last data set itself."""
    last = pydicom.Dataset()
    for last in groups:
        if last.get(sequence):
            return last[sequence][0]
    return last


def vector(groups: Iterable[pydicom.Dataset], keyword: str, count: int, name: str) -> NDArray[np.float64]:
    """Return the ``count`` numbers that place a frame; ``keyword`` is one of `FRAME_SEQUENCES`.

    Raises:
        InputError: neither a functional group nor the header has them.
    """
    return numbers(item(groups, FRAME_SEQUENCES[keyword]).get(keyword), keyword, count, name)


def stack_affine(
    orientation: NDArray[np.float64], spacing: Sequence[float], ends: NDArray, count: int, thickness: float = 1.0
) -> NDArray[np.float64]:
    """Return the affine of an even stack: column, row and slice -> LPS+ millimetre.

    Args:
        orientation: (6,) as in ImageOrientationPatient.
        spacing: distances of neighbouring rows and of neighbouring columns in mm.
        ends: (2, 3) ImagePositionPatient of the first and the last slice.
        count: number of slices.
        thickness: distance to the next slice in mm, for a stack of one.
    """
    rows, columns = orientation.reshape(2, 3)
    step = (ends[1] - ends[0]) / (count - 1) if count > 1 else np.cross(rows, columns) * thickness
    lps = np.eye(4)
    lps[:3] = np.column_stack([rows * spacing[1], columns * spacing[0], step, ends[0]])
    return lps


def _check_even(planes: Sequence[SlicePlane], normal: NDArray[np.float64], name: str) -> None:
    """Refuse sorted slices that are no even stack."""
    if len(planes) == 1:
        return
    offsets = np.array([plane.position for plane in planes]) - planes[0].position
    along = offsets @ normal
    distances = np.diff(along)
    usual = float(np.percentile(distances, 50, method="lower"))
    tolerance = max(EVEN_TOLERANCE * usual, ROUNDED_MM)
    wrong = np.flatnonzero(np.abs(distances - usual) > tolerance)
    if wrong.size:
        before, after = planes[wrong[0]], planes[wrong[0] + 1]
        steps = distances[wrong[0]] / usual
        is_missing = round(steps) >= 2 and abs(steps - round(steps)) < 0.1
        raise InputError(
            f"{name} is not evenly spaced: {distances[wrong[0]]:.2f} mm lie between {before.label} (at "
            f"{before.position @ normal:.2f} mm) and {after.label} (at {after.position @ normal:.2f} mm), "
            f"{usual:.2f} mm elsewhere{'; a slice is missing' if is_missing else ''}."
        )
    even = np.linspace(0, along[-1], len(planes))
    # The error of rounded directions grows with the distance.
    allowed = tolerance + ROUNDED_DIRECTION * along
    drift = np.abs(along - even)
    if (drift > allowed).any():
        worst = int(np.argmax(drift - allowed))
        raise InputError(
            f"{name} is not evenly spaced: the distance of its slices changes, and {planes[worst].label} lies "
            f"{drift[worst]:.2f} mm from where an even stack has it."
        )
    shift = np.linalg.norm(offsets - along[:, None] * normal, axis=1)
    if (shift > allowed).any():
        worst = int(np.argmax(shift - allowed))
        raise InputError(
            f"The slices in {name} are shifted against each other (tilted gantry): {planes[worst].label} lies "
            f"{shift[worst]:.2f} mm beside the place right above {planes[0].label}; resample the series to a "
            "perpendicular grid."
        )


def finite(value: Any, count: int) -> NDArray[np.float64] | None:
    """Return the numbers of a value; None if they are not so many finite ones."""
    try:
        array = np.atleast_1d(np.array(value, dtype=np.float64))
    except (ValueError, TypeError):
        return None
    return array if array.shape == (count,) and np.isfinite(array).all() else None
