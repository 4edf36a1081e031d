"""Conversion between the slices of a volume and the inputs and outputs of the model."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from causal_sam.imaging import SliceFrame, Volume, intensity_window, other_axes, slice_axis

# Enough to tell any two real spacings apart, few enough to hide the rounding of an oblique affine: the size of the
# model's input must not depend on the order in which a file stores its voxels.
SPACING_DIGITS = 5

# Logit of a mask prompt made from a binary mask: the size of the models' own logits well inside a structure.
MASK_PROMPT_LOGIT = 8.0


class Crop(NamedTuple):
    """A part of the canonical slices: its first row and column, and how many of them."""

    top: int
    left: int
    rows: int
    columns: int

    @property
    def area(self) -> tuple[slice, slice]:
        """Index of the part in an array of rows x columns."""
        return slice(self.top, self.top + self.rows), slice(self.left, self.left + self.columns)


class VolumeSlices:
    """The canonical slices of one volume, whole or cropped, scaled for one model.

    All rows and columns are canonical (`SliceFrame`), so that the model sees the same picture of the same anatomy,
    however the file orders its voxels. Positions of voxels are their centres.

    Args:
        volume: any 3D volume.
        plane: "auto", "axial", "coronal" or "sagittal".
        image_size: side S of the model's square input in pixels.

    Attributes:
        axis: voxel axis perpendicular to the slices.
        crop: the part of the slices that the model sees.
        rows, columns: size of that part in voxels.
        height, width: size of that part in pixels of the input; pixels are square in mm and the longer side is S.
        image_size: side S of the model's input.
        geometry: numbers that, with the voxels, the axis and the window, determine every input image.
    """

    def __init__(self, volume: Volume, plane: str, image_size: int) -> None:
        self.volume = volume
        self.axis = slice_axis(volume, plane)
        self.frame = SliceFrame(volume.affine, volume.shape, self.axis)
        self.window = intensity_window(volume)
        self.image_size = image_size
        self._show(Crop(0, 0, *self.frame.shape_rc))

    def cropped(self, crop: Crop) -> VolumeSlices:
        """Return the same slices with only the rows and columns of ``crop``, filling the model's input."""
        part = copy.copy(self)
        part._show(crop)
        return part

    def scaled(self, image_size: int) -> VolumeSlices:
        """Return the whole slices, scaled for a model with another input size."""
        slices = copy.copy(self)
        slices.image_size = image_size
        slices._show(Crop(0, 0, *self.frame.shape_rc))
        return slices

    def _show(self, crop: Crop) -> None:
        self.crop = crop
        self.rows, self.columns = crop.rows, crop.columns
        row_mm, column_mm = self.pixel_mm
        longest_mm = max(self.rows * row_mm, self.columns * column_mm)
        self.height = max(1, round(self.rows * row_mm / longest_mm * self.image_size))
        self.width = max(1, round(self.columns * column_mm / longest_mm * self.image_size))
        self.geometry = (self.height, self.width, *crop, *self._orientation())

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Distance of neighbouring rows and of neighbouring columns in millimetre."""
        row_mm, column_mm = (float(f"{spacing:.{SPACING_DIGITS}g}") for spacing in self.frame.spacing_rc)
        return row_mm, column_mm

    def image(self, index: int) -> Tensor:
        """Model input of one slice: 1x3xhxw in [0, 1], the previous, this and the next slice as channels.

        At the ends of the volume the slice itself stands in for the neighbour that is missing.
        """
        previous, following = self.frame.neighbours(index)
        channels = [
            self.window.apply(np.ascontiguousarray(self.frame.extract(self.volume.array, number)[self.crop.area]))
            for number in (previous, index, following)
        ]
        image = torch.from_numpy(np.stack(channels)).unsqueeze(0)
        return F.interpolate(
            image, (self.height, self.width), mode="bilinear", align_corners=False, antialias=True
        ).clamp_(0.0, 1.0)

    def points(self, voxels: tuple[tuple[int, int, int], ...]) -> Tensor:
        """Voxels (i, j, k) -> Nx2 (x, y) in pixels of the input."""
        positions = [self.frame.to_slice(voxel) for voxel in voxels]
        return torch.tensor(
            [
                [self._pixel(column - self.crop.left, self._scale_x), self._pixel(row - self.crop.top, self._scale_y)]
                for _, row, column in positions
            ],
            dtype=torch.float32,
        ).reshape(-1, 2)

    def box(self, box: tuple[int, ...]) -> Tensor:
        """Box in voxels (ends inclusive) -> 4 numbers (x0, y0, x1, y1), first and last pixel of the input inside it."""
        first_row, first_column, last_row, last_column = self.extent(box)
        left, top = self.crop.left, self.crop.top
        x0, x1 = _pixels_between(first_column - left, last_column - left, self._scale_x)
        y0, y1 = _pixels_between(first_row - top, last_row - top, self._scale_y)
        return torch.tensor([x0, y0, x1, y1], dtype=torch.float32)

    def extent(self, box: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Box in voxels -> its first row, first column, last row and last column."""
        _, row_a, column_a = self.frame.to_slice(box[0::2])
        _, row_b, column_b = self.frame.to_slice(box[1::2])
        return min(row_a, row_b), min(column_a, column_b), max(row_a, row_b), max(column_a, column_b)

    def logits(self, low_res: Tensor, area: tuple[slice, slice] = (slice(None), slice(None))) -> NDArray[np.float32]:
        """Interpolate LxL logits, which cover the whole SxS input, at the centre of every voxel of the slice.

        Sampling at the voxels leaves the padding out exactly, also where its edge is between two logits.

        Args:
            low_res: LxL.
            area: rows and columns to interpolate at, by default all.
        """
        x = (torch.arange(self.columns, dtype=torch.float32)[area[1]] + 0.5) * (2 * self._scale_x / self.image_size) - 1
        y = (torch.arange(self.rows, dtype=torch.float32)[area[0]] + 0.5) * (2 * self._scale_y / self.image_size) - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
        sampled = F.grid_sample(
            low_res[None, None].float().cpu(), grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        return sampled[0, 0].numpy()

    def low_res_prompt(self, mask: NDArray[np.bool_], mask_size: int) -> NDArray[np.float32]:
        """Turn a mask that is not from the model into a mask prompt.

        Args:
            mask: bool (rows, columns), canonical.
            mask_size: side L of the model's mask grid.

        Returns:
            float32 LxL: `MASK_PROMPT_LOGIT` inside, minus that outside and in the padding, between them on the border.
        """
        return self.low_res((2 * np.asarray(mask, dtype=np.float32) - 1) * MASK_PROMPT_LOGIT, mask_size)

    def low_res(self, logits: NDArray[np.float32], mask_size: int) -> NDArray[np.float32]:
        """Scale logits of the slice to the model's mask grid: the inverse of `logits`, but for what is lost.

        Args:
            logits: float32 (rows, columns), canonical.
            mask_size: side L of the model's mask grid.

        Returns:
            float32 LxL, minus `MASK_PROMPT_LOGIT` in the padding.
        """
        size = [max(1, round(side * mask_size / self.image_size)) for side in (self.height, self.width)]
        scaled = F.interpolate(
            torch.from_numpy(np.ascontiguousarray(logits))[None, None],
            size,
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        prompt = np.full((mask_size, mask_size), -MASK_PROMPT_LOGIT, dtype=np.float32)
        prompt[: size[0], : size[1]] = scaled[0, 0].numpy()
        return prompt

    @property
    def _scale_x(self) -> float:
        return self.width / self.columns

    @property
    def _scale_y(self) -> float:
        return self.height / self.rows

    @staticmethod
    def _pixel(voxel: int, scale: float) -> float:
        """Centre of a voxel in pixels, where 0 is the centre of the first pixel."""
        return (voxel + 0.5) * scale - 0.5

    def _orientation(self) -> tuple[int, ...]:
        """Return where two corners of the first slice go, and which of its neighbours comes first."""
        far = [size - 1 for size in self.volume.shape]
        in_plane = other_axes(self.axis)[0]
        corner = [0, 0, 0]
        corner[in_plane] = far[in_plane]
        return (
            *self.frame.to_slice((0, 0, 0))[1:],
            *self.frame.to_slice(corner)[1:],
            *self.frame.neighbours(0),
        )


def _pixels_between(first: int, last: int, scale: float) -> tuple[float, float]:
    """First and last pixel that a run of voxels covers; the middle of the run if it is thinner than a pixel."""
    low, high = first * scale - 0.5, (last + 1) * scale - 0.5
    inset = min(0.5, (high - low) / 2)
    return low + inset, high - inset
