"""Where an intervention may change a mask: a soft region in patient space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.errors import InputError
from causal_sam.imaging import Volume, intensity_window, other_axes, slice_axis
from causal_sam.imaging.directions import axis_towards, distances_along, patient_axes
from causal_sam.imaging.distances import distance_to
from causal_sam.notes.schema import Intervention

# How far an act reaches where the note gives no number: shares of the structure's extent in the direction that the note
# names, or of the radius of a ball of its volume; never less than some millimetres.
REACH_ALONG = {"slight": 0.15, "moderate": 0.4, "strong": 0.8}
REACH_AROUND = {"slight": 0.2, "moderate": 0.45, "strong": 0.9}
MIN_REACH_MM = {"slight": 2.0, "moderate": 4.0, "strong": 8.0}
# The region begins between these shares of the structure's extent, counted from its far end in the named direction.
DIRECTED_FROM, DIRECTED_TO = 0.4, 0.65
# Millimetres by which what is grown in a direction may become wider for each millimetre beyond the end of the mask.
OPENING = 0.5
# Share of the reach over which the region fades out.
FADE = 0.3
# Pixels around a border that smoothing may change.
ROUGHNESS_VOXELS = 2.0
# What lies this many robust standard deviations from the brightness of the structure's core is likely something else.
FOREIGN, SURELY_FOREIGN = 2.5, 4.0
# Standard deviation of what calms noise before brightness is compared, in voxels.
CALM = 0.7
# Viewers count sagittal slices from right to left, coronal ones from back to front, axial ones from head to foot,
# whatever the order of the file: for each patient axis (right, anterior, superior) the sign in which they count.
COUNTED_TOWARDS = (-1, 1, -1)
# Depth of the core, as a share of the deepest point's.
CORE = 0.5


class Region(NamedTuple):
    """A soft region of a volume; outside of its box there is nothing of it.

    Attributes:
        box: of the volume, in voxels.
        weight: float32 of the box's shape, in [0, 1].
    """

    box: tuple[slice, slice, slice]
    weight: NDArray[np.float32]

    def in_volume(self, shape: tuple[int, int, int]) -> NDArray[np.float32]:
        """Return the region as an array of the whole volume's shape."""
        whole = np.zeros(shape, np.float32)
        whole[self.box] = self.weight
        return whole


def region_gate(
    intervention: Intervention, volume: Volume, mask: NDArray[np.bool_], others: Mapping[str, NDArray[np.bool_]]
) -> Region:
    """Return where an intervention may change a mask.

    Acts that add voxels have a band outside of the mask, acts that take voxels away one inside of it, and the others
    both or parts of the mask. A direction keeps the half that lies there, slices keep themselves, and a neighbour keeps
    what is near to it.

    Args:
        intervention: what is to be done.
        volume: the image.
        mask: (I, J, K) of the label, in the volume's voxel order; not empty.
        others: masks of other labels by name, in the same order. Where the neighbour of the intervention is not among
            them, it is looked for by its brightness, which differs from that of the structure's core.

    Raises:
        InputError: the mask is empty or of another shape, or the slices are none of the volume's.
    """
    if mask.shape != volume.shape:
        raise InputError(f"The mask has shape {mask.shape}, and the image {volume.shape}: they must be the same.")
    if not mask.any():
        raise InputError(f"The mask of {intervention.label} is empty: there is nothing to correct yet.")
    tight = ndimage.find_objects(mask.view(np.uint8))[0]
    reach = _reach(intervention, volume, mask[tight])
    box = _widened(tight, volume, reach)
    inside = mask[box]
    weight = _around(intervention, inside, volume, reach)
    if intervention.direction is not None:
        weight *= _towards(intervention.direction, volume, inside, box)
        if intervention.action == "expand":
            weight *= _beyond(intervention.direction, volume, inside)
    if intervention.near is not None:
        neighbour = others.get(intervention.near)
        if neighbour is not None and neighbour[box].any():
            weight *= _near(neighbour[box], volume.spacing, reach)
        elif intervention.action in ("exclude", "shrink", "remove"):
            weight *= _foreign(volume, inside, box)
    if intervention.slices is not None:
        weight *= _in_slices(intervention.slices, volume, box)
    return Region(box, weight)


def _reach(intervention: Intervention, volume: Volume, mask: NDArray[np.bool_]) -> float:
    """How far the act goes, in millimetre; of the mask its own box is enough."""
    if intervention.extent_mm is not None:
        return intervention.extent_mm
    least = max(MIN_REACH_MM[intervention.strength], 1.5 * max(volume.spacing))
    if intervention.direction is not None:
        heights = distances_along(volume.affine, intervention.direction, mask.shape)[mask]
        return max(least, REACH_ALONG[intervention.strength] * (heights.max() - heights.min()))
    radius = (3 * mask.sum() * math.prod(volume.spacing) / (4 * math.pi)) ** (1 / 3)
    return max(least, REACH_AROUND[intervention.strength] * radius)


def _widened(tight: tuple[slice, ...], volume: Volume, reach: float) -> tuple[slice, slice, slice]:
    """The box of a mask with a margin that holds all that an act may reach."""
    sides = []
    for found, spacing, size in zip(tight, volume.spacing, volume.shape, strict=True):
        margin = math.ceil(reach / spacing) + 2
        sides.append(slice(max(0, found.start - margin), min(size, found.stop + margin)))
    return tuple(sides)


def _around(intervention: Intervention, inside: NDArray[np.bool_], volume: Volume, reach: float) -> NDArray[np.float32]:
    """What the action alone allows: bands along the border, holes, or separate parts."""
    action, spacing = intervention.action, volume.spacing
    if action == "keep":
        return np.zeros(inside.shape, np.float32)
    if action == "fill":
        return _holes(inside, slice_axis(volume)).astype(np.float32)
    if action in ("remove", "keep_largest"):
        parts, _ = ndimage.label(inside, np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel())[1:]
        return (inside & (parts != 1 + int(np.argmax(sizes)))).astype(np.float32)
    if action == "exclude" and intervention.extent_mm is None:
        # However far it runs into the neighbour: what is near decides, not how deep it is inside of the mask.
        return inside.astype(np.float32)
    if action == "smooth":
        reach = ROUGHNESS_VOXELS * max(spacing)
    band = np.zeros(inside.shape, np.float32)
    if action != "shrink":
        band += _fading(distance_to(inside, spacing), reach) * ~inside
    if action != "expand":
        band += _fading(distance_to(~inside, spacing), reach) * inside
    return band


def _holes(inside: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Closed holes; where there are none, what is closed on the slices that the image was acquired in."""
    closed = ndimage.binary_fill_holes(inside) & ~inside
    if closed.any():
        return closed
    in_plane = ndimage.generate_binary_structure(3, 1)
    ends = [slice(1, 2)] * 3
    ends[axis] = slice(None, None, 2)
    in_plane[tuple(ends)] = False
    return ndimage.binary_fill_holes(inside, in_plane) & ~inside


def _fading(distance: NDArray[np.float64], reach: float) -> NDArray[np.float32]:
    """1 close by, 0 beyond the reach, and in between at the end of it."""
    return np.clip((reach - distance) / (FADE * reach), 0, 1).astype(np.float32)


def _towards(direction: str, volume: Volume, inside: NDArray[np.bool_], box: tuple[slice, ...]) -> NDArray[np.float32]:
    """Rises from 0 to 1 about the middle of the structure, in a patient direction."""
    heights = distances_along(volume.affine, direction, inside.shape, tuple(side.start for side in box))
    low, high = heights[inside].min(), heights[inside].max()
    share = (heights - low) / max(high - low, 1e-6)
    ramp = np.clip((share - DIRECTED_FROM) / (DIRECTED_TO - DIRECTED_FROM), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _beyond(direction: str, volume: Volume, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What can be reached from a mask in a direction, along the axis nearest to it: straight, beyond its end in a cone.

    What lies beside the mask is not in that direction, although it lies as high.
    """
    axis, sign = axis_towards(volume.affine, direction)
    across = [volume.spacing[n] for n in range(3) if n != axis]
    reached = np.zeros_like(inside)
    ordered, held = (np.moveaxis(part, axis, 0)[::sign] for part in (reached, inside))
    # How much farther to the side the cone reaches than each place lies; negative outside of it.
    left = np.full(held.shape[1:], -np.inf, np.float32)
    for place in range(1, len(held)):
        if held[place - 1].any():
            left = np.maximum(left, -distance_to(held[place - 1], across))
        if not held[place].any():
            left += OPENING * volume.spacing[axis]
        ordered[place] = left >= 0
    return reached


def _near(neighbour: NDArray[np.bool_], spacing: tuple[float, float, float], reach: float) -> NDArray[np.float32]:
    return _fading(distance_to(neighbour, spacing), reach)


def _foreign(volume: Volume, inside: NDArray[np.bool_], box: tuple[slice, ...]) -> NDArray[np.float32]:
    """Parts of a mask that look unlike its core: 0 to 1."""
    shown = intensity_window(volume).apply(np.nan_to_num(volume.array[box]))
    # Smoothed inside of the mask alone: what lies outside must not make its border look strange.
    share = ndimage.gaussian_filter(inside.astype(np.float32), CALM)
    image = ndimage.gaussian_filter(shown * inside, CALM) / np.maximum(share, 1e-3)
    depth = distance_to(~inside, volume.spacing)
    core = image[depth >= CORE * depth.max()]
    middle = np.median(core)
    spread = max(1.4826 * float(np.median(np.abs(core - middle))), 0.01)
    strangeness = np.clip((np.abs(image - middle) / spread - FOREIGN) / (SURELY_FOREIGN - FOREIGN), 0, 1)
    # Noise is strange in single voxels, a neighbour in many beside each other.
    return (ndimage.median_filter(strangeness, 3) * inside).astype(np.float32)


def _in_slices(slices: tuple[int, int], volume: Volume, box: tuple[slice, ...]) -> NDArray[np.float32]:
    """1 in the slices, counted from 1 across the plane that the image was acquired in, in the order of OHIF."""
    axis = slice_axis(volume)
    patient_axis, sign = patient_axes(volume.affine)[axis]
    first, last = slices
    if not 1 <= first <= last <= volume.shape[axis]:
        raise InputError(f"The image has slices 1 to {volume.shape[axis]}, and the note names {first} to {last}.")
    numbers = 1 + np.arange(box[axis].start, box[axis].stop)
    if sign != COUNTED_TOWARDS[patient_axis]:
        numbers = 1 + volume.shape[axis] - numbers
    chosen = ((numbers >= first) & (numbers <= last)).astype(np.float32)
    return np.expand_dims(chosen, other_axes(axis))
