"""Rendering of a scan from a label map: a brightness for each label, then the effects of a scanner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.imaging.volume import Volume


@dataclass(frozen=True)
class Style:
    """Style of an examination.

    Attributes:
        modality: "CT" or "MR".
        title: title for display.
        levels: structure -> brightness, in HU for CT and in arbitrary units for MR.
        spacing: voxel size in mm along left, posterior and superior; unused for scans of a given label map.
        noise: standard deviation of the noise, in the units of ``levels``.
        texture: strength of the tissue texture, in the same units.
        bias: relative strength of the bias field.
        tags: acquisition tags of the DICOM header.
        blur: standard deviation of the partial-volume blur in the plane, in voxels.
    """

    modality: str
    title: str
    levels: Mapping[str, float]
    spacing: tuple[float, float, float]
    noise: float
    texture: float
    bias: float
    tags: dict[str, str | float]
    blur: float = 0.6


def smooth_noise(shape: tuple[int, ...], cells: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return smooth noise in about [-1, 1] with ``cells`` bumps along each axis."""
    coarse = rng.uniform(-1, 1, tuple(n + 3 for n in cells)).astype(np.float32)
    grids = np.meshgrid(*(np.linspace(1, n + 1, size) for n, size in zip(cells, shape, strict=True)), indexing="ij")
    return ndimage.map_coordinates(coarse, grids, order=3, prefilter=False).astype(np.float32)


def render_scan(
    labels: NDArray[np.integer],
    affine: NDArray[np.float64],
    levels: NDArray[np.float32],
    style: Style,
    rng: np.random.Generator,
) -> Volume:
    """Render a scan of a label map.

    Args:
        labels: (I, J, K) label map, 0 is air; slices lie along k.
        affine: 4x4, voxel index -> RAS+ millimetre.
        levels: brightness of each value of the label map.
        style: style of the scan; its levels and spacing are ignored.
        rng: source of randomness for noise, texture and bias field.

    Returns:
        The image as int16 on the grid of the map, with modality and tags.
    """
    image = levels[labels].astype(np.float32)
    grain = ndimage.gaussian_filter(rng.standard_normal(labels.shape, dtype=np.float32), (1.2, 1.2, 0.4))
    image += np.where(labels > 0, grain / grain.std() * style.texture, 0)
    # The partial-volume blur is smaller across the slices than in the plane.
    image = ndimage.gaussian_filter(image, (style.blur, style.blur, style.blur / 2))
    if style.bias:
        image *= np.exp(style.bias * smooth_noise(labels.shape, (2, 2, 2), rng))
    noise = ndimage.gaussian_filter(rng.standard_normal((2, *labels.shape), dtype=np.float32), (0, 0.5, 0.5, 0))
    noise *= style.noise / noise.std()
    image = np.hypot(image + noise[0], noise[1]) if style.modality == "MR" else image + noise[0]
    return Volume(np.round(image).clip(-1024, 3071).astype(np.int16), affine, style.modality, style.tags)
