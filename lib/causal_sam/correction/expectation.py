"""Comparison of a mask with where the context of a volume expects its label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_sam.correction.guard import divide_by_direction
from causal_sam.correction.region import viewer_numbers
from causal_sam.errors import InputError
from causal_sam.imaging import DIRECTIONS, FILE_ORDER, Volume, axis_towards, slice_axis
from causal_sam.imaging.directions import direction_vector
from causal_sam.imaging.distances import distance_to
from causal_sam.imaging.shape import bounding_box, largest_part, line_ends
from causal_sam.notes.schema import Direction
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.volume.context import CoarseMask

# Distance in mm from a mask within which it is looked at, and thickness in mm of the layer for mean probabilities.
REACH_MM, LAYER_MM = 60.0, 10.0


def probability_beside(slices: VolumeSlices, mask: NDArray[np.bool_], expected: CoarseMask) -> dict[str, Any]:
    """Return how a mask compares with a coarse mask; see `causal_sam.notes.request.NoteContext`.

    Args:
        slices: slices of the volume.
        mask: (I, J, K) mask, not empty.
        expected: coarse mask of the same label.
    """
    volume = slices.volume
    box = tuple(
        slice(max(0, side.start - round(REACH_MM / step)), side.stop + round(REACH_MM / step))
        for side, step in zip(bounding_box(mask), volume.spacing, strict=True)
    )
    inside, probability = mask[box], _probabilities(slices, expected)[box]
    layer = ~inside & (distance_to(inside, volume.spacing, LAYER_MM) <= LAYER_MM)
    directions = divide_by_direction(volume, inside, np.argwhere(layer))
    found = probability[layer]
    return {
        "certainty": round(expected.certainty, 2),
        "probable_ml": _by_direction(volume, inside, ~inside & (probability > 0.5)),
        "improbable_ml": _by_direction(volume, inside, inside & (probability < 0.5)),
        "mean_probability": {
            name: round(float(found[directions == n].mean()), 2)
            for n, name in enumerate(DIRECTIONS)
            if (directions == n).any()
        },
    }


def plausible_end(
    slices: VolumeSlices, mask: NDArray[np.bool_], expected: CoarseMask, direction: Direction
) -> dict[str, Any]:
    """Return where a label plausibly ends in a direction; see `causal_sam.notes.request.NoteContext`.

    Args:
        slices: slices of the volume.
        mask: (I, J, K) mask, not empty.
        expected: coarse mask of the same label.
        direction: patient direction.

    Raises:
        InputError: the context expects the label nowhere.
    """
    volume = slices.volume
    probable = largest_part(_probabilities(slices, expected) > 0.5)
    if not probable.any():
        raise InputError("The context of the volume expects this label nowhere in the image.")
    towards = direction_vector(direction) @ volume.affine[:3, :3]
    ends = line_ends(probable)
    end = ends[np.argmax(ends @ towards)]
    beyond = float(end @ towards - (line_ends(mask) @ towards).max())
    found: dict[str, Any] = {"beyond_mask_mm": round(beyond, 1)}
    axis = slice_axis(volume)
    if axis_towards(volume.affine, direction)[0] == axis:
        found["slice"] = int(viewer_numbers(volume)[end[axis]])
    return found


def _probabilities(slices: VolumeSlices, expected: CoarseMask) -> NDArray[np.float32]:
    """Return the probability of a coarse mask at each voxel (I, J, K)."""
    frame = slices.frame
    probability = np.zeros(frame.volume_shape, np.float32, order=FILE_ORDER)
    for index in range(frame.count):
        frame.insert(1 / (1 + np.exp(-expected.slice_logits(index))), probability, index)
    return probability


def _by_direction(volume: Volume, mask: NDArray[np.bool_], part: NDArray[np.bool_]) -> dict[str, float]:
    """Return the volume of a part in ml by its direction from a mask; directions with nothing are left out."""
    counts = np.bincount(divide_by_direction(volume, mask, np.argwhere(part)), minlength=len(DIRECTIONS))
    return {name: round(float(n) * volume.voxel_ml, 2) for name, n in zip(DIRECTIONS, counts, strict=True) if n}
