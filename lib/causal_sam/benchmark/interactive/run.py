"""The whole benchmark: case by case, structure by structure, method by method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal_sam.benchmark.cases import LabelledVolume, Reader
from causal_sam.benchmark.interactive.methods import Method
from causal_sam.benchmark.interactive.names import ask_by_name
from causal_sam.benchmark.interactive.options import Mode, Prompt
from causal_sam.benchmark.interactive.pictures import Gallery
from causal_sam.benchmark.interactive.targets import Target, slice_targets, volume_targets
from causal_sam.benchmark.interactive.trials import Annotator, Trial, prompt_through
from causal_sam.imaging import Volume

# Called with the number of cases done, a fraction within a case, and a text for the present task.
Progress = Callable[[float, str], object]
# Pictures show the mask after this many prompts; later masks have hardly any errors.
PICTURED_STEP = 3


@dataclass(frozen=True)
class Selection:
    """Choice of the targets in each case.

    Attributes:
        mode: slices or whole structures.
        slices: number of slices of a structure, evenly spread; 0 for all.
        min_voxels: smallest structure.
        repeats: number of first clicks on each target.
    """

    mode: Mode
    slices: int = 10
    min_voxels: int = 50
    repeats: int = 1

    def targets(self, labelled: LabelledVolume) -> list[Target]:
        """Return the targets of a case."""
        structures = {name: labelled.structures[name] for name in labelled.tested}
        key = labelled.group, labelled.case
        if self.mode is Mode.SLICES:
            return list(slice_targets(*key, labelled.volume, structures, self.slices, self.min_voxels))
        return list(volume_targets(*key, structures, self.min_voxels, labelled.scribbles))


def run_trials(
    readers: Sequence[Reader],
    methods: Sequence[Method],
    annotator: Annotator,
    selection: Selection,
    gallery: Gallery,
    progress: Progress,
    on_mask: Callable[[Volume, Target, NDArray[np.bool_]], object] = lambda volume, target, mask: None,
) -> Iterator[Trial]:
    """Yield the trials of all methods on all targets, one case in memory at a time.

    Args:
        readers: labelled images.
        methods: methods that take the annotator's first prompt.
        annotator: annotator.
        selection: choice of the targets.
        gallery: gets the masks of the first method.
        progress: called before each prompt.
        on_mask: called with the last mask of the first method on each target.
    """
    for number, read in enumerate(readers):
        progress(number, "reading")
        labelled = read()
        targets = selection.targets(labelled)
        if annotator.prompt is Prompt.NAME:
            for method in methods:
                progress(number, f"{labelled.case} · by name")
                for answer, mask in ask_by_name(method, labelled.volume, targets):
                    if method is methods[0]:
                        gallery.add(answer.steps[0].dice, labelled.volume, answer.target, mask, mask)
                        on_mask(labelled.volume, answer.target, mask)
                    yield answer
            continue
        runs = [(target, method, n) for target in targets for method in methods for n in range(selection.repeats)]
        for done, (target, method, repeat) in enumerate(runs):
            share = number + done / len(runs)
            masks: list[NDArray[np.bool_]] = []

            def before(clicks: int, share: float = share, structure: str = target.structure) -> None:
                progress(share, f"{structure} · click {clicks}/{annotator.clicks}")

            trial = prompt_through(method, labelled.volume, target, annotator, repeat, before, masks.append)
            if trial is None:
                continue
            if method is methods[0]:
                step = min(PICTURED_STEP, len(masks)) - 1
                gallery.add(trial.steps[step].dice, labelled.volume, target, masks[0], masks[-1])
                on_mask(labelled.volume, target, masks[-1])
            yield trial
