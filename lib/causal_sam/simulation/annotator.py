"""A simulated annotator: where a careful person would click next, for training and for benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage

from causal_sam.imaging.distances import distance_to


class Click(NamedTuple):
    """A click in a slice: row and column in pixels, and whether it says inside (foreground) or outside."""

    row: int
    column: int
    foreground: bool


def deepest_point(region: np.ndarray, rng: np.random.Generator | None = None) -> tuple[int, int]:
    """Return (row, column) of the point of a region farthest from its border.

    Args:
        region: HxW, non-zero inside; the image's edge counts as border. Must not be empty.
        rng: with one, a random point at least a random share as deep as the deepest is taken instead, as people who
            do not aim do.
    """
    depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    if rng is None:
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    else:
        candidates = np.flatnonzero(depth >= max(depth.max() * (1 - rng.random() ** 2), 1e-3))
        row, column = divmod(int(rng.choice(candidates)), depth.shape[1])
    return int(row), int(column)


def next_click(truth: np.ndarray, mask: np.ndarray, rng: np.random.Generator | None = None) -> Click | None:
    """Return the click that corrects the largest error region at its deepest point, or None if nothing is wrong.

    Args:
        truth: HxW, non-zero inside the structure.
        mask: HxW, non-zero inside the present mask; all zero before the first click.
        rng: as in `deepest_point`.
    """
    truth, mask = truth.astype(bool), mask.astype(bool)
    largest, foreground, size = None, True, 0
    for error, is_missing in ((truth & ~mask, True), (mask & ~truth, False)):
        count, components, stats, _ = cv2.connectedComponentsWithStats(error.astype(np.uint8), connectivity=4)
        if count < 2:
            continue
        n = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        if stats[n, cv2.CC_STAT_AREA] > size:
            largest, foreground, size = components == n, is_missing, int(stats[n, cv2.CC_STAT_AREA])
    if largest is None:
        return None
    return Click(*deepest_point(largest, rng), foreground)


def next_click_in_volume(
    truth: np.ndarray, mask: np.ndarray, spacing: Sequence[float], rng: np.random.Generator | None = None
) -> tuple[tuple[int, int, int], bool] | None:
    """Return the voxel that corrects the largest error region of a volume, and whether it is inside the structure.

    Args:
        truth: (I, J, K), non-zero inside the structure.
        mask: (I, J, K), non-zero inside the present mask.
        spacing: distance of neighbouring voxels along (i, j, k) in millimetre: depth is measured in these.
        rng: as in `deepest_point`.

    Returns:
        None if nothing is wrong.
    """
    truth, mask = truth.astype(bool), mask.astype(bool)
    largest, foreground, size = None, True, 0
    for error, is_missing in ((truth & ~mask, True), (mask & ~truth, False)):
        components, count = ndimage.label(error)
        if count:
            sizes = np.bincount(components.ravel())[1:]
            if sizes.max() > size:
                largest, foreground, size = components == 1 + int(sizes.argmax()), is_missing, int(sizes.max())
    if largest is None:
        return None
    part = ndimage.find_objects(largest.astype(np.uint8))[0]
    depth = distance_to(~np.pad(largest[part], 1), spacing)[1:-1, 1:-1, 1:-1]
    if rng is None:
        deepest = int(depth.argmax())
    else:
        deepest = int(rng.choice(np.flatnonzero(depth >= max(depth.max() * (1 - rng.random() ** 2), 1e-3))))
    voxel = np.unravel_index(deepest, depth.shape)
    return tuple(int(v) + s.start for v, s in zip(voxel, part, strict=True)), foreground
