"""A mask in numbers: how large it is, how far it reaches, in how many pieces it is, and what it touches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.errors import InputError, NotFoundError
from causal_sam.imaging import Volume
from causal_sam.imaging.directions import direction_vector, distances_along

AXES = {"left-right": "right", "posterior-anterior": "anterior", "inferior-superior": "superior"}


class Measures(TypedDict):
    """What a mask measures.

    Attributes:
        volume_ml: volume in millilitres.
        extent_mm: axis of the patient, such as "left-right" -> how far the mask reaches along it, in millimetres.
        components: number of parts that do not touch each other, not even at a corner.
        contact_mm2: neighbour -> area in square millimetres where both masks meet; those that it does not touch are
            left out.
    """

    volume_ml: float
    extent_mm: dict[str, float]
    components: int
    contact_mm2: dict[str, float]


def measure_mask(label: str, volume: Volume, masks: Mapping[str, NDArray[np.bool_]]) -> Measures:
    """Measure the mask of a label.

    Args:
        label: whose mask it is.
        volume: the image.
        masks: (I, J, K) of all labels by name, in the volume's voxel order.

    Raises:
        NotFoundError: there is no mask of the label.
        InputError: a mask has another shape than the volume.
    """
    if label not in masks:
        raise NotFoundError(f"There is no mask of {label!r}; there are masks of {', '.join(masks) or 'no label'}.")
    for name, other in masks.items():
        if other.shape != volume.shape:
            raise InputError(f"The mask of {name} has shape {other.shape}, and the image {volume.shape}.")
    mask = masks[label]
    if not mask.any():
        return Measures(volume_ml=0.0, extent_mm=dict.fromkeys(AXES, 0.0), components=0, contact_mm2={})
    tight = ndimage.find_objects(mask.view(np.uint8))[0]
    inside = mask[tight]
    # One voxel more on each side: the neighbours.
    box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in tight)
    touched = {name: _contact(mask[box], other[box], volume) for name, other in masks.items() if name != label}
    return Measures(
        volume_ml=round(float(inside.sum()) * volume.voxel_ml, 2),
        extent_mm={axis: round(_extent(inside, volume, towards), 1) for axis, towards in AXES.items()},
        components=int(ndimage.label(inside, np.ones((3, 3, 3)))[1]),
        contact_mm2={name: round(area, 1) for name, area in touched.items() if area},
    )


def _extent(inside: NDArray[np.bool_], volume: Volume, towards: str) -> float:
    """From the far side of the first voxel to that of the last, in a patient direction."""
    heights = distances_along(volume.affine, towards, inside.shape)[inside]
    voxel = np.abs(direction_vector(towards) @ volume.affine[:3, :3]).sum()
    return float(heights.max() - heights.min() + voxel)


def _contact(mask: NDArray[np.bool_], other: NDArray[np.bool_], volume: Volume) -> float:
    """Area of the faces between voxels of the mask and voxels of another that are not in the mask."""
    beside = other & ~mask
    area = 0.0
    for axis in range(3):
        one, two = (volume.affine[:3, side] for side in range(3) if side != axis)
        face = float(np.linalg.norm(np.cross(one, two)))
        low, high = ([slice(None)] * 3 for _ in range(2))
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        low, high = tuple(low), tuple(high)
        area += face * float((mask[low] & beside[high]).sum() + (mask[high] & beside[low]).sum())
    return area
