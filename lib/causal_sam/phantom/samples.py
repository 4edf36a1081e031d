"""Endless stream of generated images with structures to segment, for training and for fixed validation sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from causal_sam.phantom.anatomy import Anatomy, AnatomySampler
from causal_sam.phantom.appearance import render

# A structure smaller than this many pixels of the 128-pixel frame cannot be seen, let alone clicked.
SMALLEST = 12


class Sample(NamedTuple):
    """One generated slice.

    Attributes:
        image: 3xSxS float32 in [0, 1]: previous, this and next slice.
        masks: KxSxS uint8, K structures of the middle slice, each 0 or 1.
    """

    image: np.ndarray
    masks: np.ndarray


def samples(size: int, structures: int, seed: int) -> Iterator[Sample]:
    """Yield generated slices of ``size`` pixels with ``structures`` structures each, for ever, the same for a seed."""
    rng = np.random.default_rng(seed)
    sampler = AnatomySampler(size, rng)
    while True:
        anatomy = _place(sampler.sample(), rng)
        image = render(anatomy, rng)
        image, anatomy.labels = _crop_to_rectangle(image, anatomy.labels, rng)
        masks = _choose_structures(anatomy, image[1], structures, rng)
        if masks is not None:
            yield Sample(image, masks)


def _place(anatomy: Anatomy, rng: np.random.Generator) -> Anatomy:
    """Rotate, flip, scale and shift: patients lie in every way, and zooming shows organs at every size."""
    size = anatomy.labels.shape[-1]
    scale = np.exp(rng.uniform(np.log(0.7), np.log(2.2))) if rng.random() < 0.6 else 1.0
    angle = rng.normal(0, 12) + 90 * rng.choice([0, 1, 2, 3], p=[0.7, 0.1, 0.1, 0.1])
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, scale)
    matrix[:, 2] += rng.normal(0, 0.12, 2) * size * max(scale, 1)
    labels = np.stack([cv2.warpAffine(s, matrix, (size, size), flags=cv2.INTER_NEAREST) for s in anatomy.labels])
    if rng.random() < 0.5:
        labels = np.ascontiguousarray(labels[..., ::-1])
    return Anatomy(labels, anatomy.parents, anatomy.materials)


def _crop_to_rectangle(
    image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Blank the right or the lower part of some samples: slices that are not square are padded there."""
    if rng.random() < 0.4:
        keep = int(image.shape[-1] * rng.uniform(0.6, 1.0))
        # What padding looks like after the model's normalisation: middle grey, in the units of the image.
        if rng.random() < 0.5:
            image[:, keep:], labels[:, keep:] = 0.5, 0
        else:
            image[:, :, keep:], labels[:, :, keep:] = 0.5, 0
    return image, labels


def _choose_structures(anatomy: Anatomy, image: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray | None:
    labels = anatomy.labels[1]
    size = labels.shape[-1]
    smallest = SMALLEST * (size / 128) ** 2
    areas = np.bincount(labels.ravel(), minlength=len(anatomy.parents))
    candidates = [n for n in range(1, len(areas)) if areas[n] >= smallest]
    rng.shuffle(candidates)
    chosen: list[np.ndarray] = []
    spare: list[np.ndarray] = []
    for label in candidates:
        members = anatomy.family(label) if rng.random() < 0.75 else [label]
        mask = np.isin(labels, members).astype(np.uint8)
        parts, components, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        if parts > 2 and rng.random() < 0.75:  # a click means the part it is in, mostly
            sizes = stats[1:, cv2.CC_STAT_AREA]
            mask = (components == 1 + int(rng.choice(len(sizes), p=sizes / sizes.sum()))).astype(np.uint8)
        area = int(mask.sum())
        if area < smallest or area > 0.6 * size * size:
            continue
        (chosen if _visible(mask, image) else spare).append(mask)
        if len(chosen) == count:
            break
    if not chosen:
        return None
    masks = chosen + spare
    return np.stack([masks[n % len(masks)] for n in range(count)])


def _visible(mask: np.ndarray, image: np.ndarray) -> bool:
    """Whether the brightness inside differs from that of a ring around it by more than the eye can miss."""
    ring = cv2.dilate(mask, np.ones((7, 7), np.uint8)) - mask
    if not ring.any():
        return False
    inside, outside = image[mask > 0], image[ring > 0]
    return abs(float(inside.mean()) - float(outside.mean())) > 0.04 + 0.25 * float(inside.std())
