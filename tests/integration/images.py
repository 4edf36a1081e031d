"""A small made-up image in which every structure can be told by its brightness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Phantom:
    """A made-up image with bright organs in a dark body.

    Attributes:
        array: (I, J, K) int16 in HU.
        affine: 4x4 in RAS+ millimetre.
        organs: name -> bool (I, J, K).
        centres: name -> voxel in the middle of the organ.
    """

    array: NDArray[np.int16]
    affine: NDArray[np.float64]
    organs: dict[str, NDArray[np.bool_]]
    centres: dict[str, tuple[int, int, int]]


def make_phantom(slices: int = 10, seed: int = 0) -> Phantom:
    """Make a CT-like image of 96x80 voxels a slice; the same seed gives the same image."""
    shape = (96, 80, slices)
    i, j, _ = np.meshgrid(*map(np.arange, shape), indexing="ij")
    ellipses = {"liver": (30, 40, 17, 19, 120), "spleen": (72, 42, 10, 13, 190)}
    rng = np.random.default_rng(seed)
    body = ((i - 48) / 45) ** 2 + ((j - 40) / 37) ** 2 < 1
    array = np.where(body, rng.normal(0, 6, shape), -1000.0)
    organs, centres = {}, {}
    for name, (x, y, a, b, brightness) in ellipses.items():
        organs[name] = ((i - x) / a) ** 2 + ((j - y) / b) ** 2 < 1
        array[organs[name]] += brightness
        centres[name] = (x, y, slices // 2)
    return Phantom(array.round().astype(np.int16), np.diag([-2.0, -2.0, 5.0, 1.0]), organs, centres)
