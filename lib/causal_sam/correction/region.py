"""Region gate: the soft region in patient space in which an intervention may change a mask."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.correction.directions import bounds_along, direction_cone, direction_ramp, ramp_of_mask
from causal_sam.correction.layers import CutEnd, find_cut_end, inner_layer, outer_layer
from causal_sam.correction.tissues import part_in_range, tissue_hu
from causal_sam.errors import InputError
from causal_sam.imaging import IntensityWindow, Volume, intensity_window, other_axes, slice_axis
from causal_sam.imaging.directions import patient_axes
from causal_sam.imaging.distances import distance_to
from causal_sam.imaging.reduced import ReducedGrid
from causal_sam.imaging.shape import bounding_box, equivalent_radius
from causal_sam.notes.schema import Intervention

# Reach of an act without an extent in mm: share of the structure's extent in the direction of the note, or of the
# radius of a ball of equal volume, but at least some millimetres.
REACH_ALONG = {"slight": 0.15, "moderate": 0.4, "strong": 0.8}
REACH_AROUND = {"slight": 0.2, "moderate": 0.45, "strong": 0.9}
MIN_REACH_MM = {"slight": 2.0, "moderate": 4.0, "strong": 8.0}
# Share of the reach over which the region fades out.
FADE_SHARE = 0.3
# Distance in voxels from the border that smoothing may change.
ROUGHNESS_VOXELS = 2.0
# Deviation from the core's brightness, in robust standard deviations: probably and certainly something else.
ATYPICAL, CLEARLY_ATYPICAL = 2.5, 4.0
# Standard deviation in voxels of the denoising filter before brightness is compared.
DENOISING_VOXELS = 0.7
# Viewers number sagittal slices from right to left, coronal ones from posterior to anterior and axial ones from
# superior to inferior, whatever the order of the file. Sign of the numbering along the axes right, anterior, superior.
VIEWER_SIGNS = (-1, 1, -1)
# Minimum depth of the core, as a share of the largest depth.
CORE_DEPTH = 0.5
# Largest margin around a mask that an act can only make smaller, in mm.
MAX_INNER_MARGIN_MM = 35.0
# In larger boxes, soft regions are computed in cells of a share of the reach, within some millimetres.
MAX_FULL_VOXELS, CELL_SHARE, MIN_CELL_MM, MAX_CELL_MM = 2_000_000, 0.12, 2.0, 4.0


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

    @property
    def alone(self) -> Region:
        """The region in a volume that is its box alone."""
        return self._replace(box=tuple(slice(0, size) for size in self.weight.shape))


def region_gate(
    intervention: Intervention,
    volume: Volume,
    mask: NDArray[np.bool_],
    others: Mapping[str, NDArray[np.bool_]],
    window: IntensityWindow | None = None,
) -> Region:
    """Return the region in which an intervention may change a mask.

    Acts that add voxels get a band outside the mask, acts that remove voxels a band inside it, and the others both or
    parts of the mask. In CT, what is excluded as fat or air is what has their Hounsfield units. A direction restricts
    the region to that half of the structure, slices to themselves, and a neighbour to its surroundings. A mask that
    ends flat in the direction in which it grows is cut off there: it grows beyond that end and nowhere else. With an
    extent in mm, growth and shrinkage are exact: the region is the layer, or the missing end, of that size; and holes
    are filled, as are channels and notches, if they are no wider. The soft regions of large structures are computed in
    cells of some millimetres.

    Args:
        intervention: intervention to apply.
        volume: image.
        mask: (I, J, K) mask of the label, in the volume's voxel order, not empty.
        others: label -> mask, in the same voxel order. A neighbour without a mask is located by its brightness, which
            differs from that of the structure's core.
        window: intensity window of the image; found from the image by default.

    Raises:
        InputError: the mask is empty or of another shape, or the slices are outside the volume.
    """
    if mask.shape != volume.shape:
        raise InputError(f"The mask has shape {mask.shape}, and the image {volume.shape}: they must be the same.")
    if not mask.any():
        raise InputError(f"The mask of {intervention.label} is empty: there is nothing to correct yet.")
    tight = bounding_box(mask)
    reach = max(_reach(intervention, volume, mask[tight]), _way_to_slices(intervention, volume, tight))
    box = _with_margin(tight, volume, _margin(intervention, reach))
    inside = mask[box]
    direction, is_growth = intervention.direction, intervention.action == "expand"
    end = find_cut_end(inside, volume, direction) if direction is not None and is_growth else None
    is_exact = intervention.extent_mm is not None and intervention.action in ("expand", "shrink")
    if is_exact:
        weight = _moved_border(intervention, volume, inside, reach, end)
        if end is None and direction is not None:
            weight *= ramp_of_mask(direction, volume, inside, box)
    else:
        weight = _soft_weight(intervention, volume, inside, box, reach, end is not None)
    if end is not None:
        weight *= end.beyond(inside.shape)
    if intervention.near is not None:
        neighbour = others.get(intervention.near)
        if neighbour is not None and neighbour[box].any():
            grid = _grid(inside, volume, _cell_mm(reach))
            weight *= grid.expanded(_near(grid.reduced(neighbour[box]), grid.spacing(volume.spacing), reach))
        elif volume.modality == "CT" and intervention.action == "exclude" and (hu := tissue_hu(intervention.near)):
            weight *= part_in_range(volume, inside, box, hu)
            is_exact = True
        elif intervention.action in ("exclude", "shrink", "remove"):
            weight *= _atypical(volume, inside, box, window or intensity_window(volume))
        elif neighbour is not None and neighbour.any():
            weight[...] = 0  # the neighbour is out of reach
    if intervention.slices is not None:
        weight *= _slice_selection(intervention.slices, volume, box)
    return Region(box, weight, is_exact)


def _soft_weight(
    intervention: Intervention,
    volume: Volume,
    inside: NDArray[np.bool_],
    box: tuple[slice, ...],
    reach: float,
    is_cut: bool,
) -> NDArray[np.float32]:
    """Return the region of an action with its direction, for acts that do not say by how many mm.

    Args:
        intervention: act.
        volume: image.
        inside: mask in the box.
        box: box in the volume.
        reach: reach of the act in mm.
        is_cut: the mask is cut off in the direction, so that it may grow anywhere beyond its end.
    """
    action, direction = intervention.action, intervention.direction
    if action not in ("expand", "shrink", "restyle"):
        weight = _action_band(intervention, inside, volume, reach)
        return weight if direction is None else weight * ramp_of_mask(direction, volume, inside, box)
    grid = _grid(inside, volume, _cell_mm(reach))
    cells = grid.reduced(inside)
    corner = volume.affine.copy()
    corner[:3, 3] += volume.affine[:3, :3] @ [side.start for side in box]
    coarse = Volume(np.broadcast_to(np.uint8(0), cells.shape), grid.affine(corner), volume.modality)
    weight = _action_band(intervention, cells, coarse, reach)
    if direction is not None and action == "expand":
        weight *= direction_cone(direction, coarse, cells)
    if direction is not None and not is_cut:
        weight *= ramp_of_mask(direction, coarse, cells, tuple(slice(0, size) for size in cells.shape))
    if grid.is_full:
        return weight
    weight = grid.expanded(weight)
    if action != "restyle":
        weight *= ~inside if action == "expand" else inside
    return weight


def _moved_border(
    intervention: Intervention, volume: Volume, inside: NDArray[np.bool_], extent_mm: float, end: CutEnd | None
) -> NDArray[np.float32]:
    """Return the layer by which a border moves, or the missing end of a mask that is cut off."""
    if end is not None:
        return end.dome(inside, volume, extent_mm).astype(np.float32)
    layer = outer_layer if intervention.action == "expand" else inner_layer
    return layer(inside, volume, extent_mm, intervention.direction).astype(np.float32)


def kept_part(
    intervention: Intervention, volume: Volume, mask: NDArray[np.bool_], box: tuple[slice, ...]
) -> NDArray[np.bool_]:
    """Return the part of a box in which an act `keep` protects its label: all of it, one side, or some slices.

    Args:
        intervention: act `keep`.
        volume: image.
        mask: (I, J, K) mask of the label, not empty.
        box: box in the volume.

    Raises:
        InputError: the slices are outside the volume.
    """
    part = np.ones([side.stop - side.start for side in box], bool)
    if intervention.direction is not None:
        bounds = bounds_along(intervention.direction, volume, mask, (0, 0, 0))
        part &= direction_ramp(intervention.direction, volume, bounds, box) > 0.5
    if intervention.slices is not None:
        part &= _slice_selection(intervention.slices, volume, box) > 0
    return part


def viewer_numbers(volume: Volume, axis: int | None = None) -> NDArray[np.intp]:
    """Return the number of each slice across an axis, from 1 as in OHIF, in the order of the file.

    Args:
        volume: image.
        axis: voxel axis; by default that across the plane of acquisition.
    """
    axis = slice_axis(volume) if axis is None else axis
    patient_axis, sign = patient_axes(volume.affine)[axis]
    numbers = 1 + np.arange(volume.shape[axis])
    return numbers if sign == VIEWER_SIGNS[patient_axis] else numbers[::-1]


def _reach(intervention: Intervention, volume: Volume, mask: NDArray[np.bool_]) -> float:
    """Return the reach of an act in mm; the mask may be cropped to its bounding box."""
    if intervention.extent_mm is not None:
        return intervention.extent_mm
    if intervention.action == "smooth":
        return ROUGHNESS_VOXELS * max(volume.spacing)
    least = max(MIN_REACH_MM[intervention.strength], 1.5 * max(volume.spacing))
    if intervention.direction is not None:
        low, high = bounds_along(intervention.direction, volume, mask, (0, 0, 0))
        return max(least, REACH_ALONG[intervention.strength] * (high - low))
    return max(least, REACH_AROUND[intervention.strength] * equivalent_radius(mask, volume.spacing))


def _way_to_slices(intervention: Intervention, volume: Volume, tight: tuple[slice, ...]) -> float:
    """Return how far in mm a mask is from the last of the slices that it is to grow to; 0 where it does not."""
    axis, slices = slice_axis(volume), intervention.slices
    is_axial = patient_axes(volume.affine)[axis][0] == 2
    is_along = is_axial and intervention.direction in ("superior", "inferior")
    if intervention.action != "expand" or intervention.extent_mm is not None or slices is None or not is_along:
        return 0.0
    numbers = viewer_numbers(volume)[tight[axis]]
    count = max(int(numbers.min()) - slices[0], slices[1] - int(numbers.max()))
    return (count + 1) * volume.spacing[axis] if count > 0 else 0.0  # with the whole of the last one


def _margin(intervention: Intervention, reach: float) -> float:
    """Return the margin in mm around a mask that an act needs: room to grow, or a sample of the surroundings."""
    return reach if intervention.action in ("expand", "restyle", "smooth") else min(reach, MAX_INNER_MARGIN_MM)


def _with_margin(tight: tuple[slice, ...], volume: Volume, margin_mm: float) -> tuple[slice, ...]:
    """Extend the bounding box of a mask by some millimetres."""
    sides = []
    for found, spacing, size in zip(tight, volume.spacing, volume.shape, strict=True):
        margin = math.ceil(margin_mm / spacing) + 2
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
        if intervention.extent_mm is not None:
            return _narrow_gaps(inside, spacing, intervention.extent_mm).astype(np.float32)
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
    band = np.zeros(inside.shape, np.float32)
    if action != "shrink":
        band += _fade_out(distance_to(inside, spacing, reach), reach) * ~inside
    if action != "expand":
        band += _fade_out(distance_to(~inside, spacing, reach), reach) * inside
    return band


def _holes(inside: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Return the closed holes in 3D; if there are none, the holes on the slices of acquisition, across an axis."""
    holes = np.zeros_like(inside)
    for here, hole in zip(np.moveaxis(inside, axis, 0), np.moveaxis(holes, axis, 0), strict=True):
        if here.any():
            # 1 in the mask; what the filling reaches from outside becomes 2.
            # OpenCV takes no arrays in Fortran order, which padding keeps.
            reached = np.ascontiguousarray(np.pad(here, 1), np.uint8)
            cv2.floodFill(reached, None, (0, 0), (2,))
            hole[...] = reached[1:-1, 1:-1] == 0
    if not holes.any():
        return holes
    # A hole of a slice is open in 3D if a part of it lies beside the outside on the next slice.
    is_open = np.moveaxis(~(inside | holes), axis, 0)
    beside = np.ones_like(is_open)
    beside[1:-1] = is_open[:-2] | is_open[2:]
    parts, _ = ndimage.label(holes)
    closed = holes & ~np.isin(parts, np.unique(parts[holes & np.moveaxis(beside, 0, axis)]))
    return closed if closed.any() else holes


def _narrow_gaps(inside: NDArray[np.bool_], spacing: tuple[float, float, float], width_mm: float) -> NDArray[np.bool_]:
    """Return gaps up to a width: closed holes, vessels that run through, and notches, by a morphological closing."""
    # Between the centres of the voxels on both sides of a gap there is one voxel more than the gap is wide.
    radius = (width_mm + min(spacing)) / 2
    margins = [math.ceil(radius / own) + 1 for own in spacing]
    # Beyond the edge of the image, nothing is known to be inside.
    padded = np.pad(inside, [(own, own) for own in margins])
    closed = distance_to(distance_to(padded, spacing) > radius, spacing) > radius
    return closed[tuple(slice(own, -own) for own in margins)] & ~inside


def _fade_out(distance: NDArray[np.float64], reach: float) -> NDArray[np.float32]:
    """Return weights that fall from 1 to 0 at the end of the reach."""
    return np.clip((reach - distance) / (FADE_SHARE * reach), 0, 1).astype(np.float32)


def _cell_mm(reach: float) -> float:
    """Return the size of cells that is fine enough for a reach, in mm."""
    return min(max(CELL_SHARE * reach, MIN_CELL_MM), MAX_CELL_MM)


def _near(neighbour: NDArray[np.bool_], spacing: tuple[float, ...], reach: float) -> NDArray[np.float32]:
    return _fade_out(distance_to(neighbour, spacing, reach), reach)


def _atypical(
    volume: Volume, inside: NDArray[np.bool_], box: tuple[slice, ...], window: IntensityWindow
) -> NDArray[np.float32]:
    """Weight the voxels of a mask by their deviation from the brightness of its core, from 0 to 1."""
    grid = _grid(inside, volume, MIN_CELL_MM)
    # Smoothing is limited to the mask, so that the surroundings do not make its border atypical.
    shares, sums = (
        ndimage.gaussian_filter(grid.means(part), DENOISING_VOXELS)
        for part in (inside, window.apply(volume.array[box]) * inside)
    )
    image, cells = sums / np.maximum(shares, 1e-3), grid.reduced(inside)
    depth = distance_to(~cells, grid.spacing(volume.spacing))
    core = image[depth >= CORE_DEPTH * depth.max()]
    middle = np.median(core)
    spread = max(1.4826 * float(np.median(np.abs(core - middle))), 0.01)
    strangeness = np.clip((np.abs(image - middle) / spread - ATYPICAL) / (CLEARLY_ATYPICAL - ATYPICAL), 0, 1)
    # The median removes single atypical voxels, which are noise.
    for plane in np.moveaxis(strangeness, slice_axis(volume), 0):
        plane[...] = cv2.medianBlur(np.ascontiguousarray(plane), 3)
    return grid.expanded(strangeness) * inside


def _grid(inside: NDArray[np.bool_], volume: Volume, cell_mm: float) -> ReducedGrid:
    """Return the grid on which a soft region is computed: that of the voxels, unless these are very many."""
    if inside.size <= MAX_FULL_VOXELS:
        return ReducedGrid(inside.shape, (1,) * inside.ndim)
    return ReducedGrid.for_resolution(inside.shape, volume.spacing, cell_mm)


def _slice_selection(slices: tuple[int, int], volume: Volume, box: tuple[slice, ...]) -> NDArray[np.float32]:
    """Return 1 for the slices, numbered from 1 across the plane of acquisition as in OHIF, and 0 for others."""
    axis, (first, last) = slice_axis(volume), slices
    if not 1 <= first <= last <= volume.shape[axis]:
        raise InputError(f"The image has slices 1 to {volume.shape[axis]}, and the note names {first} to {last}.")
    numbers = viewer_numbers(volume)[box[axis]]
    chosen = ((numbers >= first) & (numbers <= last)).astype(np.float32)
    return np.expand_dims(chosen, other_axes(axis))
