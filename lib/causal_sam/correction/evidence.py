"""Evidence beside the mask decoder, as logits: brightness and shape tell where a mask that is nearly right goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.correction.region import MAX_FULL_VOXELS, Region
from causal_sam.imaging import IntensityWindow, Volume
from causal_sam.imaging.distances import distance_to
from causal_sam.imaging.reduced import ReducedGrid
from causal_sam.imaging.shape import equivalent_radius, largest_part, part_at
from causal_sam.notes.schema import Intervention
from causal_sam.prompting.prompts import Voxel

# Histograms of brightness: bins between the ends of the intensity window, voxels added to each bin, and the highest
# logarithm of their ratio.
BINS, PSEUDOCOUNT, MAX_BRIGHTNESS_LOGIT = 32, 0.5, 3.0
# Standard deviation of the denoising filter, in voxels of the finest axis; its radius in standard deviations; and the
# standard deviation below which it changes nothing.
DENOISING_VOXELS, DENOISING_RADIUS, MIN_DENOISING_SIGMA = 0.7, 4.0, 0.3
# Radius of the ball that closes notches, as a share of the radius of a ball of the structure's volume, and of the ball
# that cuts off bulges, as a share of the largest depth of the mask.
CLOSING_SHARE, OPENING_SHARE = 0.25, 0.3
# How far around a click the structure is, as a share of the largest depth of the mask, if the click is not deeper; and
# shares of the depth there like the last of those above, tried in turn to part the structure from a larger leak.
CLICK_REACH = 0.25
SEPARATING_SHARES = (0.3, 0.5, 0.7, 0.9)
# Logit of notches, and of voxels that the shape decides unless the decoder is very sure.
NOTCH_LOGIT, SHAPE_LOGIT = 1.0, 4.0
# Minimum depth of the core of a mask, as a share of the largest depth; largest logit of a place between core and
# neighbour; and weight of brightness and place beside the decoder, which does not know how the neighbour looks.
CORE_DEPTH, MAX_PLACE_LOGIT, NEIGHBOUR_WEIGHT = 0.5, 2.0, 4.0
# Size of the cells in which the shape of a large mask is examined, as a share of the radius of such a ball; and of
# those for what depends on places alone.
CELL_SHARE, PLACE_CELL_SHARE = 0.04, 0.08
# Least share of a mask outside of the region from which its brightness is known; else all of the mask tells it.
MIN_OWN_SHARE = 0.01
# Of large boxes, every n-th voxel along two axes is counted in histograms.
SAMPLING_STEP = 3
# Logit against growth into another label that the note does not name.
OTHER_LABEL_LOGIT = 2.0


def evidence(
    intervention: Intervention,
    region: Region,
    volume: Volume,
    window: IntensityWindow,
    mask: NDArray[np.bool_],
    others: Mapping[str, NDArray[np.bool_]],
    clicked: Sequence[Voxel] = (),
) -> NDArray[np.float32]:
    """Return logits to add to those of the decoder, of the shape of the region's box; positive is inside.

    Args:
        intervention: act that the decoder decides.
        region: its region.
        volume: image.
        window: intensity window of the image.
        mask: (I, J, K) mask of the label.
        others: label -> mask, for other labels.
        clicked: voxels (i, j, k) that somebody clicked as inside of the label.
    """
    inside = mask[region.box]
    if intervention.action == "restyle":  # brightness misled, so the shape tells
        return _against_notches(inside, volume)
    if intervention.action == "exclude":
        neighbour = others.get(intervention.near or "", np.zeros(mask.shape, bool))[region.box]
        # In the box; places that are not in the mask any more say nothing about it.
        places = [
            tuple(v - s.start for v, s in zip(voxel, region.box, strict=True)) for voxel in clicked if mask[voxel]
        ]
        if not neighbour.any():
            return _against_bulge(inside, volume, places)
        return _against_neighbour(_brightness_bins(volume, window, region.box), volume, inside, neighbour, places)
    bins = _brightness_bins(volume, window, region.box)
    certain = region.weight == 0
    own = certain & inside
    is_enough = np.count_nonzero(own) >= MIN_OWN_SHARE * np.count_nonzero(inside)
    logits = _log_ratio(bins, own if is_enough else inside, certain & ~inside)
    if intervention.action == "expand":
        for name, other in others.items():
            if name != intervention.near and (there := other[region.box]).any():
                np.subtract(logits, OTHER_LABEL_LOGIT, out=logits, where=there)
    return logits


def _brightness_bins(volume: Volume, window: IntensityWindow, box: tuple[slice, ...]) -> NDArray[np.uint8]:
    finest = min(volume.spacing)
    array = volume.array[box]
    # Slices in memory order are read and smoothed fast.
    order = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
    across, down, along = (DENOISING_VOXELS * finest / volume.spacing[axis] for axis in order)
    shown = np.empty([array.shape[axis] for axis in order], np.float32)
    for plane, own in zip(shown, array.transpose(order), strict=True):
        plane[...] = window.apply(own)
        sides = tuple(2 * int(DENOISING_RADIUS * sigma + 0.5) + 1 for sigma in (along, down))
        cv2.GaussianBlur(plane, sides, along, dst=plane, sigmaY=down, borderType=cv2.BORDER_REFLECT)
    if across > MIN_DENOISING_SIGMA:
        shown = ndimage.gaussian_filter1d(shown, across, 0)
    shown *= BINS
    return np.clip(shown, 0, BINS - 1, out=shown).astype(np.uint8).transpose(np.argsort(order))


def _log_ratio(bins: NDArray[np.uint8], inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the log ratio of how frequent the brightness of each voxel is inside and outside of a structure."""
    # Of large boxes, a part of the rows is enough.
    some = (slice(None),) if bins.size <= MAX_FULL_VOXELS else (slice(None, None, SAMPLING_STEP),) * 2
    own, other = (_frequencies(bins[some][part[some]]) for part in (inside, outside))
    table = np.zeros(256, np.float32)
    table[:BINS] = np.clip(np.log(own / other), -MAX_BRIGHTNESS_LOGIT, MAX_BRIGHTNESS_LOGIT)
    order = np.argsort([-abs(stride) for stride in bins.strides], kind="stable")
    rows = np.ascontiguousarray(bins.transpose(order))
    found = np.asarray(cv2.LUT(rows.reshape(len(rows), -1), table), np.float32)
    return found.reshape(rows.shape).transpose(np.argsort(order))


def _frequencies(bins: NDArray[np.uint8]) -> NDArray[np.float64]:
    counts = ndimage.gaussian_filter1d(np.bincount(bins, minlength=BINS).astype(np.float64), 1.0) + PSEUDOCOUNT
    return counts / counts.sum()


def _grid(inside: NDArray[np.bool_], volume: Volume, cell_share: float = CELL_SHARE) -> ReducedGrid:
    """Return the grid on which shapes are compared: that of the voxels, unless these are very many."""
    if inside.size <= MAX_FULL_VOXELS:
        return ReducedGrid(inside.shape, (1,) * inside.ndim)
    cell_mm = cell_share * equivalent_radius(inside, volume.spacing)
    return ReducedGrid.for_resolution(inside.shape, volume.spacing, cell_mm)


def _against_notches(inside: NDArray[np.bool_], volume: Volume) -> NDArray[np.float32]:
    """Speak for filling notches of a mask, and for changing nothing else."""
    grid = _grid(inside, volume)
    spacing, cells = grid.spacing(volume.spacing), grid.reduced(inside)
    radius = max(CLOSING_SHARE * equivalent_radius(inside, volume.spacing), 1.5 * min(spacing))
    margin = [math.ceil(radius / own) + 1 for own in spacing]
    padded = np.pad(cells, [(own, own) for own in margin])
    # Deeper than the radius in what a ball of that radius can reach from the mask: to a cell, where the border is.
    reached = distance_to(padded, spacing, radius) > radius
    depth = distance_to(reached, spacing, 2 * radius)[tuple(slice(own, -own) for own in margin)] - radius
    closed = grid.expanded(np.clip(depth, -radius, radius)) > 0
    return np.select([inside, closed], [SHAPE_LOGIT, NOTCH_LOGIT], -SHAPE_LOGIT).astype(np.float32)


def _core(depth: NDArray[np.float64], grid: ReducedGrid, volume: Volume, places: Sequence[Voxel]) -> NDArray[np.bool_]:
    """Return the deepest cells of a mask; where somebody clicked inside of it, the deepest around these places.

    A large leak may be deeper than the structure itself.

    Args:
        depth: depth of each cell in the mask in mm.
        grid: grid of the cells.
        volume: image.
        places: voxels (i, j, k) in the grid's box that were clicked.
    """
    near = np.ones(depth.shape, bool)
    if places:
        cells = np.zeros(depth.shape, bool)
        cells[tuple(np.array(places).T // np.array(grid.steps)[:, None])] = True
        reach = max(float(depth[cells].max()), CLICK_REACH * float(depth.max()))
        near = distance_to(cells, grid.spacing(volume.spacing)) <= reach
    return near & (depth >= CORE_DEPTH * depth[near].max())


def _against_bulge(inside: NDArray[np.bool_], volume: Volume, places: Sequence[Voxel]) -> NDArray[np.float32]:
    """Speak for giving up the largest part that hangs on the core of a mask by a neck or bulges from it."""
    grid = _grid(inside, volume)
    spacing, cells = grid.spacing(volume.spacing), grid.reduced(inside)
    depth = distance_to(~cells, spacing)
    radius = OPENING_SHARE * depth.max()
    core = largest_part(depth > radius)
    clicked = _core(depth, grid, volume, places)
    peak = np.unravel_index(np.argmax(depth), depth.shape)
    if places and not clicked[peak]:  # the leak is deeper than the structure; where do they come apart?
        for share in SEPARATING_SHARES:
            radius = share * depth[clicked].max()
            core = part_at(depth > radius, clicked)
            if not core[peak]:
                break
    bulges = cells & (distance_to(core, spacing) > radius + max(spacing) / 2)
    # A thin layer around the core, like a rind, is no part of a bulge.
    solid = bulges & (distance_to(~bulges, spacing) >= 1.5 * min(spacing))
    if not solid.any():
        return np.full(inside.shape, SHAPE_LOGIT, np.float32)
    leak = bulges & (distance_to(largest_part(solid), spacing) <= 2 * min(spacing))
    return grid.expanded(np.where(leak, -SHAPE_LOGIT, SHAPE_LOGIT))


def _against_neighbour(
    bins: NDArray[np.uint8],
    volume: Volume,
    inside: NDArray[np.bool_],
    neighbour: NDArray[np.bool_],
    places: Sequence[Voxel],
) -> NDArray[np.float32]:
    """Speak for giving up what looks like a neighbour and lies nearer to it than to the core of the mask."""
    grid = _grid(inside, volume, PLACE_CELL_SHARE)
    spacing = grid.spacing(volume.spacing)
    depth = distance_to(~grid.reduced(inside), spacing)
    core = _core(depth, grid, volume, places)
    half_radius = equivalent_radius(inside, volume.spacing) / 2
    place = 2 * (distance_to(grid.reduced(neighbour), spacing) - distance_to(core, spacing)) / half_radius
    place = grid.expanded(np.clip(place, -MAX_PLACE_LOGIT, MAX_PLACE_LOGIT))
    logits = _log_ratio(bins, grid.expanded(core.astype(np.float32)) > 0.5, neighbour) + place
    sigma = [min(volume.spacing) / own for own in volume.spacing]
    return (NEIGHBOUR_WEIGHT * ndimage.gaussian_filter(logits, sigma)).astype(np.float32)
