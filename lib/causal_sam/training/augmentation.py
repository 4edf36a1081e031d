"""Random changes of training slices, in shape and in intensity, for patients who are not in the data."""

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


def random_affine(image_size: int, seed: int) -> Transform:
    """Rotate, shift and scale a slice a little. It is never flipped: left and right are different structures."""
    return RandAffined(**_placement(image_size), scale_range=0.12).set_random_state(seed)


def random_elastic(image_size: int, seed: int) -> Transform:
    """Deform a slice, with larger changes of scale than `random_affine`."""
    return Rand2DElasticd(
        **_placement(image_size),
        scale_range=0.2,
        # Control points an eighth of the slice apart, moved by up to an eighth of that, so that nothing folds.
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


def random_intensity(seed: int) -> Transform:
    """Make an image in [0, 1] brighter, darker, noisier or less sharp."""
    return Compose(
        [
            RandScaleIntensity(factors=0.15, prob=0.5),
            RandAdjustContrast(gamma=(0.7, 1.5), prob=0.4),
            RandGaussianSmooth(sigma_x=(0.25, 1.0), sigma_y=(0.25, 1.0), prob=0.2),
            RandGaussianNoise(std=0.03, prob=0.3),
        ]
    ).set_random_state(seed)
