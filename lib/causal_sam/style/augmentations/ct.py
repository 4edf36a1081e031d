"""CT: reconstruction kernel, dose and streaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from causal_sam.style.augmentations.base import StyleAugmentation, clipped_hu
from causal_sam.style.slices import StyledSlices

CT = frozenset({"CT"})
KERNELS = ("soft", "standard", "sharp")
# Maximum change in HU by a sharper kernel: larger than noise, but too small for rims around air.
OVERSHOOT = 60.0


def _blurred(array: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.stack([cv2.GaussianBlur(slice_, (0, 0), sigma) for slice_ in array])


@dataclass(frozen=True)
class Kernel(StyleAugmentation, name="kernel", modalities=CT, stage=3):
    """Another reconstruction kernel: damps or raises fine detail and noise together.

    The scale of detail is in pixels, since the true cut-off of a kernel is finer than the pixels of most models.

    Attributes:
        kernel: "soft", "standard" or "sharp".
        gain: gain of the finest detail; values below 1 damp, values above 1 raise.
    """

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
            # Real kernels overshoot at the skin only within their own fine pixels.
            change = np.clip(change, -OVERSHOOT, OVERSHOOT)
        return slices.with_array(clipped_hu(slices.array + change), kernel=self.kernel)


@dataclass(frozen=True)
class Dose(StyleAugmentation, name="dose", modalities=CT, stage=4):
    """A lower dose: noise with the grain of the kernel, strongest in the centre of the body.

    Attributes:
        noise: standard deviation in the centre of the body, in HU.
    """

    noise: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        return cls(float(np.exp(rng.uniform(np.log(15), np.log(40)))))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        grain = rng.standard_normal(slices.array.shape, dtype=np.float32)
        kernel = slices.acquisition.kernel
        if kernel == "sharp":
            # Sharp kernels have mostly fine grain, since they are nearly differentiators.
            grain -= 0.8 * _blurred(grain, 1.0)
        else:
            grain = _blurred(grain, 1.1 if kernel == "soft" else 0.7)
        grain *= self.noise / grain.std()
        body = slices.tissue.astype(np.float32)
        depth = _blurred(body, max(body.shape[1:]) / 8)
        depth /= max(float(depth.max()), 1e-6)
        return slices.with_array(clipped_hu(slices.array + grain * np.where(body > 0, 0.4 + 0.6 * depth, 0.25)))


@dataclass(frozen=True)
class Streaks(StyleAugmentation, name="streaks", modalities=CT, stage=5, weight=0.5):
    """Dark and bright rays from metal or dense bone.

    Attributes:
        row: row of the origin, as a share of the height.
        column: column of the origin, as a share of the width.
        strength: standard deviation at the origin, in HU.
        reach: decay length, as a share of the width.
    """

    row: float
    column: float
    strength: float
    reach: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        middle = slices.middle
        # Implants are in or at bone; without bone, the origin is anywhere.
        places = np.argwhere(middle > 250)
        if not len(places):
            places = np.argwhere(np.ones_like(middle))
        row, column = (rng.choice(places) + 0.5) / middle.shape
        return cls(float(row), float(column), float(rng.uniform(40, 130)), float(rng.uniform(0.15, 0.4)))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        _, height, width = slices.array.shape
        y, x = np.mgrid[:height, :width].astype(np.float32)
        y, x = y - self.row * height, x - self.column * width
        # Rays continue on the other side of the metal, so that both halves of the circle are equal.
        half = gaussian_filter1d(rng.standard_normal(180), 2.0, mode="wrap")
        half = (half - half.mean()) / half.std()
        rays = np.interp(np.arctan2(y, x) % np.pi, np.linspace(0, np.pi, 181), np.append(half, half[0]))
        rays *= self.strength * np.exp(-np.hypot(y, x) / (self.reach * width))
        rays[~slices.tissue.any(axis=0)] *= 0.3
        return slices.with_array(clipped_hu(slices.array + rays))
