"""Prompts that a correction implies: a user who corrects one part accepts the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging import SliceFrame, other_axes
from causal_sam.imaging.distances import distance_to
from causal_sam.prompting.prompts import Prompts, Voxel
from causal_sam.prompting.slices import VolumeSlices

# A background click deeper in a mask than this share of its depth means that all of it is wrong. Rather high: what is
# kept by mistake costs a click more, what is lost is lost on all slices that follow.
MIDDLE = 0.9


def with_implied_foreground(slices: VolumeSlices, index: int, prompts: Prompts, mask: NDArray[np.bool_]) -> Prompts:
    """Add what background clicks alone leave unsaid: that the rest of the mask is right.

    A click near the border takes a part away; without a word about the rest the model may take the whole for wrong. A
    click in the middle of the mask means just that, and nothing is added.

    Args:
        slices: slices of the volume.
        index: index of the slice.
        prompts: background clicks alone.
        mask: bool (rows, columns), canonical, that they correct.
    """
    if not mask.any():
        return prompts
    depth = distance_to(~np.pad(mask, 1))[1:-1, 1:-1]
    clicked = np.zeros(mask.shape, bool)
    for voxel in prompts.background:
        _, row, column = slices.frame.to_slice(voxel)
        if depth[row, column] > MIDDLE * depth.max():
            return prompts
        clicked[row, column] = True
    safe = np.minimum(depth, distance_to(clicked))
    implied = slices.frame.to_voxel(index, *divmod(int(safe.argmax()), safe.shape[1]))
    return Prompts((implied,), prompts.background, None)


def implied_place(frame: SliceFrame, mask: NDArray[np.bool_], background: Sequence[Voxel]) -> Voxel:
    """Return a voxel of a mask in 3D that corrections elsewhere imply: deep in its largest slice, away from the clicks.

    Args:
        frame: slices of the volume.
        mask: (I, J, K) mask, not empty.
        background: voxels (i, j, k) outside of the structure.
    """
    index = int(np.argmax(mask.sum(axis=other_axes(frame.axis))))
    here = frame.extract(mask, index)
    clicked = np.zeros(here.shape, bool)
    for _, row, column in map(frame.to_slice, background):
        clicked[row, column] = True
    safe = np.minimum(distance_to(~np.pad(here, 1))[1:-1, 1:-1], distance_to(clicked))
    return frame.to_voxel(index, *divmod(int(safe.argmax()), safe.shape[1]))
