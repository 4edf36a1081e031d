"""Labelled slices for training: the same anatomy under its own style and under others, each with its description."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import RandAffined
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import IterableDataset, get_worker_info

from causal_sam.imaging import Volume
from causal_sam.imaging.intensity import IntensityWindow
from causal_sam.learning.teaching import label_map_of
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.style import Acquisition, StyledSlices, describe_slices
from causal_sam.style.headers import acquisition_of
from causal_sam.style.interventions import intervene
from causal_sam.style.slices import air_value

# Neighbouring slices that are changed together: enough for changes across slices, few enough to be quick.
RUN = 16
# Samples waiting to be drawn at random, so that a batch is not all of one case.
WAITING = 96


@dataclass(frozen=True, eq=False)
class LabelledSlices:
    """The slices of a labelled case on the grid of a model's input.

    Attributes:
        slices: Nxhxw in the units of the image, in canonical order and orientation.
        window: how the volume's intensities are shown to the model.
        label_map: uint8 Nxhxw, the position of each label's name among those to be taught, counted from 1.
        known: bool L, which of these labels were annotated in the case.
    """

    slices: StyledSlices
    window: IntensityWindow
    label_map: NDArray[np.uint8]
    known: NDArray[np.bool_]

    @property
    def image(self) -> NDArray[np.float32]:
        """Nxhxw in [0, 1], as the model sees them."""
        return self.window.apply(self.slices.array)


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
        names: the labels to be taught.
        image_size: side S of the model's input in pixels.
        plane: of the slices.
        acquisition: how the volume was made; by default what its header says.
    """
    shown = VolumeSlices(volume, plane, image_size)
    frame, size = shown.frame, (shown.height, shown.width)
    background = air_value(volume)
    label_map = label_map_of(structures, names, volume.shape)
    images, labels = [], []
    for index in range(frame.count):
        raw = frame.extract(volume.array, index).astype(np.float32)
        raw = np.nan_to_num(raw, nan=background, posinf=background, neginf=background)
        raw = torch.from_numpy(np.ascontiguousarray(raw))[None, None]
        images.append(F.interpolate(raw, size, mode="bilinear", align_corners=False, antialias=True)[0, 0].numpy())
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
    slices = StyledSlices(np.stack(images), spacing, acquisition or acquisition_of(volume), background)
    known = np.array([label in structures for label in names])
    return LabelledSlices(slices, shown.window, np.stack(labels), known)


def with_neighbours(slices: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    """Of slices Nxhxw, the previous, this and the next one: 3xhxw. At the ends the slice stands in for a neighbour."""
    return slices[[max(index - 1, 0), index, min(index + 1, len(slices) - 1)]]


class Views(IterableDataset):
    """Samples for ever: a slice with its neighbours, under its own style and, if wanted, under a second one.

    Each process and worker draws others. A sample is a dictionary of ``image`` Vx3xSxS float32 in [0, 1] (V views),
    ``label`` uint8 1xSxS, ``known`` bool L, and ``style`` VxD, the vectors of the views' descriptions.

    Args:
        cases: at least one.
        image_size: side S of the model's input in pixels.
        encode: texts -> NxD vectors of descriptions.
        styled: two views, the second one changed by style interventions; else one.
        seed: of all that is drawn.
        rank: of this process among all that train.
    """

    def __init__(
        self,
        cases: Sequence[LabelledSlices],
        image_size: int,
        encode: Callable[[Sequence[str]], Tensor],
        *,
        styled: bool,
        seed: int,
        rank: int = 0,
    ) -> None:
        super().__init__()
        self.cases, self.image_size, self.encode = list(cases), image_size, encode
        self.styled, self.seed, self.rank = styled, seed, rank
        self._own = [describe_slices(case.slices).sentence for case in self.cases]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        rng = np.random.default_rng((self.seed, self.rank, 0 if worker is None else worker.id))
        move = _geometry(self.image_size, int(rng.integers(2**31)))
        waiting: list[dict[str, Any]] = []
        while True:
            while len(waiting) < WAITING:
                waiting += self._run(int(rng.integers(len(self.cases))), rng)
            sample = waiting.pop(int(rng.integers(len(waiting))))
            yield _moved(sample, move)

    def _run(self, number: int, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Samples of neighbouring slices of a case, all under the same styles."""
        case = self.cases[number]
        count = len(case.label_map)
        first = int(rng.integers(max(1, count - RUN + 1)))
        part = slice(first, first + RUN)
        own = case.slices.with_array(case.slices.array[part])
        views, described = [case.window.apply(own.array)], [self._own[number]]
        if self.styled:
            other, _ = intervene(own, rng)
            views.append(other.normalised())
            described.append(describe_slices(other).sentence)
        style = self.encode(described)
        return [
            {
                "image": _padded(np.stack([with_neighbours(view, n) for view in views]), self.image_size),
                "label": _padded(case.label_map[part][n][None], self.image_size),
                "known": torch.from_numpy(case.known),
                "style": style,
            }
            for n in range(len(own.array))
        ]


def _padded(array: NDArray, size: int) -> NDArray:
    padded = np.zeros((*array.shape[:-2], size, size), array.dtype)
    padded[..., : array.shape[-2], : array.shape[-1]] = array
    return padded


def _geometry(image_size: int, seed: int) -> RandAffined:
    """Patients lie a little differently. Not flipped: left and right are different structures."""
    return RandAffined(
        keys=("image", "label"),
        prob=0.8,
        rotate_range=0.2,
        scale_range=0.12,
        translate_range=0.05 * image_size,
        mode=("bilinear", "nearest"),
        padding_mode="zeros",
    ).set_random_state(seed)


def _moved(sample: dict[str, Any], move: RandAffined) -> dict[str, Any]:
    """Move all views of a sample and its label map alike."""
    moved = move({"image": sample["image"].reshape(-1, *sample["image"].shape[-2:]), "label": sample["label"]})
    image, label = (torch.as_tensor(moved[key]).as_subclass(Tensor) for key in ("image", "label"))
    return {**sample, "image": image.reshape(sample["image"].shape).clamp(0, 1), "label": label.to(torch.uint8)}
