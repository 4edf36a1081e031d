"""How new clicks change the mask of a label: which slices are decided again, and from what."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal_sam.prompting import Predictor
from causal_sam.prompting.prompts import Prompts
from serving.clicks import on_one_slice, slices_of
from serving.working_masks import LabelState, PackedMask, SliceRecord


@dataclass(frozen=True)
class Refinement:
    """The new state of a label.

    Attributes:
        state: what to keep.
        mask: bool, all slices, in the file's voxel order.
        decided: voxel indices along the slice axis of the slices whose mask the model decided now.
        unused: background clicks on slices where the label has neither a mask nor a foreground click.
    """

    state: LabelState
    mask: NDArray[np.bool_]
    decided: tuple[int, ...]
    unused: int


class Refiner:
    """Applies clicks to the state of a label.

    For every slice that the request has prompts on:

    * the same prompts as before: the slice stays as it is;
    * those and more: the model corrects the mask, which it is given as a prompt (its own logits, or the edited mask);
    * others: a click was taken back, and the slice is decided from the prompts alone.

    Slices without prompts in the request keep their mask.

    Args:
        computing: limits how many requests use the model at a time.
    """

    def __init__(self, computing: threading.Semaphore) -> None:
        self._computing = computing

    def refine(self, state: LabelState, prompts: Prompts, predictor: Predictor) -> Refinement:
        """Return the state that ``prompts`` lead to; ``state`` is left as it is.

        Raises:
            InputError: the prompts cannot be used.
        """
        axis, frame = predictor.slices.axis, predictor.slices.frame
        mask = state.mask.unpack()
        # Records of another plane do not say anything about the slices of this one; their mask stays.
        records = dict(state.slices) if state.axis == axis else {}
        decided, unused = [], 0
        for index in slices_of(prompts, axis):
            here = on_one_slice(prompts, axis, index)
            record = records.get(index)
            if record is not None and record.same_prompts(here):
                continue
            is_positive = bool(here.foreground or here.box)
            if record is not None and not record.extended_by(here):
                if not is_positive:  # its foreground was taken back, so nothing says that the label is here
                    frame.insert(np.zeros_like(frame.extract(mask, index)), mask, index)
                    del records[index]
                    continue
                previous = None
            else:
                previous = self._previous(record, frame.extract(mask, index), predictor)
                if not is_positive and not any(mask[voxel] for voxel in here.background):
                    unused += len(here.background)
                    continue
            with self._computing:
                answer = predictor.predict(
                    here.foreground, here.background, here.box, None if previous is None else {index: previous}
                ).slices[index]
            frame.insert(answer.mask, mask, index)
            records[index] = SliceRecord(
                frozenset(here.foreground),
                frozenset(here.background),
                here.box,
                answer.low_res_logits.astype(np.float16),
                answer.predicted_iou,
            )
            decided.append(index)
        new = LabelState(PackedMask.pack(mask), axis, records) if decided or records != state.slices else state
        return Refinement(new, mask, tuple(decided), unused)

    @staticmethod
    def _previous(
        record: SliceRecord | None, mask: NDArray[np.bool_], predictor: Predictor
    ) -> NDArray[np.float32] | None:
        if record is not None and record.logits is not None:
            return record.logits.astype(np.float32)
        return predictor.mask_prompt(mask) if mask.any() else None
