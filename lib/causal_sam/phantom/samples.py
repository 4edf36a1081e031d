"""Endless stream of generated images with structures to segment, for training and for fixed validation sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from causal_sam.phantom.anatomy import LESION, Anatomy, AnatomySampler
from causal_sam.phantom.appearance import render

# A structure smaller than this many pixels of the 128-pixel frame cannot be seen, let alone clicked.
SMALLEST = 12
# Share of the slices where lesions are segmented before anything else, and of the structures that may be invisible.
LESIONS_FIRST = 0.5
FAINT = 0.15
# Share of the slices where parts of lesions are segmented too, such as the core of a tumour.
LESION_PARTS = 0.15
# Logarithms of the smallest and the largest ratio of the scan's grid to the pixels of the sample.
SCAN_RANGE = (np.log(0.3), np.log(1.5))
# What padding looks like after the model's normalisation: middle grey, in the units of the image.
PADDING = 0.5


class Sample(NamedTuple):
    """One generated slice.

    Attributes:
        image: 3xSxS float32 in [0, 1]: previous, this and next slice.
        masks: KxSxS uint8, K structures of the middle slice, each 0 or 1.
        neighbours: KxSxS uint8, the same structures on the previous or on the next slice; may be empty.
        ended: SxS uint8, a structure of a neighbouring slice that the middle one no longer shows; empty if there is
            none.
        regions: SxS uint8, another number for everything that the middle slice shows; 0 is the outside.
    """

    image: np.ndarray
    masks: np.ndarray
    neighbours: np.ndarray
    ended: np.ndarray
    regions: np.ndarray


def samples(size: int, structures: int, seed: int) -> Iterator[Sample]:
    """Yield generated slices of ``size`` pixels with ``structures`` structures each, for ever, the same for a seed.

    As with real images, an anatomy is scanned on a grid of its own, coarser or finer than the ``size`` pixels, and
    interpolated to them: noise and borders are as wide as the voxels of the scan.
    """
    for scan in scans(size, structures, seed):
        labels = np.concatenate((scan.masks, scan.neighbours, scan.ended[None])).astype(np.float32)
        fitted = (_fit(labels, size, 0.0) > 0.5).astype(np.uint8)
        image = _fit(scan.image, size, PADDING)
        regions = _fit(scan.regions[None].astype(np.float32), size, 0.0, cv2.INTER_NEAREST_EXACT)[0].astype(np.uint8)
        yield Sample(image, fitted[:structures], fitted[structures:-1], fitted[-1], regions)


def scans(size: int, structures: int, seed: int) -> Iterator[Sample]:
    """Yield the same slices as `samples` on the grids of their scans, HxW instead of SxS.

    Close looks at a part of an anatomy are among them: they are what the predictor sees when it zooms.
    """
    rng = np.random.default_rng(seed)
    while True:
        side = max(40, round(size * float(np.exp(rng.uniform(*SCAN_RANGE)))))
        anatomy = _turn(_view(side, rng).sample(), rng)
        image = render(anatomy, rng)
        image, anatomy.labels = _crop_to_rectangle(image, anatomy.labels, rng)
        side = int(rng.choice([0, 2]))
        chosen = _choose_structures(anatomy, image[1], structures, side, rng)
        if chosen is not None:
            yield Sample(image, *chosen, _choose_ended(anatomy, side, rng), anatomy.labels[1])


def _view(side: int, rng: np.random.Generator) -> AnatomySampler:
    """The whole anatomy, a little more of the surroundings, or a close look at a part."""
    if rng.random() < 0.5:
        reach = rng.uniform(0.8, 1.35)
        centre = rng.normal(0, 0.1, 2)
    else:
        reach = float(np.exp(rng.uniform(np.log(0.18), np.log(0.8))))
        centre = np.clip(rng.normal(0, 0.4, 2), reach - 1, 1 - reach)
    return AnatomySampler(side, rng, (float(centre[0]), float(centre[1])), reach)


def _turn(anatomy: Anatomy, rng: np.random.Generator) -> Anatomy:
    """Rotate and flip: patients lie in every way."""
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
    """Cut off the right or the lower part of some scans: slices need not be square."""
    if rng.random() < 0.4:
        keep = int(image.shape[-1] * rng.uniform(0.6, 1.0))
        if rng.random() < 0.5:
            image, labels = image[:, :keep], labels[:, :keep]
        else:
            image, labels = image[:, :, :keep], labels[:, :, :keep]
    return image, labels


def _fit(channels: np.ndarray, size: int, padding: float, interpolation: int | None = None) -> np.ndarray:
    """Interpolate CxHxW so that the longer side has ``size`` pixels, and pad the other on the right or below."""
    scale = size / max(channels.shape[1:])
    height, width = (max(1, round(side * scale)) for side in channels.shape[1:])
    way = (cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR) if interpolation is None else interpolation
    fitted = np.full((len(channels), size, size), padding, np.float32)
    for n, channel in enumerate(channels):
        fitted[n, :height, :width] = cv2.resize(np.ascontiguousarray(channel), (width, height), interpolation=way)
    return fitted


def _smallest(labels: np.ndarray) -> float:
    """In voxels of the scan: large enough to be seen in the sample, and at least a few voxels."""
    return max(6.0, 1.3 * SMALLEST * (max(labels.shape) / 128) ** 2)


def _choose_structures(
    anatomy: Anatomy, image: np.ndarray, count: int, side: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Masks of ``count`` structures on the middle slice and on the one at ``side``."""
    labels, beside = anatomy.labels[1], anatomy.labels[side]
    smallest = _smallest(labels)
    areas = np.bincount(labels.ravel(), minlength=len(anatomy.parents))
    # The whole of a lesion: of what lies inside one another there are more labels, which people seldom mean.
    parts = rng.random() < LESION_PARTS
    candidates = [n for n in range(1, len(areas)) if areas[n] >= smallest and (parts or not anatomy.is_in_lesion(n))]
    rng.shuffle(candidates)
    if rng.random() < LESIONS_FIRST:
        candidates.sort(key=lambda n: anatomy.materials[n] != LESION)
    chosen: list[tuple[np.ndarray, np.ndarray]] = []
    spare: list[tuple[np.ndarray, np.ndarray]] = []
    for label in candidates:
        whole = 0.9 if anatomy.materials[label] == LESION else 0.75
        members = anatomy.family(label) if rng.random() < whole else [label]
        mask, neighbour = (np.isin(slice_, members).astype(np.uint8) for slice_ in (labels, beside))
        parts, components, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        if parts > 2 and rng.random() < 0.75:  # a click means the part it is in, mostly
            sizes = stats[1:, cv2.CC_STAT_AREA]
            mask = (components == 1 + int(rng.choice(len(sizes), p=sizes / sizes.sum()))).astype(np.uint8)
            neighbour = _continued(mask, neighbour)
        area = int(mask.sum())
        if area < smallest or area > 0.6 * labels.size:
            continue
        # A few without a visible border: there the clicks alone say where it is.
        (chosen if rng.random() < FAINT or _visible(mask, image) else spare).append((mask, neighbour))
        if len(chosen) == count:
            break
    if not chosen:
        return None
    pairs = chosen + spare
    masks, neighbours = zip(*(pairs[n % len(pairs)] for n in range(count)), strict=True)
    return np.stack(masks), np.stack(neighbours)


def _continued(mask: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """The components of a structure on the next slice that lie over its ``mask`` on this one."""
    _, components = cv2.connectedComponents(neighbour, connectivity=4)
    over = np.unique(components[(mask > 0) & (neighbour > 0)])
    return np.isin(components, over[over > 0]).astype(np.uint8)


def _choose_ended(anatomy: Anatomy, side: int, rng: np.random.Generator) -> np.ndarray:
    """A structure of the slice at ``side`` that the middle slice does not show; empty if there is none."""
    beside = anatomy.labels[side]
    areas = np.bincount(beside.ravel(), minlength=len(anatomy.parents))
    present = set(np.unique(anatomy.labels[1]).tolist())
    ended = [
        label
        for label in range(1, len(areas))
        if areas[label] >= _smallest(beside) and present.isdisjoint(anatomy.family(label).tolist())
    ]
    if not ended:
        return np.zeros_like(beside)
    return np.isin(beside, anatomy.family(int(rng.choice(ended)))).astype(np.uint8)


def _visible(mask: np.ndarray, image: np.ndarray) -> bool:
    """Whether the brightness inside differs from that of a ring around it by more than the eye can miss."""
    ring = cv2.dilate(mask, np.ones((7, 7), np.uint8)) - mask
    if not ring.any():
        return False
    inside, outside = image[mask > 0], image[ring > 0]
    return abs(float(inside.mean()) - float(outside.mean())) > 0.04 + 0.25 * float(inside.std())
