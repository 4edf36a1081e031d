"""Parts of a mask's surroundings in a patient direction: soft ramps over a structure, and cones beyond its end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging import Volume, other_axes
from causal_sam.imaging.directions import axis_towards, direction_vector, distances_along
from causal_sam.imaging.distances import distance_to
from causal_sam.imaging.shape import line_ends

# A direction ramps the region up between these shares of the structure's extent, counted from the opposite end.
RAMP_START, RAMP_END = 0.4, 0.65
# Widening of the cone beyond the end of a mask that grows in a direction, in mm per mm.
CONE_SLOPE = 0.5


def ramp_of_mask(
    direction: str, volume: Volume, inside: NDArray[np.bool_], box: tuple[slice, ...]
) -> NDArray[np.float32]:
    """Return the ramp of a direction in a box, for the mask in it."""
    return direction_ramp(direction, volume, bounds_along(direction, volume, inside, tuple(s.start for s in box)), box)


def bounds_along(
    direction: str, volume: Volume, mask: NDArray[np.bool_], start: tuple[int, ...]
) -> tuple[float, float]:
    """Return how far the two ends of a mask lie in a patient direction, in mm from voxel (0, 0, 0) of the volume.

    Args:
        direction: patient direction.
        volume: image.
        mask: mask of a part of the volume, not empty.
        start: first voxel of the part.
    """
    heights = (line_ends(mask) + start) @ (direction_vector(direction) @ volume.affine[:3, :3])
    return float(heights.min()), float(heights.max())


def direction_ramp(
    direction: str, volume: Volume, bounds: tuple[float, float], box: tuple[slice, ...]
) -> NDArray[np.float32]:
    """Return a smooth ramp from 0 to 1 along a patient direction about the middle of a structure with some bounds."""
    shape, start = (tuple(each) for each in zip(*((side.stop - side.start, side.start) for side in box), strict=True))
    heights, (low, high) = distances_along(volume.affine, direction, shape, start), bounds
    share = (heights - low) / max(high - low, 1e-6)
    ramp = np.clip((share - RAMP_START) / (RAMP_END - RAMP_START), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def direction_cone(direction: str, volume: Volume, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels in a direction from a mask, along the nearest axis; beyond the end of the mask, within a cone.

    Voxels beside the mask are excluded, even if they lie further in that direction than parts of it.
    """
    axis, sign = axis_towards(volume.affine, direction)
    across = [volume.spacing[n] for n in other_axes(axis)]
    reached = np.zeros_like(inside)
    ordered, nonempty = (np.moveaxis(part, axis, 0)[::sign] for part in (reached, inside))
    # Lateral distance in mm from each place to the edge of the cone, negative outside.
    left = np.full(nonempty.shape[1:], -np.inf, np.float32)
    for place in range(1, len(nonempty)):
        if nonempty[place - 1].any():
            left = np.maximum(left, -distance_to(nonempty[place - 1], across))
        if not nonempty[place].any():
            left += CONE_SLOPE * volume.spacing[axis]
        ordered[place] = left >= 0
    return reached
