"""Measurements of a mask: volume, extents, components and contact with other masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.errors import InputError, NotFoundError
from causal_sam.imaging import Volume, other_axes
from causal_sam.imaging.directions import direction_vector, distances_along
from causal_sam.imaging.shape import bounding_box

AXES = {"left-right": "right", "posterior-anterior": "anterior", "inferior-superior": "superior"}


class Measures(TypedDict):
    """Measurements of a mask.

    Attributes:
        volume_ml: volume in ml.
        extent_mm: patient axis, such as "left-right" -> extent in mm.
        components: number of 26-connected components.
        contact_mm2: label -> contact area in mm²; labels without contact are omitted.
    """

    volume_ml: float
    extent_mm: dict[str, float]
    components: int
    contact_mm2: dict[str, float]


def measure_mask(label: str, volume: Volume, masks: Mapping[str, NDArray[np.bool_]]) -> Measures:
    """Measure the mask of a label.

    Args:
        label: name of the label.
        volume: image.
        masks: label -> (I, J, K) mask, in the volume's voxel order.

    Raises:
        NotFoundError: the label has no mask.
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
    tight = bounding_box(mask)
    inside = mask[tight]
    # One more voxel on each side includes the neighbours.
    box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in tight)
    touched = {name: _contact(mask[box], other[box], volume) for name, other in masks.items() if name != label}
    return Measures(
        volume_ml=round(float(inside.sum()) * volume.voxel_ml, 2),
        extent_mm={axis: round(_extent(inside, volume, towards), 1) for axis, towards in AXES.items()},
        components=int(ndimage.label(inside, np.ones((3, 3, 3)))[1]),
        contact_mm2={name: round(area, 1) for name, area in touched.items() if area},
    )


def _extent(inside: NDArray[np.bool_], volume: Volume, towards: str) -> float:
    """Return the extent in mm along a patient direction, including the size of the outermost voxels."""
    heights = distances_along(volume.affine, towards, inside.shape)[inside]
    voxel = np.abs(direction_vector(towards) @ volume.affine[:3, :3]).sum()
    return float(heights.max() - heights.min() + voxel)


def _contact(mask: NDArray[np.bool_], other: NDArray[np.bool_], volume: Volume) -> float:
    """Return the area in mm² of voxel faces between a mask and the part of another mask outside it."""
    beside = other & ~mask
    area = 0.0
    for axis in range(3):
        one, two = (volume.affine[:3, side] for side in other_axes(axis))
        face = float(np.linalg.norm(np.cross(one, two)))
        low, high = (
            tuple(cut if side == axis else slice(None) for side in range(3)) for cut in (np.s_[:-1], np.s_[1:])
        )
        area += face * float((mask[low] & beside[high]).sum() + (mask[high] & beside[low]).sum())
    return area
