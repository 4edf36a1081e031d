"""Tissues that Hounsfield units tell apart, whatever the organ beside them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.imaging import Volume, slice_axis
from causal_sam.text import canonical

# Ranges as in textbooks, a little wider for noise; soft tissues, vessels and bone overlap.
_HU = {"fat": (-200.0, -30.0), "subcutaneous fat": (-200.0, -30.0), "visceral fat": (-200.0, -30.0)}
_HU |= dict.fromkeys(("air", "gas", "bowel gas", "lung", "left lung", "right lung"), (-1100.0, -300.0))


def tissue_hu(name: str) -> tuple[float, float] | None:
    """Return the range of Hounsfield units of a tissue, by any of its names; None if they do not tell it.

    >>> tissue_hu("adipose tissue"), tissue_hu("spleen")
    ((-200.0, -30.0), None)
    """
    return _HU.get(canonical(name))


def part_in_range(
    volume: Volume, inside: NDArray[np.bool_], box: tuple[slice, ...], hu: tuple[float, float]
) -> NDArray[np.bool_]:
    """Return the part of a mask whose Hounsfield units are in a range, without lines as thin as its partial volumes.

    Args:
        volume: CT.
        inside: mask in a box.
        box: the box in the volume.
        hu: lowest and highest Hounsfield units.
    """
    found, axis = np.zeros_like(inside), slice_axis(volume)
    planes = (np.moveaxis(each, axis, 0) for each in (found, volume.array[box], inside))
    for own, image, here in zip(*planes, strict=True):
        smooth = cv2.medianBlur(np.ascontiguousarray(image, np.float32), 3)
        own[...] = here & (smooth >= hu[0]) & (smooth <= hu[1])
        own[...] = here & ndimage.binary_opening(own)
    return found
