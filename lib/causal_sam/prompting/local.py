"""Clicks on a mask that is mostly right change it where they are, and not elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Voxels around a click within which what has changed belongs to it.
NEAR = 2


def decided_at_clicks(
    before: NDArray[np.bool_], answer: NDArray[np.bool_], clicks: Iterable[tuple[int, int]]
) -> NDArray[np.bool_]:
    """Decide a slice with a mask that was not made by clicks: `merged`, or all of the answer if nothing is left of it.

    An answer that does not do what the clicks say counts as a whole: there may be nothing near them.

    Args:
        before: (rows, columns).
        answer: of the model, decided from the clicks.
        clicks: (row, column) of them.
    """
    asked = merged(before, answer, clicks)
    return asked if (asked != before).any() else answer


def merged(
    before: NDArray[np.bool_], after: NDArray[np.bool_], clicks: Iterable[tuple[int, ...]], axis: int | None = None
) -> NDArray[np.bool_]:
    """Take of a new mask what clicks on the old one asked for.

    The model decides whole slices again, and draws borders a little otherwise everywhere. Where the old mask was drawn
    by hand or found by its name that spoils it. So only those connected changes count that lie at a click; lines of a
    pixel along a border connect none. As "progressive merge" in Chen et al., "FocalClick: Towards Practical Interactive
    Image Segmentation" (2022), here also in 3D.

    Args:
        before: of a slice, or a volume.
        after: of the same shape, decided from the clicks.
        clicks: indices of them.
        axis: across the slices of a volume; None for a slice.

    Returns:
        The old mask, with what has changed at the clicks; a new array.
    """
    changed = before ^ after
    at = np.zeros_like(changed)
    for click in clicks:
        at[click] = changed[click]
    if not at.any():
        return before.copy()
    # Across the slices a voxel may be as long as a structure is thick.
    cross = ndimage.generate_binary_structure(changed.ndim, 1)
    if axis is not None:
        cross[tuple(slice(None) if n != axis else slice(0, None, 2) for n in range(changed.ndim))] = False
    near = ndimage.binary_dilation(at, cross, iterations=NEAR) & changed
    solid = ndimage.binary_opening(changed, cross)
    parts, _ = ndimage.label(solid)
    asked = (parts > 0) & np.isin(parts, np.unique(parts[near & solid]))
    region = (ndimage.binary_dilation(asked, cross) & changed) | near
    return np.where(region, after, before)
