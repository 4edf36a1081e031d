"""The coarse grid of a volume: which slices the context network sees, and how voxels and cells correspond.

    slices of the file       0 1 2 3 4 5 6 7 8 9        every n-th slice, so that their step is at most about one cell
    slices of the grid         0   1   2   3   4

Rows and columns are those of `SliceFrame`, slices its display order (to superior, anterior, left), so that the network
sees the same anatomy the same way, in whatever order a file stores it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from causal_sam.imaging import SliceFrame
from causal_sam.volume.network import FEATURE_STRIDE, GridGeometry, padded_side

STRIDES = (4, 2)
MAX_SLICES = 96
# A slice belongs to a grid as far as this many slices of the grid beyond its ends.
REACH = 0.75


@dataclass(frozen=True)
class SliceGeometry:
    """Canonical slices of a volume and their scale in the encoder's input.

    Attributes:
        frame: canonical slices.
        height, width: size of a slice in pixels of the encoder's input.
    """

    frame: SliceFrame
    height: int
    width: int

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Size of a pixel of the encoder's input in mm: rows, columns."""
        (rows, columns), (row_mm, column_mm) = self.frame.shape_rc, self.frame.spacing_rc
        return rows * row_mm / self.height, columns * column_mm / self.width

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width in pixels of the encoder's input, up to whole cells of its features."""
        return padded_side(self.height), padded_side(self.width)

    def every_nth(self) -> tuple[int, ...]:
        """Return the indices of the slices of the coarse grid, in display order."""
        cell_mm = STRIDES[0] * min(self.pixel_mm)
        count = self.frame.count
        step = max(1, int(cell_mm / self.frame.spacing + 0.1), -(-count // MAX_SLICES))
        step = min(step, max(1, count - 1))  # of a few thin slices, both ends
        order = self.display_order()
        return tuple(order[((count - 1) % step) // 2 :: step])

    def display_order(self) -> list[int]:
        """Return all indices, inferior, posterior or right slices first."""
        order = list(range(self.frame.count))
        return order if self.frame.neighbours(0)[0] == 0 else order[::-1]


@dataclass(frozen=True)
class Grid:
    """A coarse grid over a part of the canonical slices.

    Attributes:
        slices: geometry of the slices.
        indices: voxel indices of its slices, in display order, evenly spaced.
        stride: pixels of the encoder's input per cell.
        rows, columns: first cell of stride 8, and the one after the last.
    """

    slices: SliceGeometry
    indices: tuple[int, ...]
    stride: int
    rows: tuple[int, int]
    columns: tuple[int, int]

    @classmethod
    def whole(cls, slices: SliceGeometry) -> Grid:
        """Return the coarse grid of a whole volume."""
        rows, columns = (side // FEATURE_STRIDE for side in slices.padded)
        return cls(slices, slices.every_nth(), STRIDES[0], (0, rows), (0, columns))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns in cells."""
        scale = FEATURE_STRIDE // self.stride
        rows, columns = (last - first for first, last in (self.rows, self.columns))
        return len(self.indices), rows * scale, columns * scale

    @property
    def geometry(self) -> GridGeometry:
        """Place and size for the network."""
        frame, (row_mm, column_mm) = self.slices.frame, self.slices.pixel_mm
        order = self.slices.display_order()
        rows, columns = ((first * FEATURE_STRIDE, last * FEATURE_STRIDE) for first, last in (self.rows, self.columns))
        return GridGeometry.of_part(
            ((order.index(self.indices[0]), order.index(self.indices[-1]) + 1), rows, columns),
            (frame.count, *self.slices.padded),
            (frame.spacing, row_mm, column_mm),
            (abs(self._step) * frame.spacing, self.stride * row_mm, self.stride * column_mm),
            frame.plane,
        )

    @property
    def _step(self) -> int:
        """Difference of the indices of neighbouring slices."""
        return self.indices[1] - self.indices[0] if len(self.indices) > 1 else 1

    def slice_position(self, index: int) -> float:
        """Return the position of a slice in cells; 0 is the first slice of the grid."""
        return (index - self.indices[0]) / self._step

    def covers(self, index: int) -> bool:
        """Return True if the grid has an answer for a slice."""
        return -REACH <= self.slice_position(index) <= len(self.indices) - 1 + REACH

    def plane(self, logits: Tensor, index: int) -> Tensor:
        """Interpolate logits ZxYxX at a slice that the grid covers: YxX."""
        last = len(logits) - 1
        z = min(max(self.slice_position(index), 0.0), float(last))
        low = int(z)
        return torch.lerp(logits[low].float(), logits[min(low + 1, last)].float(), z - low)

    def positions(self, voxels: Sequence[Sequence[int]]) -> Tensor:
        """Return Nx3 positions (slice, row, column) in cells of voxels (i, j, k); 0 is the centre of the first cell."""
        found = [self._position(*self.slices.frame.to_slice(voxel)) for voxel in voxels]
        return torch.tensor(found, dtype=torch.float32).reshape(-1, 3)

    def holds(self, positions: Tensor) -> Tensor:
        """Return for each of the positions Nx3 whether the grid covers it: N bool."""
        reach = torch.tensor([REACH, 0.5, 0.5])
        return ((positions > -reach) & (positions < torch.tensor(self.shape) - 1 + reach)).all(1)

    def _position(self, index: int, row: float, column: float) -> tuple[float, float, float]:
        y, x = self._scales
        return (
            self.slice_position(index),
            (row + 0.5) * y - 0.5 - self.rows[0] * (FEATURE_STRIDE // self.stride),
            (column + 0.5) * x - 0.5 - self.columns[0] * (FEATURE_STRIDE // self.stride),
        )

    @property
    def _scales(self) -> tuple[float, float]:
        """Cells per voxel along rows and columns."""
        rows, columns = self.slices.frame.shape_rc
        return self.slices.height / rows / self.stride, self.slices.width / columns / self.stride

    def from_voxels(self, mask: NDArray[np.bool_]) -> Tensor:
        """Return ZxYxX, the share of each cell's slice that a mask (I, J, K) covers."""
        frame = self.slices.frame
        planes = np.stack([frame.extract(mask, index) for index in self.indices]).astype(np.float32)
        size = (self.slices.height, self.slices.width)
        cells = F.interpolate(torch.from_numpy(planes)[:, None], size, mode="nearest-exact")
        rows, columns = self.slices.padded
        cells = F.pad(cells, (0, columns - size[1], 0, rows - size[0]))
        cells = cells[
            :,
            :,
            self.rows[0] * FEATURE_STRIDE : self.rows[1] * FEATURE_STRIDE,
            self.columns[0] * FEATURE_STRIDE : self.columns[1] * FEATURE_STRIDE,
        ]
        return F.avg_pool2d(cells, self.stride)[:, 0]

    def slice_logits(
        self,
        logits: Tensor,
        index: int,
        outside: float,
        area: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> NDArray[np.float32]:
        """Interpolate logits at every voxel of a slice, or of a part of it.

        Args:
            logits: ZxYxX.
            index: voxel index of the slice.
            outside: logit of voxels outside the grid.
            area: rows and columns of the part, by default all.

        Returns:
            float32 (rows, columns), canonical.
        """
        rows, columns = (np.arange(n)[part] for n, part in zip(self.slices.frame.shape_rc, area, strict=True))
        result = np.full((len(rows), len(columns)), outside, np.float32)
        if not self.covers(index):
            return result
        plane = self.plane(logits, index)
        y, x = (np.array([self._position(0, n, n)[axis] for n in (0, 1)]) for axis in (1, 2))
        ys, xs = (first + (second - first) * places for (first, second), places in ((y, rows), (x, columns)))
        height, width = plane.shape
        inside_y, inside_x = (
            np.flatnonzero((at >= -0.5) & (at <= side - 0.5)) for at, side in ((ys, height), (xs, width))
        )
        if not len(inside_y) or not len(inside_x):
            return result
        where = torch.stack(
            torch.meshgrid(
                torch.from_numpy((xs[inside_x] + 0.5) * 2 / width - 1).float(),
                torch.from_numpy((ys[inside_y] + 0.5) * 2 / height - 1).float(),
                indexing="xy",
            ),
            dim=-1,
        )
        sampled = F.grid_sample(plane[None, None], where[None], padding_mode="border", align_corners=False)[0, 0]
        result[inside_y[0] : inside_y[-1] + 1, inside_x[0] : inside_x[-1] + 1] = sampled.numpy()
        return result

    def resampled(self, logits: Tensor, finer: Grid) -> Tensor:
        """Interpolate logits ZxYxX of this grid at the cells of itself or of a finer one that lies inside it."""
        first = self.indices.index(finer.indices[0])
        scale, ratio = FEATURE_STRIDE // self.stride, self.stride // finer.stride
        rows, columns = (
            slice((part[0] - own[0]) * scale, (part[1] - own[0]) * scale)
            for part, own in ((finer.rows, self.rows), (finer.columns, self.columns))
        )
        part = logits[first : first + len(finer.indices), rows, columns].float()
        return F.interpolate(part[:, None], scale_factor=ratio, mode="bilinear", align_corners=False)[:, 0]

    def is_cut(self, mask: Tensor, wider: Grid) -> bool:
        """Return True if a mask ZxYxX of this grid reaches an end of it where a wider grid goes on."""
        ends = (
            (0, 0, self.indices[0] != wider.indices[0]),
            (0, -1, self.indices[-1] != wider.indices[-1]),
            (1, 0, self.rows[0] > wider.rows[0]),
            (1, -1, self.rows[1] < wider.rows[1]),
            (2, 0, self.columns[0] > wider.columns[0]),
            (2, -1, self.columns[1] < wider.columns[1]),
        )
        return any(goes_on and bool(mask.select(axis, end).any()) for axis, end, goes_on in ends)

    def around(self, low: Tensor, high: Tensor, indices: tuple[int, ...]) -> Grid:
        """Return the finer grid over a part of this one.

        Args:
            low: first position (slice, row, column) of the part in cells of this grid.
            high: last position.
            indices: voxel indices of the slices of the finer grid.
        """
        scale = FEATURE_STRIDE // self.stride
        parts = []
        for axis, part in ((1, self.rows), (2, self.columns)):
            first, last = (part[0] + int(np.floor(float(end[axis]) / scale)) for end in (low, high))
            parts.append((max(part[0], first), min(part[1], last + 1)))
        return Grid(self.slices, indices, STRIDES[1], parts[0], parts[1])
