"""What differs between CT scans: reconstruction kernel, dose and streaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from causal_sam.style.augmentations.base import StyleIntervention, clipped_hu
from causal_sam.style.slices import StyledSlices

CT = frozenset({"CT"})
KERNELS = ("soft", "standard", "sharp")
# HU by which a sharper kernel may change a voxel: more than noise does, less than would draw rims around air.
OVERSHOOT = 60.0


def _blurred(array: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.stack([cv2.GaussianBlur(slice_, (0, 0), sigma) for slice_ in array])


@dataclass(frozen=True)
class Kernel(StyleIntervention):
    """Another reconstruction kernel: fine detail and noise, damped or raised together.

    Detail is meant in pixels: the true cut-off of a kernel is finer than the pixels that most models see.

    Attributes:
        kernel: "soft", "standard" or "sharp".
        gain: of the finest detail; below 1 damps, above 1 raises.
    """

    name: ClassVar[str] = "kernel"
    modalities: ClassVar[frozenset[str]] = CT
    stage: ClassVar[int] = 3

    kernel: str
    gain: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        current = slices.acquisition.kernel or "standard"
        kernel = str(rng.choice([name for name in KERNELS if name != current]))
        steps = KERNELS.index(kernel) - KERNELS.index(current)
        if steps > 0:
            return cls(kernel, float(1 + steps * rng.uniform(0.6, 1.2)))
        return cls(kernel, float(rng.uniform(0.1, 0.4) if steps == -1 else rng.uniform(0.0, 0.1)))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        change = (self.gain - 1) * (slices.array - _blurred(slices.array, 0.9))
        if self.gain > 1:
            # Kernels overshoot at the skin too, but within the width of their own fine pixels.
            change = np.clip(change, -OVERSHOOT, OVERSHOOT)
        return slices.with_array(clipped_hu(slices.array + change), kernel=self.kernel)


@dataclass(frozen=True)
class Dose(StyleIntervention):
    """A lower dose: noise with the grain of the kernel, strongest in the middle of the body, where the way is longest.

    Attributes:
        noise: standard deviation in the middle of the body, in HU.
    """

    name: ClassVar[str] = "dose"
    modalities: ClassVar[frozenset[str]] = CT
    stage: ClassVar[int] = 4

    noise: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        return cls(float(np.exp(rng.uniform(np.log(15), np.log(40)))))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        grain = rng.standard_normal(slices.array.shape, dtype=np.float32)
        kernel = slices.acquisition.kernel
        if kernel == "sharp":
            # Hardly anything but fine grain: such kernels are nearly differentiators.
            grain -= 0.8 * _blurred(grain, 1.0)
        else:
            grain = _blurred(grain, 1.1 if kernel == "soft" else 0.7)
        grain *= self.noise / grain.std()
        body = slices.tissue.astype(np.float32)
        depth = _blurred(body, max(body.shape[1:]) / 8)
        depth /= max(float(depth.max()), 1e-6)
        return slices.with_array(clipped_hu(slices.array + grain * np.where(body > 0, 0.4 + 0.6 * depth, 0.25)))


@dataclass(frozen=True)
class Streaks(StyleIntervention):
    """Dark and bright rays that leave metal or dense bone.

    Attributes:
        row: of the place that they leave, as a share of the height.
        column: the same, of the width.
        strength: standard deviation where they begin, in HU.
        reach: distance in which they fade, as a share of the width.
    """

    name: ClassVar[str] = "streaks"
    modalities: ClassVar[frozenset[str]] = CT
    stage: ClassVar[int] = 5
    weight: ClassVar[float] = 0.5

    row: float
    column: float
    strength: float
    reach: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        middle = slices.middle
        # Implants sit in or at bone; without bone, anywhere.
        places = np.argwhere(middle > 250)
        if not len(places):
            places = np.argwhere(np.ones_like(middle))
        row, column = (rng.choice(places) + 0.5) / middle.shape
        return cls(float(row), float(column), float(rng.uniform(40, 130)), float(rng.uniform(0.15, 0.4)))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        _, height, width = slices.array.shape
        y, x = np.mgrid[:height, :width].astype(np.float32)
        y, x = y - self.row * height, x - self.column * width
        # A ray goes on behind the metal, so both halves of the circle are alike.
        half = gaussian_filter1d(rng.standard_normal(180), 2.0, mode="wrap")
        half = (half - half.mean()) / half.std()
        rays = np.interp(np.arctan2(y, x) % np.pi, np.linspace(0, np.pi, 181), np.append(half, half[0]))
        rays *= self.strength * np.exp(-np.hypot(y, x) / (self.reach * width))
        rays[~slices.tissue.any(axis=0)] *= 0.3
        return slices.with_array(clipped_hu(slices.array + rays))
