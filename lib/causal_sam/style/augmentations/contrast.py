"""Contrast: other brightness for the same tissues, as another sequence, another modality or contrast agent gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import cv2
import numpy as np
from monai.transforms import AdjustContrast
from numpy.typing import NDArray

from causal_sam.style.acquisition import Acquisition
from causal_sam.style.augmentations.base import StyleIntervention, brightness_range, clipped_hu
from causal_sam.style.augmentations.curves import Curve, brightness_levels, clearest, noise_level
from causal_sam.style.slices import StyledSlices

# Curves that are tried before the best of them is taken; the share of a difference between tissues that must be left,
# and how many times the difference of similar tissues may grow.
TRIES = 12
LEAST = 0.35
MOST = 3.5
# Clarity below which a curve is not used.
UNCLEAR = 0.4
# Noise that is put aside before brightness changes, in HU and as a share of the brightest tissue: from next to nothing
# to more than most images have.
CT_NOISE = (4.0, 35.0)
MR_NOISE = (0.008, 0.06)
# Half of the width of a tissue, in HU and as a share of the brightest tissue: less than half of what levels are apart.
CT_EVEN = 8.0
MR_EVEN = 0.025
# What is darker than this share of the brightest tissue is air.
DARK = 0.05
# The same for the worst noise.
BRIGHTEST_AIR = 0.15
# HU between black and white in the window where CT is looked at.
HU_RANGE = 400.0
# Units of MR are arbitrary; scanners store tissue in some hundreds.
MR_UNITS = np.float32(1000)
# How bright water, grey matter and white matter are, as shares of the brightest tissue; organs lie in between.
SEQUENCES = {
    "T1": (0.15, 0.45, 0.70),
    "T2": (0.98, 0.60, 0.32),
    "FLAIR": (0.12, 0.75, 0.48),
    "PD": (0.90, 0.68, 0.45),
}
# HU that tissue of 20 (water, bile), 45, 60, 90, 130, 180 and 260 HU has in another phase.
ENHANCED = (20, 45, 60, 90, 130, 180, 260)
FROM_ENHANCED = {
    "native": [(20, 38, 48, 60, 74, 90, 125), (20, 46, 62, 70, 56, 38, 90)],
    "arterial": [(18, 44, 54, 66, 95, 260, 345), (18, 42, 50, 60, 120, 320, 400)],
    "portal venous": [(24, 60, 85, 112, 140, 165, 200)],
    "delayed": [(22, 50, 70, 88, 104, 122, 165), (22, 52, 74, 108, 92, 76, 130)],
}
# The same for tissue of 10, 25, 35, 45, 60, 75 and 110 HU when no agent was given before. There, noise is as large as
# the differences between organs, so only curves that rise make sense.
UNENHANCED = (10, 25, 35, 45, 60, 75, 110)
FROM_UNENHANCED = {
    "arterial": [(10, 30, 55, 90, 140, 190, 270)],
    "portal venous": [(10, 36, 62, 88, 122, 150, 205)],
    "delayed": [(10, 32, 50, 70, 94, 116, 160)],
}


@dataclass(frozen=True)
class Remap(StyleIntervention):
    """Other brightness for every tissue of MR, as between T1, T2, FLAIR and PD, or as no sequence has it.

    Attributes:
        curve: from share to share of the brightest tissue.
        sequence: the sequence that it imitates; None for none.
    """

    name: ClassVar[str] = "remap"
    modalities: ClassVar[frozenset[str]] = frozenset({"MR", ""})
    stage: ClassVar[int] = 0
    weight: ClassVar[float] = 2.0

    curve: Curve
    sequence: str | None

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        known = SEQUENCES.get(slices.acquisition.sequence or "")
        sequence = None
        if known and rng.random() < 0.6:
            sequence = str(rng.choice([name for name in SEQUENCES if name != slices.acquisition.sequence]))
        levels, air = _mr_levels(slices)
        curve = None
        if known and sequence:
            curves = [_sequence_curve(known, SEQUENCES[sequence], rng) for _ in range(TRIES)]
            curve = clearest(curves, levels, LEAST, MOST)
            if curve.clarity(levels, LEAST, MOST) < UNCLEAR:
                # Tissues that the other sequence tells apart, but not by what they look like in this one.
                curve = sequence = None
        curve = curve or clearest([_random_curve(levels, air, rng) for _ in range(TRIES)], levels, LEAST, MOST)
        return cls(curve.even_at(levels, MR_EVEN, 1.0), sequence)

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        shares, scale = _shares(slices)
        shares = self.curve.recolour(shares, _mr_noise(shares))
        return slices.with_array(np.maximum(shares, 0) * scale + slices.background, sequence=self.sequence)


@dataclass(frozen=True)
class Gamma(StyleIntervention):
    """Brighter or darker middle tones.

    Attributes:
        gamma: exponent; above 1 darkens.
    """

    name: ClassVar[str] = "gamma"
    modalities: ClassVar[frozenset[str]] = frozenset({"MR", ""})
    stage: ClassVar[int] = 1

    gamma: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        return cls(float(np.exp(rng.choice([rng.uniform(-0.5, -0.25), rng.uniform(0.25, 0.7)]))))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        return slices.with_array(np.asarray(AdjustContrast(self.gamma)(slices.array)))


@dataclass(frozen=True)
class ContrastPhase(StyleIntervention):
    """Another phase of contrast agent in CT: other HU for soft tissue and vessels, nearly the same for fat and bone.

    Attributes:
        curve: from HU to HU.
        phase: "native", "arterial", "portal venous" or "delayed".
    """

    name: ClassVar[str] = "phase"
    modalities: ClassVar[frozenset[str]] = frozenset({"CT"})
    stage: ClassVar[int] = 0
    weight: ClassVar[float] = 2.0

    curve: Curve
    phase: str

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        facts = slices.acquisition
        middle = cv2.GaussianBlur(slices.middle, (0, 0), 1.5)
        # Where nobody wrote it down: without agent, next to no soft tissue is above 80 HU.
        calm = middle[(middle > 0) & (middle < 250)]
        enhanced = facts.contrast_agent
        if facts.phase:
            enhanced = facts.phase != "native"
        if enhanced is None:
            enhanced = bool(calm.size and np.percentile(calm, 85) > 80)
        old, table = (ENHANCED, FROM_ENHANCED) if enhanced else (UNENHANCED, FROM_UNENHANCED)
        phase = str(rng.choice([name for name in table if name != facts.phase]))
        choices = table[phase]
        curves = []
        for _ in range(TRIES):
            new = np.array(choices[rng.integers(len(choices))]) * rng.uniform(0.9, 1.1, len(old))
            # Bone is where it was, and so are fat and air.
            curves.append(Curve((-3100, -30, *old, 450, 4000), (-3100, -30, *new, 460, 4000)))
        levels = brightness_levels(slices.array, 0, 250)
        return cls(clearest(curves, levels, LEAST, MOST).even_at(levels, CT_EVEN, 1.0), phase)

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        array = clipped_hu(self.curve.recolour(slices.array, _ct_noise(slices.array)))
        return slices.with_array(array, phase=self.phase, contrast_agent=self.phase != "native")


@dataclass(frozen=True)
class OtherModality(StyleIntervention):
    """The brightness that tissue has in MR for CT, and the other way round.

    Attributes:
        curve: from HU to the share of the brightest tissue in MR, or the other way round.
        modality: "MR" or "CT", that of the result.
    """

    name: ClassVar[str] = "modality"
    modalities: ClassVar[frozenset[str]] = frozenset({"CT", "MR"})
    stage: ClassVar[int] = -1

    curve: Curve
    modality: str

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        if slices.acquisition.modality == "CT":
            levels = brightness_levels(slices.array, -150, 280)
            curves = [_mr_from_ct(levels, rng) for _ in range(TRIES)]
            curve = clearest(curves, levels, LEAST / HU_RANGE, MOST / HU_RANGE)
            return cls(curve.even_at(levels, CT_EVEN, 1 / HU_RANGE), "MR")
        levels, air = _mr_levels(slices)
        curves = [_ct_from_mr(levels, air, rng) for _ in range(TRIES)]
        curve = clearest(curves, levels, LEAST * HU_RANGE, MOST * HU_RANGE)
        return cls(curve.even_at(levels, MR_EVEN, HU_RANGE), "CT")

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        # No scanner of one modality has the other facts of a scanner of the other.
        facts = Acquisition(
            self.modality,
            pixel_spacing=slices.acquisition.pixel_spacing,
            slice_thickness=slices.acquisition.slice_thickness,
        )
        if self.modality == "MR":
            shares = self.curve.recolour(slices.array, _ct_noise(slices.array), gain=1 / HU_RANGE)
            return replace(slices, array=MR_UNITS * np.maximum(shares, 0), acquisition=facts, background=0.0)
        shares, _ = _shares(slices)
        hu = self.curve.recolour(shares, _mr_noise(shares), gain=HU_RANGE)
        return replace(slices, array=clipped_hu(hu), acquisition=facts, background=-1000.0)


def _shares(slices: StyledSlices) -> tuple[NDArray[np.float32], float]:
    """Return brightness above the background as shares of the brightest tissue's, and what that is."""
    scale = brightness_range(slices)
    return (slices.array - np.float32(slices.background)) / np.float32(scale), scale


def _ct_noise(array: NDArray[np.float32]) -> float:
    middle = array[len(array) // 2]
    return float(np.clip(noise_level(middle, middle > -500), *CT_NOISE))


def _mr_noise(shares: NDArray[np.float32]) -> float:
    middle = shares[len(shares) // 2]
    return float(np.clip(noise_level(middle, middle > DARK), *MR_NOISE))


def _mr_levels(slices: StyledSlices) -> tuple[NDArray[np.float64], float]:
    """Return the levels of tissue, and the largest value of air, as shares of the brightest tissue's."""
    shares, _ = _shares(slices)
    rim = np.concatenate([shares[:, [0, 1, -2, -1]].ravel(), shares[:, :, [0, 1, -2, -1]].ravel()])
    rim = rim[rim < BRIGHTEST_AIR]
    # Air is as bright as the magnitude of noise, which hardly ever exceeds 3.5 standard deviations. It is seen at the
    # rim, where the patient does not reach that far.
    air = max(DARK, 3.5 * _mr_noise(shares), float(np.percentile(rim, 99)) if rim.size else 0.0)
    air = min(air, BRIGHTEST_AIR)
    levels = brightness_levels(shares, air, 1.0)
    return levels[levels > air + 1.2 * MR_EVEN], air


def _sequence_curve(source: tuple[float, ...], target: tuple[float, ...], rng: np.random.Generator) -> Curve:
    old, new = np.array(sorted(zip(source, target, strict=True))).T
    old, new = old + rng.uniform(-0.03, 0.03, 3), new + rng.uniform(-0.08, 0.08, 3)
    # The brightest is fat, which is bright in all of them unless it is suppressed.
    brightest = rng.uniform(0.8, 1.0) if rng.random() < 0.5 else new[-1]
    return Curve((0.0, 0.05, *old.tolist(), 1.05), (0.0, 0.05, *np.clip(new, 0.06, 1).tolist(), float(brightest)))


def _random_curve(levels: NDArray[np.float64], air: float, rng: np.random.Generator) -> Curve:
    """Levels in any order, each with a place of its own on the scale."""
    old = _ends(levels)
    return Curve((0.0, air, *old.tolist()), (0.0, air, *(0.15 + 0.85 * _places(len(old), rng)).tolist()))


def _ends(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the levels and, unless one is there, the brightest end of the scale.

    A curve that turns between two levels would show the edges of tissues as tissues of their own.
    """
    return levels if len(levels) and levels[-1] > 0.85 else np.append(levels, 1.05)


def _places(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return places on a scale from 0 to 1, in any order and well apart."""
    return (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count


def _mr_from_ct(levels: NDArray[np.float64], rng: np.random.Generator) -> Curve:
    """Fat is bright, bone has hardly a signal, and soft tissue is in any order."""
    soft = levels[levels > -40]
    places = 0.15 + 0.8 * _places(len(soft) + 1, rng)
    if rng.random() < 0.7:
        places = np.sort(places)[np.append(rng.permutation(len(soft)), len(soft))]
    *organs, fat = places.tolist()
    bone = rng.uniform(0.1, 0.4)
    return Curve((-1050, -500, -105, *soft.tolist(), 330, 700, 4000), (0.0, 0.02, fat, *organs, bone, 0.05, 0.05))


def _ct_from_mr(levels: NDArray[np.float64], air: float, rng: np.random.Generator) -> Curve:
    """Everything is soft tissue or fat, in any order."""
    old = _ends(levels)
    new = -120 + 340 * _places(len(old), rng)
    if old[0] > air + 0.15:
        # What is nearly as dark as air, but not quite, is water of one sequence or the other.
        old, new = np.append(air + 0.05, old), np.append(rng.uniform(-60, 20), new)
    return Curve((0.0, air, *old.tolist()), (-1000.0, -950.0, *new.tolist()))
