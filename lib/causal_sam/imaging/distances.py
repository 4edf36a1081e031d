"""Distances to masks in millimetres, also where a mask is empty or fills the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def distance_to(
    mask: NDArray[np.bool_], spacing: Sequence[float] | NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Return the distance of each voxel to the nearest voxel of a mask: 0 inside, infinite if the mask is empty.

    Args:
        mask: mask of any number of dimensions.
        spacing: voxel spacing in mm along each axis; by default 1.

    >>> distance_to(np.array([False, True, False, False])).tolist()
    [1.0, 0.0, 1.0, 2.0]
    >>> distance_to(np.array([False, False])).tolist()
    [inf, inf]
    """
    # Where there is no background, scipy gives distances to a place outside of the array.
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return ndimage.distance_transform_edt(~mask, spacing)


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
    mask: NDArray[np.bool_], spacing: Sequence[float] | NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Return the distance of each voxel to the nearest voxel on the other side of a mask's border.

    Args:
        mask: mask of any number of dimensions.
        spacing: voxel spacing in mm along each axis; by default 1.

    Returns:
        Positive inside, negative outside, never 0; infinite where there is no other side.

    >>> signed_distance(np.array([False, True, True, False])).tolist()
    [-1.0, 1.0, 1.0, -1.0]
    """
    return distance_to(~mask, spacing) - distance_to(mask, spacing)
