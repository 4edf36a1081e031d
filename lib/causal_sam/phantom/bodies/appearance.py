"""Random styles of images: CT by its physics, MR by tissue, and random contrast.

Random contrast follows SynthSeg (Billot et al. 2023, doi:10.1016/j.media.2023.102789): each label has a brightness of
its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causal_sam.imaging.intensity import BACKGROUND_SHARE, CT_WINDOW, PERCENTILES, WIDE_CT_WINDOW
from causal_sam.phantom.bodies.label_maps import Anatomy
from causal_sam.phantom.bodies.tissues import Tissue, tissues
from causal_sam.style.acquisition import Acquisition
from causal_sam.style.description import StyleDescription
from causal_sam.style.measures import StyleMeasures

PHASES = ("native", "arterial", "portal venous", "delayed")
# Share of the images in which left and right structures look alike.
SYMMETRIC_SHARE = 0.85
# Brightness of lesions in MR by sequence; T1 with contrast agent counts as T1.
LESIONS = {
    "T1": {"edema": 0.45, "tumour core": 0.4, "white matter lesion": 0.5, "lesion": 0.35},
    "T2": {"edema": 0.75, "tumour core": 0.7, "white matter lesion": 0.75, "lesion": 0.65},
    "FLAIR": {"edema": 0.8, "tumour core": 0.65, "white matter lesion": 0.8, "lesion": 0.65},
    "PD": {"edema": 0.9, "tumour core": 0.8, "white matter lesion": 0.9, "lesion": 0.7},
}


@dataclass(frozen=True)
class Style:
    """One way in which an anatomy is imaged.

    Attributes:
        modality: "CT", "MR" or "" (random contrast).
        levels: brightness of each code, in HU or arbitrary units.
        texture: standard deviation of the texture of each code, in the same units.
        insertions: brightness of "soft" patches, of "vessel" and "gas" inside of tissues.
        noise: standard deviation of the noise, in HU or as a share of the range of brightness.
        blur: standard deviation in pixels of the blur in the plane.
        bias: standard deviation of the logarithm of the bias field.
        opposed: True if fat has negative brightness, whose magnitude is shown.
        inverted: True if bright and dark are exchanged.
        phase: contrast phase of CT.
        sequence: sequence of MR.
        kernel: kernel of CT.
        contrast_agent: True if a contrast agent was given for MR; None if unknown.
    """

    modality: str
    levels: NDArray[np.float32]
    texture: NDArray[np.float32]
    insertions: Mapping[str, float]
    noise: float
    blur: float
    bias: float = 0.0
    opposed: bool = False
    inverted: bool = False
    phase: str | None = None
    sequence: str | None = None
    kernel: str | None = None
    contrast_agent: bool | None = None

    @property
    def spread(self) -> float:
        """A usual difference between tissues, in HU or arbitrary units."""
        return 45.0 if self.modality == "CT" else 0.25

    def lesion_level(self, kind: str, tissue: str, rng: np.random.Generator) -> float:
        """Return a random brightness of a lesion in a tissue."""
        if self.modality == "CT":
            host = tissues()[tissue].hu[PHASES.index(self.phase or "native")]
            if tissue in ("lung", "fat", "filler"):
                return float(rng.uniform(0, 90))
            if tissue in ("bone", "marrow"):
                return float(rng.choice([rng.uniform(20, 90), rng.uniform(400, 900)]))
            if kind == "lesion" and rng.random() < 0.2:
                return float(rng.uniform(0, 18))  # a cyst
            sign = -1 if rng.random() < 0.75 else 1
            return float(host + sign * rng.uniform(*((5, 16) if kind != "lesion" else (12, 60))))
        if self.modality == "MR" and self.sequence is not None and rng.random() < 0.85:
            level = LESIONS[self.sequence][kind] + rng.normal(0, 0.1)
            is_enhanced = self.contrast_agent and kind in ("tumour core", "lesion") and rng.random() < 0.7
            return float(level + (rng.uniform(0.3, 0.7) if is_enhanced else 0))
        return float(rng.uniform(0, 1.1))


def random_style(anatomy: Anatomy, kind: str, rng: np.random.Generator) -> Style:
    """Return a random style for an anatomy.

    Args:
        anatomy: anatomy.
        kind: "CT", "MR" or "random".
        rng: source of randomness.
    """
    return {"CT": _ct, "MR": _mr, "random": _random}[kind](anatomy, rng)


def _kinds(anatomy: Anatomy) -> list[Tissue]:
    return [tissues()[name] for name in anatomy.code_tissues]


def _by_label(anatomy: Anatomy, rng: np.random.Generator) -> NDArray:
    """Return a standard normal number for each code, equal for the codes of one label and mostly for both sides."""
    numbers = rng.standard_normal(len(anatomy.pairs))
    if rng.random() < SYMMETRIC_SHARE:
        numbers = numbers[anatomy.pairs]
    return numbers[anatomy.code_labels]


def _by_tissue(anatomy: Anatomy, numbers: NDArray) -> NDArray:
    """Return for each code the one of the numbers that belongs to its tissue, in the order of the tissue table."""
    place = {name: number for number, name in enumerate(tissues())}
    return numbers[[place[name] for name in anatomy.code_tissues]]


def _ct(anatomy: Anatomy, rng: np.random.Generator) -> Style:
    phase = int(rng.choice(4, p=[0.3, 0.15, 0.4, 0.15]))
    kinds = _kinds(anatomy)
    # Patients differ in circulation.
    share = rng.uniform(0.65, 1.15)

    def enhanced(tissue: Tissue) -> float:
        return share * tissue.hu[phase] + (1 - share) * tissue.hu[0]

    by_tissue = _by_tissue(anatomy, rng.standard_normal(len(tissues())))
    sd = np.array([kind.sd for kind in kinds])
    levels = np.array(list(map(enhanced, kinds))) + sd * (0.8 * by_tissue + 0.5 * _by_label(anatomy, rng))
    if rng.random() < 0.25:  # contrast agent that was drunk
        drunk = np.array([name == "gut_content" for name in anatomy.code_tissues])
        levels = np.where(drunk & (_by_label(anatomy, rng) > rng.normal()), rng.uniform(80, 400), levels)
    texture = np.array([kind.texture for kind in kinds]) * rng.uniform(1, 9)
    kernel = str(rng.choice(["soft", "standard", "sharp"]))
    low, high = {"soft": (0.7, 1.0), "standard": (0.45, 0.75), "sharp": (0.25, 0.5)}[kernel]
    insertions = {"soft": rng.uniform(10, 60), "vessel": enhanced(tissues()["portal"]), "gas": -960.0}
    return Style(
        "CT",
        levels.astype(np.float32),
        texture.astype(np.float32),
        insertions,
        float(np.exp(rng.uniform(np.log(3), np.log(32)))),
        rng.uniform(low, high),
        phase=PHASES[phase],
        kernel=kernel,
    )


def _mr(anatomy: Anatomy, rng: np.random.Generator) -> Style:
    sequence = str(rng.choice(["T1", "T2", "FLAIR", "PD"], p=[0.42, 0.33, 0.18, 0.07]))
    agent = bool(rng.random() < 0.35) if sequence == "T1" else None
    spread = rng.uniform(0.02, 0.12)
    table = list(tissues().values())
    t1, t2 = (np.array([getattr(kind, name) for kind in table]) for name in ("t1", "t2"))
    is_fluid, is_fat = (np.array([getattr(kind, name) for kind in table]) for name in ("fluid", "fat"))
    means = {
        "T1": t1,
        "T2": t2,
        "FLAIR": np.where(is_fluid, 0.12 * t2, t2),
        "PD": 0.3 + 0.35 * (t1 + t2),
    }[sequence]
    if agent:  # enhances as iodine does in CT
        gain = np.array([kind.hu[2] - kind.hu[0] for kind in table])
        means = means + gain / 130 * rng.uniform(0.2, 0.6)
    is_opposed = sequence == "T1" and rng.random() < 0.2
    if is_opposed:
        means = np.where(is_fat, -means * rng.uniform(0.5, 0.9), means)
    elif rng.random() < 0.35:  # fat suppression
        means = np.where(is_fat, means * rng.uniform(0.05, 0.35), means)
    is_air = np.array([name in ("air", "gas", "airway") for name in tissues()])
    means = np.where(is_air, 0.0, means + spread * rng.standard_normal(len(table)))
    if not is_opposed:
        means = np.abs(means)
    levels = _by_tissue(anatomy, means)
    levels = levels + 0.35 * spread * _by_label(anatomy, rng) * (levels != 0)
    texture = _by_tissue(anatomy, np.array([kind.texture for kind in table])) * rng.uniform(0.003, 0.03)
    place = list(tissues()).index
    insertions = {"soft": means[place("soft")], "vessel": means[place("vein")], "gas": 0.0}
    return Style(
        "MR",
        levels.astype(np.float32),
        texture.astype(np.float32),
        insertions,
        float(np.exp(rng.uniform(np.log(0.005), np.log(0.07)))),
        rng.uniform(0.3, 0.9),
        rng.uniform(0, 0.3),
        is_opposed,
        sequence=sequence,
        contrast_agent=agent,
    )


def _random(anatomy: Anatomy, rng: np.random.Generator) -> Style:
    numbers = rng.random(len(tissues()))
    if rng.random() < 0.4:  # few different levels, so that neighbours are often alike
        numbers = rng.random(int(rng.integers(3, 8)))[rng.integers(0, 3, len(numbers))]
    levels = np.abs(_by_tissue(anatomy, numbers) + rng.uniform(0.01, 0.3) * _by_label(anatomy, rng))
    if rng.random() < 0.85:
        levels[np.array(anatomy.code_tissues) == "air"] = 0.0
    texture = rng.uniform(0, rng.choice([0.01, 0.03, 0.08]), len(levels))
    return Style(
        "",
        levels.astype(np.float32),
        texture.astype(np.float32),
        {name: float(rng.random()) for name in ("soft", "vessel", "gas")},
        float(np.exp(rng.uniform(np.log(0.003), np.log(0.06)))),
        rng.uniform(0.3, 1.0),
        float(rng.choice([0.0, 0.25])) * rng.random(),
        inverted=bool(rng.random() < 0.08),
    )


def normalised(style: Style, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return an image in [0, 1] as `causal_sam.imaging.intensity` normalises real ones, and the wide window of CT."""
    if style.modality == "CT":
        shown, wide = (((image - low) / (high - low)).clamp(0, 1) for low, high in (CT_WINDOW, WIDE_CT_WINDOW))
        return shown, wide
    values = image.flatten()
    lowest = values.min()
    values = values[:: max(1, len(values) // 30000)]
    background = values == lowest
    if BACKGROUND_SHARE <= float(background.float().mean()) < 1:
        values = values[~background]
    values = values.sort().values
    first, last = (values[round(share / 100 * (len(values) - 1))] for share in PERCENTILES)
    shown = ((image - first) / (last - first).clamp_min(1e-6)).clamp(0, 1)
    if style.inverted:
        shown = 1 - shown
    return shown, shown


def description(style: Style, shown: Tensor, body: Tensor, thickness: float, pixel: float) -> str:
    """Return the sentence of `causal_sam.style.description` for an image whose measures are known.

    Args:
        style: style.
        shown: ZxHxW in [0, 1].
        body: ZxHxW bool, True inside of the body.
        thickness: thickness of the slices in mm.
        pixel: size of the pixels in mm.
    """
    step = max(1, shown.numel() // 8000)
    tissue = shown.flatten()[::step][body.flatten()[::step]]
    tissue = tissue if tissue.numel() else shown.flatten()[:1]
    shares = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9], device=shown.device)
    brightness = tuple(torch.quantile(tissue, shares).tolist())
    dark, bright = brightness[0], brightness[-1]
    is_ct = style.modality == "CT"
    measures = StyleMeasures(
        noise=style.noise,
        noise_hu=style.noise if is_ct else None,
        blur=(0.5**2 + style.blur**2) ** 0.5,
        blur_mm=None,
        bias_field=None if is_ct else style.bias,
        contrast=bright - dark if is_ct else (bright - dark) / max(bright + dark, 1e-6),
        brightness=brightness,
        artefacts=(),
    )
    facts = Acquisition(
        modality=style.modality,
        sequence=style.sequence,
        phase=style.phase,
        kernel=style.kernel,
        contrast_agent=style.contrast_agent,
        slice_thickness=thickness,
        pixel_spacing=(pixel, pixel),
    )
    return StyleDescription(facts, measures).measured_sentence
