"""Small parts of a mask that lie apart from its largest one, such as what a click left behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.imaging.packed_mask import PackedMask

# Largest stray part, as a share of the largest part (labels such as lesions have several parts) and in ml.
MAX_SHARE, MAX_ML = 0.05, 5.0
_CORNERS = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class StrayParts:
    """The stray parts of a mask.

    Attributes:
        mask: (I, J, K) their voxels.
        count: number of parts, at least 1.
        voxels: number of their voxels.
        place: voxel (i, j, k) in the largest of them.
    """

    mask: NDArray[np.bool_]
    count: int
    voxels: int
    place: tuple[int, int, int]


def stray_parts(mask: PackedMask, voxel_ml: float) -> StrayParts | None:
    """Find parts of a mask that touch its largest part not even at a corner of a voxel, and that are small.

    Only the bounding box of the mask is searched.

    Args:
        mask: mask of a label.
        voxel_ml: volume of a voxel in ml.

    Returns:
        None if there are none.
    """
    if not mask.count:
        return None
    parts, count = ndimage.label(mask.unpack_box(), _CORNERS)
    if count < 2:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    is_stray = (sizes < MAX_SHARE * sizes.max()) & (sizes * voxel_ml < MAX_ML)
    is_stray[0] = False
    if not is_stray.any():
        return None
    box = is_stray[parts]
    whole = np.zeros(mask.shape, bool)
    whole[tuple(slice(c, c + e) for c, e in zip(mask.corner, mask.extent, strict=True))] = box
    largest = parts == np.argmax(np.where(is_stray, sizes, 0))
    place = np.argwhere(largest)[0] + mask.corner
    i, j, k = map(int, place)
    return StrayParts(whole, int(is_stray.sum()), int(sizes[is_stray].sum()), (i, j, k))
