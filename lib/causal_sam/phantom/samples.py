"""Endless streams of generated slices with structures to segment, for training and validation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from causal_sam.phantom.anatomy import LESION, Anatomy, AnatomySampler
from causal_sam.phantom.appearance import render

# Minimum area of a structure, in pixels of a frame with side 128.
MIN_AREA = 12
# Share of the slices with lesions first, and of the structures without visible border.
LESIONS_FIRST_SHARE = 0.5
FAINT_SHARE = 0.15
# Share of the slices with parts of lesions as structures, such as the core of a tumour.
LESION_PARTS_SHARE = 0.15
# Logarithms of the minimum and maximum ratio of the scan's grid to the pixels of the sample.
SCAN_RANGE = (np.log(0.3), np.log(1.5))
# Brightness of padding after the model's normalisation, in the units of the image.
PADDING = 0.5


class Sample(NamedTuple):
    """One generated slice.

    Attributes:
        image: 3xSxS float32 in [0, 1]: previous, middle and next slice.
        masks: KxSxS uint8 (0, 1), K structures on the middle slice.
        neighbours: KxSxS uint8 (0, 1), the same structures on the previous or the next slice; may be empty.
        ended: SxS uint8 (0, 1), a structure of the neighbouring slice that is absent on the middle slice; may be empty.
        regions: SxS uint8, label map of the middle slice; 0 is the outside.
    """

    image: np.ndarray
    masks: np.ndarray
    neighbours: np.ndarray
    ended: np.ndarray
    regions: np.ndarray


def samples(size: int, structures: int, seed: int) -> Iterator[Sample]:
    """Yield generated slices of ``size`` pixels with ``structures`` structures each, endlessly and reproducibly.

    An anatomy is rendered on a grid of its own, coarser or finer than the ``size`` pixels, and interpolated to them, so
    that the width of noise and borders is that of the scan's voxels, as in real images.
    """
    for scan in scans(size, structures, seed):
        labels = np.concatenate((scan.masks, scan.neighbours, scan.ended[None])).astype(np.float32)
        fitted = (_resize_and_pad(labels, size, 0.0) > 0.5).astype(np.uint8)
        image = _resize_and_pad(scan.image, size, PADDING)
        regions = _resize_and_pad(scan.regions[None].astype(np.float32), size, 0.0, cv2.INTER_NEAREST_EXACT)[0].astype(
            np.uint8
        )
        yield Sample(image, fitted[:structures], fitted[structures:-1], fitted[-1], regions)


def scans(size: int, structures: int, seed: int) -> Iterator[Sample]:
    """Yield the slices of `samples` on the grids of their scans, HxW instead of SxS.

    Some show a part of an anatomy at a higher resolution, as the predictor's zoom does.
    """
    rng = np.random.default_rng(seed)
    while True:
        side = max(40, round(size * float(np.exp(rng.uniform(*SCAN_RANGE)))))
        anatomy = _random_rotation(_random_view(side, rng).sample(), rng)
        image = render(anatomy, rng)
        image, anatomy.labels = _crop_to_rectangle(image, anatomy.labels, rng)
        side = int(rng.choice([0, 2]))
        chosen = _draw_structures(anatomy, image[1], structures, side, rng)
        if chosen is not None:
            yield Sample(image, *chosen, _draw_ended_structure(anatomy, side, rng), anatomy.labels[1])


def _random_view(side: int, rng: np.random.Generator) -> AnatomySampler:
    """Draw a window: the whole anatomy with or without surroundings, or a part of it."""
    if rng.random() < 0.5:
        reach = rng.uniform(0.8, 1.35)
        centre = rng.normal(0, 0.1, 2)
    else:
        reach = float(np.exp(rng.uniform(np.log(0.18), np.log(0.8))))
        centre = np.clip(rng.normal(0, 0.4, 2), reach - 1, 1 - reach)
    return AnatomySampler(side, rng, (float(centre[0]), float(centre[1])), reach)


def _random_rotation(anatomy: Anatomy, rng: np.random.Generator) -> Anatomy:
    """Rotate and flip an anatomy at random."""
    size = anatomy.labels.shape[-1]
    angle = rng.normal(0, 12) + 90 * rng.choice([0, 1, 2, 3], p=[0.7, 0.1, 0.1, 0.1])
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, 1.0)
    labels = np.stack([cv2.warpAffine(s, matrix, (size, size), flags=cv2.INTER_NEAREST) for s in anatomy.labels])
    if rng.random() < 0.5:
        labels = np.ascontiguousarray(labels[..., ::-1])
    return Anatomy(labels, anatomy.parents, anatomy.materials)


def _crop_to_rectangle(
    image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Crop some scans on the right or below, since real slices need not be square."""
    if rng.random() < 0.4:
        keep = int(image.shape[-1] * rng.uniform(0.6, 1.0))
        if rng.random() < 0.5:
            image, labels = image[:, :keep], labels[:, :keep]
        else:
            image, labels = image[:, :, :keep], labels[:, :, :keep]
    return image, labels


def _resize_and_pad(channels: np.ndarray, size: int, padding: float, interpolation: int | None = None) -> np.ndarray:
    """Interpolate CxHxW so that the longer side has ``size`` pixels, and pad the other on the right or below."""
    scale = size / max(channels.shape[1:])
    height, width = (max(1, round(side * scale)) for side in channels.shape[1:])
    way = (cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR) if interpolation is None else interpolation
    fitted = np.full((len(channels), size, size), padding, np.float32)
    for n, channel in enumerate(channels):
        fitted[n, :height, :width] = cv2.resize(np.ascontiguousarray(channel), (width, height), interpolation=way)
    return fitted


def _min_area(labels: np.ndarray) -> float:
    """Return the minimum area of a structure in voxels of the scan."""
    return max(6.0, 1.3 * MIN_AREA * (max(labels.shape) / 128) ** 2)


def _draw_structures(
    anatomy: Anatomy, image: np.ndarray, count: int, side: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Draw ``count`` structures; return their masks on the middle slice and on the slice at ``side``."""
    labels, beside = anatomy.labels[1], anatomy.labels[side]
    min_area = _min_area(labels)
    areas = np.bincount(labels.ravel(), minlength=len(anatomy.parents))
    # Parts of lesions have more labels than whole lesions, but are segmented less often.
    parts = rng.random() < LESION_PARTS_SHARE
    candidates = [
        n for n in range(1, len(areas)) if areas[n] >= min_area and (parts or not anatomy.is_inside_lesion(n))
    ]
    rng.shuffle(candidates)
    if rng.random() < LESIONS_FIRST_SHARE:
        candidates.sort(key=lambda n: anatomy.materials[n] != LESION)
    chosen: list[tuple[np.ndarray, np.ndarray]] = []
    spare: list[tuple[np.ndarray, np.ndarray]] = []
    for label in candidates:
        whole = 0.9 if anatomy.materials[label] == LESION else 0.75
        members = anatomy.with_descendants(label) if rng.random() < whole else [label]
        mask, neighbour = (np.isin(slice_, members).astype(np.uint8) for slice_ in (labels, beside))
        found, components, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        if found > 2 and rng.random() < 0.75:  # a click usually refers to one component
            sizes = stats[1:, cv2.CC_STAT_AREA]
            mask = (components == 1 + int(rng.choice(len(sizes), p=sizes / sizes.sum()))).astype(np.uint8)
            neighbour = _continuation(mask, neighbour)
        area = int(mask.sum())
        if area < min_area or area > 0.6 * labels.size:
            continue
        # Some structures without a visible border are kept: their clicks alone define them.
        (chosen if rng.random() < FAINT_SHARE or _is_visible(mask, image) else spare).append((mask, neighbour))
        if len(chosen) == count:
            break
    if not chosen:
        return None
    pairs = chosen + spare
    masks, neighbours = zip(*(pairs[n % len(pairs)] for n in range(count)), strict=True)
    return np.stack(masks), np.stack(neighbours)


def _continuation(mask: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """Return the components of a structure on the neighbouring slice that overlap its ``mask``."""
    _, components = cv2.connectedComponents(neighbour, connectivity=4)
    over = np.unique(components[(mask > 0) & (neighbour > 0)])
    return np.isin(components, over[over > 0]).astype(np.uint8)


def _draw_ended_structure(anatomy: Anatomy, side: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a structure of the slice at ``side`` that is absent on the middle slice; empty if there is none."""
    beside = anatomy.labels[side]
    areas = np.bincount(beside.ravel(), minlength=len(anatomy.parents))
    present = set(np.unique(anatomy.labels[1]).tolist())
    ended = [
        label
        for label in range(1, len(areas))
        if areas[label] >= _min_area(beside) and present.isdisjoint(anatomy.with_descendants(label).tolist())
    ]
    if not ended:
        return np.zeros_like(beside)
    return np.isin(beside, anatomy.with_descendants(int(rng.choice(ended)))).astype(np.uint8)


def _is_visible(mask: np.ndarray, image: np.ndarray) -> bool:
    """Return whether the brightness inside differs visibly from that of a ring around the mask."""
    ring = cv2.dilate(mask, np.ones((7, 7), np.uint8)) - mask
    if not ring.any():
        return False
    inside, outside = image[mask > 0], image[ring > 0]
    return abs(float(inside.mean()) - float(outside.mean())) > 0.04 + 0.25 * float(inside.std())
