"""Crop around a small structure, so that it fills enough of the model's input."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from causal_sam.prompting.slices import Crop, VolumeSlices

# Width of a crop relative to the structure: the model needs the surroundings to find where a structure ends.
MARGIN = 3.0
# Each level of zoom shows this share of the level before; few levels, so that embeddings are used again.
LEVEL = 2**-0.5
# A single level gains less than it costs to encode the slice again.
MIN_LEVELS = 2
# Beyond this many pixels of the input a voxel holds nothing more to see.
MAX_PIXELS_PER_VOXEL = 6.0
# Crops begin at multiples of this share of their side, for the same reason.
STEPS = 8


class Extent:
    """Rows and columns that hold a structure and its prompts, both ends inclusive; may be empty."""

    def __init__(self) -> None:
        self.top = self.left = 2**31
        self.bottom = self.right = -1

    def include(self, top: int, left: int, bottom: int, right: int) -> None:
        """Grow to hold a rectangle."""
        self.top, self.left = min(self.top, top), min(self.left, left)
        self.bottom, self.right = max(self.bottom, bottom), max(self.right, right)

    def include_mask(self, mask: NDArray[np.bool_]) -> None:
        """Grow to hold the voxels of a mask (rows, columns)."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            self.include(int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1]))


def crop_around(slices: VolumeSlices, extent: Extent, image_size: int) -> Crop | None:
    """Return the crop that shows a structure at the right size, or None if the whole slice does.

    Args:
        slices: whole.
        extent: extent of the structure and its prompts.
        image_size: side of the model's input in pixels.
    """
    row_mm, column_mm = slices.pixel_mm
    longest_mm = max(slices.rows * row_mm, slices.columns * column_mm)
    structure_mm = max((extent.bottom - extent.top + 1) * row_mm, (extent.right - extent.left + 1) * column_mm)
    smallest_mm = max(MARGIN * structure_mm, image_size / MAX_PIXELS_PER_VOXEL * max(row_mm, column_mm))
    levels = math.floor(math.log(smallest_mm / longest_mm) / math.log(LEVEL) + 1e-6)
    if levels < MIN_LEVELS:
        return None
    side_mm = longest_mm * LEVEL**levels
    top, rows = _span(extent.top, extent.bottom, side_mm / row_mm, slices.rows)
    left, columns = _span(extent.left, extent.right, side_mm / column_mm, slices.columns)
    return Crop(top, left, rows, columns)


def wider(slices: VolumeSlices, crop: Crop) -> Crop | None:
    """Return a crop of twice the side around ``crop``, or None where that is the whole slice."""
    top, rows = _span(crop.top, crop.top + crop.rows - 1, 2 * crop.rows, slices.rows)
    left, columns = _span(crop.left, crop.left + crop.columns - 1, 2 * crop.columns, slices.columns)
    return None if (rows, columns) == (slices.rows, slices.columns) else Crop(top, left, rows, columns)


def is_cut(mask: NDArray[np.bool_], crop: Crop, slices: VolumeSlices) -> bool:
    """Return True if a mask of a crop reaches an edge of the crop that is not an edge of the slice."""
    return bool(
        (crop.top > 0 and mask[0].any())
        or (crop.left > 0 and mask[:, 0].any())
        or (crop.top + crop.rows < slices.rows and mask[-1].any())
        or (crop.left + crop.columns < slices.columns and mask[:, -1].any())
    )


def _span(first: int, last: int, length: float, available: int) -> tuple[int, int]:
    """First voxel and number of voxels of about ``length`` around first..last, inside 0..available - 1."""
    count = min(available, math.ceil(length))
    step = max(1, count // STEPS)
    begin = round(((first + last + 1) / 2 - count / 2) / step) * step
    return min(max(begin, 0), available - count), count
