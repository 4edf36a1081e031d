"""One structure, one method: a first prompt, then clicks by a simulated annotator.

All methods get the same first prompt, and each click corrects the method's own mask by the same rule: the deepest point
of the largest error region (as in Sofiiuk et al. 2022, arXiv 2102.06583).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal_sam.benchmark.interactive.effects import far_change
from causal_sam.benchmark.interactive.methods import Interaction, Method
from causal_sam.benchmark.interactive.options import Prompt
from causal_sam.benchmark.interactive.targets import Target, middle_box
from causal_sam.benchmark.metrics import hd95, surface_dice
from causal_sam.imaging import SliceFrame, Volume, slice_axis
from causal_sam.imaging.overlap import dice
from causal_sam.prompting.prompts import Voxel
from causal_sam.simulation.annotator import challenge_click, next_click, next_click_in_volume, random_point

# Numbers of clicks with figures in the tables; 0 is a first prompt that is no click.
SHOWN_CLICKS = (0, 1, 3, 5, 10)


@dataclass(frozen=True)
class Annotator:
    """How the simulated annotator works.

    Attributes:
        prompt: first prompt.
        clicks: number of clicks; the first prompt counts if it is one.
        seed: seed of random first clicks; None for first clicks at the deepest point.
        is_challenge: True to place clicks as in the CVPR 2025 challenge; see `challenge_click`.
        tolerance_mm: tolerance of the normalised surface Dice; None to leave it out.
    """

    prompt: Prompt = Prompt.CLICK
    clicks: int = 10
    seed: int | None = None
    is_challenge: bool = False
    tolerance_mm: float | None = None


@dataclass(frozen=True)
class Step:
    """Result after a prompt.

    Attributes:
        clicks: number of clicks so far.
        dice: Dice.
        hd95: distance in mm; None where it was not measured.
        nsd: normalised surface Dice; None where it was not measured.
        far_change: see `far_change`; None where nothing was clicked.
        seconds: time to the mask, which for the first prompt includes the preparation of the image. None if nothing
            was wrong, so that nothing was clicked.
    """

    clicks: int
    dice: float
    hd95: float | None = None
    nsd: float | None = None
    far_change: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Trial:
    """Result of one method on one target.

    Attributes:
        method: name of the method.
        target: segmented structure.
        repeat: number of the repetition, each of which has another random first click.
        steps: result after each prompt.
        is_known: False if the structure was asked for by its name, and the method does not know it.
    """

    method: str
    target: Target
    repeat: int
    steps: tuple[Step, ...]
    is_known: bool = True


def prompt_through(
    method: Method,
    volume: Volume,
    target: Target,
    annotator: Annotator,
    repeat: int = 0,
    before: Callable[[int], object] = lambda clicks: None,
    after: Callable[[NDArray[np.bool_]], object] = lambda mask: None,
) -> Trial | None:
    """Let the simulated annotator prompt a target and correct the masks.

    Args:
        method: method that answers the prompts.
        volume: image.
        target: structure in this image; a whole one for a box or a scribble.
        annotator: annotator, who does not ask by name.
        repeat: number of the repetition.
        before: called before each prompt with the number of clicks that it makes.
        after: called after each prompt with the mask.

    Returns:
        The result; None for a 2D method and a volume, and for a scribble where nobody drew.
    """
    ruler = _Ruler(volume, target, annotator)
    begin = time.perf_counter()
    interaction = (
        method.on_volume(volume, target.structure)
        if target.index is None
        else method.on_slice(volume, ruler.frame, target.index, target.structure)
    )
    if interaction is None or (annotator.prompt is Prompt.SCRIBBLE and target.strokes is None):
        return None
    preparation = time.perf_counter() - begin  # which is a part of the first prompt
    rng = None if annotator.seed is None else np.random.default_rng([annotator.seed, repeat])
    mask, steps = np.zeros_like(target.truth), []
    if annotator.prompt is not Prompt.CLICK:
        before(0)
        begin = time.perf_counter()
        mask = _first_prompt(interaction, target, annotator.prompt, ruler.frame.axis)
        steps.append(ruler.measure(0, mask, seconds=preparation + time.perf_counter() - begin))
        after(mask)
        rng = None
    clicked: list[Voxel] = []
    for clicks in range(1, annotator.clicks + 1):
        before(clicks)
        seconds = far = None
        found = ruler.next_click(mask, clicked, rng if clicks == 1 else None)
        if found is not None:
            voxel, inside = found
            clicked.append(voxel)
            former, begin = mask, time.perf_counter()
            mask = interaction.click(voxel, inside=inside)
            seconds = time.perf_counter() - begin + (0.0 if steps else preparation)
            far = far_change(former, mask, target.truth, ruler.position(voxel))
        steps.append(ruler.measure(clicks, mask, far, seconds))
        after(mask)
    return Trial(method.name, target, repeat, tuple(steps))


def _first_prompt(interaction: Interaction, target: Target, prompt: Prompt, axis: int) -> NDArray[np.bool_]:
    if prompt is Prompt.BOX:
        return interaction.box(middle_box(target.truth, axis))
    assert target.strokes is not None, "somebody drew"
    return interaction.scribble(target.strokes)


class _Ruler:
    """Places clicks on a target and measures masks of it, on slices in two and in volumes in three dimensions."""

    def __init__(self, volume: Volume, target: Target, annotator: Annotator) -> None:
        self.frame = SliceFrame(volume.affine, volume.shape, slice_axis(volume))
        self._target, self._annotator = target, annotator
        self._spacing: Sequence[float] = volume.spacing if target.index is None else self.frame.spacing_rc

    def position(self, voxel: Voxel) -> tuple[int, ...]:
        """Return the index of a voxel in the masks of the target."""
        return voxel if self._target.index is None else tuple(self.frame.to_slice(voxel)[1:])

    def next_click(
        self, mask: NDArray[np.bool_], clicked: Sequence[Voxel], rng: np.random.Generator | None
    ) -> tuple[Voxel, bool] | None:
        """Return the next click, and whether it is inside; a random one inside with ``rng``, None if all is right."""
        truth, index = self._target.truth, self._target.index
        if rng is not None:
            place = random_point(truth, rng)
            return self._voxel(place), True
        if self._annotator.is_challenge and index is None:
            return challenge_click(truth, mask)
        places = [self.position(voxel) for voxel in clicked]
        if index is None:
            return next_click_in_volume(truth, mask, self._spacing, places)
        click = next_click(truth, mask, clicked=places)
        return None if click is None else (self._voxel((click.row, click.column)), click.foreground)

    def measure(
        self, clicks: int, mask: NDArray[np.bool_], far: float | None = None, seconds: float | None = None
    ) -> Step:
        """Measure the mask after a number of clicks."""
        truth, tolerance = self._target.truth, self._annotator.tolerance_mm
        distance = hd95(mask, truth, self._spacing) if clicks in SHOWN_CLICKS else None
        nsd = None if tolerance is None else surface_dice(mask, truth, self._spacing, tolerance, by_area=True)
        return Step(clicks, dice(mask, truth), distance, nsd, far, seconds)

    def _voxel(self, place: tuple[int, ...]) -> Voxel:
        if self._target.index is None:
            i, j, k = place
            return i, j, k
        return self.frame.to_voxel(self._target.index, *place)
