"""What the parts about style work on: slices in the units of their image, and how they were acquired."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging import SliceFrame, Volume, intensity_window, slice_axis
from causal_sam.style.acquisition import Acquisition
from causal_sam.style.headers import acquisition_of

CT_AIR = -1000.0
# Slices at the ends of a volume often show little; these shares of them are left out on both sides.
MARGIN = 0.2
# Voxels along each axis that are looked at to find the background.
BACKGROUND_GRID = 24
# Share of the highest value that air may lie below zero.
UNDERSHOOT = 0.02


@dataclass(frozen=True, eq=False)
class StyledSlices:
    """Neighbouring slices of one image, as they are before any normalisation.

    Attributes:
        array: float32 NxHxW, N neighbouring slices in the units of the image (HU for CT); all finite.
        spacing: distance of neighbouring slices, rows and columns in millimetre.
        acquisition: how the image was made.
        background: the value of what is outside of the patient, -1000 for CT and 0 for most MR.
    """

    array: NDArray[np.float32]
    spacing: tuple[float, float, float]
    acquisition: Acquisition
    background: float

    def with_array(self, array: NDArray[np.float32], **acquired: object) -> StyledSlices:
        """Return other voxels on the same grid; ``acquired`` are the facts of the acquisition that they change."""
        return replace(self, array=array.astype(np.float32), acquisition=replace(self.acquisition, **acquired))

    @property
    def middle(self) -> NDArray[np.float32]:
        """HxW: the slice in the middle."""
        return self.array[len(self.array) // 2]

    @property
    def tissue(self) -> NDArray[np.bool_]:
        """NxHxW: what is not background, by a threshold of 3 % of the range above it."""
        if self.acquisition.modality == "CT":
            return self.array > -500
        low, high = self.background, float(np.percentile(self.array, 99.5))
        return self.array > low + 0.03 * (high - low)

    def normalised(self) -> NDArray[np.float32]:
        """The slices in [0, 1], as `causal_sam.imaging.intensity_window` shows a volume of them."""
        volume = Volume(self.array, np.eye(4), self.acquisition.modality)
        return intensity_window(volume).apply(self.array)


def sample_slices(volume: Volume, count: int = 9) -> StyledSlices:
    """Take some slices of a volume, in the plane that it was acquired in, as radiologists see them.

    Args:
        volume: any.
        count: how many at most; they are spread evenly over the middle of the volume, and are no neighbours.

    Returns:
        The slices; what is not finite in them is background.
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
    return StyledSlices(array, (volume.spacing[axis], rows, columns), acquisition_of(volume), background)


def air_value(volume: Volume) -> float:
    """Return the value of air: of CT by definition, otherwise zero, unless the image reaches below it."""
    if volume.modality == "CT":
        return CT_AIR
    steps = (max(1, size // BACKGROUND_GRID) for size in volume.shape)
    some = volume.array[tuple(slice(None, None, step) for step in steps)]
    some = some[np.isfinite(some)]
    lowest, highest = float(some.min(initial=0.0)), float(some.max(initial=0.0))
    # Interpolation leaves a little below zero.
    return lowest if lowest < -UNDERSHOOT * highest else 0.0
