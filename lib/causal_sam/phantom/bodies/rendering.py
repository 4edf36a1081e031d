"""Images of a scene: partial volumes, variation inside of organs, lesions, and the scanner's blur and noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from causal_sam.phantom.bodies.appearance import Style
from causal_sam.phantom.bodies.devices import METAL_HU, Metal, noise_streaks, streaks, table
from causal_sam.phantom.bodies.fields import interpolated_noise
from causal_sam.phantom.bodies.lesions import Lesion
from causal_sam.phantom.bodies.scene import Scene

# Tissues that thin vessels run through.
VASCULAR = ("lung", "liver", "filler", "spleen")


@dataclass(frozen=True)
class Variation:
    """Variation inside of tissues, equal in all styles of a scene.

    Attributes:
        patches: ZxHxW in [0, 1]: share of soft tissue in the space between structures.
        vessels: ZxHxW in [0, 1]: share of thin vessels.
        gas: ZxHxW bool: gas in the bowel.
        table: ZxHxW in [0, 1]: share of the table; None without one.
        metal: device in the body; None without one.
    """

    patches: Tensor
    vessels: Tensor
    gas: Tensor
    table: Tensor | None
    metal: Metal | None


def random_variation(scene: Scene, metal: Metal | None, rng: np.random.Generator) -> Variation:
    """Return random variation inside of the tissues of a scene."""
    patches = 0.7 * scene.smooth_field(rng.uniform(30, 70), rng) + 0.6 * scene.smooth_field(rng.uniform(12, 25), rng)
    patches = ((patches - rng.uniform(0.2, 1.6)) * rng.uniform(1, 6)).clamp(0, 1)
    # Where two smooth fields are 0 at once, there are curves.
    wave = rng.uniform(25, 55)
    near = scene.smooth_field(wave, rng).square_().add_(scene.smooth_field(wave, rng).square_())
    width = rng.uniform(0.08, 0.2) + 1.2 * scene.view.spacing[1] / wave
    vessels = (1.5 - near.sqrt_() / width * 1.5).clamp_(0, 1)
    shows_table = rng.random() < 0.6
    return Variation(patches, vessels, _gas(scene, rng), table(scene, rng) if shows_table else None, metal)


def _gas(scene: Scene, rng: np.random.Generator) -> Tensor:
    """Return where gas is in the bowel: above a level that each part of it has."""
    anatomy = scene.anatomy
    level = np.full(len(anatomy.code_labels), np.inf, np.float32)
    for code, (label, tissue) in enumerate(zip(anatomy.code_labels, anatomy.code_tissues, strict=True)):
        if tissue == "gut_content" and rng.random() < 0.65:
            low, high = anatomy.boxes.get(int(label), anatomy.body)[:, 1] / anatomy.spacing[1]
            level[code] = rng.uniform(low + 0.3 * (high - low), high)
    if np.isinf(level).all():
        return torch.zeros_like(scene.body)
    height = scene.places[1] + scene.smooth_field(35, rng) * (4 / float(anatomy.spacing[1]))
    return height > torch.from_numpy(level).to(scene.device)[scene.codes]


def partial_volumes(
    scene: Scene, codes_at: Callable[[Tensor], Tensor], tables: Sequence[NDArray], rng: np.random.Generator
) -> list[Tensor]:
    """Return the mean of each voxel over several points of it: ZxHxW float32, one for each table.

    Args:
        scene: scene.
        codes_at: returns the codes at places, 3xZxHxW.
        tables: number of each code.
        rng: source of randomness.
    """
    count = 4 if scene.view.thickness > 3 * scene.view.spacing[1] else 3
    on_device = [torch.from_numpy(own).to(scene.device) for own in tables]
    totals = [torch.zeros(scene.codes.shape, device=scene.device) for _ in tables]
    # Points spread over the voxel, or over one of the anatomy if that is larger.
    size = np.array([scene.view.thickness, *scene.view.spacing[1:]])
    cell = np.abs(scene.view.axes / scene.view.spacing) @ size / scene.anatomy.spacing
    spread = (np.stack([rng.permutation(count) for _ in range(3)], 1) + 0.5) / count - 0.5
    for offset in (spread * np.maximum(cell, 1)).astype(np.float32):
        codes = codes_at(scene.places + torch.from_numpy(offset).to(scene.device)[:, None, None, None])
        for total, own in zip(totals, on_device, strict=True):
            total += own[codes]
    return [total / count for total in totals]


def render(
    scene: Scene,
    style: Style,
    mean: Tensor,
    variation: Variation,
    generator: torch.Generator,
    rng: np.random.Generator,
) -> Tensor:
    """Return the image of a scene, ZxHxW float32 in HU or in arbitrary units.

    Args:
        scene: scene.
        style: style.
        mean: ZxHxW mean brightness of each voxel, see `partial_volumes`.
        variation: variation inside of tissues.
        generator: source of noise.
        rng: source of other randomness.
    """
    tissues = scene.anatomy.code_tissues
    levels = style.levels

    def difference(chosen: Sequence[str], other: float) -> Tensor:
        """Return the difference to another brightness in the voxels of some tissues, 0 in others: ZxHxW."""
        gain = np.where(np.isin(tissues, chosen), other - levels, 0).astype(np.float32)
        return torch.from_numpy(gain).to(scene.device)[scene.codes]

    image = torch.addcmul(mean, variation.patches, difference(("filler",), style.insertions["soft"]))
    image.addcmul_(variation.vessels, difference(VASCULAR, style.insertions["vessel"]))
    image = torch.where(variation.gas, style.insertions["gas"], image)
    for lesion in scene.lesions:
        _add_lesion(image, lesion, style, generator, rng)
    strength = torch.from_numpy(style.texture).to(scene.device)[scene.codes]
    image.addcmul_(strength, noise(image, rng.uniform(0.8, 2.5), generator))
    if style.modality == "CT" and variation.table is not None:
        image += variation.table * rng.uniform(700, 1500)
    if variation.metal is not None:
        image.lerp_(torch.full_like(image, METAL_HU if style.modality == "CT" else 0.0), variation.metal.mask)
    image = blurred(image, style.blur)
    if style.opposed:
        image = image.abs_()
    if style.bias:
        image = image * torch.exp(
            style.bias * scene.smooth_field(1.2 * max(scene.codes.shape) * scene.view.spacing[1], rng)
        )
    return _with_noise(image, style, variation, generator, rng)


def _with_noise(
    image: Tensor, style: Style, variation: Variation, generator: torch.Generator, rng: np.random.Generator
) -> Tensor:
    if style.modality == "CT":
        if variation.metal is not None:
            image += streaks(variation.metal.mask, rng)
        if rng.random() < 0.12:
            image += noise_streaks(image, rng)
        return image + style.noise * noise(
            image, {"soft": 1.1, "standard": 0.7, "sharp": 0.3}[style.kernel or "soft"], generator
        )
    sigma = style.noise * float(image.abs().amax())
    if style.modality == "MR":
        # Rician: the magnitude of a complex signal.
        return torch.hypot(image + sigma * noise(image, 0, generator), sigma * noise(image, 0, generator))
    return image + sigma * noise(image, float(rng.choice([0.0, 1.0])), generator)


def _add_lesion(
    image: Tensor, lesion: Lesion, style: Style, generator: torch.Generator, rng: np.random.Generator
) -> None:
    """Blend a lesion into an image, in place."""
    value = style.lesion_level(lesion.kind, lesion.tissue, rng)
    inside = torch.full_like(lesion.mask, value)
    spread = style.spread
    if lesion.kind in ("lesion", "tumour core"):
        pattern = rng.random()
        if pattern < 0.3:  # a rim, and a middle that differs
            middle = ((lesion.depth - rng.uniform(0.15, 0.5)) * 8).clamp(0, 1)
            inside = inside + middle * float(rng.normal(0, 1.3 * spread))
        elif pattern < 0.6:
            rough = interpolated_noise((5, 5, 5), inside.shape, rng).to(image.device)
            inside = inside + rough * float(rng.uniform(0.1, 0.7)) * spread
    part = image[lesion.box]
    part.lerp_(inside, lesion.mask)


def noise(like: Tensor, blur: float, generator: torch.Generator) -> Tensor:
    """Return Gaussian noise of standard deviation 1, ZxHxW, white or blurred in the plane."""
    field = torch.randn(like.shape, generator=generator, device=like.device)
    if blur < 0.2:
        return field
    field = blurred(field, blur)
    return field / field[:: max(1, len(field) // 4)].std().clamp_min(1e-6)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Blur ZxHxW in the plane by a Gaussian with a standard deviation in pixels."""
    radius = max(1, round(2.5 * sigma))
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    weights /= weights[0] + 2 * weights[1:].sum()
    for axis, margin in ((1, (0, 0, radius, radius)), (2, (radius, radius, 0, 0))):
        size = image.shape[axis]
        wide = F.pad(image, margin, mode="replicate")
        # Sums of shifted images take a third of the time of a convolution.
        image = wide.narrow(axis, radius, size) * float(weights[0])
        for away, weight in enumerate(weights[1:].tolist(), 1):
            image.add_(wide.narrow(axis, radius - away, size), alpha=weight)
            image.add_(wide.narrow(axis, radius + away, size), alpha=weight)
    return image
