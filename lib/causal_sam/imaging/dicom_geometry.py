"""Where DICOM images lie: their numbers checked, and sorted into stacks that are even grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from causal_sam.errors import InputError

# Slice distances may differ by this share of the usual one: headers are rounded, missing slices double it.
SLICE_DISTANCE_TOLERANCE = 0.25
# Components of unit vectors that differ by more than this (about 0.06 degrees) are not the same direction.
ORIENTATION_TOLERANCE = 1e-3
# Slices nearer to each other than this (mm) are at the same place.
SAME_PLACE_MM = 1e-3


def numbers(value: Any, keyword: str, count: int, name: str) -> NDArray[np.float64]:
    """Check a value that says where an image lies.

    Args:
        value: of the header; None if it is not there.
        keyword: of the element, for the sentence.
        count: how many numbers it must have.
        name: of the file, for the sentence.

    Raises:
        InputError: it is not so many finite numbers.
    """
    checked = _finite(value, count)
    if checked is None:
        raise InputError(f"{name} has no valid {keyword}: it must be {count} numbers that say where the slice lies.")
    return checked


def pixel_spacing(header: pydicom.Dataset) -> tuple[float, float] | None:
    """Return the distances of neighbouring rows and of neighbouring columns in millimetre; None if nothing says them.

    In a radiograph PixelSpacing is that in the patient, by calibration, and ImagerPixelSpacing that on the detector.
    NominalScannedPixelSpacing is that of a digitised film.
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = _finite(header.get(keyword), 2)
        if spacing is not None and (spacing > 0).all():
            return float(spacing[0]), float(spacing[1])
    return None


def slice_thickness(header: pydicom.Dataset) -> float:
    """Return the thickness of a slice in millimetre; 1 if nothing says it."""
    thickness = _finite(header.get("SliceThickness"), 1)
    return float(thickness[0]) if thickness is not None and thickness[0] > 0 else 1.0


def slice_normal(orientations: Sequence[NDArray[np.float64]], name: str) -> NDArray[np.float64]:
    """Return the normal of parallel slices, the cross product of the directions of their rows and columns.

    Args:
        orientations: of each slice, as in ImageOrientationPatient.
        name: of the file or folder, for the sentence.

    Raises:
        InputError: the slices are not parallel.
    """
    if np.abs(np.array(orientations) - orientations[0]).max() > ORIENTATION_TOLERANCE:
        raise InputError(f"The slices in {name} are not parallel: they are no 3D series.")
    return np.cross(orientations[0][:3], orientations[0][3:])


def sorted_stacks(along: NDArray[np.float64], order: Sequence[Any], name: str) -> list[list[int]]:
    """Sort slices into stacks: one, or, where several lie at each place, one for each point in time or sequence.

    Args:
        along: (N,) places of the slices along their normal, in mm.
        order: (N) keys that tell and order the slices at the same place.
        name: of the file or folder, for the sentences.

    Returns:
        For each stack the indices of its slices along the normal.

    Raises:
        InputError: a slice is missing or doubled.
    """
    by_place = np.argsort(along, kind="stable")
    starts = np.flatnonzero(np.diff(along[by_place]) >= SAME_PLACE_MM) + 1
    places = [sorted(place.tolist(), key=order.__getitem__) for place in np.split(by_place, starts)]
    crowded = max(places, key=len)
    is_doubled = any(len({order[index] for index in place}) < len(place) for place in places)
    if is_doubled or any(len(place) < len(crowded) for place in places):
        raise InputError(
            f"{name} has several slices at the same place ({along[crowded[0]]:.2f} mm along the normal): "
            "they are no 3D series."
        )
    _check_distances(np.array([along[place[0]] for place in places]), name)
    return [list(stack) for stack in zip(*places, strict=True)]


def _finite(value: Any, count: int) -> NDArray[np.float64] | None:
    try:
        array = np.atleast_1d(np.array(value, dtype=np.float64))
    except (ValueError, TypeError):
        return None
    return array if array.shape == (count,) and np.isfinite(array).all() else None


def _check_distances(along: NDArray[np.float64], name: str) -> None:
    """Refuse missing slices; the places are sorted."""
    distances = np.diff(along)
    if not distances.size:
        return
    usual = float(np.percentile(distances, 50, method="lower"))
    wrong = np.flatnonzero(np.abs(distances - usual) > SLICE_DISTANCE_TOLERANCE * usual)
    if wrong.size:
        before, after = along[wrong[0]], along[wrong[0] + 1]
        raise InputError(
            f"{name} is not evenly spaced: {after - before:.2f} mm lie between the slices at {before:.2f} and "
            f"{after:.2f} mm, {usual:.2f} mm elsewhere; a slice is missing."
        )
