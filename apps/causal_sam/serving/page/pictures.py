"""Small pictures of slices, with masks over them."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from causal_sam.imaging import SliceFrame, Volume, intensity_window, slice_axis
from serving.data.label_colors import Color

OPACITY = 0.45


def picture_of_slice(
    volume: Volume, index: int, side: int, masks: Iterable[tuple[NDArray[np.bool_], Color]] = ()
) -> bytes:
    """Return a PNG of one slice, in the plane of the acquisition, as the viewers turn it.

    Args:
        volume: the image.
        index: voxel index along the slice axis.
        side: longer side in pixels, which are square in mm.
        masks: masks (I, J, K) and their colours, the last one on top.
    """
    axis = slice_axis(volume)
    frame = SliceFrame(volume.affine, volume.shape, axis)
    grey = 255 * intensity_window(volume).apply(np.ascontiguousarray(frame.extract(volume.array, index)))
    pixels = grey.astype(np.uint8)
    for mask, colour in masks:
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=-1)
        inside = frame.extract(mask, index)
        pixels[inside] = ((1 - OPACITY) * pixels[inside] + OPACITY * np.array(colour)).astype(np.uint8)
    (row_mm, column_mm), (rows, columns) = frame.spacing_rc, pixels.shape[:2]
    scale = side / max(rows * row_mm, columns * column_mm)
    size = (max(1, round(columns * column_mm * scale)), max(1, round(rows * row_mm * scale)))
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).save(file, "PNG")
    return file.getvalue()
