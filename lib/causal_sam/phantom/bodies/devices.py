"""Objects beside the anatomy: metal in the body with its streaks, and the table under the patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from causal_sam.phantom.bodies.scene import Scene

METAL_HU = 2800.0
AXIAL = "axial"


@dataclass(frozen=True)
class Metal:
    """A device in the body.

    Attributes:
        label: its label in the sample; it has no name.
        mask: ZxHxW float32 in [0, 1]: share of each voxel that it takes.
    """

    label: int
    mask: Tensor


def insert_metal(scene: Scene, rng: np.random.Generator) -> Metal:
    """Insert a needle, a lead, a clip or a stent in a scene, and its label."""
    shape, spacing = scene.codes.shape, np.array(scene.view.spacing)
    kind = rng.choice(["needle", "clip", "stent", "lead"])
    length = {"needle": 120.0, "clip": 5.0, "stent": 50.0, "lead": 90.0}[kind] * rng.uniform(0.5, 1.3)
    radius = {"needle": 1.0, "clip": 1.5, "stent": 6.0, "lead": 1.2}[kind] * rng.uniform(0.8, 1.5)
    middle = rng.uniform(0.25, 0.75, 3) * shape * spacing
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    z, y, x = (
        (torch.arange(n, dtype=torch.float32, device=scene.device) * float(s) - float(m)).view(
            *(-1 if axis == own else 1 for axis in range(3))
        )
        for own, (n, s, m) in enumerate(zip(shape, spacing, middle, strict=True))
    )
    along = z * float(direction[0]) + y * float(direction[1]) + x * float(direction[2])
    if kind == "lead":
        y = y + 0.004 * rng.uniform(-1, 1) * along**2
    past = (along.abs() - length / 2).clamp_min(0)
    across = (z**2 + y**2 + x**2 - along**2).clamp_min(0).sqrt()
    if kind == "stent":
        across = (across - radius).abs() + 0.4 * radius * (0.5 + 0.5 * torch.sin(along * 1.2))
        radius = 0.9
    width = float(spacing[1])
    mask = (((radius - (across**2 + past**2).sqrt()) / width + 0.5).clamp(0, 1) * scene.body).clamp(0, 1)
    label = max([int(scene.anatomy.code_labels.max()), *(own.label for own in scene.lesions)]) + 1
    scene.labels[mask > 0.5] = label
    return Metal(label, mask)


def streaks(mask: Tensor, rng: np.random.Generator) -> Tensor:
    """Return rays in HU that metal throws over the slices in which it lies, ZxHxW."""
    weight = mask.amax(dim=(1, 2))
    if not bool((weight > 0.2).any()):
        return torch.zeros_like(mask)
    places = (mask > 0.2).nonzero().float()
    result = torch.zeros_like(mask)
    rows = torch.arange(mask.shape[1], device=mask.device, dtype=torch.float32)[:, None]
    columns = torch.arange(mask.shape[2], device=mask.device, dtype=torch.float32)
    for index in (weight > 0.2).nonzero().flatten().tolist():
        _, y, x = places[places[:, 0] == index].mean(dim=0)
        dy, dx = rows - y, columns - x
        angle, away = torch.atan2(dy, dx), torch.hypot(dy, dx)
        rays = torch.sin(angle * int(rng.integers(4, 16)) + rng.uniform(0, 6)) * torch.cos(
            angle * int(rng.integers(2, 9))
        )
        result[index] = rays * torch.exp(-away / (0.25 * mask.shape[2])) * float(weight[index])
    return result * rng.uniform(80, 400)


def noise_streaks(like: Tensor, rng: np.random.Generator) -> Tensor:
    """Return horizontal streaks in HU, as between shoulders, arms or hips, ZxHxW."""
    lines = torch.from_numpy(rng.standard_normal((like.shape[0], like.shape[1], 6), dtype=np.float32)).to(like.device)
    lines = torch.nn.functional.interpolate(lines, like.shape[2], mode="linear", align_corners=True)
    return lines * rng.uniform(8, 35)


def table(scene: Scene, rng: np.random.Generator) -> Tensor:
    """Return the part of each voxel outside of the body that the table's shells take, ZxHxW; 0 in coronal views."""
    axis = scene.anterior_axis
    result = torch.zeros(scene.codes.shape, device=scene.device)
    if axis == 0:
        return result
    size, spacing = scene.codes.shape[axis], scene.view.spacing[axis]
    filled = scene.body.any(dim=0).any(dim=2 - axis).nonzero()
    if not len(filled) or int(filled.max()) >= size - 2:
        return result
    depth = torch.arange(size, dtype=torch.float32, device=scene.device) * spacing
    top = (int(filled.max()) + 1) * spacing + rng.uniform(0, 6)
    if axis == 1:
        # Curved up at both sides.
        across = torch.linspace(-1, 1, scene.codes.shape[2], device=scene.device)
        depth = depth[:, None] + rng.uniform(0, 50) * across**2
    else:
        depth = depth[None, :].expand(scene.codes.shape[1], size)
    width = max(2.0, float(spacing))
    for shell in (top, top + rng.uniform(15, 45)):
        result += (1 - (depth - shell).abs() / width).clamp(0, 1)
    return result.clamp(0, 1) * ~scene.body
