"""Evidence beside the mask decoder, as logits: brightness and shape tell where a mask that is nearly right goes on."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.correction.region import Region
from causal_sam.imaging import IntensityWindow, Volume
from causal_sam.imaging.distances import distance_to
from causal_sam.notes.schema import Intervention

# Histograms of brightness: bins between the ends of the intensity window, voxels added to each bin, and the highest
# logarithm of their ratio.
BINS, PSEUDOCOUNT, MAX_BRIGHTNESS_LOGIT = 32, 0.5, 3.0
# Standard deviation of the denoising filter, in voxels of the finest axis.
DENOISING_VOXELS = 0.7
# Radius of the ball that closes notches, as a share of the radius of a ball of the structure's volume, and of the ball
# that cuts off bulges, as a share of the largest depth of the mask.
CLOSING_SHARE, OPENING_SHARE = 0.25, 0.4
# Logits of voxels that the shape speaks for changing, and against it. Against it, the decoder has to be very sure.
NOTCH_LOGIT, BULGE_LOGIT, UNLIKELY_LOGIT = 1.0, 0.5, 4.0


def evidence(
    intervention: Intervention, region: Region, volume: Volume, window: IntensityWindow, mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return logits to add to those of the decoder, of the shape of the region's box; positive is inside.

    Args:
        intervention: act that the decoder decides.
        region: its region.
        volume: image.
        window: intensity window of the image.
        mask: (I, J, K) mask of the label.
    """
    inside = mask[region.box]
    if intervention.action == "restyle":  # brightness misled, so the shape tells
        return _against_notches(inside, volume)
    if intervention.action == "exclude":
        return _against_bulges(inside, volume)
    return _brightness(region, window.apply(np.nan_to_num(volume.array[region.box])), volume, inside)


def _brightness(
    region: Region, shown: NDArray[np.float32], volume: Volume, inside: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the log ratio of how frequent a voxel's brightness is in the structure, and around it."""
    finest = min(volume.spacing)
    shown = ndimage.gaussian_filter(shown, [DENOISING_VOXELS * finest / own for own in volume.spacing])
    bins = np.clip((BINS * shown).astype(np.uint8), 0, BINS - 1)
    certain = region.weight == 0
    own = certain & inside
    ratio = _frequencies(bins[own if own.any() else inside]) / _frequencies(bins[certain & ~inside])
    logits = np.clip(np.log(ratio), -MAX_BRIGHTNESS_LOGIT, MAX_BRIGHTNESS_LOGIT)
    return logits.astype(np.float32)[bins]


def _frequencies(bins: NDArray[np.uint8]) -> NDArray[np.float64]:
    counts = ndimage.gaussian_filter1d(np.bincount(bins, minlength=BINS).astype(np.float64), 1.0) + PSEUDOCOUNT
    return counts / counts.sum()


def _against_notches(inside: NDArray[np.bool_], volume: Volume) -> NDArray[np.float32]:
    """Speak for filling notches of a mask, and for changing nothing else."""
    radius = CLOSING_SHARE * (3 * inside.sum() * math.prod(volume.spacing) / (4 * math.pi)) ** (1 / 3)
    radius = max(radius, 1.5 * min(volume.spacing))
    margin = [math.ceil(radius / own) + 1 for own in volume.spacing]
    padded = np.pad(inside, [(own, own) for own in margin])
    closed = distance_to(distance_to(padded, volume.spacing) > radius, volume.spacing) > radius
    closed = closed[tuple(slice(own, -own) for own in margin)]
    return np.select([inside, closed], [UNLIKELY_LOGIT, NOTCH_LOGIT], -UNLIKELY_LOGIT).astype(np.float32)


def _against_bulges(inside: NDArray[np.bool_], volume: Volume) -> NDArray[np.float32]:
    """Speak for giving up what hangs on the core of a mask by a neck or bulges from it."""
    depth = distance_to(~inside, volume.spacing)
    radius = OPENING_SHARE * depth.max()
    cores, _ = ndimage.label(depth > radius)
    largest = cores == 1 + np.argmax(np.bincount(cores.ravel())[1:])
    opened = distance_to(largest, volume.spacing) <= radius + max(volume.spacing) / 2
    return np.where(opened, UNLIKELY_LOGIT, -BULGE_LOGIT).astype(np.float32)
