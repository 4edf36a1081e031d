"""How slices of the patients that are there are changed, for those who are not: in shape, and in intensity."""

from __future__ import annotations

from typing import Any

from monai.transforms import (
    Compose,
    Rand2DElasticd,
    RandAdjustContrast,
    RandAffined,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensity,
    Transform,
)


def move(image_size: int, seed: int) -> Transform:
    """Patients lie a little differently. Not flipped: left and right are different structures."""
    return RandAffined(**_placement(image_size), scale_range=0.12).set_random_state(seed)


def bend(image_size: int, seed: int) -> Transform:
    """Patients are also built differently: beside `move`, organs are larger or smaller, and bent."""
    return Rand2DElasticd(
        **_placement(image_size),
        scale_range=0.2,
        # Control points an eighth of the slice apart, moved by up to an eighth of that: nothing is folded.
        spacing=(image_size / 8, image_size / 8),
        magnitude_range=(0.0, image_size / 64),
    ).set_random_state(seed)


def _placement(image_size: int) -> dict[str, Any]:
    return {
        "keys": ("image", "label"),
        "prob": 0.8,
        "rotate_range": 0.2,
        "translate_range": 0.05 * image_size,
        "mode": ("bilinear", "nearest"),
        "padding_mode": "zeros",
    }


def expose(seed: int) -> Transform:
    """One scanner shows one patient brighter, noisier or less sharp than the next; for images in [0, 1]."""
    return Compose(
        [
            RandScaleIntensity(factors=0.15, prob=0.5),
            RandAdjustContrast(gamma=(0.7, 1.5), prob=0.4),
            RandGaussianSmooth(sigma_x=(0.25, 1.0), sigma_y=(0.25, 1.0), prob=0.2),
            RandGaussianNoise(std=0.03, prob=0.3),
        ]
    ).set_random_state(seed)
