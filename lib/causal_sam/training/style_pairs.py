"""Labelled slices for training: the same anatomy under its own style and under others, each with its description."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import IterableDataset, get_worker_info

from causal_sam.imaging import Volume
from causal_sam.imaging.intensity import IntensityWindow
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.simulation.annotator import deepest_point
from causal_sam.style import Acquisition, StyledSlices, describe_slices
from causal_sam.style.augmentations import augment_style
from causal_sam.style.headers import read_acquisition
from causal_sam.style.slices import air_value
from causal_sam.training.augmentation import random_affine, random_elastic, random_intensity

# Neighbouring slices that are changed together: enough for changes across slices, few enough to be quick.
RUN = 16
# Samples that wait to be drawn at random for each place in the batch, so that neighbours do not follow each other.
WAITING = 16
# Share of the labels to decode that are on the slice, and how many of the slice's pixels make that so.
DECODED_PRESENT = 0.8
MIN_PIXELS = 16
NOWHERE = (float("nan"), float("nan"))


@dataclass(frozen=True, eq=False)
class LabelledSlices:
    """The slices of a labelled case on the grid of a model's input.

    Attributes:
        slices: Nxhxw in the units of the image, in canonical order and orientation.
        window: intensity window of the volume in the model's input.
        label_map: uint8 Nxhxw, positions of the labels' names among those that are trained, counted from 1.
        known: bool L, True for the labels that were annotated in the case.
    """

    slices: StyledSlices
    window: IntensityWindow
    label_map: NDArray[np.uint8]
    known: NDArray[np.bool_]

    @property
    def image(self) -> NDArray[np.float32]:
        """Nxhxw in [0, 1], as the model sees them."""
        return self.window.apply(self.slices.array)


def label_map_of(
    structures: dict[str, NDArray[np.bool_]], names: Sequence[str], shape: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Draw masks of one shape into a label map whose values are the positions of their names, counted from 1.

    Where masks overlap, the one with the later name is on top; names without a mask are left out.
    """
    label_map = np.zeros(shape, np.uint8)
    for value, name in enumerate(names, start=1):
        if name in structures:
            label_map[structures[name]] = value
    return label_map


def labelled_slices(
    volume: Volume,
    structures: dict[str, NDArray[np.bool_]],
    names: Sequence[str],
    image_size: int,
    plane: str = "auto",
    acquisition: Acquisition | None = None,
) -> LabelledSlices:
    """Bring a labelled volume to the grid of a model's input.

    Args:
        volume: the image.
        structures: name -> mask in the volume's voxel order; only those in ``names`` count.
        names: names of the labels to train.
        image_size: side S of the model's input in pixels.
        plane: plane of the slices.
        acquisition: acquisition of the volume; by default as its header says.
    """
    shown = VolumeSlices(volume, plane, image_size)
    frame, size = shown.frame, (shown.height, shown.width)
    background = air_value(volume)
    label_map = label_map_of(structures, names, volume.shape)
    images, labels = [], []
    for index in range(frame.count):
        raw = frame.extract(volume.array, index).astype(np.float32)
        raw = np.nan_to_num(raw, nan=background, posinf=background, neginf=background)
        shade = torch.from_numpy(np.ascontiguousarray(raw))[None, None]
        images.append(F.interpolate(shade, size, mode="bilinear", align_corners=False, antialias=True)[0, 0].numpy())
        here = torch.from_numpy(np.ascontiguousarray(frame.extract(label_map, index)))[None, None]
        labels.append(F.interpolate(here, size, mode="nearest-exact")[0, 0].numpy())
    if frame.neighbours(0)[1] != 1:  # the next slice of the patient is the one before in the file
        images, labels = images[::-1], labels[::-1]
    row_mm, column_mm = shown.pixel_mm
    spacing = (
        float(volume.spacing[shown.axis]),
        row_mm * shown.rows / shown.height,
        column_mm * shown.columns / shown.width,
    )
    slices = StyledSlices(np.stack(images), spacing, acquisition or read_acquisition(volume), background)
    known = np.array([label in structures for label in names])
    return LabelledSlices(slices, shown.window, np.stack(labels), known)


def with_neighbours(slices: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    """Return the previous, this and the next of slices Nxhxw as 3xhxw; the first and last are their own neighbours."""
    return slices[[max(index - 1, 0), index, min(index + 1, len(slices) - 1)]]


class StylePairDataset(IterableDataset):
    """Batches without end: slices with their neighbours under their own style, some of them under a second one too.

    Each place in the batch draws from a stream of its own, which depends on the seed and on where the place is in the
    batch of all processes together, not on how many processes share it.

    A batch is a dictionary of ``image`` (A+P)x3xSxS float32 in [0, 1], A anatomies under their own styles, then the
    first P of them under the second one; ``style`` (A+P)xD, the vectors of their descriptions; ``label`` uint8 Ax1xSxS;
    ``known`` bool AxL; ``decode`` int A, the label to decode, counted from 0, or -1; and ``click`` Ax1x2, (x, y) in
    pixels in that label, or nan where it is prompted by its name.

    Args:
        cases: at least one labelled case.
        image_size: side S of the model's input in pixels.
        encode: texts -> NxD vectors of descriptions.
        anatomies: A, in this process.
        pairs: P, in this process.
        seed: seed of all random choices.
        decoded: number of anatomies, the first ones, on which a label is chosen to be decoded.
        clicked: share of these that get a click.
        weights: share of the samples that each case gives; equal shares by default.
        varied: True to deform anatomies and to change intensities, beside moving them.
        rank: rank of this process among all that train.
        processes: number of processes that train.
    """

    def __init__(
        self,
        cases: Sequence[LabelledSlices],
        image_size: int,
        encode: Callable[[Sequence[str]], Tensor],
        *,
        anatomies: int,
        pairs: int = 0,
        seed: int,
        decoded: int = 0,
        clicked: float = 0.0,
        weights: Sequence[float] | None = None,
        varied: bool = False,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        super().__init__()
        self.cases, self.image_size, self.encode = list(cases), image_size, encode
        self.anatomies, self.pairs, self.seed, self.decoded, self.clicked = anatomies, pairs, seed, decoded, clicked
        self.weights, self.varied, self.rank, self.processes = weights, varied, rank, processes
        self._own = [describe_slices(case.slices).sentence for case in self.cases]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        paired = [self._stream(self._place(n), styled=True) for n in range(self.pairs)]
        first = self.pairs * self.processes
        alone = [self._stream(first + self._place(n), styled=False) for n in range(self.anatomies - self.pairs)]
        choose = [self._choices(self._place(n)) for n in range(min(self.decoded, self.anatomies))]
        while True:
            samples = [next(stream) for stream in (*paired, *alone)]
            chosen = [draw(sample) for draw, sample in zip(choose, samples, strict=False)]
            chosen += [(-1, NOWHERE)] * (len(samples) - len(chosen))
            yield {
                "image": torch.stack([s["image"][0] for s in samples] + [s["image"][1] for s in samples[: self.pairs]]),
                "style": torch.stack([s["style"][0] for s in samples] + [s["style"][1] for s in samples[: self.pairs]]),
                "label": torch.stack([sample["label"] for sample in samples]),
                "known": torch.stack([sample["known"] for sample in samples]),
                "decode": torch.tensor([label for label, _ in chosen]),
                "click": torch.tensor([[click] for _, click in chosen], dtype=torch.float32),
            }

    def _place(self, number: int) -> int:
        """Number of a place of this process among the places of its kind in all processes."""
        return number * self.processes + self.rank

    def _stream(self, place: int, *, styled: bool) -> Iterator[dict[str, Any]]:
        """Samples for one place of the batch."""
        rng = self._rng(place, 0)
        seed = int(rng.integers(2**31))
        change = (random_elastic if self.varied else random_affine)(self.image_size, seed)
        intensity = random_intensity(seed) if self.varied else None
        waiting: list[dict[str, Any]] = []
        while True:
            while len(waiting) < WAITING:
                waiting += self._run(int(rng.choice(len(self.cases), p=self.weights)), rng, styled)
            drawn = waiting.pop(int(rng.integers(len(waiting))))
            views = np.stack([with_neighbours(view, drawn["index"]) for view in drawn["views"]])
            if intensity is not None:
                views = _change_intensity(views, intensity)
            label = padded(drawn["label_map"][drawn["index"]][None], self.image_size)
            sample = {"image": padded(views, self.image_size), "label": label}
            yield _change_shape({**sample, "known": drawn["known"], "style": drawn["style"]}, change)

    def _run(self, number: int, rng: np.random.Generator, styled: bool) -> list[dict[str, Any]]:
        """Neighbouring slices of a case, all under the same styles, which are not copied for each of them."""
        case = self.cases[number]
        count = len(case.label_map)
        first = int(rng.integers(max(1, count - RUN + 1)))
        part = slice(first, first + RUN)
        own = case.slices.with_array(case.slices.array[part])
        views, described = [case.window.apply(own.array)], [self._own[number]]
        if styled:
            other, _ = augment_style(own, rng)
            views.append(other.normalised())
            described.append(describe_slices(other).sentence)
        run = {
            "views": views,
            "label_map": case.label_map[part],
            "known": torch.from_numpy(case.known),
            "style": self.encode(described),
        }
        return [{**run, "index": n} for n in range(len(own.array))]

    def _choices(self, place: int) -> Callable[[dict[str, Any]], tuple[int, tuple[float, float]]]:
        """Return what chooses for one place the label to decode, mostly one that is there, and its click."""
        rng = self._rng(place, 1)

        def choose(sample: dict[str, Any]) -> tuple[int, tuple[float, float]]:
            known = sample["known"].numpy()
            label = sample["label"][0].numpy()
            present = (np.bincount(label.ravel(), minlength=len(known) + 1)[1:] >= MIN_PIXELS) & known
            wanted = present if rng.random() < DECODED_PRESENT else known & ~present
            chosen = int(rng.choice(np.flatnonzero(wanted if wanted.any() else known)))
            if not present[chosen] or rng.random() >= self.clicked:
                return chosen, NOWHERE
            row, column = deepest_point((label == chosen + 1).astype(np.uint8), rng)
            return chosen, (column, row)

        return choose

    def _rng(self, place: int, purpose: int) -> np.random.Generator:
        worker = get_worker_info()
        return np.random.default_rng((self.seed, place, 0 if worker is None else worker.id, purpose))


def padded(array: NDArray, size: int) -> NDArray:
    """Put a slice, ...xhxw, into the top left corner of ...x``size``x``size``, with zeros around it."""
    whole = np.zeros((*array.shape[:-2], size, size), array.dtype)
    whole[..., : array.shape[-2], : array.shape[-1]] = array
    return whole


def _change_intensity(views: NDArray[np.float32], change: Transform) -> NDArray[np.float32]:
    """Change the intensities of all views of a sample, Vx3xhxw, alike."""
    changed = change(views.reshape(-1, *views.shape[-2:]))
    return np.asarray(changed, np.float32).reshape(views.shape)


def _change_shape(sample: dict[str, Any], change: Transform) -> dict[str, Any]:
    """Move all views of a sample and its label map alike."""
    image = sample["image"]
    moved = change({"image": image.reshape(-1, *image.shape[-2:]), "label": sample["label"]})
    views, label = (torch.as_tensor(moved[key]).as_subclass(Tensor) for key in ("image", "label"))
    return {**sample, "image": views.reshape(image.shape).clamp(0, 1), "label": label.to(torch.uint8)}
