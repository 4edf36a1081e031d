"""Slices in the units of their image with the facts about their acquisition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging import SliceFrame, Volume, intensity_window, slice_axis
from causal_sam.style.acquisition import Acquisition
from causal_sam.style.headers import read_acquisition

CT_AIR = -1000.0
# Share of the slices that is omitted at both ends of a volume, which often show little.
MARGIN = 0.2
# Number of voxels along each axis that are sampled to find the background.
BACKGROUND_GRID = 24
# Maximum undershoot of air below zero, as a share of the maximum.
UNDERSHOOT = 0.02


@dataclass(frozen=True, eq=False)
class StyledSlices:
    """Slices of one image before normalisation.

    Attributes:
        array: float32 NxHxW, N slices in the units of the image (HU for CT), all finite.
        spacing: distance of slices, rows and columns in mm.
        acquisition: facts about the acquisition.
        background: value outside the patient, -1000 for CT and 0 for most MR.
    """

    array: NDArray[np.float32]
    spacing: tuple[float, float, float]
    acquisition: Acquisition
    background: float

    def with_array(self, array: NDArray[np.float32], **acquired: Any) -> StyledSlices:
        """Return the slices with other voxels, and with changed facts about the acquisition."""
        return replace(self, array=array.astype(np.float32), acquisition=replace(self.acquisition, **acquired))

    @property
    def middle(self) -> NDArray[np.float32]:
        """The middle slice, HxW."""
        return self.array[len(self.array) // 2]

    @property
    def tissue(self) -> NDArray[np.bool_]:
        """Mask of tissue, NxHxW: above -500 HU for CT, otherwise above 3 % of the range over the background."""
        if self.acquisition.modality == "CT":
            return self.array > -500
        low, high = self.background, float(np.percentile(self.array, 99.5))
        return self.array > low + 0.03 * (high - low)

    def normalised(self) -> NDArray[np.float32]:
        """Return the slices in [0, 1], normalised by `causal_sam.imaging.intensity_window`."""
        volume = Volume(self.array, np.eye(4), self.acquisition.modality)
        return intensity_window(volume).apply(self.array)


def sample_slices(volume: Volume, count: int = 9) -> StyledSlices:
    """Sample slices of a volume in its plane of acquisition, in radiological orientation.

    Args:
        volume: image.
        count: maximum number of slices, evenly spaced over the middle of the volume.

    Returns:
        The slices, with background in place of values that are not finite.
    """
    axis = slice_axis(volume)
    frame = SliceFrame(volume.affine, volume.shape, axis)
    margin = int(MARGIN * frame.count)
    last = frame.count - 1 - margin
    indices = np.unique(np.linspace(margin, last, min(count, last - margin + 1)).round().astype(int))
    background = air_value(volume)
    array = np.stack([np.asarray(frame.extract(volume.array, index), np.float32) for index in indices])
    array[~np.isfinite(array)] = background
    rows, columns = frame.spacing_rc
    return StyledSlices(array, (volume.spacing[axis], rows, columns), read_acquisition(volume), background)


def air_value(volume: Volume) -> float:
    """Return the value of air: -1000 for CT, otherwise 0, or the minimum of images that reach clearly below 0."""
    if volume.modality == "CT":
        return CT_AIR
    steps = (max(1, size // BACKGROUND_GRID) for size in volume.shape)
    some = volume.array[tuple(slice(None, None, step) for step in steps)]
    some = some[np.isfinite(some)]
    lowest, highest = float(some.min(initial=0.0)), float(some.max(initial=0.0))
    # Interpolation causes a small undershoot.
    return lowest if lowest < -UNDERSHOOT * highest else 0.0
