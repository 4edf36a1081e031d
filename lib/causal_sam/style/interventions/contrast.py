"""Contrast: other brightness for the same tissues, as another sequence, another modality or contrast agent gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from monai.transforms import AdjustContrast

from causal_sam.style.interventions.base import StyleIntervention, brightness_range, clipped_hu
from causal_sam.style.interventions.curves import Curve, brightness_levels, clearest
from causal_sam.style.slices import StyledSlices

# Curves that are tried before the best so far is taken, and the share of a difference between tissues that must last.
TRIES = 12
ENOUGH = 0.35
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
    "arterial": [(18, 44, 54, 66, 95, 260, 345), (20, 46, 58, 72, 190, 280, 360)],
    "portal venous": [(24, 60, 85, 112, 140, 165, 200)],
    "delayed": [(22, 50, 70, 88, 104, 122, 165), (22, 52, 74, 108, 92, 76, 130)],
}
# The same for tissue of 10, 25, 35, 45, 60, 75 and 110 HU when no agent was given before.
UNENHANCED = (10, 25, 35, 45, 60, 75, 110)
FROM_UNENHANCED = {
    "arterial": [(10, 90, 190, 160, 75, 95, 150), (10, 40, 70, 120, 190, 240, 300)],
    "portal venous": [(10, 40, 66, 95, 130, 160, 210), (10, 130, 175, 140, 100, 125, 170)],
    "delayed": [(10, 35, 55, 76, 100, 122, 165)],
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
        tissue = slices.array[slices.tissue]
        levels = brightness_levels((tissue - slices.background) / brightness_range(slices), 0.05, 1.0)
        curves = [
            _sequence_curve(known, SEQUENCES[sequence], rng) if known and sequence else _random_curve(rng)
            for _ in range(TRIES)
        ]
        return cls(clearest(curves, levels, ENOUGH), sequence)

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        scale = brightness_range(slices)
        shares = self.curve.recolour((slices.array - slices.background) / scale, noise=0.04)
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
        return cls(float(np.exp(rng.choice([-1, 1]) * rng.uniform(0.25, 0.7))))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        return slices.with_array(np.asarray(AdjustContrast(self.gamma)(slices.array)))


@dataclass(frozen=True)
class ContrastPhase(StyleIntervention):
    """Another phase of contrast agent in CT: other HU for soft tissue and vessels; fat, water and bone keep theirs.

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
        # Where nobody wrote it down: without agent, next to no soft tissue is above 80 HU.
        soft = slices.array[(slices.array > 0) & (slices.array < 250)]
        enhanced = facts.contrast_agent
        if facts.phase:
            enhanced = facts.phase != "native"
        if enhanced is None:
            enhanced = bool(soft.size and np.percentile(soft, 90) > 80)
        old, table = (ENHANCED, FROM_ENHANCED) if enhanced else (UNENHANCED, FROM_UNENHANCED)
        phase = str(rng.choice([name for name in table if name != facts.phase]))
        choices = table[phase]
        curves = []
        for _ in range(TRIES):
            new = np.array(choices[rng.integers(len(choices))]) * rng.uniform(0.9, 1.1, len(old))
            # Bone is where it was, and so are fat and air.
            curves.append(Curve((-3100, -30, *old, 450, 4000), (-3100, -30, *new, 460, 4000)))
        return cls(clearest(curves, brightness_levels(soft, 0, 250), ENOUGH), phase)

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        array = clipped_hu(self.curve.recolour(slices.array, noise=20))
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
            levels = brightness_levels(slices.array, -150, 300)
            curves = [_mr_from_ct(rng) for _ in range(TRIES)]
            return cls(clearest(curves, levels, ENOUGH / 400), "MR")
        shares = (slices.array[slices.tissue] - slices.background) / brightness_range(slices)
        curves = [_ct_from_mr(rng) for _ in range(TRIES)]
        return cls(clearest(curves, brightness_levels(shares, 0.05, 1.0), ENOUGH * 400), "CT")

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        pixel, thickness = slices.acquisition.pixel_spacing, slices.acquisition.slice_thickness
        # No scanner of one modality has the other facts of a scanner of the other.
        facts = replace(type(slices.acquisition)(self.modality), pixel_spacing=pixel, slice_thickness=thickness)
        if self.modality == "MR":
            array = 1000 * np.maximum(self.curve.recolour(slices.array, noise=20), 0)
            background = 0.0
        else:
            shares = (slices.array - slices.background) / brightness_range(slices)
            array = clipped_hu(self.curve.recolour(shares, noise=0.04))
            background = -1000.0
        return replace(slices, array=array.astype(np.float32), acquisition=facts, background=background)


def _sequence_curve(source: tuple[float, ...], target: tuple[float, ...], rng: np.random.Generator) -> Curve:
    old, new = np.array(sorted(zip(source, target, strict=True))).T
    old, new = old + rng.uniform(-0.03, 0.03, 3), new + rng.uniform(-0.08, 0.08, 3)
    # The brightest is fat, which is bright in all of them unless it is suppressed.
    brightest = rng.uniform(0.8, 1.0) if rng.random() < 0.5 else new[-1]
    return Curve((0.0, 0.05, *old.tolist(), 1.05), (0.0, 0.05, *np.clip(new, 0.06, 1).tolist(), float(brightest)))


def _random_curve(rng: np.random.Generator) -> Curve:
    """Levels in any order, each with a place of its own on the scale."""
    count = int(rng.integers(3, 6))
    places = (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count
    old = (np.arange(count) + rng.uniform(0.2, 0.8, count)) / count
    return Curve((0.0, 0.05, *(0.08 + 0.97 * old).tolist()), (0.0, 0.05, *(0.1 + 0.9 * places).tolist()))


def _mr_from_ct(rng: np.random.Generator) -> Curve:
    """Fat is bright, bone has hardly a signal, and soft tissue is in any order."""
    soft = (rng.permutation(4) + rng.uniform(0.2, 0.8, 4)) / 4 * 0.75 + 0.15
    return Curve(
        (-1050, -400, -110, 0, 45, 100, 170, 300, 700, 4000),
        (0.0, 0.02, rng.uniform(0.5, 1.0), *soft.tolist(), rng.uniform(0.1, 0.4), 0.05, 0.05),
    )


def _ct_from_mr(rng: np.random.Generator) -> Curve:
    """Everything is soft tissue or fat, in any order: MR does not tell air from bone."""
    count = int(rng.integers(3, 5))
    old = (np.arange(count) + rng.uniform(0.25, 0.75, count)) / count * 0.95 + 0.08
    places = (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count
    return Curve((0.0, 0.03, *old.tolist()), (-1000.0, -950.0, *(-120 + 340 * places).tolist()))
