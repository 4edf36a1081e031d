"""Side effects of clicks: changes of a mask far from the error that was clicked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

NEAR_VOXELS = 2


def far_change(
    before: NDArray[np.bool_], after: NDArray[np.bool_], truth: NDArray[np.bool_], clicked: tuple[int, ...]
) -> float:
    """Return the share of the changed voxels that are farther than two voxels from the error that was clicked.

    The error is the connected region, also across corners, of wrong voxels around the click.

    Args:
        before: mask before the click, of any number of dimensions.
        after: mask after the click.
        truth: true mask.
        clicked: position of the click.

    Returns:
        0 to 1; 0 if nothing changed.

    >>> truth = np.array([0, 1, 1, 1, 1, 0, 0, 0, 0, 0], bool)
    >>> before = np.array([0, 1, 1, 0, 0, 0, 0, 0, 0, 0], bool)
    >>> after = np.array([0, 1, 1, 1, 1, 1, 0, 0, 0, 1], bool)
    >>> far_change(before, after, truth, (3,))
    0.25
    """
    changed = before ^ after
    count = np.count_nonzero(changed)
    if not count:
        return 0.0
    touching = np.ones((3,) * truth.ndim, bool)
    components, _ = ndimage.label(before ^ truth, touching)
    component = components[clicked]
    if component == 0:
        return 1.0
    error = components == component
    near = tuple(
        slice(max(part.start - NEAR_VOXELS, 0), part.stop + NEAR_VOXELS)
        for part in ndimage.find_objects(error.view(np.uint8))[0]
    )
    around = ndimage.binary_dilation(error[near], touching, NEAR_VOXELS)
    return 1.0 - np.count_nonzero(changed[near] & around) / count
