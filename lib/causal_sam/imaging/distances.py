"""Distances to masks in millimetres, also where a mask is empty or fills the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# From this number of voxels on, distances are computed slice by slice, which takes a seventh of the time.
MIN_SLICED_VOXELS = 300_000
# Relative difference of two spacings that count as equal.
SAME_SPACING = 1e-3


def distance_to(
    mask: NDArray[np.bool_], spacing: Sequence[float] | NDArray[np.floating] | None = None, limit: float = math.inf
) -> NDArray[np.floating]:
    """Return the distance of each voxel to the nearest voxel of a mask: 0 inside, infinite if the mask is empty.

    Args:
        mask: mask of any number of dimensions.
        spacing: voxel spacing in mm along each axis; by default 1.
        limit: distances up to this are exact, and longer ones not below it.

    Returns:
        float64, or float32 for large volumes.

    >>> distance_to(np.array([False, True, False, False])).tolist()
    [1.0, 0.0, 1.0, 2.0]
    >>> distance_to(np.array([False, False])).tolist()
    [inf, inf]
    """
    # Where there is no background, scipy gives distances to a place outside of the array.
    if not mask.any():
        return np.full(mask.shape, np.inf)
    if mask.ndim == 3 and mask.size >= MIN_SLICED_VOXELS:
        steps = np.ones(3) if spacing is None else np.asarray(spacing, dtype=np.float64)
        for axis in (2, 1, 0):
            pixel = np.delete(steps, axis)
            if np.ptp(pixel) <= SAME_SPACING * pixel.max():
                return _distance_by_slices(mask, axis, float(pixel.mean()), float(steps[axis]), limit)
    return ndimage.distance_transform_edt(~mask, spacing)


def _distance_by_slices(
    mask: NDArray[np.bool_], axis: int, pixel: float, step: float, limit: float
) -> NDArray[np.float32]:
    """Return distances to a mask (I, J, K), not empty: first on each slice across an axis, then across the slices.

    Args:
        mask: mask.
        axis: axis across which slices have square pixels.
        pixel: side of the pixels in mm.
        step: distance of neighbouring slices in mm.
        limit: see `distance_to`.
    """
    slices = np.moveaxis(mask, axis, 0)
    squared = np.empty_like(slices, np.float32)  # in the memory order of the mask
    for own, inside in zip(squared, slices, strict=True):
        if not inside.any():
            own[...] = np.inf
            continue
        # OpenCV reads rows: of slices in column order it gets the transposed view.
        turned = inside.strides[0] < inside.strides[1]
        outside = np.ascontiguousarray(~(inside.T if turned else inside)).view(np.uint8)
        there = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        own[...] = there.T if turned else there
    squared *= np.float32(pixel)
    squared *= squared
    nearest = squared.copy(order="K")
    for number in range(1, len(slices)):
        away = np.float32((number * step) ** 2)
        if number * step > limit or nearest.max() <= away:
            break
        np.minimum(nearest[number:], squared[:-number] + away, out=nearest[number:])
        np.minimum(nearest[:-number], squared[number:] + away, out=nearest[:-number])
    return np.moveaxis(np.sqrt(nearest, out=nearest), 0, axis)


def nearest_voxels(
    mask: NDArray[np.bool_], spacing: Sequence[float] | NDArray[np.floating] | None = None
) -> NDArray[np.int32]:
    """Return the indices of the voxel of a mask that is nearest to each voxel: one row for each dimension.

    Args:
        mask: mask of any number of dimensions; some voxel is inside.
        spacing: voxel spacing in mm along each axis; by default 1.

    >>> nearest_voxels(np.array([False, True, False, False])).tolist()
    [[1, 1, 1, 1]]
    """
    return ndimage.distance_transform_edt(~mask, spacing, return_distances=False, return_indices=True)


def signed_distance(
    mask: NDArray[np.bool_], spacing: Sequence[float] | NDArray[np.floating] | None = None, limit: float = math.inf
) -> NDArray[np.floating]:
    """Return the distance of each voxel to the nearest voxel on the other side of a mask's border.

    Args:
        mask: mask of any number of dimensions.
        spacing: voxel spacing in mm along each axis; by default 1.
        limit: see `distance_to`.

    Returns:
        Positive inside, negative outside, never 0; infinite where there is no other side.

    >>> signed_distance(np.array([False, True, True, False])).tolist()
    [-1.0, 1.0, 1.0, -1.0]
    """
    return distance_to(~mask, spacing, limit) - distance_to(mask, spacing, limit)
