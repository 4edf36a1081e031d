"""Appearance of samples: CT by its physics, MR by tissue, and random contrast.

Random contrast follows SynthSeg (Billot et al. 2023, doi:10.1016/j.media.2023.102789): each label has a brightness of
its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from causal_sam.phantom.bodies.label_maps import Anatomy
from causal_sam.phantom.bodies.tissues import tissues
from causal_sam.style.acquisition import Acquisition
from causal_sam.style.description import StyleDescription
from causal_sam.style.measures import StyleMeasures

PHASES = ("native", "arterial", "portal venous", "delayed")
SEQUENCES = ("T1", "T2", "FLAIR", "PD")
LOW_HU, HIGH_HU = -160.0, 240.0


@dataclass(frozen=True)
class Style:
    """One way in which an anatomy is imaged.

    Attributes:
        modality: "CT", "MR" or "" (random contrast).
        levels: brightness of each code, in HU or arbitrary units.
        texture: standard deviation of the texture of each code, in the same units.
        noise: standard deviation of the noise, in HU or as a share of the range of brightness.
        blur: standard deviation in pixels of the blur in the plane.
        bias: standard deviation of the logarithm of the bias field.
        inverted: whether bright and dark are exchanged.
        phase: contrast phase of CT.
        sequence: sequence of MR.
        kernel: kernel of CT.
    """

    modality: str
    levels: NDArray[np.float32]
    texture: NDArray[np.float32]
    noise: float
    blur: float
    bias: float = 0.0
    inverted: bool = False
    phase: str | None = None
    sequence: str | None = None
    kernel: str | None = None


def random_style(anatomy: Anatomy, kind: str, rng: np.random.Generator) -> Style:
    """Return a random style for an anatomy.

    Args:
        anatomy: anatomy.
        kind: "CT", "MR" or "random".
        rng: source of randomness.
    """
    return {"CT": _ct, "MR": _mr, "random": _random}[kind](anatomy, rng)


def _by_label(anatomy: Anatomy, rng: np.random.Generator) -> NDArray:
    """Return a standard normal number for each code, equal for the codes of one label."""
    return rng.standard_normal(int(anatomy.code_labels.max()) + 1)[anatomy.code_labels]


def _ct(anatomy: Anatomy, rng: np.random.Generator) -> Style:
    phase = int(rng.choice(4, p=[0.3, 0.15, 0.4, 0.15]))
    kinds = [tissues()[name] for name in anatomy.code_tissues]
    sd = np.array([kind.sd for kind in kinds])
    # Phases blend, since patients differ in circulation.
    enhanced = np.array([kind.hu[phase] for kind in kinds]) * (share := rng.uniform(0.7, 1.1))
    enhanced += np.array([kind.hu[0] for kind in kinds]) * (1 - share)
    by_tissue = {name: rng.standard_normal() for name in sorted(set(anatomy.code_tissues))}
    levels = enhanced + sd * (
        0.8 * np.array([by_tissue[n] for n in anatomy.code_tissues]) + 0.5 * _by_label(anatomy, rng)
    )
    texture = np.array([kind.texture for kind in kinds]) * rng.uniform(2, 12)
    kernel = str(rng.choice(["soft", "standard", "sharp"]))
    blur = {"soft": rng.uniform(0.7, 1.0), "standard": rng.uniform(0.45, 0.75), "sharp": rng.uniform(0.2, 0.5)}[kernel]
    return Style(
        "CT",
        levels.astype(np.float32),
        texture.astype(np.float32),
        rng.uniform(3, 32),
        blur,
        phase=PHASES[phase],
        kernel=kernel,
    )


def _mr(anatomy: Anatomy, rng: np.random.Generator) -> Style:
    sequence = str(rng.choice(SEQUENCES, p=[0.4, 0.35, 0.17, 0.08]))
    kinds = [tissues()[name] for name in anatomy.code_tissues]
    t1, t2 = np.array([kind.t1 for kind in kinds]), np.array([kind.t2 for kind in kinds])
    levels = {
        "T1": t1,
        "T2": t2,
        "FLAIR": t2 * [0.15 if kind.fluid else 1.0 for kind in kinds],
        "PD": 0.4 + 0.3 * (t1 + t2),
    }[sequence]
    if rng.random() < 0.4:
        levels = np.where([kind.fat for kind in kinds], levels * rng.uniform(0.05, 0.4), levels)
    by_tissue = {name: rng.standard_normal() for name in sorted(set(anatomy.code_tissues))}
    spread = rng.uniform(0.03, 0.14)
    levels = (
        levels
        + spread * np.array([by_tissue[name] for name in anatomy.code_tissues])
        + 0.35 * spread * _by_label(anatomy, rng)
    )
    levels = np.abs(levels) * np.array([name not in ("air", "gas") for name in anatomy.code_tissues])
    texture = np.array([kind.texture for kind in kinds]) * rng.uniform(0.003, 0.035)
    return Style(
        "MR",
        levels.astype(np.float32),
        texture.astype(np.float32),
        rng.choice([0.01, 0.03, 0.06]) * rng.uniform(0.5, 1.3),
        rng.uniform(0.3, 0.9),
        rng.uniform(0, 0.3),
        False,
        sequence=sequence,
    )


def _random(anatomy: Anatomy, rng: np.random.Generator) -> Style:
    by_tissue = {name: rng.random() for name in sorted(set(anatomy.code_tissues))}
    levels = np.array([by_tissue[name] for name in anatomy.code_tissues]) + rng.uniform(0.02, 0.3) * _by_label(
        anatomy, rng
    )
    levels = np.abs(levels)
    if rng.random() < 0.85:
        levels[0] = 0.0
    texture = rng.uniform(0, rng.choice([0.01, 0.03, 0.08]), len(levels))
    return Style(
        "",
        levels.astype(np.float32),
        texture.astype(np.float32),
        rng.choice([0.005, 0.02, 0.05]) * rng.uniform(0.3, 1.3),
        rng.uniform(0.3, 1.0),
        rng.choice([0.0, 0.2]) * rng.random(),
        bool(rng.random() < 0.08),
    )


def finish(style: Style, image: Tensor, codes: Tensor, generator: torch.Generator, rng: np.random.Generator) -> Tensor:
    """Add texture, blur, bias field and noise to the mean brightness.

    Args:
        style: style.
        image: ZxHxW mean brightness of each voxel, of partial volumes.
        codes: ZxHxW int32 code at the centre of each voxel.
        generator: source of noise.
        rng: source of other randomness.

    Returns:
        ZxHxW float32 in HU, or in arbitrary units.
    """
    strength = torch.from_numpy(style.texture).to(image.device)[codes]
    image = image + strength * _noise(image, rng.uniform(0.8, 2.5), generator)
    image = _blurred(image, style.blur)
    if style.bias:
        field = torch.from_numpy(rng.standard_normal((1, 1, 3, 4, 4), dtype=np.float32)).to(image.device)
        image = image * torch.exp(
            style.bias * F.interpolate(field, image.shape, mode="trilinear", align_corners=True)[0, 0]
        )
    if style.modality == "CT":
        return image + style.noise * _noise(image, rng.uniform(0, 1.2), generator)
    noise = style.noise * float(image.max())
    if style.modality == "MR":
        # Rician: the magnitude of a complex signal.
        return torch.hypot(image + noise * _noise(image, 0, generator), noise * _noise(image, 0, generator))
    return image + noise * _noise(image, rng.choice([0.0, 1.0]), generator)


def normalised(style: Style, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return an image in [0, 1] as real ones are normalised, and the wide window of CT."""
    if style.modality == "CT":
        return ((image - LOW_HU) / (HIGH_HU - LOW_HU)).clamp(0, 1), ((image + 1000) / 2000).clamp(0, 1)
    values = image.flatten()
    lowest = values.min()
    values = values[:: max(1, len(values) // 30000)]
    background = values == lowest
    if 0.05 <= background.float().mean() < 1:
        values = values[~background]
    values = values.sort().values
    low, high = values[int(0.005 * len(values))], values[int(0.995 * (len(values) - 1))]
    shown = ((image - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    if style.inverted:
        shown = 1 - shown
    return shown, shown


def description(style: Style, shown: Tensor, codes: Tensor, thickness: float, pixel: float) -> str:
    """Return the sentence that `style.description` would say of an image with these known measures."""
    tissue = shown.flatten()[:: max(1, shown.numel() // 8000)][codes.flatten()[:: max(1, shown.numel() // 8000)] > 0]
    tissue = tissue if tissue.numel() else shown.flatten()[:1]
    brightness = tuple(torch.quantile(tissue, torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9], device=shown.device)).tolist())
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
        slice_thickness=thickness,
        pixel_spacing=(pixel, pixel),
    )
    return StyleDescription(facts, measures).measured_sentence


def _noise(like: Tensor, blur: float, generator: torch.Generator) -> Tensor:
    """Return Gaussian noise of standard deviation 1, white or blurred in the plane."""
    field = torch.randn(like.shape, generator=generator, device=like.device)
    if blur < 0.2:
        return field
    field = _blurred(field, blur)
    return field / field[:: max(1, len(field) // 4)].std().clamp_min(1e-6)


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """Blur ZxHxW in the plane."""
    radius = max(1, round(2.5 * sigma))
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    stack = F.conv2d(F.pad(image[:, None], (0, 0, radius, radius), mode="replicate"), kernel[..., None])
    return F.conv2d(F.pad(stack, (radius, radius, 0, 0), mode="replicate"), kernel[:, :, None])[:, 0]
