"""Lesions: masses in organs, tumours with edema and small lesions of the white matter in brains."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from causal_sam.phantom.bodies.fields import interpolated_noise
from causal_sam.phantom.bodies.label_maps import FIRST, UNKNOWN

if TYPE_CHECKING:
    from causal_sam.phantom.bodies.scene import Scene

LESION, EDEMA, CORE, WHITE_MATTER_LESION = "lesion", "edema", "tumour core", "white matter lesion"
WHOLE_TUMOUR = "whole tumour"
NAMES = (LESION, EDEMA, CORE, WHITE_MATTER_LESION, WHOLE_TUMOUR)
# Tissues that masses grow in.
_ORGANS = ("liver", "spleen", "kidney", "medulla", "lung", "pancreas", "muscle", "marrow", "thyroid", "prostate")
HOSTS = (*_ORGANS, "fat", "gland", "adrenal", "soft", "filler")
BRAIN = ("white_matter", "grey_matter", "deep_grey", "brainstem", "pallidum", "csf")


@dataclass(frozen=True)
class Lesion:
    """A lesion.

    Attributes:
        kind: one of `NAMES`, but the whole tumour.
        label: its label in the sample.
        host: label of the organ that it is counted to as well; `UNKNOWN` if it is none.
        tissue: tissue in which it lies.
        box: slices, rows and columns in which it lies.
        mask: DxHxW float32 in [0, 1]: share of each voxel of the box that it takes.
        depth: DxHxW float32: 1 in the middle, 0 at the surface.
    """

    kind: str
    label: int
    host: int
    tissue: str
    box: tuple[slice, ...]
    mask: Tensor
    depth: Tensor


def insert_lesions(scene: Scene, is_brain: bool, rng: np.random.Generator) -> None:
    """Insert random lesions in a scene, and their labels."""
    if is_brain:
        kind = rng.random()
        if kind < 0.3:
            _insert_tumour(scene, rng)
        elif kind < 0.55:
            for _ in range(int(rng.integers(3, 25))):
                _insert(scene, WHITE_MATTER_LESION, ("white_matter",), float(np.exp(rng.uniform(0.3, 1.9))), rng)
    elif rng.random() < 0.45:
        tissue = HOSTS[int(rng.integers(len(HOSTS)))] if rng.random() < 0.5 else "liver"
        largest = 30 if tissue in ("liver", "fat", "filler", "muscle", "lung") else 16
        for _ in range(int(rng.integers(1, 5))):
            _insert(scene, LESION, (tissue,), float(np.exp(rng.uniform(np.log(3), np.log(largest)))), rng)


def _insert_tumour(scene: Scene, rng: np.random.Generator) -> None:
    radius = rng.uniform(6, 24)
    centre = _place(scene, BRAIN[:3], rng)
    if centre is None:
        return
    if rng.random() < 0.85:
        white = ("white_matter",) if rng.random() < 0.5 else BRAIN
        _insert(scene, EDEMA, white, radius * rng.uniform(1.3, 2.2), rng, centre)
    _insert(scene, CORE, BRAIN, radius, rng, centre)


def _insert(
    scene: Scene,
    kind: str,
    tissues: Iterable[str],
    radius: float,
    rng: np.random.Generator,
    centre: tuple[int, ...] | None = None,
) -> None:
    """Insert one lesion with a radius in mm, if there is a place for it."""
    tissues = tuple(tissues)
    centre = centre or _place(scene, tissues, rng)
    if centre is None:
        return
    spacing = np.array(scene.view.spacing)
    reach = np.ceil(1.7 * radius / spacing).astype(int)
    box = tuple(
        slice(max(0, c - r), min(n, c + r + 1)) for c, r, n in zip(centre, reach, scene.codes.shape, strict=True)
    )
    scale = spacing / (radius * np.exp(rng.uniform(-0.25, 0.25, 3)))
    axes = [
        torch.arange(own.start - c, own.stop - c, dtype=torch.float32, device=scene.device) * float(s)
        for own, c, s in zip(box, centre, scale, strict=True)
    ]
    distance = (axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2).sqrt()
    rough = interpolated_noise((4, 5, 5), distance.shape, rng).to(scene.device)
    depth = 1 + rng.uniform(0.05, 0.35) * rough - distance
    soft = float(max(spacing[1], rng.uniform(0.2, 2.0 if kind != LESION else 1.2)) / radius)
    mask = (0.5 + depth / (2 * soft)).clamp(0, 1)
    tissue = scene.anatomy.code_tissues[int(scene.codes[centre])]
    host = int(scene.labels[centre]) if kind in (LESION, WHITE_MATTER_LESION) else UNKNOWN
    if host >= FIRST and rng.random() < 0.7:
        # Within the organ.
        mask = mask * (scene.labels[box] == host)
    else:
        allowed = np.isin(scene.anatomy.code_tissues, tissues if kind in (EDEMA, CORE) else [*HOSTS, *BRAIN])
        mask = mask * torch.from_numpy(allowed).to(scene.device)[scene.codes[box]]
        host = UNKNOWN
    label = _label(scene, kind, host)
    scene.labels[box][mask > 0.5] = label
    scene.lesions.append(Lesion(kind, label, host, tissue, box, mask, depth))


def _label(scene: Scene, kind: str, host: int) -> int:
    """Return the label of a kind of lesion in an organ, a new one for the first."""
    known = {(own.kind, own.host): own.label for own in scene.lesions}
    return known.get((kind, host), max([int(scene.anatomy.code_labels.max()), *known.values()]) + 1)


def _place(scene: Scene, tissues: Iterable[str], rng: np.random.Generator) -> tuple[int, ...] | None:
    """Return a random voxel of some tissues; None if there seems to be none."""
    wanted = torch.from_numpy(np.isin(scene.anatomy.code_tissues, list(tissues))).to(scene.device)
    tried = torch.from_numpy(rng.integers(0, scene.codes.numel(), 3000)).to(scene.device)
    found = tried[wanted[scene.codes.flatten()[tried]]]
    return tuple(int(i) for i in np.unravel_index(int(found[0]), scene.codes.shape)) if len(found) else None


def structures_with(scene: Scene, structures: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the structures of a scene with its lesions: by name, and as parts of their organs."""
    present = [own for own in scene.lesions if bool((scene.labels[own.box] == own.label).any())]
    found = dict(structures)
    for own in present:
        for name, labels in structures.items():
            is_part = own.host in labels or (own.kind in (EDEMA, CORE) and name == "brain")
            if is_part:
                found[name] = tuple(dict.fromkeys((*found[name], own.label)))
    for kind in (LESION, WHITE_MATTER_LESION, EDEMA, CORE):
        labels = tuple(dict.fromkeys(own.label for own in present if own.kind == kind))
        if labels:
            found[kind] = labels
    tumour = (*found.get(CORE, ()), *found.get(EDEMA, ()))
    return found | ({WHOLE_TUMOUR: tumour} if tumour else {})
