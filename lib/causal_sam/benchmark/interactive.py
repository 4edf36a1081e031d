"""Interactive benchmark: a simulated annotator clicks structures of labelled images with any number of methods.

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
HD95_CLICKS = (1, 3, 5, 10)
LABEL = "structure"


class Method(Protocol):
    """A method that makes masks from clicks."""

    name: str

    def on_slice(self, volume: Volume, frame: SliceFrame, index: int) -> Interaction:
        """Start on a slice; masks of the interaction are rows x columns of the slice, canonical."""

    def on_volume(self, volume: Volume) -> Interaction | None:
        """Start on a volume; masks of the interaction have its shape. None for 2D methods."""


class ModelMethod:
    """A model through `InteractiveSession`, as in the app."""

    def __init__(self, name: str, predictor: Predictor) -> None:
        self.name = name
        self._predictor = predictor

    def on_slice(self, volume: Volume, frame: SliceFrame, index: int) -> Interaction:
        segment = self._begin(volume, follow=False)
        return lambda foreground, background: frame.extract(segment(foreground, background), index)

    def on_volume(self, volume: Volume) -> Interaction:
        return self._begin(volume, follow=True)

    def _begin(self, volume: Volume, *, follow: bool) -> Interaction:
        session = InteractiveSession(self._predictor.for_volume(volume))

        def segment(foreground: Sequence[Voxel], background: Sequence[Voxel]) -> NDArray[np.bool_]:
            prompts = PromptSet(LABEL, {LABEL: Prompts(tuple(foreground), tuple(background))})
            return session.set_prompts(prompts, follow=follow)[LABEL].mask

        return segment


class BaselineMethod:
    """A classical method on the image in [0, 1], windowed as for a model."""

    def __init__(self, baseline: Baseline) -> None:
        self.name = baseline.name
        self._baseline = baseline

    def on_slice(self, volume: Volume, frame: SliceFrame, index: int) -> Interaction:
        image = intensity_window(volume).apply(np.ascontiguousarray(frame.extract(volume.array, index)))

        def segment(foreground: Sequence[Voxel], background: Sequence[Voxel]) -> NDArray[np.bool_]:
            inside, outside = (
                _indices([frame.to_slice(voxel)[1:] for voxel in voxels], 2) for voxels in (foreground, background)
            )
            return self._baseline.segment(image, inside, outside, frame.spacing_rc)

        return segment

    def on_volume(self, volume: Volume) -> Interaction | None:
        if 3 not in self._baseline.dimensions:
            return None
        image = intensity_window(volume).apply(volume.array)

        def segment(foreground: Sequence[Voxel], background: Sequence[Voxel]) -> NDArray[np.bool_]:
            return self._baseline.segment(image, _indices(foreground, 3), _indices(background, 3), volume.spacing)

        return segment


@dataclass(frozen=True)
class Target:
    """A structure to segment, on one slice or as a whole.

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
    """Result of one method on one target.

    Attributes:
        method: name of the method.
        target: segmented structure.
        repeat: number of the repetition, in which a jittered annotator aims differently.
        dice: Dice after 1, 2, … clicks.
        hd95: number of clicks -> distance in mm, for some numbers of clicks.
        seconds: seconds of each click; the first one includes the preparation of the image. A mask without error is
            not clicked again, so there may be fewer values than Dice coefficients.
    """

    method: str
    target: Target
    repeat: int
    dice: tuple[float, ...]
    hd95: dict[int, float]
    seconds: tuple[float, ...]


def slice_targets(
    group: str, case: str, volume: Volume, structures: dict[str, NDArray[np.bool_]], max_slices: int, min_voxels: int
) -> Iterator[Target]:
    """Yield the slices of each structure, in the plane of acquisition.

    Args:
        group: group of the targets.
        case: case of the targets.
        volume: image.
        structures: name -> mask in the volume's voxel order.
        max_slices: number of slices of a structure, evenly spaced; 0 for all.
        min_voxels: minimum area of the structure on a slice, in pixels.
    """
    axis = slice_axis(volume)
    frame = SliceFrame(volume.affine, volume.shape, axis)
    for name, mask in structures.items():
        areas = mask.sum(axis=other_axes(axis))
        indices = np.flatnonzero(areas >= max(min_voxels, 1))
        if max_slices and len(indices) > max_slices:
            indices = indices[np.linspace(0, len(indices) - 1, max_slices).round().astype(int)]
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
    on_click: Callable[[int, NDArray[np.bool_]], object] = lambda n, mask: None,
) -> Trial | None:
    """Let the simulated annotator click a target ``clicks`` times.

    Args:
        method: method that answers the clicks.
        volume: image.
        target: structure in this image.
        clicks: number of clicks, at least 1.
        repeat: number of the repetition.
        seed: seed of a jittered annotator; None for one who clicks the deepest point.
        on_click: called with the number of clicks and the mask after each click.

    Returns:
        The result; None for a 2D method and a volume.
    """
    rng = None if seed is None else np.random.default_rng([seed, repeat])
    frame = SliceFrame(volume.affine, volume.shape, slice_axis(volume))
    interaction = method.on_volume(volume) if target.index is None else method.on_slice(volume, frame, target.index)
    if interaction is None:
        return None
    mask = np.zeros_like(target.truth)
    voxels: dict[bool, list[Voxel]] = {True: [], False: []}
    clicked: list[tuple[int, ...]] = []
    scores, distances, seconds = [], {}, []
    for n in range(1, clicks + 1):
        found: tuple[Voxel, bool] | None = None
        if target.index is None:
            found = next_click_in_volume(target.truth, mask, volume.spacing, rng, clicked)
            clicked += [] if found is None else [found[0]]
        elif (click := next_click(target.truth, mask, rng, clicked)) is not None:
            clicked.append((click.row, click.column))
            found = frame.to_voxel(target.index, click.row, click.column), click.foreground
        if found is not None:
            voxel, foreground = found
            voxels[foreground].append(voxel)
            begin = time.perf_counter()
            mask = interaction(voxels[True], voxels[False])
            seconds.append(time.perf_counter() - begin)
        on_click(n, mask)
        scores.append(dice(mask, target.truth))
        if n in HD95_CLICKS:
            distances[n] = hd95(mask, target.truth, volume.spacing if target.index is None else frame.spacing_rc)
    return Trial(method.name, target, repeat, tuple(scores), distances, tuple(seconds))


def join_structures(structures: dict[str, NDArray[np.bool_]], joins: dict[str, list[str]]) -> None:
    """Add the unions of structures of which the case has all parts."""
    for name, parts in joins.items():
        if all(part in structures for part in parts):
            structures[name] = np.any([structures[part] for part in parts], axis=0)


def draw_example(
    method: Method, volume: Volume, target: Target, clicks: int, repeat: int, seed: int | None
) -> NDArray[np.uint8]:
    """Draw a slice with the truth (green) and a method's masks after one (red) and all clicks (yellow); HxWx3."""
    frame = SliceFrame(volume.affine, volume.shape, slice_axis(volume))
    assert target.index is not None, "examples are slices"
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
    return image.astype(np.uint8, copy=False)


def _indices(positions: Sequence[tuple[int, ...]], dimensions: int) -> NDArray[np.intp]:
    return np.array(positions, dtype=np.intp).reshape(-1, dimensions)
