"""Intensity normalisation: Hounsfield units through a window, other modalities by percentiles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging.volume import Volume

# Soft tissue, in Hounsfield units: from below fat to contrast-filled vessels.
CT_WINDOW = (-160.0, 240.0)
# From air to dense bone.
WIDE_CT_WINDOW = (-1000.0, 1000.0)
# Magnitude images of MR are never negative and z-scores never reach this; air in Hounsfield units does, and a single
# wrong voxel is no air.
AIR_BELOW, FAT_BELOW = -200.0, -20.0
SHARE_BELOW = 1e-3
PERCENTILES = (0.5, 99.5)
# A value held by a larger share of the voxels than this, at the very bottom of the range, is background, not tissue.
BACKGROUND_SHARE = 0.05


@dataclass(frozen=True)
class IntensityWindow:
    """Intensities shown as black (``low``) and white (``high``), in the units of the image."""

    low: float
    high: float

    def apply(self, array: NDArray) -> NDArray[np.float32]:
        """Map intensities to [0, 1].

        Args:
            array: array of any shape. NaN and -inf become 0, +inf becomes 1.

        >>> IntensityWindow(-160.0, 240.0).apply(np.array([-1000.0, 40.0, np.nan, np.inf])).tolist()
        [0.0, 0.5, 0.0, 1.0]
        """
        low, high = np.float32(self.low), np.float32(self.high)
        # Clipped before it is scaled: an outlier far away from a narrow window would overflow.
        return np.nan_to_num((np.clip(np.asarray(array, dtype=np.float32), low, high) - low) / (high - low), nan=0.0)


def with_modality(volume: Volume, modality: str = "") -> Volume:
    """Return a volume with its modality; it is "CT" only where the voxels are Hounsfield units.

    That is seen by the values, whatever a header says: a thousandth of the finite voxels or more lies below -200 (air)
    or, of what is said to be CT and may be cropped, below -20 (fat). Other numbers that are said to be CT, as of a
    windowed picture or stored with an offset, are of unknown modality.

    Args:
        volume: whose own modality does not count.
        modality: DICOM code that the file or the data set says; "" if nothing does.
    """
    if modality in ("", "CT"):
        values = volume.array[np.isfinite(volume.array)] if volume.array.dtype.kind == "f" else volume.array
        below = FAT_BELOW if modality == "CT" else AIR_BELOW
        modality = "CT" if (values < below).mean() >= SHARE_BELOW else ""
    return replace(volume, modality=modality)


def intensity_window(volume: Volume) -> IntensityWindow:
    """Return the window of a volume: the same for all its slices and all orders of its voxels.

    CT uses -160..240 HU. Other images use the 0.5th to the 99.5th percentile of the finite voxels, leaving out a
    constant background (the lowest value, if a twentieth of all voxels have it). A constant image gets a window above
    its value, in which it is black.
    """
    if volume.modality == "CT":
        return IntensityWindow(*CT_WINDOW)
    values = volume.array.ravel(order="K")
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    lowest = values.min()
    background = values == lowest
    if BACKGROUND_SHARE <= background.mean() < 1:
        values = values[~background]
    low, high = (float(v) for v in np.percentile(values, PERCENTILES))
    if not high > low:
        # Nearly all voxels are alike: whatever differs is what there is to see.
        low, high = float(lowest), float(values.max())
    if not 0 < np.float32(high) - np.float32(low) < np.inf:
        # As wide as it takes for float32 to tell the two apart.
        high = low + max(1.0, abs(low) * 1e-3)
    return IntensityWindow(low, high)
