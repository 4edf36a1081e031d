"""Resolution: a coarser scan of the same anatomy, on the grid of the slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np

from causal_sam.errors import InputError
from causal_sam.style.augmentations.base import StyleAugmentation
from causal_sam.style.slices import StyledSlices

# Slices at this distance or more show different anatomy; a mixture would contradict the label map.
MAX_MIXED_DISTANCE_MM = 5.0


@dataclass(frozen=True)
class InPlaneResolution(StyleAugmentation, name="resolution", stage=2):
    """Larger pixels, interpolated back.

    MONAI's simulation of low resolution samples every n-th pixel, which aliases, whereas scanners average.

    Attributes:
        rows: factor of the distance of rows.
        columns: factor of the distance of columns.
    """

    rows: float
    columns: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        rows = columns = float(rng.uniform(1.5, 2.4))
        if slices.acquisition.modality != "CT" and rng.random() < 0.5:
            # MR reduces the resolution along the phase-encoding direction only.
            rows, columns = (rows, 1.0) if rng.random() < 0.5 else (1.0, columns)
        return cls(rows, columns)

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        height, width = slices.array.shape[1:]
        small = max(2, round(width / self.columns)), max(2, round(height / self.rows))
        array = [
            cv2.resize(
                cv2.resize(slice_, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=cv2.INTER_LINEAR
            )
            for slice_ in slices.array
        ]
        rows, columns = slices.acquisition.pixel_spacing or slices.spacing[1:]
        return slices.with_array(
            np.stack(array), pixel_spacing=(round(rows * self.rows, 2), round(columns * self.columns, 2))
        )


@dataclass(frozen=True)
class SliceThickness(StyleAugmentation, name="thickness", stage=2):
    """Thicker slices, which mix with their neighbours.

    Attributes:
        thickness: slice thickness in mm.
    """

    thickness: float

    @classmethod
    def fits(cls, slices: StyledSlices) -> bool:
        return super().fits(slices) and len(slices.array) > 1 and slices.spacing[0] < MAX_MIXED_DISTANCE_MM

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        distance = slices.spacing[0]
        # With more blur, a slice would contradict its label map.
        widest = max(1.7 * distance, min(len(slices.array) * distance, 5.0))
        return cls(round(float(np.hypot(_thickness(slices), rng.uniform(0.8, 1.0) * widest)), 1))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        distance, now = slices.spacing[0], _thickness(slices)
        if self.thickness <= now:
            raise InputError(f"Slices of {now:g} mm cannot be shown as ones of {self.thickness:g} mm, only as thicker.")
        # Widths of successive profiles add in quadrature.
        width = np.sqrt(self.thickness**2 - now**2)
        place = distance * np.arange(len(slices.array))
        distances = np.abs(place[:, None] - place[None])
        # Overlap of the profile around one position with the slice around another.
        shared = np.clip((width + distance) / 2 - distances, 0, min(distance, width))
        weights = (shared / shared.sum(axis=1, keepdims=True)).astype(np.float32)
        return slices.with_array(np.tensordot(weights, slices.array, axes=1), slice_thickness=self.thickness)


def _thickness(slices: StyledSlices) -> float:
    return slices.acquisition.slice_thickness or slices.spacing[0]
