"""Size and parts of masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.imaging.frames import other_axes


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


def part_at(mask: NDArray[np.bool_], places: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the parts of a mask, connected through faces of voxels, that hold some places.

    >>> part_at(np.array([True, False, True, True]), np.array([False, True, False, True])).tolist()
    [False, False, True, True]
    """
    parts, count = ndimage.label(mask)
    held = np.zeros(count + 1, bool)
    held[parts[mask & places]] = True
    return held[parts]


def centroid(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean voxel (i, j, k) of a mask that is not empty.

    >>> centroid(np.array([[[True, False, True]], [[True, False, True]]])).tolist()
    [0.5, 0.0, 1.0]
    """
    counts = [mask.sum(other_axes(axis), dtype=np.int64) for axis in range(3)]
    return np.array([own @ np.arange(len(own)) / own.sum() for own in counts])


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box that holds a mask (I, J, K), which is not empty.

    >>> bounding_box(np.array([[[False, True, True, False]]]))
    (slice(0, 1, None), slice(0, 1, None), slice(1, 3, None))
    """
    box = [slice(None)] * 3
    # The axis with the longest steps in memory first, so that the rest is read in its part alone.
    for axis in np.argsort([-abs(stride) for stride in mask.strides], kind="stable"):
        places = np.flatnonzero(mask[tuple(box)].any(other_axes(int(axis))))
        box[axis] = slice(int(places[0]), int(places[-1]) + 1)
    return tuple(box)


def line_ends(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the first and the last voxel of a mask on each line along one axis: its outermost voxels are among them.

    Args:
        mask: (I, J, K) mask.

    Returns:
        Nx3 voxels; those of lines with one voxel are there twice.

    >>> line_ends(np.array([[[False, True, True, True]]])).tolist()
    [[0, 0, 1], [0, 0, 3]]
    """
    axis = int(np.argmin(np.abs(mask.strides)))
    lines = np.moveaxis(mask, axis, -1)
    crossed = np.nonzero(lines.any(-1))
    ends = (lines.argmax(-1), lines.shape[-1] - 1 - lines[..., ::-1].argmax(-1))
    voxels = [np.stack([*crossed, end[crossed]], 1) for end in ends]
    # The axis of the lines goes back to its place.
    return np.insert(np.concatenate(voxels)[:, :-1], axis, np.concatenate(voxels)[:, -1], 1)
