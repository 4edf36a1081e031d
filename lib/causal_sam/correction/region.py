"""Region gate: the soft region in patient space in which an intervention may change a mask."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.correction.layers import CutEnd, find_cut_end, inner_layer, outer_layer
from causal_sam.errors import InputError
from causal_sam.imaging import Volume, intensity_window, other_axes, slice_axis
from causal_sam.imaging.directions import axis_towards, distances_along, patient_axes
from causal_sam.imaging.distances import distance_to
from causal_sam.imaging.shape import equivalent_radius
from causal_sam.notes.schema import Intervention

# Reach of an act without an extent in mm: share of the structure's extent in the direction of the note, or of the
# radius of a ball of equal volume, but at least some millimetres.
REACH_ALONG = {"slight": 0.15, "moderate": 0.4, "strong": 0.8}
REACH_AROUND = {"slight": 0.2, "moderate": 0.45, "strong": 0.9}
MIN_REACH_MM = {"slight": 2.0, "moderate": 4.0, "strong": 8.0}
# A direction ramps the region up between these shares of the structure's extent, counted from the opposite end.
RAMP_START, RAMP_END = 0.4, 0.65
# Widening of the cone beyond the end of a mask that grows in a direction, in mm per mm.
CONE_SLOPE = 0.5
# Share of the reach over which the region fades out.
FADE_SHARE = 0.3
# Distance in voxels from the border that smoothing may change.
ROUGHNESS_VOXELS = 2.0
# Deviation from the brightness of the structure's core, in robust standard deviations, of voxels that probably and that
# certainly belong to something else.
ATYPICAL, CLEARLY_ATYPICAL = 2.5, 4.0
# Standard deviation in voxels of the denoising filter before brightness is compared.
DENOISING_VOXELS = 0.7
# Viewers number sagittal slices from right to left, coronal ones from posterior to anterior and axial ones from
# superior to inferior, whatever the order of the file. Sign of the numbering along the axes right, anterior, superior.
VIEWER_SIGNS = (-1, 1, -1)
# Minimum depth of the core, as a share of the largest depth.
CORE_DEPTH = 0.5


class Region(NamedTuple):
    """A soft region of a volume; its weight is 0 outside the box.

    Attributes:
        box: box in the volume, in voxels.
        weight: float32 in [0, 1], of the shape of the box.
        is_exact: True if the act changes all voxels of the region, as one does that says by how many mm.
    """

    box: tuple[slice, ...]
    weight: NDArray[np.float32]
    is_exact: bool = False

    def in_volume(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the region as an array of the whole volume's shape."""
        whole = np.zeros(shape, np.float32)
        whole[self.box] = self.weight
        return whole


def region_gate(
    intervention: Intervention, volume: Volume, mask: NDArray[np.bool_], others: Mapping[str, NDArray[np.bool_]]
) -> Region:
    """Return the region in which an intervention may change a mask.

    Acts that add voxels get a band outside the mask, acts that remove voxels a band inside it, and the others both or
    parts of the mask. A direction restricts the region to that half of the structure, slices to themselves, and a
    neighbour to its surroundings. A mask that ends flat in the direction in which it grows is cut off there: it grows
    beyond that end and nowhere else. With an extent in mm, growth and shrinkage are exact: the region is the layer, or
    the missing end, of that size.

    Args:
        intervention: intervention to apply.
        volume: image.
        mask: (I, J, K) mask of the label, in the volume's voxel order, not empty.
        others: label -> mask, in the same voxel order. A neighbour without a mask is located by its brightness, which
            differs from that of the structure's core.

    Raises:
        InputError: the mask is empty or of another shape, or the slices are outside the volume.
    """
    if mask.shape != volume.shape:
        raise InputError(f"The mask has shape {mask.shape}, and the image {volume.shape}: they must be the same.")
    if not mask.any():
        raise InputError(f"The mask of {intervention.label} is empty: there is nothing to correct yet.")
    tight = ndimage.find_objects(mask.view(np.uint8))[0]
    reach = _reach(intervention, volume, mask[tight])
    box = _with_margin(tight, volume, reach)
    inside = mask[box]
    direction, is_growth = intervention.direction, intervention.action == "expand"
    end = find_cut_end(inside, volume, direction) if direction is not None and is_growth else None
    is_exact = intervention.extent_mm is not None and intervention.action in ("expand", "shrink")
    if is_exact:
        weight = _moved_border(intervention, volume, inside, reach, end)
    else:
        weight = _action_band(intervention, inside, volume, reach)
        if direction is not None and is_growth:
            weight *= _direction_cone(direction, volume, inside)
    if end is not None:
        weight *= end.beyond(inside.shape)
    elif direction is not None:
        weight *= _direction_ramp(direction, volume, inside, box)
    if intervention.near is not None:
        neighbour = others.get(intervention.near)
        if neighbour is not None and neighbour[box].any():
            weight *= _near(neighbour[box], volume.spacing, reach)
        elif intervention.action in ("exclude", "shrink", "remove"):
            weight *= _atypical(volume, inside, box)
    if intervention.slices is not None:
        weight *= _slice_selection(intervention.slices, volume, box)
    return Region(box, weight, is_exact)


def _moved_border(
    intervention: Intervention, volume: Volume, inside: NDArray[np.bool_], extent_mm: float, end: CutEnd | None
) -> NDArray[np.float32]:
    """Return the layer by which a border moves, or the missing end of a mask that is cut off."""
    if end is not None:
        return end.dome(inside, volume, extent_mm).astype(np.float32)
    layer = outer_layer if intervention.action == "expand" else inner_layer
    return layer(inside, volume, extent_mm, intervention.direction).astype(np.float32)


def kept_part(intervention: Intervention, volume: Volume, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the part of a volume in which an act `keep` protects its label: all of it, one side, or some slices.

    Args:
        intervention: act `keep`.
        volume: image.
        mask: (I, J, K) mask of the label, not empty.

    Raises:
        InputError: the slices are outside the volume.
    """
    box, part = tuple(slice(0, size) for size in mask.shape), np.ones(mask.shape, bool)
    if intervention.direction is not None:
        part &= _direction_ramp(intervention.direction, volume, mask, box) > 0.5
    if intervention.slices is not None:
        part &= _slice_selection(intervention.slices, volume, box) > 0
    return part


def _reach(intervention: Intervention, volume: Volume, mask: NDArray[np.bool_]) -> float:
    """Return the reach of an act in mm; the mask may be cropped to its bounding box."""
    if intervention.extent_mm is not None:
        return intervention.extent_mm
    least = max(MIN_REACH_MM[intervention.strength], 1.5 * max(volume.spacing))
    if intervention.direction is not None:
        heights = distances_along(volume.affine, intervention.direction, mask.shape)[mask]
        return max(least, REACH_ALONG[intervention.strength] * (heights.max() - heights.min()))
    return max(least, REACH_AROUND[intervention.strength] * equivalent_radius(mask, volume.spacing))


def _with_margin(tight: tuple[slice, ...], volume: Volume, reach: float) -> tuple[slice, ...]:
    """Extend the bounding box of a mask by the reach of an act."""
    sides = []
    for found, spacing, size in zip(tight, volume.spacing, volume.shape, strict=True):
        margin = math.ceil(reach / spacing) + 2
        sides.append(slice(max(0, found.start - margin), min(size, found.stop + margin)))
    return tuple(sides)


def _action_band(
    intervention: Intervention, inside: NDArray[np.bool_], volume: Volume, reach: float
) -> NDArray[np.float32]:
    """Return the region of the action alone: bands along the border, holes, or separate parts."""
    action, spacing = intervention.action, volume.spacing
    if action == "keep":
        return np.zeros(inside.shape, np.float32)
    if action == "fill":
        return _holes(inside, slice_axis(volume)).astype(np.float32)
    if action == "remove" and intervention.slices is not None:
        return inside.astype(np.float32)
    if action in ("remove", "keep_largest"):
        parts, _ = ndimage.label(inside, np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel())[1:]
        return (inside & (parts != 1 + int(np.argmax(sizes)))).astype(np.float32)
    if action == "exclude" and intervention.extent_mm is None:
        # The neighbour limits the region, not the depth inside the mask.
        return inside.astype(np.float32)
    if action == "smooth":
        reach = ROUGHNESS_VOXELS * max(spacing)
    band = np.zeros(inside.shape, np.float32)
    if action != "shrink":
        band += _fade_out(distance_to(inside, spacing), reach) * ~inside
    if action != "expand":
        band += _fade_out(distance_to(~inside, spacing), reach) * inside
    return band


def _holes(inside: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Return the closed holes in 3D; if there are none, the holes on the slices of acquisition."""
    closed = ndimage.binary_fill_holes(inside) & ~inside
    if closed.any():
        return closed
    in_plane = ndimage.generate_binary_structure(3, 1)
    ends = [slice(1, 2)] * 3
    ends[axis] = slice(None, None, 2)
    in_plane[tuple(ends)] = False
    return ndimage.binary_fill_holes(inside, in_plane) & ~inside


def _fade_out(distance: NDArray[np.float64], reach: float) -> NDArray[np.float32]:
    """Return weights that fall from 1 to 0 at the end of the reach."""
    return np.clip((reach - distance) / (FADE_SHARE * reach), 0, 1).astype(np.float32)


def _direction_ramp(
    direction: str, volume: Volume, inside: NDArray[np.bool_], box: tuple[slice, ...]
) -> NDArray[np.float32]:
    """Return a smooth ramp from 0 to 1 along a patient direction about the middle of the structure."""
    heights = distances_along(volume.affine, direction, inside.shape, tuple(side.start for side in box))
    low, high = heights[inside].min(), heights[inside].max()
    share = (heights - low) / max(high - low, 1e-6)
    ramp = np.clip((share - RAMP_START) / (RAMP_END - RAMP_START), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _direction_cone(direction: str, volume: Volume, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels in a direction from a mask, along the nearest axis; beyond the end of the mask, within a cone.

    Voxels beside the mask are excluded, even if they lie further in that direction than parts of it.
    """
    axis, sign = axis_towards(volume.affine, direction)
    across = [volume.spacing[n] for n in other_axes(axis)]
    reached = np.zeros_like(inside)
    ordered, nonempty = (np.moveaxis(part, axis, 0)[::sign] for part in (reached, inside))
    # Lateral distance in mm from each place to the edge of the cone, negative outside.
    left = np.full(nonempty.shape[1:], -np.inf, np.float32)
    for place in range(1, len(nonempty)):
        if nonempty[place - 1].any():
            left = np.maximum(left, -distance_to(nonempty[place - 1], across))
        if not nonempty[place].any():
            left += CONE_SLOPE * volume.spacing[axis]
        ordered[place] = left >= 0
    return reached


def _near(neighbour: NDArray[np.bool_], spacing: tuple[float, float, float], reach: float) -> NDArray[np.float32]:
    return _fade_out(distance_to(neighbour, spacing), reach)


def _atypical(volume: Volume, inside: NDArray[np.bool_], box: tuple[slice, ...]) -> NDArray[np.float32]:
    """Weight the voxels of a mask by their deviation from the brightness of its core, from 0 to 1."""
    shown = intensity_window(volume).apply(np.nan_to_num(volume.array[box]))
    # Smoothing is limited to the mask, so that the surroundings do not make its border atypical.
    share = ndimage.gaussian_filter(inside.astype(np.float32), DENOISING_VOXELS)
    image = ndimage.gaussian_filter(shown * inside, DENOISING_VOXELS) / np.maximum(share, 1e-3)
    depth = distance_to(~inside, volume.spacing)
    core = image[depth >= CORE_DEPTH * depth.max()]
    middle = np.median(core)
    spread = max(1.4826 * float(np.median(np.abs(core - middle))), 0.01)
    strangeness = np.clip((np.abs(image - middle) / spread - ATYPICAL) / (CLEARLY_ATYPICAL - ATYPICAL), 0, 1)
    # The median removes single atypical voxels, which are noise.
    return (ndimage.median_filter(strangeness, 3) * inside).astype(np.float32)


def _slice_selection(slices: tuple[int, int], volume: Volume, box: tuple[slice, ...]) -> NDArray[np.float32]:
    """Return 1 for the slices, numbered from 1 across the plane of acquisition as in OHIF, and 0 for others."""
    axis = slice_axis(volume)
    patient_axis, sign = patient_axes(volume.affine)[axis]
    first, last = slices
    if not 1 <= first <= last <= volume.shape[axis]:
        raise InputError(f"The image has slices 1 to {volume.shape[axis]}, and the note names {first} to {last}.")
    numbers = 1 + np.arange(box[axis].start, box[axis].stop)
    if sign != VIEWER_SIGNS[patient_axis]:
        numbers = 1 + volume.shape[axis] - numbers
    chosen = ((numbers >= first) & (numbers <= last)).astype(np.float32)
    return np.expand_dims(chosen, other_axes(axis))
