"""Distance measures of the agreement between a mask and the truth."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_surface_dice
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.imaging.distances import distance_to


def hd95(mask: NDArray, truth: NDArray, spacing: Sequence[float]) -> float:
    """Return the 95th percentile of the distances between two masks' borders, in both directions, in mm.

    The border of a mask consists of the voxels that share a face with a voxel outside. The percentile is taken over
    both directions together (as in MedPy), so the larger border has more weight; MONAI takes the larger of two
    percentiles, one for each direction.

    Args:
        mask: array of any number of dimensions, non-zero inside.
        truth: array of the same shape.
        spacing: voxel spacing in mm along each axis.

    Returns:
        0 if both are empty, infinity if one of them is.

    >>> hd95(np.array([0, 1, 0, 0]), np.array([0, 0, 0, 1]), [2.0])
    4.0
    """
    mask, truth = np.asarray(mask) > 0, np.asarray(truth) > 0
    if not mask.any() or not truth.any():
        return 0.0 if mask.any() == truth.any() else float("inf")
    # Cropping to the bounding box of both masks changes no distance and saves time.
    part = ndimage.find_objects((mask | truth).astype(np.uint8))[0]
    borders = [np.pad(m[part], 1) for m in (mask, truth)]
    borders = [m & ~ndimage.binary_erosion(m) for m in borders]
    to_mask, to_truth = (distance_to(border, spacing) for border in borders)
    return float(np.percentile(np.concatenate([to_truth[borders[0]], to_mask[borders[1]]]), 95))


def surface_dice(
    mask: NDArray, truth: NDArray, spacing: Sequence[float], tolerance_mm: float, *, by_area: bool = False
) -> float:
    """Return the share of two masks' borders that lies within a tolerance of the other border.

    This is the normalised surface Dice (NSD) of Nikolov et al. 2018, arXiv 1809.04430, as MONAI computes it. Borders
    are voxels, the same as in `hd95`, or areas between the voxels, as in the paper.

    Args:
        mask: array of 2 or 3 dimensions, non-zero inside.
        truth: array of the same shape.
        spacing: voxel spacing in mm along each axis.
        tolerance_mm: largest distance in mm that counts as agreement.
        by_area: weight the borders by their area in mm².

    Returns:
        0 to 1: 1 if both are empty, 0 if one of them is.
    """
    mask, truth = np.asarray(mask) > 0, np.asarray(truth) > 0
    if not mask.any() or not truth.any():
        return float(mask.any() == truth.any())
    found, true = (torch.from_numpy(each)[None, None] for each in (mask, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of MONAI about a call that it makes itself
        return float(
            compute_surface_dice(
                found,
                true,
                [tolerance_mm],
                include_background=True,
                spacing=list(spacing),
                use_subvoxels=by_area,
            )
        )
