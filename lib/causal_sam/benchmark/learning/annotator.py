"""What a structure costs an annotator who starts from the automatic mask, or from nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging.overlap import dice
from causal_sam.prompting import Predictor
from causal_sam.prompting.local_edit import apply_edit_near_clicks, carried, merged
from causal_sam.simulation.annotator import next_click_in_volume

Voxel = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Annotated:
    """A structure that was brought to its target.

    Attributes:
        mask: what was accepted, in the volume's voxel order.
        automatic: Dice of the mask that it began with; 0 if it began with nothing.
        clicks: how many it took; the most that were allowed if it was drawn by hand in the end.
        by_hand: clicks did not do.
    """

    mask: NDArray[np.bool_]
    automatic: float
    clicks: int
    by_hand: bool


def annotate(
    predictor: Predictor, truth: NDArray[np.bool_], start: NDArray[np.bool_], target: float, most: int
) -> Annotated:
    """Click a structure until it is right.

    Each click is in the middle of the largest error. It is answered on its slice alone, or from there through the
    volume; at the click alone, or where the model decides anew. The annotator, who sees all, takes what is best, as the
    clients' options *extent* and *local* let them.

    Args:
        predictor: with the volume that the structure is in.
        truth: (I, J, K), not empty.
        start: the automatic mask; empty if there is none.
        target: Dice from which the annotator is content.
        most: clicks after which the annotator draws the structure by hand.
    """
    work = _Work(predictor, start)
    automatic = dice(start, truth)
    for clicks in range(most):
        if dice(work.mask, truth) >= target:
            return Annotated(work.mask, automatic, clicks, by_hand=False)
        voxel, inside = next_click_in_volume(truth, work.mask, predictor.slices.volume.spacing)
        work.click(voxel, inside, truth)
    if dice(work.mask, truth) >= target:
        return Annotated(work.mask, automatic, most, by_hand=False)
    return Annotated(truth, automatic, most, by_hand=True)


class _Work:
    """A mask under work, with the clicks and answers of each of its slices."""

    def __init__(self, predictor: Predictor, mask: NDArray[np.bool_]) -> None:
        self.mask = mask
        self._predictor = predictor
        self._clicks: dict[int, tuple[list[Voxel], list[Voxel]]] = {}
        self._logits: dict[int, NDArray[np.float32]] = {}
        self._anchors: dict[int, NDArray[np.bool_]] = {}
        self._is_found = bool(mask.any())

    def click(self, voxel: Voxel, inside: bool, truth: NDArray[np.bool_]) -> None:
        """Answer a click, with what comes nearest to the truth of all that the clients' options give."""
        slices = self._predictor.slices
        index = voxel[slices.axis]
        clicks = self._clicks.setdefault(index, ([], []))
        clicks[0 if inside else 1].append(voxel)
        shown = slices.frame.extract(self.mask, index)
        is_external_mask = index not in self._logits and shown.any()
        previous = self._predictor.mask_prompt(shown) if is_external_mask else self._logits.get(index)
        answer = self._predictor.predict(*clicks, previous=None if previous is None else {index: previous}).slices[
            index
        ]
        # Each is a mask, its clicked slice as it was decided, and whether the model decided all of that.
        also_local = self._is_found and not is_external_mask
        options = self._reached(voxel, answer.mask, is_whole=True, also_local=also_local)
        if is_external_mask:  # as the app answers clicks on masks that were not made by clicks
            clicked = [[slices.frame.to_slice(each)[1:] for each in part] for part in clicks]
            decision = apply_edit_near_clicks(shown, answer.mask, *clicked, slices.frame.spacing_rc)
            if self._is_found:
                here = self._with(decision, index)
                beside = carried(here, shown, index, clicked[0] + clicked[1], slices.frame, self._clicks.keys())
                options += [(mask, decision, False) for mask in (here, beside)]
            else:
                options += self._reached(voxel, decision, is_whole=False)
        best, self._anchors[index], is_whole = max(options, key=lambda option: dice(option[0], truth))
        differs = (best != self.mask).any(axis=tuple(axis for axis in range(3) if axis != slices.axis))
        for other in np.flatnonzero(differs).tolist():  # what the model thought of them was of another mask
            self._logits.pop(other, None)
        if is_whole:
            self._logits[index] = answer.low_res_logits
        self.mask = best

    def _reached(
        self, voxel: Voxel, decision: NDArray[np.bool_], *, is_whole: bool, also_local: bool = False
    ) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_], bool]]:
        """The mask with a slice decided anew, and with what follows from it if anything does: all, or at the click."""
        slices, index = self._predictor.slices, voxel[self._predictor.slices.axis]
        reached = [self._with(decision, index)]
        anchors = {**self._anchors, index: decision}
        if any(mask.any() for mask in anchors.values()):
            followed = self._predictor.propagate(anchors, before=self.mask, changed=[index]).mask
            reached.append(followed)
            if also_local:
                near = merged(self.mask, followed, [voxel], slices.axis)
                slices.frame.insert(decision, near, index)
                reached.append(near)
        return [(mask, decision, is_whole) for mask in reached]

    def _with(self, decision: NDArray[np.bool_], index: int) -> NDArray[np.bool_]:
        mask = self.mask.copy()
        self._predictor.slices.frame.insert(decision, mask, index)
        return mask
