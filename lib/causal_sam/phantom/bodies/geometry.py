"""Fields of view: which slices of an anatomy a sample shows, and how its body is deformed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from causal_sam.imaging.frames import DISPLAY
from causal_sam.phantom.bodies.label_maps import Anatomy

PLANES = tuple(DISPLAY)
# Longest side of the coarse grid on which deformations are computed; between its points they are interpolated.
COARSE = 28
# Wavelengths in mm of the elastic deformation, and the share of the largest displacement that each may have.
WAVES = ((160.0, 1.0), (80.0, 0.5), (40.0, 0.13))

# Regions with larger displacements than this, in mm, are trunks.
TRUNK_STRETCH = 10.0


@dataclass(frozen=True)
class FieldOfView:
    """Slices of an anatomy.

    Attributes:
        plane: axial, coronal or sagittal.
        shape: slices, rows, columns.
        spacing: distance in mm of slices, rows and columns.
        centre: place of the middle of the slices in mm from the anatomy's first voxel, in RAS order.
        affine: 3x3; a step in RAS millimetres of the sample -> a step in the anatomy.
        thickness: thickness of a slice in mm; it is less than the distance of slices if there are gaps.
    """

    plane: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    centre: NDArray[np.float32]
    affine: NDArray[np.float32]
    thickness: float

    @property
    def axes(self) -> NDArray[np.float32]:
        """3x3: columns are the steps in mm, in RAS order, to the next slice, row and column."""
        axes = np.zeros((3, 3), np.float32)
        for own, (patient, sign) in enumerate(DISPLAY[self.plane]):
            axes[patient, own] = sign * self.spacing[own]
        return axes


def random_affine(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a 3x3 matrix that scales by 0.8 to 1.25, turns by up to 15 degrees and shears."""
    size = rng.uniform(-0.15, 0.15)
    scale = np.diag(np.exp(np.clip(size + rng.uniform(-0.12, 0.12, 3), -0.22, 0.22)))
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(rng.uniform(-15, 15, 3) * rng.uniform(0, 1))):
        a, b = [other for other in range(3) if other != axis]
        single = np.eye(3)
        single[a, a] = single[b, b] = np.cos(angle)
        single[a, b], single[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ single
    shear = np.eye(3) + np.triu(rng.normal(0, 0.04, (3, 3)), 1)
    return (turn @ shear @ scale).astype(np.float32)


def sample_positions(
    view: FieldOfView,
    anatomy: Anatomy,
    stretch: float,
    is_mirrored: bool,
    rng: np.random.Generator,
    device: torch.device,
) -> Tensor:
    """Return the place in the anatomy that each voxel of a randomly deformed body shows.

    Args:
        view: slices.
        anatomy: anatomy.
        stretch: largest displacement of the elastic deformation, in mm.
        is_mirrored: True to mirror the body in the sagittal plane.
        rng: source of randomness.
        device: where the result lies.

    Returns:
        3xZxHxW float32: voxels of the anatomy, in RAS order.
    """
    extent = np.array(view.shape) * view.spacing
    grid = tuple(int(n) for n in np.clip(np.ceil(extent / extent.max() * COARSE), 6, [max(s, 6) for s in view.shape]))
    steps = [np.linspace(0, n - 1, g, dtype=np.float32) - (n - 1) / 2 for n, g in zip(view.shape, grid, strict=True)]
    offsets = view.axes @ np.stack(np.meshgrid(*steps, indexing="ij")).reshape(3, -1)
    if is_mirrored:
        offsets[0] *= -1
    places = view.affine @ offsets + view.centre[:, None]
    places = places.reshape(3, *grid) + _elastic(extent, grid, stretch, rng)
    places = _grown(places, anatomy, rng)
    if stretch >= TRUNK_STRETCH and rng.random() < 0.7:
        places = _fattened(places, anatomy, float(rng.uniform(0.35, 1.3)), float(rng.uniform(0.8, 0.92)))
    voxels = torch.from_numpy((places / anatomy.spacing[:, None, None, None]).astype(np.float32))
    return F.interpolate(voxels[None].to(device), view.shape, mode="trilinear", align_corners=True)[0]


def _grown(places: NDArray, anatomy: Anatomy, rng: np.random.Generator) -> NDArray:
    """Let a few structures grow or shrink: places near their middle move away from it or towards it."""
    near = [
        box
        for box in anatomy.boxes.values()
        if (box[1] > places.min(axis=(1, 2, 3))).all() and (box[0] < places.max(axis=(1, 2, 3))).all()
    ]
    for number in rng.permutation(len(near))[: int(rng.integers(0, 7))]:
        box = near[int(number)]
        away = places - box.mean(axis=0)[:, None, None, None]
        # Half of the structure's size as standard deviation.
        width = float(np.clip(np.diff(box, axis=0).mean() / 2, 6, 60))
        places = places + away * (rng.uniform(-0.28, 0.35) * np.exp(-0.5 * (away**2).sum(axis=0) / width**2))
    return places


def _fattened(places: NDArray, anatomy: Anatomy, factor: float, inner: float) -> NDArray:
    """Make what lies farther out in a trunk than a share of its radius thinner (factor above 1) or thicker (below)."""
    body = anatomy.body_between(float(places[2].min()), float(places[2].max()))
    middle, half = body.mean(axis=0)[:2], np.diff(body, axis=0)[0, :2] / 2
    away = places[:2] - middle[:, None, None, None]
    distance = np.sqrt(((away / half[:, None, None, None]) ** 2).sum(axis=0)) + 1e-6
    moved = np.where(distance > inner, inner + (distance - inner) * factor, distance)
    return np.concatenate([middle[:, None, None, None] + away * (moved / distance), places[2:]])


def _elastic(extent: NDArray, grid: tuple[int, ...], stretch: float, rng: np.random.Generator) -> NDArray:
    """Return a smooth random displacement in mm, 3xD1xD2xD3."""
    total = torch.zeros(1, 3, *grid)
    for wave, share in WAVES:
        knots = [max(2, round(length / (wave / 2)) + 1) for length in extent]
        field = torch.from_numpy(rng.standard_normal((1, 3, *knots), dtype=np.float32))
        # Half of the largest displacement as standard deviation; rare larger ones are cut.
        amplitude = share * stretch * rng.uniform(0.1, 0.5)
        total += F.interpolate(
            (field * amplitude).clamp(-share * stretch, share * stretch), grid, mode="trilinear", align_corners=True
        )
    return total[0].numpy()
