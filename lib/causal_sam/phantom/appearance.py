"""Rendering of an anatomy with random contrast and scanner artefacts.

40 % of the images follow physics (Hounsfield units with a window, or tissues of MR with a bias field). The others have
random contrast as in SynthSeg (Billot et al. 2023, doi:10.1016/j.media.2023.102789), which makes a model robust to
unknown contrasts.
"""

from __future__ import annotations

import cv2
import numpy as np

from causal_sam.phantom.anatomy import AIR, BLOOD, BONE, FAT, FLUID, LESION, MAX_LABELS, MUSCLE, ORGAN, Anatomy

# Mean and spread of each material in Hounsfield units, over patients and contrast phases.
HOUNSFIELD = {
    AIR: (-990, 10),
    FAT: (-100, 15),
    MUSCLE: (55, 12),
    ORGAN: (85, 40),
    BLOOD: (160, 80),
    BONE: (500, 250),
    FLUID: (10, 10),
    LESION: (60, 40),
}
CT_WINDOW = (-160.0, 240.0)
# Share of the images with lesions, except CT, in which all other tissue has similar brightness, as on FLAIR.
MUTED_SHARE = 0.4


def render(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Render an anatomy in a random style.

    Args:
        anatomy: anatomy with labels 3xHxW.
        rng: source of randomness.

    Returns:
        3xHxW float32 in [0, 1], normalised as real images by `causal_sam.imaging`.
    """
    kind = rng.choice(["random", "ct", "mr"], p=[0.6, 0.22, 0.18])
    labels = anatomy.labels
    if kind == "ct":
        levels = _hounsfield_levels(anatomy, rng)
        image = _with_soft_lesions(levels[labels], anatomy, rng) + _texture(labels, rng, rng.uniform(0, 14, MAX_LABELS))
        image = _partial_volume(image, rng)
        image += _noise(labels.shape, rng, rng.uniform(2, 45))
        if rng.random() < 0.15:
            image += _streaks(labels.shape, rng, rng.uniform(20, 120))
        low, high = CT_WINDOW
        if rng.random() < 0.3:
            low, high = low + rng.normal(0, 40), high + rng.normal(0, 60)
        return np.clip((image - low) / max(high - low, 80), 0, 1).astype(np.float32)

    levels = _material_levels(anatomy, rng) if kind == "mr" else _random_levels(rng)
    if LESION in anatomy.materials and rng.random() < MUTED_SHARE:
        levels = _muted_levels(levels, anatomy, rng)
    image = _with_soft_lesions(levels[labels] + _lesion_texture(anatomy, rng), anatomy, rng)
    image = image + _texture(labels, rng, rng.uniform(0, rng.choice([0.01, 0.03, 0.08]), MAX_LABELS))
    image = _partial_volume(image, rng)
    if kind == "mr" or rng.random() < 0.5:
        image = image * np.exp(_smooth(labels.shape[1:], rng, rng.uniform(1, 3)) * rng.uniform(0, 0.4))
    sigma = rng.choice([0.005, 0.02, 0.05, 0.09], p=[0.35, 0.35, 0.2, 0.1]) * rng.uniform(0.3, 1.2)
    if kind == "mr":  # Rician: the magnitude of a complex signal
        image = np.hypot(image + _noise(labels.shape, rng, sigma), _noise(labels.shape, rng, sigma))
    else:
        image = image + _noise(labels.shape, rng, sigma)
    return _normalise(image, labels, rng)


def _random_levels(rng: np.random.Generator) -> np.ndarray:
    levels = rng.random(MAX_LABELS).astype(np.float32)
    if rng.random() < 0.8:
        levels[0] = rng.choice([0.0, 0.0, 0.05])
    return levels


def _material_levels(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Draw a brightness for each material with small deviations for each label, as in MR."""
    by_material = rng.random(8)
    by_material[AIR] = rng.uniform(0, 0.05)
    by_material[BONE] = rng.uniform(0, 0.5)
    levels = by_material[anatomy.materials] + rng.normal(0, rng.uniform(0.03, 0.2), MAX_LABELS)
    levels[0] = 0.0
    return np.clip(levels, 0, 1.2).astype(np.float32)


def _hounsfield_levels(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    mean, spread = np.array([HOUNSFIELD[m] for m in range(8)], np.float32).T
    # The factor simulates the contrast phase: without contrast agent, organs are similar.
    levels = rng.normal(mean[anatomy.materials], rng.uniform(0.25, 1.1) * spread[anatomy.materials])
    levels[0] = -1000
    return levels.astype(np.float32)


def _muted_levels(levels: np.ndarray, anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Compress the contrast of tissue so that lesions and their parts stand out."""
    levels = levels.copy()
    labels = range(1, len(levels))
    parts = [label for label in labels if anatomy.is_inside_lesion(label)]
    wholes = [label for label in labels if anatomy.materials[label] == LESION and label not in parts]
    tissue = np.isin(anatomy.materials, (MUSCLE, ORGAN, BLOOD, FAT))
    tissue[[0, *parts, *wholes]] = False
    centre = rng.uniform(0.2, 0.65)
    levels[tissue] = centre + rng.uniform(0.03, 0.4) * (levels[tissue] - 0.5)
    sign = rng.choice([1, 1, -1])
    for label in wholes:
        levels[label] = centre + sign * rng.uniform(0.06, 0.5)
    for label in parts:
        levels[label] = levels[anatomy.parents[label]] + rng.normal(0, 0.25)
    return np.clip(levels, 0, 1.2)


def _lesion_texture(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Return smooth variations of brightness inside lesions."""
    lesions = np.isin(anatomy.labels, np.flatnonzero(anatomy.materials == LESION))
    field = _smooth(anatomy.labels.shape[1:], rng, rng.uniform(4, 14))
    return (lesions * field * rng.uniform(0, 0.2)).astype(np.float32)


def _with_soft_lesions(image: np.ndarray, anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Blur the borders of lesions, since oedema and infiltration have no sharp border."""
    lesions = np.isin(anatomy.labels, np.flatnonzero(anatomy.materials == LESION)).astype(np.float32)
    if rng.random() < 0.5 or not lesions.any():
        return image
    size = image.shape[-1]
    sigma = rng.uniform(0.4, 2.5) * size / 128
    faded = []
    for slice_, lesion in zip(image, lesions, strict=True):
        near = np.clip(2 * cv2.GaussianBlur(lesion, (0, 0), 1.5 * sigma), 0, 1)
        faded.append(slice_ + near * (cv2.GaussianBlur(slice_, (0, 0), sigma) - slice_))
    return np.stack(faded)


def _texture(labels: np.ndarray, rng: np.random.Generator, strength: np.ndarray) -> np.ndarray:
    """Return tissue texture: correlated noise with a strength for each label."""
    field = _noise(labels.shape, rng, 1.0, correlation=rng.uniform(0.7, 3.0))
    return field * strength.astype(np.float32)[labels]


def _noise(
    shape: tuple[int, ...], rng: np.random.Generator, sigma: float, correlation: float | None = None
) -> np.ndarray:
    """Return Gaussian noise of standard deviation ``sigma``, white or blurred as by a reconstruction kernel."""
    field = rng.standard_normal(shape, dtype=np.float32)
    if correlation is None:
        correlation = rng.choice([0.0, rng.uniform(0.4, 1.2)])
    if correlation > 0:
        field = np.stack([cv2.GaussianBlur(s, (0, 0), correlation) for s in field])
        field /= field.std() + 1e-6
    return field * np.float32(sigma)


def _smooth(shape: tuple[int, ...], rng: np.random.Generator, cells: float) -> np.ndarray:
    n = max(2, round(cells)) + 2
    field = cv2.resize(rng.standard_normal((n, n)).astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return field / (np.abs(field).max() + 1e-6)


def _partial_volume(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Simulate partial volume by blur or resampling in the plane, and by mixing of neighbouring slices."""
    image = image.astype(np.float32)
    size = image.shape[1:][::-1]
    if rng.random() < 0.75:
        sigma = rng.uniform(0.3, 0.9)
        image = np.stack([cv2.GaussianBlur(s, (0, 0), sigma) for s in image])
    else:
        factor = rng.uniform(1.2, 2.5)
        small = tuple(max(16, round(s / factor)) for s in size)
        back = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
        image = np.stack(
            [cv2.resize(cv2.resize(s, small, interpolation=cv2.INTER_AREA), size, interpolation=back) for s in image]
        )
    if rng.random() < 0.4:
        w = rng.uniform(0.05, 0.3)
        image[1] = (1 - 2 * w) * image[1] + w * (image[0] + image[2])
    return image


def _streaks(shape: tuple[int, ...], rng: np.random.Generator, strength: float) -> np.ndarray:
    """Return rays from a point, as of metal artefacts."""
    _, height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    dy, dx = y - rng.uniform(0, height), x - rng.uniform(0, width)
    angle, distance = np.arctan2(dy, dx), np.hypot(dy, dx) / width
    rays = np.sin(angle * rng.integers(4, 30) + rng.uniform(0, 6)) * np.cos(angle * rng.integers(2, 12))
    return (rays * np.exp(-3 * distance) * strength).astype(np.float32)[None]


def _normalise(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sample = image[:, ::4, ::4]
    foreground = sample[labels[:, ::4, ::4] > 0]
    low, high = np.percentile(foreground if foreground.size > 50 else sample, (0.5, 99.5))
    low = min(low, 0.0) if rng.random() < 0.7 else low
    image = np.clip((image - low) / (high - low + 1e-6), 0, 1)
    if rng.random() < 0.5:
        image = image ** np.exp(rng.normal(0, 0.35))
    if rng.random() < 0.08:
        image = 1 - image
    return image.astype(np.float32)
