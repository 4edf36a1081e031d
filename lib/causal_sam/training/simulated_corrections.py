"""Corrections from generated images alone: of random shapes, of generated abdomens, and of bodies from label maps.

Random shapes have any form, in any plane. Whole volumes add what single slices cannot show: directions across the
slices, the region of an act about a whole structure, and slices beyond the end of a mask, where the decoder sees the
mask of a neighbour. In both the errors are simulated. In bodies that are rendered from label maps they are real: those
of masks that this product makes from clicks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from causal_sam.correction.decoding import STRENGTH, restrict_to_region
from causal_sam.correction.region import region_gate
from causal_sam.imaging import Volume, other_axes
from causal_sam.imaging.distances import signed_distance
from causal_sam.phantom.samples import Sample, samples
from causal_sam.phantom.scans import Style, render_scan
from causal_sam.phantom.studies import LABELS, SEGMENTED, generated_abdomen
from causal_sam.prompting import InteractiveSession, Predictor
from causal_sam.prompting.prompts import Voxel
from causal_sam.prompting.shipped_context import predictor_with_context
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam.loading import load_model
from causal_sam.simulation.annotator import next_click_in_volume, random_point
from causal_sam.simulation.errors import SimulatedError, simulate_error
from causal_sam.training.body_volumes import BodyVolume, body_volumes
from causal_sam.training.corrections import fitted
from causal_sam.training.found_errors import find_error
from causal_sam.training.style_pairs import padded
from causal_sam.training.tci import MODULATED_KINDS, CorrectionSample

# Share of the slices' masks that are wrong in two ways, and the reach of the region around these as a share of the
# radius.
TWOFOLD, TWOFOLD_REACH = 0.5, (0.3, 0.9)
# Share of the errors in which neighbours have masks of their own, as in some sites.
NEIGHBOURS_KNOWN = 0.5
# Planes of the slices: the two patient directions along rows and columns, as columns of an affine.
PLANES = {
    "axial": ((0.0, -1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "coronal": ((0.0, 0.0, -1.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "sagittal": ((0.0, 0.0, -1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0)),
}
# Structures per abdomen, errors per structure, and slices per error: half of these where most is wrong, half anywhere
# in the region.
STRUCTURES_OF_VOLUME, ERRORS_OF_STRUCTURE, SLICES_OF_ERROR = 5, 2, 4
# Samples that wait to be drawn at random, so that those of one volume do not follow each other.
WAITING = 120
# The same of bodies, and most clicks on a structure whose errors are looked for.
FOUND_WAITING, MAX_CLICKS = 60, 3
# First patient; benchmarks and the demo studies have patients of smaller numbers.
FIRST_PATIENT = 10_000_000


class SliceCorrections(IterableDataset):
    """Samples of slices with random shapes, without end; each worker draws others.

    Args:
        size: side S of the images in pixels.
        seed: seed of all random choices.
        names: names for the structures.
        twofold: share of the masks that are wrong in two ways.
    """

    def __init__(self, size: int, seed: int, names: Sequence[str], twofold: float) -> None:
        self.size, self.seed, self.names, self.twofold = size, seed, list(names), twofold

    def __iter__(self) -> Iterator[CorrectionSample]:
        cv2.setNumThreads(1)
        seed = self.seed * 97 + _worker()
        rng = np.random.default_rng(seed)
        for sample in samples(self.size, 2, seed):
            for mask in sample.masks:
                drawn = _of_slice(sample, mask, self.names, rng, self.twofold)
                if drawn is not None:
                    yield drawn


class VolumeCorrections(IterableDataset):
    """Samples of generated abdomens in random contrasts, without end; each worker draws others.

    Args:
        size: side S of the model's input in pixels.
        seed: seed of all random choices.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    def __iter__(self) -> Iterator[CorrectionSample]:
        cv2.setNumThreads(1)
        rng = np.random.default_rng((self.seed, _worker()))
        waiting: list[CorrectionSample] = []
        while True:
            while len(waiting) < WAITING:
                waiting += _of_volume(*_random_abdomen(rng), self.size, rng)
            yield waiting.pop(int(rng.integers(len(waiting))))


class FoundCorrections(IterableDataset):
    """Samples of errors that the compact model and the volume context make on rendered bodies, without end.

    A simulated annotator clicks some structures of each body, the first time at a random place; each sample is about
    the largest connected error that is left.

    Args:
        folders: folders of named label maps, see `causal_sam.phantom.bodies.BodySampler`.
        size: side S of the model's input in pixels.
        seed: seed of all random choices; each worker draws others.
        names: names for structures without one.
    """

    def __init__(self, folders: Sequence[Path], size: int, seed: int, names: Sequence[str]) -> None:
        self.folders, self.size, self.seed, self.names = list(folders), size, seed, list(names)

    def __iter__(self) -> Iterator[CorrectionSample]:
        cv2.setNumThreads(1)
        if get_worker_info():  # one process for each core
            torch.set_num_threads(1)
        rng = np.random.default_rng((self.seed, _worker()))
        predictor = predictor_with_context(load_model("compact", device="cpu"), prefetch_slices=0)
        waiting: list[CorrectionSample] = []
        for body in body_volumes(self.folders, rng):
            waiting += self._of_body(body, predictor.for_volume(body.volume), rng)
            while len(waiting) > FOUND_WAITING:
                yield waiting.pop(int(rng.integers(len(waiting))))

    def _of_body(self, body: BodyVolume, predictor: Predictor, rng: np.random.Generator) -> list[CorrectionSample]:
        slices, drawn = VolumeSlices(body.volume, "auto", self.size), []
        named = [(name or str(rng.choice(self.names)), truth) for name, truth in body.structures]
        for label, truth in named:
            others = {name: mask & ~truth for name, mask in named if name != label}
            session = InteractiveSession(predictor)
            i, j, k = random_point(truth, rng)
            click: tuple[Voxel, bool] | None = ((i, j, k), True)
            clicked: list[Voxel] = []
            for _ in range(int(rng.integers(1, MAX_CLICKS + 1))):
                if click is not None:
                    voxel, is_positive = click
                    session.add_point(label, voxel, positive=is_positive)
                    clicked.append(voxel)
                    click = next_click_in_volume(truth, session.mask(label), body.volume.spacing, clicked=clicked)
            mask = session.mask(label)
            found = find_error(label, mask, truth, body.volume, others)
            if found is not None and found.kind in MODULATED_KINDS:
                left = {name: other & ~mask for name, other in others.items()}
                known = left if rng.random() < NEIGHBOURS_KNOWN else {}
                drawn += _of_error(slices, self.size, SimulatedError(mask, found.intervention), truth, known, rng)
        return drawn


class MixedCorrections(IterableDataset):
    """Samples of several data sets in turn."""

    def __init__(self, *parts: IterableDataset) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[CorrectionSample]:
        for each in zip(*self.parts, strict=False):
            yield from each


def _worker() -> int:
    info = get_worker_info()
    return 0 if info is None else info.id


def _of_slice(
    sample: Sample, mask: NDArray[np.uint8], names: Sequence[str], rng: np.random.Generator, twofold: float
) -> CorrectionSample | None:
    """Give a structure of a slice a wrong mask; None if it is too small for one."""
    columns = np.array(PLANES[str(rng.choice(list(PLANES)))]).T
    affine = np.eye(4)
    affine[:3, :3] = columns * np.array([1.0, 1.0, 5.0]) * rng.uniform(0.7, 2.5)
    volume = Volume(1000 * sample.image[1][..., None], affine, "MR")
    label, *around = (str(name) for name in rng.choice(names, 1 + sample.regions.max(), replace=False))
    truth = mask[..., None] > 0
    present = [number for number in np.unique(sample.regions).tolist() if number]
    others = {around[number - 1]: (sample.regions == number)[..., None] & ~truth for number in present}
    error = simulate_error(label, truth, volume, others, rng, str(rng.choice(MODULATED_KINDS)))
    if error is None:
        return None
    intervention = error.intervention
    wrong, wanted, region = error.mask, truth, None
    if rng.random() < twofold:
        other = simulate_error(label, truth, volume, others, rng, str(rng.choice(MODULATED_KINDS)))
        if other is not None and _is_opposite(error.mask, other.mask, truth):
            wrong, wanted = error.mask ^ other.mask ^ truth, other.mask
            region = _around(wrong, volume, rng.uniform(*TWOFOLD_REACH))
    if region is None:
        known = others if rng.random() < NEIGHBOURS_KNOWN else {}
        region = region_gate(intervention, volume, wrong, known).in_volume(volume.shape)
    if not region.any():
        return None
    return CorrectionSample(
        sample.image,
        wrong[..., 0].astype(np.uint8),
        wanted[..., 0].astype(np.uint8),
        region[..., 0],
        intervention.sentence,
        STRENGTH[intervention.strength],
    )


def _is_opposite(one: NDArray[np.bool_], other: NDArray[np.bool_], truth: NDArray[np.bool_]) -> bool:
    """Return True if one wrong mask is too small and the other too large."""
    both_large = (one & ~truth).any() and (other & ~truth).any()
    both_small = (truth & ~one).any() and (truth & ~other).any()
    return not (both_large or both_small)


def _around(mask: NDArray[np.bool_], volume: Volume, share: float) -> NDArray[np.float32]:
    """1 within a share of the mask's radius of its border, on both sides."""
    pixel = math.sqrt(volume.spacing[0] * volume.spacing[1])
    reach = max(2 * pixel, share * math.sqrt(mask.sum() / math.pi) * pixel)
    return (np.abs(signed_distance(mask, volume.spacing)) <= reach).astype(np.float32)


def _random_abdomen(rng: np.random.Generator) -> tuple[Volume, dict[str, NDArray[np.bool_]]]:
    """A patient whose tissues have any brightness, with the masks of the organs."""
    pixel, noise = float(rng.uniform(2.0, 3.0)), float(rng.uniform(10, 60))
    levels = {name: float(level) for name, level in zip(LABELS, rng.uniform(50, 950, len(LABELS)), strict=True)}
    style = Style(
        "MR",
        "random",
        levels,
        (pixel, pixel, float(rng.uniform(2.5, 6.0))),
        noise=noise,
        texture=float(rng.uniform(5, 25)),
        bias=float(rng.uniform(0, 0.4)),
        tags={},
        blur=float(rng.uniform(0.4, 1.0)),
    )
    labels, affine = generated_abdomen(style.spacing, int(rng.integers(FIRST_PATIENT, 2 * FIRST_PATIENT)))
    volume = render_scan(labels, affine, np.array([0.0, *levels.values()], np.float32), style, rng)
    return volume, {name: labels == LABELS[name] for name in SEGMENTED}


def _of_volume(
    volume: Volume, structures: dict[str, NDArray[np.bool_]], size: int, rng: np.random.Generator
) -> list[CorrectionSample]:
    slices = VolumeSlices(volume, "auto", size)
    drawn = []
    present = [name for name in structures if structures[name].any()]
    for name in rng.permutation(present)[:STRUCTURES_OF_VOLUME].tolist():
        others = {other: mask for other, mask in structures.items() if other != name}
        for _ in range(ERRORS_OF_STRUCTURE):
            kind = str(rng.choice(MODULATED_KINDS))
            error = simulate_error(name, structures[name], volume, others, rng, kind)
            if error is not None:
                known = rng.random() < NEIGHBOURS_KNOWN
                left = {other: mask & ~error.mask for other, mask in others.items()} if known else {}
                drawn += _of_error(slices, size, error, structures[name], left, rng)
    return drawn


def _of_error(
    slices: VolumeSlices,
    size: int,
    error: SimulatedError,
    truth: NDArray[np.bool_],
    others: dict[str, NDArray[np.bool_]],
    rng: np.random.Generator,
) -> list[CorrectionSample]:
    """Slices of the region of an error, as `Corrector` has them decoded."""
    act = error.intervention
    region = region_gate(act, slices.volume, error.mask, others).in_volume(truth.shape)
    along = other_axes(slices.axis)
    places = np.flatnonzero(region.any(axis=along))
    if not len(places):
        return []
    # What else is wrong there is not what the act is about.
    wanted_mask = restrict_to_region(act, region > 0, error.mask, truth)
    errors = (error.mask ^ wanted_mask).sum(axis=along)[places]
    nonempty = np.flatnonzero(error.mask.any(axis=along))
    worst = places[np.argsort(-errors, kind="stable")[: SLICES_OF_ERROR // 2]]
    chosen = np.union1d(worst, rng.choice(places, min(len(places), SLICES_OF_ERROR // 2), replace=False))
    drawn = []
    for index in chosen.tolist():
        shown, source, goal = error.mask, index, wanted_mask
        if index not in nonempty:
            # By now the neighbour nearer to the mask is as it should be.
            shown, goal = truth, truth
            source = index - int(np.sign(index - nonempty[np.argmin(abs(nonempty - index))]))
        wrong = fitted(shown, slices, source, size)
        if not wrong.any():
            continue
        here = fitted(region, slices, index, size)
        wanted = np.where(here > 0, fitted(goal, slices, index, size), wrong)
        image = padded(slices.image(index)[0].numpy(), size)
        drawn.append(CorrectionSample(image, wrong, wanted, here, act.sentence, STRENGTH[act.strength]))
    return drawn
