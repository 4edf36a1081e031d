"""Coarser grids of large boxes, for what need not be known at every voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ReducedGrid:
    """A grid whose cells are blocks of voxels.

    Attributes:
        shape: shape of the full grid in voxels.
        steps: voxels of a block along each axis; blocks at the ends may be cut off.
    """

    shape: tuple[int, ...]
    steps: tuple[int, ...]

    @classmethod
    def for_resolution(cls, shape: tuple[int, ...], spacing: Sequence[float], cell_mm: float) -> ReducedGrid:
        """Return the coarsest grid whose cells are at most so large, or as large as a voxel, along each axis.

        Args:
            shape: shape of the full grid in voxels.
            spacing: voxel spacing in mm along each axis.
            cell_mm: largest size of a cell in mm.

        >>> ReducedGrid.for_resolution((10, 10, 4), (0.8, 0.8, 5.0), 2.5).steps
        (3, 3, 1)
        """
        return cls(tuple(shape), tuple(max(1, int(cell_mm / own)) for own in spacing))

    @property
    def is_full(self) -> bool:
        """True if the cells are the voxels."""
        return max(self.steps) == 1

    def spacing(self, spacing: Sequence[float]) -> tuple[float, ...]:
        """Return the size of a cell in mm along each axis, for that of a voxel."""
        return tuple(step * own for step, own in zip(self.steps, spacing, strict=True))

    def affine(self, affine: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the affine from cells to mm, for that from voxels."""
        to_voxels = np.diag([*self.steps, 1.0])
        to_voxels[:3, 3] = (np.array(self.steps) - 1) / 2
        return affine @ to_voxels

    def reduced(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the cells that hold a voxel of a mask.

        >>> ReducedGrid((5,), (2,)).reduced(np.array([False, False, False, True, False])).tolist()
        [False, True, False]
        """
        for axis, step in enumerate(self.steps):
            if step > 1:
                mask = np.logical_or.reduceat(mask, np.arange(0, mask.shape[axis], step), axis)
        return mask

    def means(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return the mean of the values of each cell.

        >>> ReducedGrid((3,), (2,)).means(np.array([1.0, 2.0, 5.0])).tolist()
        [1.5, 5.0]
        """
        result: NDArray[np.float32] = values.astype(np.float32)
        for axis, step in enumerate(self.steps):
            if step > 1:
                starts = np.arange(0, self.shape[axis], step)
                sizes = np.diff(starts, append=self.shape[axis]).astype(np.float32)
                others = [n for n in range(values.ndim) if n != axis]
                result = (np.add.reduceat(result, starts, axis) / np.expand_dims(sizes, others)).astype(np.float32)
        return result

    def expanded(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Interpolate values of the cells linearly at all voxels.

        >>> ReducedGrid((1, 1, 4), (1, 1, 2)).expanded(np.array([[[0.0, 1.0]]])).tolist()
        [[[0.0, 0.25, 0.75, 1.0]]]
        """
        # In memory order, so that slices are contiguous.
        order = np.argsort([-abs(stride) for stride in values.strides], kind="stable")
        result = np.ascontiguousarray(values.transpose(order), np.float32)
        steps, shape = ([each[axis] for axis in order] for each in (self.steps, self.shape))
        if steps[0] > 1:
            result = _interpolated(result, steps[0], shape[0])
        if max(steps[1:]) > 1:
            result = np.stack([_enlarged(plane, steps[1:])[: shape[1], : shape[2]] for plane in result])
        return result.transpose(np.argsort(order))


def _interpolated(values: NDArray[np.float32], step: int, size: int) -> NDArray[np.float32]:
    """Interpolate between slices along the first axis."""
    places = np.clip((np.arange(size) + 0.5) / step - 0.5, 0, len(values) - 1)
    low = places.astype(np.intp)
    share = (places - low).astype(np.float32)[:, None, None]
    below = values[low]
    return below + share * (values[np.minimum(low + 1, len(values) - 1)] - below)


def _enlarged(plane: NDArray[np.float32], steps: Sequence[int]) -> NDArray[np.float32]:
    """Interpolate within a slice."""
    (rows, columns), (down, along) = plane.shape, steps
    size = (columns * along, rows * down)
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR), np.float32)
