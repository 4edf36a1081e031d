"""Resolution: what a coarser scan of the same patient shows, on the grid that the slices have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import cv2
import numpy as np

from causal_sam.errors import InputError
from causal_sam.style.augmentations.base import StyleIntervention
from causal_sam.style.slices import StyledSlices

# The next slice of those that lie so far apart shows other anatomy: mixed with it, one is not what its label map says.
FAR_APART_MM = 5.0


@dataclass(frozen=True)
class InPlaneResolution(StyleIntervention):
    """Larger pixels, interpolated back.

    MONAI's simulation of low resolution picks every n-th pixel, which aliases; a scanner averages.

    Attributes:
        rows: how many times the distance of rows grows.
        columns: the same of columns.
    """

    name: ClassVar[str] = "resolution"
    stage: ClassVar[int] = 2

    rows: float
    columns: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        rows = columns = float(rng.uniform(1.5, 2.4))
        if slices.acquisition.modality != "CT" and rng.random() < 0.5:
            # MR saves time along one direction, the one of phase encoding.
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
class SliceThickness(StyleIntervention):
    """Thicker slices: each shows a share of its neighbours.

    Attributes:
        thickness: of the slices, in mm.
    """

    name: ClassVar[str] = "thickness"
    stage: ClassVar[int] = 2

    thickness: float

    @classmethod
    def fits(cls, slices: StyledSlices) -> bool:
        return super().fits(slices) and len(slices.array) > 1 and slices.spacing[0] < FAR_APART_MM

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        distance = slices.spacing[0]
        # Blurred more than this, a slice no longer shows what its label map says.
        widest = max(1.7 * distance, min(len(slices.array) * distance, 5.0))
        return cls(round(float(np.hypot(_thickness(slices), rng.uniform(0.8, 1.0) * widest)), 1))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        distance, now = slices.spacing[0], _thickness(slices)
        if self.thickness <= now:
            raise InputError(f"Slices of {now:g} mm cannot be shown as ones of {self.thickness:g} mm, only as thicker.")
        # Widths of profiles that act one after the other add like standard deviations.
        width = np.sqrt(self.thickness**2 - now**2)
        place = distance * np.arange(len(slices.array))
        apart = np.abs(place[:, None] - place[None])
        # How much of the profile around one place lies in the slice around another.
        shared = np.clip((width + distance) / 2 - apart, 0, min(distance, width))
        weights = (shared / shared.sum(axis=1, keepdims=True)).astype(np.float32)
        return slices.with_array(np.tensordot(weights, slices.array, axes=1), slice_thickness=self.thickness)


def _thickness(slices: StyledSlices) -> float:
    return slices.acquisition.slice_thickness or slices.spacing[0]
