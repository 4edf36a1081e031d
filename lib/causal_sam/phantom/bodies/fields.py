"""Smooth random fields, from which deformations, textures and shapes are made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def interpolated_noise(knots: Sequence[int], shape: Sequence[int], rng: np.random.Generator) -> Tensor:
    """Return independent standard normal numbers at knots, interpolated between them.

    Args:
        knots: number of knots along each of three axes.
        shape: shape of the result.
        rng: source of randomness.
    """
    field = torch.from_numpy(rng.standard_normal((1, 1, *knots), dtype=np.float32))
    return F.interpolate(field, tuple(shape), mode="trilinear", align_corners=True)[0, 0]


def smooth_field(shape: Sequence[int], spacing: Sequence[float], wave: float, rng: np.random.Generator) -> Tensor:
    """Return a smooth field of about standard normal numbers, ZxHxW, with a wavelength in mm."""
    knots = [
        int(np.clip(round(size * step / (wave / 2)) + 1, 2, size)) for size, step in zip(shape, spacing, strict=True)
    ]
    # Interpolation between independent numbers takes about a third of their spread.
    return 1.5 * interpolated_noise(knots, shape, rng)
