"""Measures of agreement between a mask and the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.imaging.distances import distance_to


def hd95(mask: NDArray, truth: NDArray, spacing: Sequence[float]) -> float:
    """Return the 95th percentile of the distances between two masks' borders, in both directions, in millimetre.

    Borders are the voxels of a mask that touch another voxel than its own by a face. Both sets of distances count
    together (as in MedPy), so the larger border weighs more.

    Args:
        mask: of any number of dimensions, non-zero inside.
        truth: of the same shape.
        spacing: distance of neighbouring voxels along each axis in millimetre.

    Returns:
        0 when both are empty, infinity when one of them is.

    >>> hd95(np.array([0, 1, 0, 0]), np.array([0, 0, 0, 1]), [2.0])
    4.0
    """
    mask, truth = np.asarray(mask) > 0, np.asarray(truth) > 0
    if not mask.any() or not truth.any():
        return 0.0 if mask.any() == truth.any() else float("inf")
    return float(np.percentile(_border_distances(mask, truth, spacing), 95))


def surface_dice(mask: NDArray, truth: NDArray, spacing: Sequence[float], tolerance_mm: float) -> float:
    """Return the share of two masks' borders that is not farther than a tolerance from the other border.

    It is the normalised surface Dice (NSD) of Nikolov et al. 2018, arXiv 1809.04430, with voxels for the area of a
    border, as in MONAI. Borders are the same as in `hd95`.

    Args:
        mask: of any number of dimensions, non-zero inside.
        truth: of the same shape.
        spacing: distance of neighbouring voxels along each axis in millimetre.
        tolerance_mm: largest distance in millimetre that is no error.

    Returns:
        0 to 1: 1 when both are empty, 0 when one of them is.

    >>> surface_dice(np.array([0, 1, 0, 0]), np.array([0, 0, 1, 0]), [2.0], 1.0)
    0.0
    >>> surface_dice(np.array([0, 1, 0, 0]), np.array([0, 0, 1, 0]), [2.0], 2.0)
    1.0
    """
    mask, truth = np.asarray(mask) > 0, np.asarray(truth) > 0
    if not mask.any() or not truth.any():
        return float(mask.any() == truth.any())
    return float((_border_distances(mask, truth, spacing) <= tolerance_mm).mean())


def _border_distances(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]
) -> NDArray[np.float64]:
    """Distance to the other border of each border voxel of both masks, of which none is empty, in millimetre."""
    # The distances are the same on the part that holds both masks, and sooner computed.
    part = ndimage.find_objects((mask | truth).astype(np.uint8))[0]
    borders = [np.pad(m[part], 1) for m in (mask, truth)]
    borders = [m & ~ndimage.binary_erosion(m) for m in borders]
    to_mask, to_truth = (distance_to(border, spacing) for border in borders)
    return np.concatenate([to_truth[borders[0]], to_mask[borders[1]]])


def number_of_clicks(scores: Sequence[float], target: float) -> int:
    """Return after how many clicks a score was first reached; the number of all clicks where it never was.

    Args:
        scores: Dice after 1, 2, … clicks.
        target: the Dice wanted.

    >>> number_of_clicks([0.5, 0.86, 0.84], 0.85)
    2
    """
    return next((n for n, score in enumerate(scores, 1) if score >= target), len(scores))
