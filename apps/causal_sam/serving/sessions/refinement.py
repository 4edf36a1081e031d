"""How new clicks change the mask of a label: which slices are decided again, and from what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging import PackedMask
from causal_sam.prompting import Predictor
from causal_sam.prompting.local_edit import apply_edit_near_clicks, carried, merged
from causal_sam.prompting.prompts import Prompts, Voxel
from serving.inference_slots import InferenceSlots
from serving.requests.clicks import on_one_slice, slices_of
from serving.sessions.working_masks import LabelState, SliceRecord, nonempty_slices


@dataclass(frozen=True)
class Refinement:
    """The new state of a label.

    Attributes:
        state: what to keep.
        mask: bool, all slices, in the file's voxel order.
        decided: voxel indices along the slice axis of the slices whose mask the model decided now from prompts.
        followed: of those whose mask was followed now from other slices, or changed as these were.
        unused: background clicks on slices where the label has neither a mask nor a foreground click.
    """

    state: LabelState
    mask: NDArray[np.bool_]
    decided: tuple[int, ...]
    followed: tuple[int, ...]
    unused: int

    @classmethod
    def unchanged(cls, state: LabelState) -> Refinement:
        """The refinement of a label that a request asks nothing of."""
        return cls(state, state.mask.unpack(), (), (), 0)


def asks_for_change(state: LabelState, prompts: Prompts, axis: int) -> bool:
    """Whether the prompts of a label say anything that its mask does not show, and that did not decide it.

    Args:
        state: of the label.
        prompts: all of the label's own in the request.
        axis: voxel axis perpendicular to the slices.
    """
    records = state.slices if state.axis == axis else {}
    mask = state.mask.unpack()
    for index in slices_of(prompts, axis):
        here, record = on_one_slice(prompts, axis, index), records.get(index)
        if record is None:
            agrees = all(mask[voxel] for voxel in here.foreground) and not any(mask[voxel] for voxel in here.background)
            if here.box or not agrees:
                return True
        elif record.lacks(here) or (record.exceeds(here) and state.takes_back(prompts)):
            return True
    return False


class Refiner:
    """Applies clicks to the state of a label.

    For every slice that the request has prompts of the label on:

    * no others than before: the slice stays as it is;
    * those and more: the model corrects the mask, which it is given as a prompt (its own logits, or the edited mask);
      of a mask that was not decided from prompts it changes only what is at the clicks, unless it may change all;
      of one that was found, what is corrected so on a slice is carried to the slices beside it, and not followed;
    * fewer, from a client that shows that it knows the others (`LabelState.takes_back`): clicks were taken back, and
      the slice is decided from the prompts alone; likewise if its box was moved;
    * others, from a client that does not show that: what is there counts as drawn, and the prompts correct it.

    Slices without prompts in the request keep their mask, unless the structure is to be followed through the volume:
    then what was neither prompted nor drawn there is followed again, as far as the change reaches.

    Args:
        inference_slots: limits how many requests use the model at a time.
    """

    def __init__(self, inference_slots: InferenceSlots) -> None:
        self._inference_slots = inference_slots

    def refine(
        self,
        state: LabelState,
        prompts: Prompts,
        predictor: Predictor,
        *,
        others: Sequence[Voxel] = (),
        follow: bool = False,
        local: bool = True,
        limits: tuple[int, int] | None = None,
        check: Callable[[int], object] = lambda done: None,
    ) -> Refinement:
        """Return the state that ``prompts`` lead to; ``state`` is left as it is.

        Args:
            state: of the label.
            prompts: all of the label's own in the request.
            predictor: of the volume.
            others: clicks inside of other labels. Where the label's own prompts decide a slice, they are background
                too; by themselves they change nothing, since they belong to other labels.
            follow: go on from the prompted slices through the volume.
            local: of what was drawn, or found by its name, change only what is at the clicks. If not, slices that were
                changed so by the same clicks before are decided again.
            limits: first and last slice to follow it to; by default those of a box of several slices.
            check: called while following with the number of slices done; what it raises ends the work.

        Raises:
            InputError: the prompts cannot be used.
        """
        axis, frame = predictor.slices.axis, predictor.slices.frame
        mask = state.mask.unpack()
        # Records of another plane do not say anything about the slices of this one; their mask stays.
        records = dict(state.slices) if state.axis == axis else {}
        takes_back = replace(state, slices=records).takes_back(prompts)
        decided, given_up, unused = [], [], 0
        corrected: dict[int, tuple[NDArray[np.bool_], list[tuple[int, int]]]] = {}  # slice before, clicks
        for index in slices_of(prompts, axis):
            here = on_one_slice(prompts, axis, index)
            record = records.get(index)
            is_taken_back = record is not None and takes_back and record.exceeds(here)
            is_same = record is not None and not is_taken_back and not record.lacks(here)
            if is_same and (local or not record.is_local):
                continue
            elsewhere = frozenset(v for v in others if v[axis] == index).difference(here.foreground, here.background)
            is_positive = bool(here.foreground or here.box)
            if is_taken_back or (record is not None and record.has_other_box(here)):
                if not is_positive:  # its foreground was taken back, so nothing says that the label is here
                    frame.insert(np.zeros_like(frame.extract(mask, index)), mask, index)
                    del records[index]
                    given_up.append(index)
                    continue
                previous = None
            else:
                if record is not None and record.exceeds(here):
                    record = None
                previous = self._previous(record, frame.extract(mask, index), predictor)
                if not is_positive and not any(mask[voxel] for voxel in here.background):
                    unused += len(here.background)
                    continue
            background = (*here.background, *sorted(elsewhere))
            with self._inference_slots.hold():
                answer = predictor.predict(
                    here.foreground, background, here.box, None if previous is None else {index: previous}
                ).slices[index]
            decision, logits = answer.mask, answer.low_res_logits.astype(np.float16)
            before = frame.extract(mask, index)
            is_external_mask = before.any() and previous is not None and (record is None or record.logits is None)
            is_local = local and is_external_mask and here.box is None
            if is_local:  # what was drawn, or found by its name, stays as it is away from the clicks
                clicked = [[frame.to_slice(voxel)[1:] for voxel in part] for part in (here.foreground, background)]
                decision, logits = apply_edit_near_clicks(before, answer.mask, *clicked, frame.spacing_rc), None
                corrected[index] = before.copy(), clicked[0] + clicked[1]
            frame.insert(decision, mask, index)
            records[index] = SliceRecord(
                frozenset(here.foreground),
                frozenset(here.background),
                here.box,
                logits,
                answer.predicted_iou,
                is_local,
                elsewhere,
            )
            decided.append(index)
        same_axis = state.axis == axis
        now = LabelState(state.mask, axis, records, state.followed if same_axis else None, state.is_automatic)
        # What was found stays, but for what hangs together with what is decided now.
        is_kept = state.is_automatic and local and not given_up
        if not (follow and is_kept):
            corrected = {}
        changed = None if follow and now.followed is None else {*decided, *given_up} - corrected.keys()
        followed: tuple[int, ...] = ()
        followed_before = now.followed or frozenset()
        if follow and (changed is None or changed):
            decided_now = mask
            now, mask, followed = self._followed(now, mask, limits or _limits(prompts, axis), predictor, changed, check)
            if is_kept:
                clicked = [voxel for index in decided for voxel in _clicks(on_one_slice(prompts, axis, index))]
                mask = merged(state.mask.unpack(), mask, clicked, axis)
                for index in decided:
                    frame.insert(frame.extract(decided_now, index), mask, index)
                now = replace(now, followed=(now.followed | followed_before) - records.keys())
        elif now.followed:
            now = replace(now, followed=now.followed - set(decided))
        if corrected:
            held = frozenset(range(frame.count)) - (now.followed or frozenset())  # somebody has clicked or drawn them
            reached = mask
            for index, (before, clicked) in corrected.items():
                reached = carried(reached, before, index, clicked, frame, held)
            followed = tuple(sorted({*followed, *nonempty_slices(reached ^ mask, axis)}))
            mask = reached
        if not decided and records == state.slices and now.followed == state.followed:
            return Refinement(state, mask, (), (), unused)
        return Refinement(replace(now, mask=PackedMask.pack(mask)), mask, tuple(decided), followed, unused)

    def _followed(
        self,
        state: LabelState,
        mask: NDArray[np.bool_],
        limits: tuple[int, int] | None,
        predictor: Predictor,
        changed: set[int] | None,
        check: Callable[[int], object],
    ) -> tuple[LabelState, NDArray[np.bool_], tuple[int, ...]]:
        """Follow the structure; return the state but for its mask, the mask, and the slices that were followed."""
        axis, frame = predictor.slices.axis, predictor.slices.frame
        drawn = nonempty_slices(mask, axis) - (state.followed or frozenset())
        anchors = {index: frame.extract(mask, index).copy() for index in drawn | state.slices.keys()}
        if not any(anchor.any() for anchor in anchors.values()):
            # Nothing says any longer that the structure is anywhere.
            return replace(state, followed=frozenset()), np.zeros_like(mask), ()

        with self._inference_slots.hold(check) as yield_slot:
            propagation = predictor.propagate(
                anchors,
                before=None if changed is None else mask,
                changed=changed,
                limits=limits,
                check=yield_slot,
            )
        mask = propagation.mask
        followed = nonempty_slices(mask, axis) - anchors.keys()
        return replace(state, followed=followed), mask, tuple(sorted(propagation.followed))

    @staticmethod
    def _previous(
        record: SliceRecord | None, mask: NDArray[np.bool_], predictor: Predictor
    ) -> NDArray[np.float32] | None:
        if record is not None and record.logits is not None:
            return record.logits.astype(np.float32)
        return predictor.mask_prompt(mask) if mask.any() else None


def _clicks(prompts: Prompts) -> tuple[Voxel, ...]:
    return (*prompts.foreground, *prompts.background)


def _limits(prompts: Prompts, axis: int) -> tuple[int, int] | None:
    """A box on one slice says where the structure is there; one of several also where it ends."""
    if prompts.box is None or prompts.box[2 * axis] == prompts.box[2 * axis + 1]:
        return None
    return prompts.box[2 * axis], prompts.box[2 * axis + 1]
