"""MR: bias field, noise, ringing, motion and ghosts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torchio
from monai.transforms import GibbsNoise, RandBiasField, RandRicianNoise
from numpy.typing import NDArray

from causal_sam.style.augmentations.base import StyleAugmentation, brightness_range, monai_seed
from causal_sam.style.slices import StyledSlices

MR = frozenset({"MR"})
# Field strength in T -> range of noise as a share of the median signal; the signal is about linear in the field.
NOISE = {1.5: (0.05, 0.08), 1.0: (0.07, 0.1), 0.55: (0.09, 0.13), 0.35: (0.12, 0.17)}
# Share of the brightest tissue above which a voxel is certainly not air.
MIN_TISSUE_SHARE = 0.12


def _certain_tissue(slices: StyledSlices) -> NDArray[np.bool_]:
    """Return the mask of certain tissue on the middle slice, HxW."""
    middle = slices.middle - slices.background
    return middle > MIN_TISSUE_SHARE * brightness_range(slices)


@dataclass(frozen=True)
class BiasField(StyleAugmentation, name="bias", modalities=MR, stage=3):
    """Inhomogeneous sensitivity of the receive coil.

    Attributes:
        strength: logarithm of the ratio of maximum to minimum sensitivity.
    """

    strength: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        return cls(float(rng.uniform(0.7, 1.5)))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        transform = RandBiasField(degree=3, coeff_range=(-1.0, 1.0), prob=1.0)
        transform.set_random_state(seed=monai_seed(rng))
        field = np.log(np.asarray(transform(np.ones((1, *slices.array.shape[1:]), np.float32)))[0])
        tissue = _certain_tissue(slices)
        seen = field[tissue] if tissue.any() else field
        low, high = np.percentile(seen, (2, 98))
        # Normalise the range and the mean over tissue, which may be a single point.
        field = (field - seen.mean()) * self.strength / max(high - low, 0.1 * float(np.ptp(field)))
        # Polynomials diverge in the corners.
        field = np.clip(field, -self.strength, self.strength)
        return slices.with_array((slices.array - slices.background) * np.exp(field) + slices.background)


@dataclass(frozen=True)
class FieldStrength(StyleAugmentation, name="field strength", modalities=MR, stage=4):
    """A lower field strength: less signal for the same noise, which is Rician in magnitude images.

    Attributes:
        tesla: field strength in T.
        noise: standard deviation, as a share of the median signal of tissue.
    """

    tesla: float
    noise: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        now = slices.acquisition.field_strength or 3.0
        tesla = float(rng.choice([tesla for tesla in NOISE if tesla < now] or [min(NOISE)]))
        return cls(tesla, float(rng.uniform(*NOISE[tesla])))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        tissue = slices.middle[_certain_tissue(slices)]
        noise = self.noise * float(np.median(tissue) - slices.background if tissue.size else brightness_range(slices))
        transform = RandRicianNoise(prob=1.0, std=noise, sample_std=False)
        transform.set_random_state(seed=monai_seed(rng))
        noisy = np.asarray(transform(slices.array - slices.background))
        return slices.with_array(noisy + slices.background, field_strength=self.tesla)


@dataclass(frozen=True)
class Gibbs(StyleAugmentation, name="gibbs", modalities=MR, stage=5):
    """Ringing beside edges, caused by a missing outer part of k-space.

    Attributes:
        share: missing share of the radius of k-space.
    """

    share: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        return cls(float(rng.uniform(0.55, 0.72)))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        return slices.with_array(np.asarray(GibbsNoise(self.share)(slices.array)))


@dataclass(frozen=True)
class Motion(StyleAugmentation, name="motion", modalities=MR, stage=5, weight=0.3):
    """In-plane motion, to one side before the centre of k-space is measured and to the other side afterwards.

    Edges double, but keep their mean position.

    Attributes:
        still: share of the scan without motion, in its middle.
        degrees: rotation to either side, in degrees.
        shift: shift of rows and columns to either side, in pixels.
        along_rows: whether k-space is filled along the rows.
    """

    still: float
    degrees: float
    shift: tuple[float, float]
    along_rows: bool

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        reach = 0.016 * max(slices.array.shape[1:])
        rows, columns = rng.choice([-1, 1], 2) * rng.uniform(0.3, 1, 2) * reach
        return cls(
            still=float(rng.uniform(0.1, 0.3)),
            degrees=float(rng.uniform(-3, 3)),
            shift=(float(rows), float(columns)),
            along_rows=bool(rng.random() < 0.5),
        )

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        sides = np.array([[1.0], [-1.0]])
        # TorchIO fills k-space along the last axis.
        axes = (0, 1, 2) if self.along_rows else (0, 2, 1)
        shift = self.shift if self.along_rows else self.shift[::-1]
        transform = torchio.Motion(
            degrees=sides * (self.degrees, 0, 0),
            translation=sides * (0, *shift),
            times=np.array([0.5 - self.still / 2, 0.5 + self.still / 2]),
            image_interpolation="linear",
        )
        moved = transform(torch.from_numpy(np.ascontiguousarray(slices.array.transpose(axes))[None]))
        return slices.with_array(moved[0].numpy().transpose(axes))


@dataclass(frozen=True)
class Ghosts(StyleAugmentation, name="ghosts", modalities=MR, stage=5, weight=0.5):
    """Faint copies beside the body, caused by breathing and pulsation.

    Attributes:
        count: number of copies.
        strength: share of the signal in the copies.
        rows: whether the copies are shifted along the row index, otherwise along the column index.
    """

    count: int
    strength: float
    rows: bool

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        return cls(int(rng.integers(2, 6)), float(rng.uniform(0.35, 0.7)), bool(rng.random() < 0.5))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        transform = torchio.Ghosting(
            num_ghosts=self.count, axis=1 if self.rows else 2, intensity=self.strength, restore=0.05
        )
        ghosted = transform(torch.from_numpy((slices.array - slices.background)[None]))[0].numpy()
        return slices.with_array(np.maximum(ghosted, 0) + slices.background)
