"""Exact operators: acts whose result follows from the mask alone, without a model."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.correction.guard import keeps_shape
from causal_sam.correction.region import Region
from causal_sam.imaging import Volume
from causal_sam.imaging.distances import signed_distance
from causal_sam.notes.schema import Intervention

# Distance from the border beyond which smoothing looks at nothing, in the same lengths as below.
SMOOTHED_VOXELS = 6.0
# Standard deviations of the boundary filter, in edge lengths of a cube of one voxel's volume. The first one that keeps
# the shape of the structure is used.
SMOOTHING = (1.0, 0.7, 0.5)


def apply_exact_operator(
    intervention: Intervention, region: Region, volume: Volume, mask: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Apply an act that has an exact operator: all but those that the decoder decides.

    Args:
        intervention: act to apply. One with an extent in mm moves the border by that: its region is the layer between
            the old and the new border.
        region: region in which the mask may change.
        volume: image.
        mask: mask in the region's box.

    Returns:
        The mask in the region's box.
    """
    allowed = region.weight > 0
    if intervention.action in ("fill", "expand"):
        return mask | allowed
    if intervention.action == "smooth":
        side = math.prod(volume.spacing) ** (1 / 3)
        signed = signed_distance(mask, volume.spacing, SMOOTHED_VOXELS * max(volume.spacing))
        signed = np.clip(signed, -SMOOTHED_VOXELS * side, SMOOTHED_VOXELS * side)
        for width in SMOOTHING:
            sigma = [width * side / spacing for spacing in volume.spacing]
            smoothed = np.where(allowed, ndimage.gaussian_filter(signed, sigma) > 0, mask)
            if keeps_shape(mask, smoothed):
                break
        return smoothed
    return mask & ~allowed
