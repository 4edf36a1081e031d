"""A simulated annotator clicks structures of labelled images until each is right, with any number of methods.

All methods get the same first click, and each of the next ones corrects the method's own mask by the same rule: the
deepest point of the largest error region (as in Sofiiuk et al. 2022, arXiv 2102.06583).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from causal_sam.benchmark.baselines import Baseline
from causal_sam.benchmark.metrics import hd95
from causal_sam.imaging import SliceFrame, Volume, intensity_window, other_axes, slice_axis
from causal_sam.imaging.overlap import dice
from causal_sam.prompting import InteractiveSession, Predictor
from causal_sam.prompting.prompt_set import PromptSet
from causal_sam.prompting.prompts import Prompts, Voxel
from causal_sam.simulation.annotator import next_click, next_click_in_volume

# Voxels inside and outside of the structure -> mask in the volume's voxel order.
Interaction = Callable[[Sequence[Voxel], Sequence[Voxel]], NDArray[np.bool_]]
DISTANCES_AFTER = (1, 3, 5, 10)
LABEL = "structure"


class Method(Protocol):
    """Something that makes a mask of clicks."""

    name: str

    def on_slice(self, volume: Volume, frame: SliceFrame, index: int) -> Interaction:
        """Begin with one slice; the interaction's masks are rows x columns of it, canonical."""

    def on_volume(self, volume: Volume) -> Interaction | None:
        """Begin with a volume; the interaction's masks have its shape. None if the method works in 2D alone."""


class ModelMethod:
    """One of our models, through the session that users work with."""

    def __init__(self, name: str, predictor: Predictor) -> None:
        self.name = name
        self._predictor = predictor

    def on_slice(self, volume: Volume, frame: SliceFrame, index: int) -> Interaction:
        """See `Method`."""
        segment = self._begin(volume, follow=False)
        return lambda foreground, background: frame.extract(segment(foreground, background), index)

    def on_volume(self, volume: Volume) -> Interaction:
        """See `Method`."""
        return self._begin(volume, follow=True)

    def _begin(self, volume: Volume, *, follow: bool) -> Interaction:
        session = InteractiveSession(self._predictor.for_volume(volume))

        def segment(foreground: Sequence[Voxel], background: Sequence[Voxel]) -> NDArray[np.bool_]:
            prompts = PromptSet(LABEL, {LABEL: Prompts(tuple(foreground), tuple(background))})
            return session.set_prompts(prompts, follow=follow)[LABEL].mask

        return segment


class BaselineMethod:
    """A classical method on the image as the model sees it: windowed to [0, 1]."""

    def __init__(self, baseline: Baseline) -> None:
        self.name = baseline.name
        self._baseline = baseline

    def on_slice(self, volume: Volume, frame: SliceFrame, index: int) -> Interaction:
        """See `Method`."""
        image = intensity_window(volume).apply(np.ascontiguousarray(frame.extract(volume.array, index)))

        def segment(foreground: Sequence[Voxel], background: Sequence[Voxel]) -> NDArray[np.bool_]:
            seeds = [
                _indices([frame.to_slice(voxel)[1:] for voxel in voxels], 2) for voxels in (foreground, background)
            ]
            return self._baseline.segment(image, *seeds, frame.spacing_rc)

        return segment

    def on_volume(self, volume: Volume) -> Interaction | None:
        """See `Method`."""
        if 3 not in self._baseline.dimensions:
            return None
        image = intensity_window(volume).apply(volume.array)

        def segment(foreground: Sequence[Voxel], background: Sequence[Voxel]) -> NDArray[np.bool_]:
            return self._baseline.segment(image, _indices(foreground, 3), _indices(background, 3), volume.spacing)

        return segment


@dataclass(frozen=True)
class Target:
    """What is to be segmented: a structure in one slice, or as a whole.

    Attributes:
        group: data set and modality.
        case: name of the case, with its sequence.
        structure: name of the structure.
        index: voxel index of the slice; None for the whole structure.
        truth: bool; rows x columns of the slice, canonical, or the shape of the volume.
    """

    group: str
    case: str
    structure: str
    index: int | None
    truth: NDArray[np.bool_]


@dataclass(frozen=True)
class Trial:
    """How one method did on one target.

    Attributes:
        method: its name.
        target: what was segmented.
        repeat: number of the annotator, who aims differently each time when jittered.
        dice: after 1, 2, … clicks.
        hd95: in millimetre, number of clicks -> distance, for some numbers of clicks.
        seconds: of each click; the first one includes what the method does once for an image. A mask without error
            is not clicked again, so there may be fewer than Dice coefficients.
    """

    method: str
    target: Target
    repeat: int
    dice: tuple[float, ...]
    hd95: dict[int, float]
    seconds: tuple[float, ...]


def slice_targets(
    group: str, case: str, volume: Volume, structures: dict[str, NDArray[np.bool_]], most: int, min_voxels: int
) -> Iterator[Target]:
    """Yield the slices of each structure, in the plane of acquisition.

    Args:
        group: for the targets.
        case: for the targets.
        volume: the image.
        structures: name -> mask in the volume's voxel order.
        most: number of slices of a structure, evenly spread over it; 0 for all.
        min_voxels: slices with less of the structure are left out.
    """
    axis = slice_axis(volume)
    frame = SliceFrame(volume.affine, volume.shape, axis)
    for name, mask in structures.items():
        areas = mask.sum(axis=other_axes(axis))
        indices = np.flatnonzero(areas >= max(min_voxels, 1))
        if most and len(indices) > most:
            indices = indices[np.linspace(0, len(indices) - 1, most).round().astype(int)]
        for index in indices.tolist():
            yield Target(group, case, name, index, np.ascontiguousarray(frame.extract(mask, index)))


def volume_targets(
    group: str, case: str, structures: dict[str, NDArray[np.bool_]], min_voxels: int
) -> Iterator[Target]:
    """Yield each structure as a whole; see `slice_targets`."""
    for name, mask in structures.items():
        if mask.sum() >= max(min_voxels, 1):
            yield Target(group, case, name, None, mask)


def click_through(
    method: Method,
    volume: Volume,
    target: Target,
    clicks: int,
    repeat: int = 0,
    seed: int | None = None,
    watch: Callable[[int, NDArray[np.bool_]], object] = lambda n, mask: None,
) -> Trial | None:
    """Let the annotator click a target ``clicks`` times.

    Args:
        method: what answers the clicks.
        volume: the image.
        target: in this image.
        clicks: at least 1.
        repeat: number of the annotator.
        seed: of an annotator who does not aim at the deepest point; None for one who does.
        watch: called with the number of clicks and the mask after each.

    Returns:
        None if the method cannot do it (a method for slices, asked for a volume).
    """
    rng = None if seed is None else np.random.default_rng([seed, repeat])
    frame = SliceFrame(volume.affine, volume.shape, slice_axis(volume))
    if target.index is None:
        interaction, spacing = method.on_volume(volume), volume.spacing
    else:
        interaction, spacing = method.on_slice(volume, frame, target.index), frame.spacing_rc
    if interaction is None:
        return None
    mask = np.zeros_like(target.truth)
    voxels: dict[bool, list[Voxel]] = {True: [], False: []}
    clicked: list[tuple[int, ...]] = []
    scores, distances, seconds = [], {}, []
    for n in range(1, clicks + 1):
        if target.index is None:
            found = next_click_in_volume(target.truth, mask, spacing, rng, clicked)
        else:
            click = next_click(target.truth, mask, rng, clicked)
            found = click and ((click.row, click.column), click.foreground)
        if found is not None:
            place, foreground = found
            clicked.append(place)
            voxels[foreground].append(place if target.index is None else frame.to_voxel(target.index, *place))
            begin = time.perf_counter()
            mask = interaction(voxels[True], voxels[False])
            seconds.append(time.perf_counter() - begin)
        watch(n, mask)
        scores.append(dice(mask, target.truth))
        if n in DISTANCES_AFTER:
            distances[n] = hd95(mask, target.truth, spacing)
    return Trial(method.name, target, repeat, tuple(scores), distances, tuple(seconds))


def join_structures(structures: dict[str, NDArray[np.bool_]], joins: dict[str, list[str]]) -> None:
    """Add structures that are the union of others, where all of these are labels of the case."""
    for name, parts in joins.items():
        if all(part in structures for part in parts):
            structures[name] = np.any([structures[part] for part in parts], axis=0)


def picture(
    method: Method, volume: Volume, target: Target, clicks: int, repeat: int, seed: int | None
) -> NDArray[np.uint8]:
    """Draw a slice with the truth (green) and a method's masks after one (red) and all clicks (yellow); HxWx3."""
    frame = SliceFrame(volume.affine, volume.shape, slice_axis(volume))
    grey = intensity_window(volume).apply(np.ascontiguousarray(frame.extract(volume.array, target.index)))
    masks: dict[int, NDArray[np.bool_]] = {}
    click_through(method, volume, target, clicks, repeat, seed, masks.__setitem__)
    scale = max(1, round(512 / max(grey.shape)))
    size = (grey.shape[1] * scale, grey.shape[0] * scale)
    image = cv2.cvtColor(
        cv2.resize((grey * 255).astype(np.uint8), size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_GRAY2RGB
    )
    for mask, colour in ((target.truth, (0, 200, 0)), (masks[1], (255, 60, 60)), (masks[clicks], (255, 230, 0))):
        large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, contours, -1, colour, 1)
    return image


def _indices(positions: Sequence[tuple[int, ...]], dimensions: int) -> NDArray[np.intp]:
    return np.array(positions, dtype=np.intp).reshape(-1, dimensions)
