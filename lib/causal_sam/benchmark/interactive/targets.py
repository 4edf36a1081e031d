"""Structures to segment, on single slices and as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging import SliceFrame, Volume, nonempty_slices, other_axes, slice_axis
from causal_sam.prompting.prompts import Box, Strokes


@dataclass(frozen=True)
class Target:
    """A structure to segment, on one slice or as a whole.

    Attributes:
        group: data set and modality.
        case: name of the case, with its sequence.
        structure: name of the structure.
        index: voxel index of the slice; None for the whole structure.
        truth: bool; rows x columns of the slice, canonical, or the shape of the volume.
        strokes: what a person drew for the whole structure; None if nobody drew.
    """

    group: str
    case: str
    structure: str
    index: int | None
    truth: NDArray[np.bool_]
    strokes: Strokes | None = None


def slice_targets(
    group: str,
    case: str,
    volume: Volume,
    structures: Mapping[str, NDArray[np.bool_]],
    max_slices: int,
    min_voxels: int,
) -> Iterator[Target]:
    """Yield the slices of each structure, in the plane of acquisition.

    Args:
        group: group of the targets.
        case: case of the targets.
        volume: image.
        structures: name -> mask in the volume's voxel order.
        max_slices: number of slices of a structure, evenly spaced; 0 for all.
        min_voxels: minimum area of the structure on a slice, in pixels.
    """
    axis = slice_axis(volume)
    frame = SliceFrame(volume.affine, volume.shape, axis)
    for name, mask in structures.items():
        areas = mask.sum(axis=other_axes(axis))
        indices = np.flatnonzero(areas >= max(min_voxels, 1))
        if max_slices and len(indices) > max_slices:
            indices = indices[np.linspace(0, len(indices) - 1, max_slices).round().astype(int)]
        for index in indices.tolist():
            yield Target(group, case, name, index, np.ascontiguousarray(frame.extract(mask, index)))


def volume_targets(
    group: str,
    case: str,
    structures: Mapping[str, NDArray[np.bool_]],
    min_voxels: int,
    scribbles: Mapping[str, Strokes] | None = None,
) -> Iterator[Target]:
    """Yield each structure as a whole; see `slice_targets`.

    Args:
        group: group of the targets.
        case: case of the targets.
        structures: name -> mask in the volume's voxel order.
        min_voxels: minimum size of the structure in voxels.
        scribbles: name -> what a person drew.
    """
    for name, mask in structures.items():
        if mask.sum() >= max(min_voxels, 1):
            yield Target(group, case, name, None, mask, (scribbles or {}).get(name))


def middle_box(truth: NDArray[np.bool_], axis: int) -> Box:
    """Return the bounding box of a structure on its middle slice, that is, the slice of its middle voxel.

    Args:
        truth: (I, J, K), not empty.
        axis: voxel axis perpendicular to the slices.

    Returns:
        (i0, i1, j0, j1, k0, k1), ends inclusive; one slice thick.
    """
    counts = truth.sum(axis=other_axes(axis))
    middle = int(np.searchsorted(np.cumsum(counts), counts.sum() // 2, side="right"))
    plane = np.zeros_like(truth)
    place = tuple(middle if a == axis else slice(None) for a in range(3))
    plane[place] = truth[place]
    return tuple(end(nonempty_slices(plane, a)) for a in range(3) for end in (min, max))
