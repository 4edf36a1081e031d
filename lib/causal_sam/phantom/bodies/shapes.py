"""Random ensembles of shapes without names, as in anatomix (Dey et al. 2024, arXiv:2411.02372)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causal_sam.phantom.bodies.fields import interpolated_noise
from causal_sam.phantom.bodies.label_maps import FIRST, OUTSIDE, UNKNOWN, Anatomy
from causal_sam.phantom.bodies.tissues import tissues

SIZE = 88  # voxels along each axis
REGIONS = 4  # of the body, between the shapes
MAX_SHAPES = 36


def random_anatomy(rng: np.random.Generator) -> Anatomy:
    """Return a body of random regions with random shapes in it: ellipsoids, tubes and shells, all of them wavy."""
    spacing = np.full(3, rng.uniform(1.0, 3.6), np.float32)
    steps = torch.linspace(-1, 1, SIZE)
    grid = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"))
    hull = _norm(grid, rng.uniform(0.75, 0.95, 3)) + 0.08 * _waves(rng, 5)
    regions = torch.stack([_waves(rng, int(rng.integers(4, 9))) for _ in range(REGIONS)]).argmax(dim=0)
    codes = torch.where(hull < 1, FIRST + regions, 0)
    count = int(rng.integers(6, MAX_SHAPES))
    for number in range(count):
        codes[_shape(grid, rng) & (hull < 0.96)] = FIRST + REGIONS + number
    kinds = sorted(tissues())
    labels = range(FIRST, FIRST + REGIONS + count)
    return Anatomy(
        "shapes",
        codes.to(torch.int16).numpy(),
        spacing,
        np.array([OUTSIDE, UNKNOWN, *labels], np.int16),
        ("air", "filler", *(kinds[int(rng.integers(len(kinds)))] for _ in labels)),
        dict.fromkeys(labels, ""),
    )


def _shape(grid: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the voxels of a random shape."""
    centre = torch.from_numpy(rng.uniform(-0.75, 0.75, (3, 1, 1, 1)).astype(np.float32))
    size = np.exp(rng.uniform(np.log(0.06), np.log(0.4)))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32)
    axes = size * np.exp(rng.normal(0, 0.35, 3))
    if rng.random() < 0.3:
        axes *= [0.35, 0.35, 3.0]  # a tube
    reach = int(SIZE * min(1.0, axes.max() * 1.3) / 2) + 2
    middle = ((centre.flatten() + 1) / 2 * SIZE).int().tolist()
    box = tuple(slice(max(0, m - reach), min(SIZE, m + reach)) for m in middle)
    local = torch.einsum("ij,jxyz->ixyz", torch.from_numpy(turn), grid[(slice(None), *box)] - centre)
    if rng.random() < 0.4:
        local[0] += float(rng.normal(0, 1.5)) * local[2] ** 2 / max(float(axes[2]), 0.1)  # bent
    distance = _norm(local, axes) + rng.uniform(0, 0.25) * _waves(rng, 5, local.shape[1:])
    inside = torch.zeros(grid.shape[1:], dtype=torch.bool)
    inside[box] = (distance < 1) & (distance > (rng.uniform(0.5, 0.8) if rng.random() < 0.2 else -1))
    return inside


def _norm(grid: Tensor, axes: NDArray) -> Tensor:
    return torch.stack([(grid[axis] / float(axes[axis])) ** 2 for axis in range(3)]).sum(dim=0).sqrt()


def _waves(rng: np.random.Generator, knots: int, shape: tuple[int, ...] = (SIZE,) * 3) -> Tensor:
    return interpolated_noise((knots,) * 3, shape, rng)
