"""What differs between MR scans: bias field, noise, ringing, motion and ghosts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
import torchio
from monai.transforms import GibbsNoise, RandBiasField, RandRicianNoise

from causal_sam.style.interventions.base import StyleIntervention, brightness_range, monai_seed
from causal_sam.style.slices import StyledSlices

MR = frozenset({"MR"})
# Noise as a share of the brightest tissue, by field strength in tesla; signal grows about linearly with the field.
NOISE = {1.5: (0.03, 0.05), 1.0: (0.045, 0.07), 0.55: (0.07, 0.1), 0.35: (0.09, 0.13)}


@dataclass(frozen=True)
class BiasField(StyleIntervention):
    """A coil that receives some parts of the body better than others.

    Attributes:
        strength: logarithm of the ratio of the best to the worst reception.
    """

    name: ClassVar[str] = "bias"
    modalities: ClassVar[frozenset[str]] = MR
    stage: ClassVar[int] = 3

    strength: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        return cls(float(rng.uniform(0.5, 1.3)))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        transform = RandBiasField(degree=3, coeff_range=(-1.0, 1.0), prob=1.0)
        transform.set_random_state(seed=monai_seed(rng))
        field = np.log(np.asarray(transform(np.ones((1, *slices.array.shape[1:]), np.float32))))
        seen = field[0][slices.tissue.any(axis=0)]
        # The same range for every draw, and on average nothing brighter or darker.
        field = (field - seen.mean()) * self.strength / max(float(np.ptp(seen)), 1e-6)
        return slices.with_array((slices.array - slices.background) * np.exp(field) + slices.background)


@dataclass(frozen=True)
class FieldStrength(StyleIntervention):
    """A weaker magnet: less signal for the same noise, which is Rician in magnitude images.

    Attributes:
        tesla: of the weaker magnet.
        noise: standard deviation, as a share of the brightest tissue.
    """

    name: ClassVar[str] = "field strength"
    modalities: ClassVar[frozenset[str]] = MR
    stage: ClassVar[int] = 4

    tesla: float
    noise: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        now = slices.acquisition.field_strength or 3.0
        tesla = float(rng.choice([tesla for tesla in NOISE if tesla < now] or [min(NOISE)]))
        return cls(tesla, float(rng.uniform(*NOISE[tesla])))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        noise = self.noise * brightness_range(slices)
        transform = RandRicianNoise(prob=1.0, std=noise, sample_std=False)
        transform.set_random_state(seed=monai_seed(rng))
        noisy = np.asarray(transform(slices.array - slices.background))
        return slices.with_array(noisy + slices.background, field_strength=self.tesla)


@dataclass(frozen=True)
class Gibbs(StyleIntervention):
    """Ringing beside edges: the outer part of k-space was not measured.

    Attributes:
        share: of the radius of k-space that is missing.
    """

    name: ClassVar[str] = "gibbs"
    modalities: ClassVar[frozenset[str]] = MR
    stage: ClassVar[int] = 5

    share: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        return cls(float(rng.uniform(0.5, 0.68)))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        return slices.with_array(np.asarray(GibbsNoise(self.share)(slices.array)))


@dataclass(frozen=True)
class Motion(StyleIntervention):
    """The patient moves in the plane while k-space is filled; its centre shows them where the slices show them.

    Attributes:
        times: of the movements, as shares of the scan.
        degrees: rotations.
        shifts: along rows and columns, in pixels.
        along_rows: whether k-space is filled along the rows.
    """

    name: ClassVar[str] = "motion"
    modalities: ClassVar[frozenset[str]] = MR
    stage: ClassVar[int] = 5
    weight: ClassVar[float] = 0.3

    times: tuple[float, ...]
    degrees: tuple[float, ...]
    shifts: tuple[tuple[float, float], ...]
    along_rows: bool

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        # Never close to the middle of the scan, when k-space has its centre: that would move the anatomy.
        times = rng.uniform(0.1, 0.4), rng.uniform(0.6, 0.9)
        reach = 0.025 * max(slices.array.shape[1:])
        shifts = tuple(tuple(pair) for pair in rng.uniform(-reach, reach, (2, 2)).tolist())
        return cls(times, tuple(rng.uniform(-4, 4, 2).tolist()), shifts, bool(rng.random() < 0.5))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        transform = torchio.Motion(
            degrees=np.array([(angle, 0, 0) for angle in self.degrees]),
            translation=np.array([(0, *pair) for pair in self.shifts]),
            times=np.array(self.times),
            image_interpolation="linear",
        )
        # TorchIO fills k-space along the last axis.
        axes = (0, 1, 2) if self.along_rows else (0, 2, 1)
        moved = transform(torch.from_numpy(np.ascontiguousarray(slices.array.transpose(axes))[None]))
        return slices.with_array(moved[0].numpy().transpose(axes))


@dataclass(frozen=True)
class Ghosts(StyleIntervention):
    """Faint copies beside the body, from breath and pulse.

    Attributes:
        count: of copies.
        strength: share of the signal that goes into them.
        rows: whether they lie along the rows' direction of counting.
    """

    name: ClassVar[str] = "ghosts"
    modalities: ClassVar[frozenset[str]] = MR
    stage: ClassVar[int] = 5
    weight: ClassVar[float] = 0.5

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
