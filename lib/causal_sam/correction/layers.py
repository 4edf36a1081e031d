"""Layers of a given thickness on the border of a mask, and the ends of masks that are cut off, in mm of the patient."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from causal_sam.imaging import Volume, other_axes
from causal_sam.imaging.directions import axis_towards, direction_vector
from causal_sam.imaging.distances import distance_to

# The last layer of a ball that is N voxels high covers about 2 / N of its cross-section. A mask whose last layer covers
# more than that by this share ends flat.
FLATNESS = 0.1

Offset = tuple[int, ...]


class CutEnd(NamedTuple):
    """The flat end of a mask.

    Attributes:
        axis: voxel axis that crosses the end.
        sign: direction along the axis in which the mask ends, 1 or -1.
        place: index of the mask's last layer along the axis.
    """

    axis: int
    sign: int
    place: int

    def beyond(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return the voxels beyond the end, in an array that can be broadcast to a shape."""
        steps = self.sign * (np.arange(shape[self.axis]) - self.place)
        return np.expand_dims(steps > 0, other_axes(self.axis))

    def dome(self, mask: NDArray[np.bool_], volume: Volume, height: float) -> NDArray[np.bool_]:
        """Return a round end on the mask's last layer.

        Args:
            mask: (I, J, K) mask.
            volume: image.
            height: height of the dome in mm.
        """
        last = np.moveaxis(mask, self.axis, 0)[self.place]
        depth = distance_to(~last, [volume.spacing[n] for n in other_axes(self.axis)])
        steps = self.sign * (np.arange(mask.shape[self.axis]) - self.place)
        # Height of the middle of each layer above the end, as a share; the border of the end is half a step above it.
        share = (steps - 0.5) * volume.spacing[self.axis] / height
        share = np.expand_dims(np.where(steps > 0, share, np.inf), other_axes(self.axis))
        narrowing = 1 - np.sqrt(np.clip(1 - share**2, 0, None))
        return (share < 1) & (np.expand_dims(depth, self.axis) > narrowing * depth.max())


def find_cut_end(mask: NDArray[np.bool_], volume: Volume, direction: str) -> CutEnd | None:
    """Return the end of a mask in a patient direction if it is flat, as after a cut; None if it is round.

    Args:
        mask: (I, J, K) mask, not empty.
        volume: image.
        direction: patient direction.
    """
    axis, sign = axis_towards(volume.affine, direction)
    across = other_axes(axis)
    places = np.flatnonzero(mask.any(axis=across))
    place = int(places[-1] if sign > 0 else places[0])
    share = mask.take(place, axis).sum() / mask.any(axis=axis).sum()
    height = places[-1] - places[0] + 1
    return CutEnd(axis, sign, place) if share > 2 / height + FLATNESS else None


def outer_layer(mask: NDArray[np.bool_], volume: Volume, thickness: float, direction: str | None) -> NDArray[np.bool_]:
    """Return the voxels that a mask gains if its border moves outwards.

    A voxel is gained if the border passes its centre, so the thickness is rounded to voxels.

    Args:
        mask: (I, J, K) mask, or a crop of it with room for the layer.
        volume: image.
        thickness: distance in mm by which the border moves.
        direction: patient direction in which the border moves, also on oblique grids; None for all directions.
    """
    if not mask.any():
        return np.zeros_like(mask)
    if direction is None:
        return _layer_around(mask, volume, thickness)
    gained = np.zeros_like(mask)
    for offset in _offsets(volume, thickness, direction):
        to, source = _overlap(mask.shape, offset)
        gained[to] |= mask[source]
    return gained & ~mask


def inner_layer(mask: NDArray[np.bool_], volume: Volume, thickness: float, direction: str | None) -> NDArray[np.bool_]:
    """Return the voxels that a mask loses if its border moves inwards; see `outer_layer`.

    Args:
        mask: (I, J, K) mask, or a crop of it that shows some of its outside on each side.
        volume: image.
        thickness: distance in mm by which the border moves.
        direction: patient direction that the moving part of the border faces; None for all of the border.
    """
    if direction is None:
        return outer_layer(~mask, volume, thickness, None)
    lost = np.zeros_like(mask)
    for offset in _offsets(volume, thickness, direction):
        source, to = _overlap(mask.shape, offset)
        lost[to] |= ~mask[source]
    return lost & mask


def _layer_around(mask: NDArray[np.bool_], volume: Volume, thickness: float) -> NDArray[np.bool_]:
    """Return the voxels outside a mask, not empty, whose centres are nearer to its border than a thickness in mm."""
    spacing = np.array(volume.spacing)
    voxel = float(np.linalg.norm(spacing))
    distance = distance_to(mask, volume.spacing, thickness + voxel)
    layer = ~mask & (distance < thickness)
    # From the centre of a voxel, the border lies nearer than the centre of the nearest voxel of the mask by half of one
    # step between them.
    unsure = np.argwhere(~mask & (distance >= thickness) & (distance < thickness + voxel / 2))
    if len(unsure):
        rim = np.argwhere(mask & ~ndimage.binary_erosion(mask, border_value=1))
        lengths, nearest = KDTree(rim * spacing).query(unsure * spacing)
        steps = np.abs(rim[nearest] - unsure).max(1)
        layer[tuple(unsure[lengths * (1 - 0.5 / steps) < thickness].T)] = True
    return layer


def _offsets(volume: Volume, thickness: float, direction: str) -> list[Offset]:
    """Return the voxels on the way from voxel (0, 0, 0) in a patient direction, without this voxel itself."""
    voxels_per_mm = np.linalg.inv(volume.affine[:3, :3]) @ direction_vector(direction)
    lengths = np.arange(0, thickness, 0.5 / np.abs(voxels_per_mm).max())
    places = np.rint(np.append(lengths, thickness)[:, None] * voxels_per_mm).astype(int)
    return [offset for offset in dict.fromkeys(map(tuple, places.tolist())) if any(offset)]


def _overlap(shape: tuple[int, ...], offset: Offset) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the part of an array that stays in it when moved by an offset: after the move, and before."""
    pairs = list(zip(offset, shape, strict=True))
    after = tuple(slice(max(0, step), max(0, size + min(0, step))) for step, size in pairs)
    before = tuple(slice(max(0, -step), max(0, size - max(0, step))) for step, size in pairs)
    return after, before
