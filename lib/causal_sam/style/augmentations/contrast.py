"""Contrast: other brightness of tissues, as with another sequence, modality or contrast phase."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import cv2
import numpy as np
from monai.transforms import AdjustContrast
from numpy.typing import NDArray

from causal_sam.style.acquisition import Acquisition
from causal_sam.style.augmentations.base import StyleAugmentation, brightness_range, clipped_hu
from causal_sam.style.augmentations.curves import Curve, brightness_levels, clearest_curve, noise_level
from causal_sam.style.slices import StyledSlices

# Number of candidate curves; minimum share of a difference between tissues that a curve keeps, and maximum factor by
# which the difference of similar tissues may grow.
CANDIDATES = 12
MIN_DIFFERENCE = 0.35
MAX_STEEPNESS = 3.5
# Minimum clarity of a curve.
MIN_CLARITY = 0.4
# Range of the noise that is separated before brightness changes, in HU and as a share of the brightest tissue.
CT_NOISE = (4.0, 35.0)
MR_NOISE = (0.008, 0.06)
# Half the width of a tissue, in HU and as a share of the brightest tissue: less than half the distance of levels.
CT_TISSUE_WIDTH = 8.0
MR_TISSUE_WIDTH = 0.025
# Maximum brightness of air as a share of the brightest tissue, without noise.
AIR_SHARE = 0.05
# The same with the strongest noise.
MAX_AIR_SHARE = 0.15
# Width in HU of the soft tissue window.
HU_RANGE = 400.0
# Brightness of the brightest tissue of MR; its units are arbitrary.
MR_UNITS = np.float32(1000)
# Brightness of water, grey matter and white matter, as shares of the brightest tissue; organs lie in between.
SEQUENCES = {"T1": (0.15, 0.45, 0.70), "T2": (0.98, 0.60, 0.32), "FLAIR": (0.12, 0.75, 0.48), "PD": (0.90, 0.68, 0.45)}
# HU of enhanced tissue, and the HU of the same tissue in other phases; 20 is water or bile.
ENHANCED = (20, 45, 60, 90, 130, 180, 260)
FROM_ENHANCED = {
    "native": [(20, 38, 48, 60, 74, 90, 125), (20, 46, 62, 70, 56, 38, 90)],
    "arterial": [(18, 44, 54, 66, 95, 260, 345), (18, 42, 50, 60, 120, 320, 400)],
    "portal venous": [(24, 60, 85, 112, 140, 165, 200)],
    "delayed": [(22, 50, 70, 88, 104, 122, 165), (22, 52, 74, 108, 92, 76, 130)],
}
# The same for images without contrast agent, where noise is as large as the differences between organs. All curves are
# monotone there.
UNENHANCED = (10, 25, 35, 45, 60, 75, 110)
FROM_UNENHANCED = {
    "arterial": [(10, 30, 55, 90, 140, 190, 270)],
    "portal venous": [(10, 36, 62, 88, 122, 150, 205)],
    "delayed": [(10, 32, 50, 70, 94, 116, 160)],
}


@dataclass(frozen=True)
class Remap(StyleAugmentation, name="remap", modalities=frozenset({"MR", ""}), stage=0, weight=2.0):
    """Other brightness for every tissue of MR, as in another sequence or at random.

    Attributes:
        curve: curve between shares of the brightest tissue.
        sequence: imitated sequence; None for a random curve.
    """

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
            curves = [_sequence_curve(known, SEQUENCES[sequence], rng) for _ in range(CANDIDATES)]
            curve = clearest_curve(curves, levels, MIN_DIFFERENCE, MAX_STEEPNESS)
            if curve.clarity(levels, MIN_DIFFERENCE, MAX_STEEPNESS) < MIN_CLARITY:
                # The other sequence would distinguish tissues that look alike in this one.
                curve = sequence = None
        curve = curve or clearest_curve(
            [_random_curve(levels, air, rng) for _ in range(CANDIDATES)], levels, MIN_DIFFERENCE, MAX_STEEPNESS
        )
        return cls(curve.with_even_slopes(levels, MR_TISSUE_WIDTH, 1.0), sequence)

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        shares, scale = _shares(slices)
        shares = self.curve.recolour(shares, _mr_noise(shares))
        return slices.with_array(np.maximum(shares, 0) * scale + slices.background, sequence=self.sequence)


@dataclass(frozen=True)
class Gamma(StyleAugmentation, name="gamma", modalities=frozenset({"MR", ""}), stage=1):
    """Brighter or darker midtones.

    Attributes:
        gamma: exponent; values above 1 darken.
    """

    gamma: float

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        return cls(float(np.exp(rng.choice([rng.uniform(-0.5, -0.25), rng.uniform(0.25, 0.7)]))))

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        return slices.with_array(np.asarray(AdjustContrast(self.gamma)(slices.array)))


@dataclass(frozen=True)
class ContrastPhase(StyleAugmentation, name="phase", modalities=frozenset({"CT"}), stage=0, weight=2.0):
    """Another contrast phase in CT: other HU for soft tissue and vessels, similar HU for fat and bone.

    Attributes:
        curve: curve from HU to HU.
        phase: "native", "arterial", "portal venous" or "delayed".
    """

    curve: Curve
    phase: str

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        facts = slices.acquisition
        middle = cv2.GaussianBlur(slices.middle, (0, 0), 1.5)
        # Used where the header gives no contrast agent: without one, hardly any soft tissue exceeds 80 HU.
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
        for _ in range(CANDIDATES):
            new = np.array(choices[rng.integers(len(choices))]) * rng.uniform(0.9, 1.1, len(old))
            # Bone, fat and air keep their HU.
            curves.append(Curve((-3100, -30, *old, 450, 4000), (-3100, -30, *new, 460, 4000)))
        levels = brightness_levels(slices.array, 0, 250)
        return cls(
            clearest_curve(curves, levels, MIN_DIFFERENCE, MAX_STEEPNESS).with_even_slopes(
                levels, CT_TISSUE_WIDTH, 1.0
            ),
            phase,
        )

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        array = clipped_hu(self.curve.recolour(slices.array, _ct_noise(slices.array)))
        return slices.with_array(array, phase=self.phase, contrast_agent=self.phase != "native")


@dataclass(frozen=True)
class OtherModality(StyleAugmentation, name="modality", modalities=frozenset({"CT", "MR"}), stage=-1):
    """The brightness of tissue in MR for CT, and vice versa.

    Attributes:
        curve: curve from HU to the share of the brightest tissue in MR, or vice versa.
        modality: modality of the result, "MR" or "CT".
    """

    curve: Curve
    modality: str

    @classmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        if slices.acquisition.modality == "CT":
            levels = brightness_levels(slices.array, -150, 280)
            curves = [_mr_from_ct(levels, rng) for _ in range(CANDIDATES)]
            curve = clearest_curve(curves, levels, MIN_DIFFERENCE / HU_RANGE, MAX_STEEPNESS / HU_RANGE)
            return cls(curve.with_even_slopes(levels, CT_TISSUE_WIDTH, 1 / HU_RANGE), "MR")
        levels, air = _mr_levels(slices)
        curves = [_ct_from_mr(levels, air, rng) for _ in range(CANDIDATES)]
        curve = clearest_curve(curves, levels, MIN_DIFFERENCE * HU_RANGE, MAX_STEEPNESS * HU_RANGE)
        return cls(curve.with_even_slopes(levels, MR_TISSUE_WIDTH, HU_RANGE), "CT")

    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        # All other facts belong to scanners of the old modality.
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
    """Return brightness above the background as shares of the brightest tissue, and the brightness of the latter."""
    scale = brightness_range(slices)
    return (slices.array - np.float32(slices.background)) / np.float32(scale), scale


def _ct_noise(array: NDArray[np.float32]) -> float:
    middle = array[len(array) // 2]
    return float(np.clip(noise_level(middle, middle > -500), *CT_NOISE))


def _mr_noise(shares: NDArray[np.float32]) -> float:
    middle = shares[len(shares) // 2]
    return float(np.clip(noise_level(middle, middle > AIR_SHARE), *MR_NOISE))


def _mr_levels(slices: StyledSlices) -> tuple[NDArray[np.float64], float]:
    """Return the levels of tissue and the maximum of air, as shares of the brightest tissue."""
    shares, _ = _shares(slices)
    rim = np.concatenate([shares[:, [0, 1, -2, -1]].ravel(), shares[:, :, [0, 1, -2, -1]].ravel()])
    rim = rim[rim < MAX_AIR_SHARE]
    # Air shows the magnitude of noise, which hardly ever exceeds 3.5 standard deviations, and is visible at the rim of
    # the image.
    air = max(AIR_SHARE, 3.5 * _mr_noise(shares), float(np.percentile(rim, 99)) if rim.size else 0.0)
    air = min(air, MAX_AIR_SHARE)
    levels = brightness_levels(shares, air, 1.0)
    return levels[levels > air + 1.2 * MR_TISSUE_WIDTH], air


def _sequence_curve(source: tuple[float, ...], target: tuple[float, ...], rng: np.random.Generator) -> Curve:
    old, new = np.array(sorted(zip(source, target, strict=True))).T
    old, new = old + rng.uniform(-0.03, 0.03, 3), new + rng.uniform(-0.08, 0.08, 3)
    # The brightest tissue is fat, which is bright in all sequences unless it is suppressed.
    brightest = rng.uniform(0.8, 1.0) if rng.random() < 0.5 else new[-1]
    return Curve((0.0, 0.05, *old.tolist(), 1.05), (0.0, 0.05, *np.clip(new, 0.06, 1).tolist(), float(brightest)))


def _random_curve(levels: NDArray[np.float64], air: float, rng: np.random.Generator) -> Curve:
    """Return a curve that maps the levels to distinct values in random order."""
    old = _with_bright_end(levels)
    return Curve((0.0, air, *old.tolist()), (0.0, air, *(0.15 + 0.85 * _spread_values(len(old), rng)).tolist()))


def _with_bright_end(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the levels, extended by the bright end of the scale if no level lies there.

    A curve with an extremum between two levels would show edges as separate tissues.
    """
    return levels if len(levels) and levels[-1] > 0.85 else np.append(levels, 1.05)


def _spread_values(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return distinct values in [0, 1] in random order."""
    return (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count


def _mr_from_ct(levels: NDArray[np.float64], rng: np.random.Generator) -> Curve:
    """Return a curve with bright fat, dark bone and soft tissue in random order."""
    soft = levels[levels > -40]
    places = 0.15 + 0.8 * _spread_values(len(soft) + 1, rng)
    if rng.random() < 0.7:
        places = np.sort(places)[np.append(rng.permutation(len(soft)), len(soft))]
    *organs, fat = places.tolist()
    bone = rng.uniform(0.1, 0.4)
    return Curve((-1050, -500, -105, *soft.tolist(), 330, 700, 4000), (0.0, 0.02, fat, *organs, bone, 0.05, 0.05))


def _ct_from_mr(levels: NDArray[np.float64], air: float, rng: np.random.Generator) -> Curve:
    """Return a curve that maps all tissue to HU of soft tissue or fat, in random order."""
    old = _with_bright_end(levels)
    new = -120 + 340 * _spread_values(len(old), rng)
    if old[0] > air + 0.15:
        # Tissue that is slightly brighter than air is water in some sequences.
        old, new = np.append(air + 0.05, old), np.append(rng.uniform(-60, 20), new)
    return Curve((0.0, air, *old.tolist()), (-1000.0, -950.0, *new.tolist()))
