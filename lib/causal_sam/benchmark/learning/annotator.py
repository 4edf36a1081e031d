"""What a structure costs an annotator who starts from the automatic mask, or from nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging.overlap import dice
from causal_sam.prompting import Predictor
from causal_sam.prompting.annotator import next_click_in_volume
from causal_sam.prompting.local import decided_at_clicks, merged

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

    Each click is in the middle of the largest error. It is answered on its slice, and followed through the volume from
    there; the annotator, who sees both, takes what is better, as the clients' option *extent* lets them.

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
        """Answer a click, with what comes nearer to the truth: on its slice alone, or followed."""
        slices = self._predictor.slices
        index = voxel[slices.axis]
        clicks = self._clicks.setdefault(index, ([], []))
        clicks[0 if inside else 1].append(voxel)
        shown = slices.frame.extract(self.mask, index)
        is_local = index not in self._logits and shown.any()
        previous = self._predictor.mask_prompt(shown) if is_local else self._logits.get(index)
        answer = self._predictor.predict(*clicks, previous=None if previous is None else {index: previous})
        decision = answer.slices[index].mask
        if is_local:  # as the app answers clicks on masks that were not made by clicks
            clicked = [slices.frame.to_slice(each)[1:] for part in clicks for each in part]
            decision = decided_at_clicks(shown, decision, clicked)
        else:
            self._logits[index] = answer.slices[index].low_res_logits
        self._anchors[index] = decision
        here = self.mask.copy()
        slices.frame.insert(decision, here, index)
        options = [here]
        if any(mask.any() for mask in self._anchors.values()):
            followed = self._predictor.propagate(self._anchors, before=self.mask, changed=[index]).mask
            if self._is_found:
                followed = merged(self.mask, followed, [voxel], slices.axis)
                slices.frame.insert(decision, followed, index)
            options.append(followed)
        best = max(options, key=lambda mask: dice(mask, truth))
        differs = (best != self.mask).any(axis=tuple(axis for axis in range(3) if axis != slices.axis))
        for other in np.flatnonzero(differs).tolist():
            if other != index:  # what the model thought of this slice was of another mask
                self._logits.pop(other, None)
        self.mask = best
