"""Size and parts of masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def equivalent_radius(mask: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """Return the radius in mm of a ball that has the volume of a mask.

    Args:
        mask: (I, J, K) mask.
        spacing: voxel spacing in mm along each axis.

    >>> round(equivalent_radius(np.ones((10, 10, 10), bool), (1.0, 1.0, 2.0)), 3)
    7.816
    """
    return float((3 * mask.sum() * math.prod(spacing) / (4 * math.pi)) ** (1 / 3))


def largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest part of a mask that is connected through faces of voxels; nothing of an empty mask.

    >>> largest_part(np.array([True, False, True, True])).tolist()
    [False, False, True, True]
    >>> largest_part(np.array([False, False])).tolist()
    [False, False]
    """
    parts, count = ndimage.label(mask)
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]) if count else mask
