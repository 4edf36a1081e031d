"""Evidence beside the mask decoder, as logits: brightness and shape tell where a mask that is nearly right goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.correction.region import Region
from causal_sam.imaging import IntensityWindow, Volume
from causal_sam.imaging.distances import distance_to
from causal_sam.imaging.shape import equivalent_radius, largest_part
from causal_sam.notes.schema import Intervention

# Histograms of brightness: bins between the ends of the intensity window, voxels added to each bin, and the highest
# logarithm of their ratio.
BINS, PSEUDOCOUNT, MAX_BRIGHTNESS_LOGIT = 32, 0.5, 3.0
# Standard deviation of the denoising filter, in voxels of the finest axis.
DENOISING_VOXELS = 0.7
# Radius of the ball that closes notches, as a share of the radius of a ball of the structure's volume, and of the ball
# that cuts off bulges, as a share of the largest depth of the mask.
CLOSING_SHARE, OPENING_SHARE = 0.25, 0.3
# Logit of notches, and of voxels that the shape decides unless the decoder is very sure.
NOTCH_LOGIT, SHAPE_LOGIT = 1.0, 4.0
# Minimum depth of the core of a mask, as a share of the largest depth; largest logit of a place between core and
# neighbour; and weight of brightness and place beside the decoder, which does not know how the neighbour looks.
CORE_DEPTH, MAX_PLACE_LOGIT, NEIGHBOUR_WEIGHT = 0.5, 2.0, 4.0
# Logit against growth into another label that the note does not name.
OTHER_LABEL_LOGIT = 2.0


def evidence(
    intervention: Intervention,
    region: Region,
    volume: Volume,
    window: IntensityWindow,
    mask: NDArray[np.bool_],
    others: Mapping[str, NDArray[np.bool_]],
) -> NDArray[np.float32]:
    """Return logits to add to those of the decoder, of the shape of the region's box; positive is inside.

    Args:
        intervention: act that the decoder decides.
        region: its region.
        volume: image.
        window: intensity window of the image.
        mask: (I, J, K) mask of the label.
        others: label -> mask, for other labels.
    """
    inside = mask[region.box]
    if intervention.action == "restyle":  # brightness misled, so the shape tells
        return _against_notches(inside, volume)
    if intervention.action == "exclude":
        neighbour = others.get(intervention.near or "", np.zeros_like(mask))[region.box]
        if not neighbour.any():
            return _against_bulge(inside, volume)
        return _against_neighbour(_brightness_bins(volume, window, region.box), volume, inside, neighbour)
    bins = _brightness_bins(volume, window, region.box)
    certain = region.weight == 0
    own = certain & inside
    logits = _log_ratio(bins, own if own.any() else inside, certain & ~inside)
    if intervention.action == "expand":
        for name, other in others.items():
            if name != intervention.near:
                logits[other[region.box]] -= OTHER_LABEL_LOGIT
    return logits


def _brightness_bins(volume: Volume, window: IntensityWindow, box: tuple[slice, ...]) -> NDArray[np.uint8]:
    finest = min(volume.spacing)
    shown = window.apply(volume.array[box])
    shown = ndimage.gaussian_filter(shown, [DENOISING_VOXELS * finest / own for own in volume.spacing])
    return np.clip((BINS * shown).astype(np.uint8), 0, BINS - 1)


def _log_ratio(bins: NDArray[np.uint8], inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the log ratio of how frequent the brightness of each voxel is inside and outside of a structure."""
    logits = np.log(_frequencies(bins[inside]) / _frequencies(bins[outside]))
    return np.clip(logits, -MAX_BRIGHTNESS_LOGIT, MAX_BRIGHTNESS_LOGIT).astype(np.float32)[bins]


def _frequencies(bins: NDArray[np.uint8]) -> NDArray[np.float64]:
    counts = ndimage.gaussian_filter1d(np.bincount(bins, minlength=BINS).astype(np.float64), 1.0) + PSEUDOCOUNT
    return counts / counts.sum()


def _against_notches(inside: NDArray[np.bool_], volume: Volume) -> NDArray[np.float32]:
    """Speak for filling notches of a mask, and for changing nothing else."""
    radius = max(CLOSING_SHARE * equivalent_radius(inside, volume.spacing), 1.5 * min(volume.spacing))
    margin = [math.ceil(radius / own) + 1 for own in volume.spacing]
    padded = np.pad(inside, [(own, own) for own in margin])
    closed = distance_to(distance_to(padded, volume.spacing) > radius, volume.spacing) > radius
    closed = closed[tuple(slice(own, -own) for own in margin)]
    return np.select([inside, closed], [SHAPE_LOGIT, NOTCH_LOGIT], -SHAPE_LOGIT).astype(np.float32)


def _against_bulge(inside: NDArray[np.bool_], volume: Volume) -> NDArray[np.float32]:
    """Speak for giving up the largest part that hangs on the core of a mask by a neck or bulges from it."""
    depth = distance_to(~inside, volume.spacing)
    radius = OPENING_SHARE * depth.max()
    core = largest_part(depth > radius)
    bulges = inside & (distance_to(core, volume.spacing) > radius + max(volume.spacing) / 2)
    # A thin layer around the core, like a rind, is no part of a bulge.
    solid = bulges & (distance_to(~bulges, volume.spacing) >= 1.5 * min(volume.spacing))
    if not solid.any():
        return np.full(inside.shape, SHAPE_LOGIT, np.float32)
    leak = bulges & (distance_to(largest_part(solid), volume.spacing) <= 2 * min(volume.spacing))
    return np.where(leak, -SHAPE_LOGIT, SHAPE_LOGIT).astype(np.float32)


def _against_neighbour(
    bins: NDArray[np.uint8], volume: Volume, inside: NDArray[np.bool_], neighbour: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Speak for giving up what looks like a neighbour and lies nearer to it than to the core of the mask."""
    depth = distance_to(~inside, volume.spacing)
    core = depth >= CORE_DEPTH * depth.max()
    half_radius = equivalent_radius(inside, volume.spacing) / 2
    place = 2 * (distance_to(neighbour, volume.spacing) - distance_to(core, volume.spacing)) / half_radius
    logits = _log_ratio(bins, core, neighbour) + np.clip(place, -MAX_PLACE_LOGIT, MAX_PLACE_LOGIT)
    sigma = [min(volume.spacing) / own for own in volume.spacing]
    return (NEIGHBOUR_WEIGHT * ndimage.gaussian_filter(logits, sigma)).astype(np.float32)
