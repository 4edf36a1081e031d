"""Refinement of one label by new prompts: selects the slices to decide again, and the prompts to decide them from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging import PackedMask, nonempty_slices
from causal_sam.prompting.context_refinement import ContextRefiner
from causal_sam.prompting.label_state import LabelState, Refinement, SliceRecord, Source, is_unnamed
from causal_sam.prompting.local_edit import apply_edit_near_clicks, progressive_merge, propagate_edit
from causal_sam.prompting.predictor import Predictor
from causal_sam.prompting.prompts import Prompts, Voxel
from causal_sam.prompting.slots import OnSlice, Slot, ignore, no_queue
from causal_sam.volume.context import CoarseMask


@dataclass
class _Edit:
    """A label whose prompted slices are being decided.

    Attributes:
        mask: all slices so far.
        records: records of its slices, by index.
        decided, given_up: indices of the slices that the model decided, and of the emptied slices.
        local: index -> slice before, and (row, column) of the points that it was changed near.
        unused: background points where there is nothing to correct.
    """

    mask: NDArray[np.bool_]
    records: dict[int, SliceRecord]
    decided: list[int] = field(default_factory=list)
    given_up: list[int] = field(default_factory=list)
    local: dict[int, tuple[NDArray[np.bool_], list[tuple[int, int]]]] = field(default_factory=dict)
    unused: int = 0


class Refiner:
    """Applies prompts to the state of a label.

    For every slice that has prompts of the label:

    * no others than before: the slice stays as it is;
    * those and more: the model corrects the mask, which it is given as a prompt (its own logits, or the edited mask);
      of a mask that was drawn, or segmented by its name, it changes only the part at the points, unless it may change
      all; a correction on a slice of an automatic mask also moves the borders on the slices beside it, and is not
      followed;
    * fewer, from a client that shows that it knows the others (`LabelState.takes_back`): points were taken back, and
      the slice is decided from the prompts alone; likewise if its box was moved;
    * others, from a client that does not show that: the mask that is there counts as drawn, and the prompts correct it.

    Slices without prompts keep their mask, unless the structure is to be followed through the volume: then all that
    was neither prompted nor drawn is followed again, as far as the change reaches.

    Where the volume has a context that knows the structure, `ContextRefiner` decides in place of all this.

    Args:
        predictor: predictor for the volume.
        slot: entered around each use of the model.
        on_slice: called while following with the number of slices done; what it raises ends the work.
    """

    def __init__(self, predictor: Predictor, slot: Slot = no_queue, on_slice: OnSlice = ignore) -> None:
        self._predictor, self._slot, self._on_slice = predictor, slot, on_slice
        self._axis, self._frame = predictor.slices.axis, predictor.slices.frame

    def refine(
        self,
        state: LabelState,
        prompts: Prompts,
        *,
        others: Sequence[Voxel] = (),
        follow: bool = False,
        local: bool = True,
        limits: tuple[int, int] | None = None,
        name: str | None = None,
    ) -> Refinement:
        """Return the state that ``prompts`` lead to; ``state`` is left as it is.

        Args:
            state: state of the label before.
            prompts: all prompts of the label itself.
            others: points inside other labels. Where the label's own prompts decide a slice, they are background
                too; by themselves they change nothing, since they belong to other labels.
            follow: go on from the prompted slices through the volume.
            local: change a mask that was drawn, or segmented by its name, only at the points. If False,
                slices that these points changed in this way before are decided again.
            limits: first and last slice to follow it to; by default those of a box of several slices.
            name: name of the label, which a volume context may know; None without.

        Raises:
            InputError: the prompts cannot be used.
        """
        limits = limits or self._limits(prompts)
        if follow and (context := self._predictor.context) is not None:
            refiner = ContextRefiner(self._predictor, context, self._slot, self._on_slice)
            if (request := refiner.read(state, prompts, others, local)) is not None:
                answer = refiner.refine(state, request, None if is_unnamed(name) else name, limits)
                if isinstance(answer, Refinement):
                    return answer
                return self._slice_by_slice(state, prompts, others, True, local, limits, answer)
        return self._slice_by_slice(state, prompts, others, follow, local, limits)

    def _slice_by_slice(
        self,
        state: LabelState,
        prompts: Prompts,
        others: Sequence[Voxel],
        follow: bool,
        local: bool,
        limits: tuple[int, int] | None,
        coarse: CoarseMask | None = None,
    ) -> Refinement:
        """Decide the prompted slices, and follow the structure from them; see `refine`."""
        edit = self._decide(state, prompts, others, local)
        is_same_axis = state.axis == self._axis
        followed_before = state.followed if is_same_axis else None
        now = replace(state, axis=self._axis, slices=edit.records, followed=followed_before, source=Source.USER)
        # A single slice that somebody drew is where a structure begins; what they drew on several ends where they let
        # it end.
        is_drawn = followed_before is None and len(state.drawn(self._axis)) > 1
        # Only the part of an automatic or drawn mask that is connected to the newly decided slices changes.
        keeps_rest = (state.is_automatic or is_drawn) and local and not edit.given_up
        moved = edit.local if follow and keeps_rest else {}
        is_first = follow and followed_before is None and not is_drawn
        changed = None if is_first else {*edit.decided, *edit.given_up} - moved.keys()
        mask = edit.mask
        followed: tuple[int, ...] = ()
        if follow and (changed is None or changed):
            now, mask, followed = self._follow(now, edit.mask, limits, changed, coarse)
            if keeps_rest:
                mask = self._merge(state, mask, edit, prompts)
                so_far = (now.followed or frozenset()) | (followed_before or frozenset())
                now = replace(now, followed=so_far.difference(edit.records))
        elif now.followed:
            now = replace(now, followed=now.followed - set(edit.decided))
        if moved:
            before, mask = mask, self._move_neighbours(mask, moved, now.followed or frozenset())
            followed = tuple(sorted({*followed, *nonempty_slices(mask ^ before, self._axis)}))
        if not edit.decided and edit.records == state.slices and now.followed == state.followed:
            return Refinement(state, mask, unused=edit.unused)
        return Refinement(replace(now, mask=PackedMask.pack(mask)), mask, tuple(edit.decided), followed, edit.unused)

    def _decide(self, state: LabelState, prompts: Prompts, others: Sequence[Voxel], local: bool) -> _Edit:
        """Decide each prompted slice about which the prompts say something new."""
        axis = self._axis
        edit = _Edit(state.mask.unpack(), dict(state.records(axis)))
        takes_back = replace(state, slices=edit.records).takes_back(prompts)
        # The model drew them from the prompts of other slices, so a correction may change all of them.
        followed = (state.followed or ()) if state.axis == axis and not state.is_automatic else ()
        for index in prompts.indices(axis):
            here, record = prompts.on_slice(axis, index), edit.records.get(index)
            is_anew = record is not None and ((takes_back and record.exceeds(here)) or record.has_other_box(here))
            if record is not None and not is_anew and not record.lacks(here) and (local or not record.is_local):
                continue
            if not (here.foreground or here.box):
                if is_anew:  # its foreground was taken back, so nothing says that the label is here
                    self._frame.insert(np.zeros(self._frame.shape_rc, bool), edit.mask, index)
                    del edit.records[index]
                    edit.given_up.append(index)
                    continue
                if not any(edit.mask[voxel] for voxel in here.background):
                    edit.unused += len(here.background)
                    continue
            elsewhere = frozenset(v for v in others if v[axis] == index).difference(here.foreground, here.background)
            self._decide_slice(edit, index, here, elsewhere, is_anew=is_anew, local=local and index not in followed)
        return edit

    def _decide_slice(
        self, edit: _Edit, index: int, here: Prompts, elsewhere: frozenset[Voxel], *, is_anew: bool, local: bool
    ) -> None:
        """Ask the model about one slice, and put its answer, or the part of it at the points, into the mask."""
        frame, record = self._frame, edit.records.get(index)
        before = frame.extract(edit.mask, index)
        if record is not None and record.exceeds(here):
            record = None  # the client has forgotten points, so the mask counts as drawn
        logits = None if record is None else record.logits
        previous = None
        if not is_anew:
            if logits is not None:
                previous = logits.astype(np.float32)
            elif before.any():
                previous = self._predictor.mask_prompt(before)
        background = (*here.background, *sorted(elsewhere))
        with self._slot(ignore):
            answer = self._predictor.predict(
                here.foreground, background, here.box, None if previous is None else {index: previous}
            ).slices[index]
        decision = answer.mask
        low_res: NDArray[np.float16] | None = answer.low_res_logits.astype(np.float16)
        is_external_mask = previous is not None and logits is None
        is_local = local and is_external_mask and here.box is None
        if is_local:  # a mask that was drawn, or segmented by its name, stays as it is away from the points
            inside, outside = ([frame.to_slice(v)[1:] for v in part] for part in (here.foreground, background))
            decision = apply_edit_near_clicks(before, answer.mask, inside, outside, frame.spacing_rc)
            low_res = None
            edit.local[index] = before.copy(), inside + outside
        frame.insert(decision, edit.mask, index)
        edit.records[index] = SliceRecord(
            frozenset(here.foreground),
            frozenset(here.background),
            here.box,
            low_res,
            answer.predicted_iou,
            is_local,
            elsewhere,
        )
        edit.decided.append(index)

    def _follow(
        self,
        state: LabelState,
        mask: NDArray[np.bool_],
        limits: tuple[int, int] | None,
        changed: set[int] | None,
        coarse: CoarseMask | None,
    ) -> tuple[LabelState, NDArray[np.bool_], tuple[int, ...]]:
        """Follow the structure; return the state but for its mask, the mask, and the slices that were followed."""
        drawn = nonempty_slices(mask, self._axis) - (state.followed or frozenset())
        anchors = {index: self._frame.extract(mask, index).copy() for index in drawn | state.slices.keys()}
        if not any(anchor.any() for anchor in anchors.values()):
            # No slice has a mask any more, so there is nothing to follow.
            return replace(state, followed=frozenset()), np.zeros_like(mask), ()
        with self._slot(self._on_slice) as on_slice:
            propagation = self._predictor.propagate(
                anchors,
                before=None if changed is None else mask,
                changed=changed,
                limits=limits,
                on_slice=on_slice,
                coarse=coarse,
            )
        followed = nonempty_slices(propagation.mask, self._axis).difference(anchors)
        return replace(state, followed=followed), propagation.mask, tuple(sorted(propagation.followed))

    def _merge(
        self, state: LabelState, followed: NDArray[np.bool_], edit: _Edit, prompts: Prompts
    ) -> NDArray[np.bool_]:
        """Return the earlier automatic mask with the decided slices, and with the followed changes at the points."""
        points = []
        for index in edit.decided:
            here = prompts.on_slice(self._axis, index)
            points += [*here.foreground, *here.background]
        mask = progressive_merge(state.mask.unpack(), followed, points, self._axis)
        for index in edit.decided:
            self._frame.insert(self._frame.extract(edit.mask, index), mask, index)
        return mask

    def _move_neighbours(
        self,
        mask: NDArray[np.bool_],
        moved: dict[int, tuple[NDArray[np.bool_], list[tuple[int, int]]]],
        followed: frozenset[int],
    ) -> NDArray[np.bool_]:
        """Move the borders beside locally corrected slices too, but not on slices that somebody clicked or drew."""
        kept = frozenset(range(self._frame.count)) - followed
        for index, (before, points) in moved.items():
            mask = propagate_edit(mask, before, index, points, self._frame, kept)
        return mask

    def _limits(self, prompts: Prompts) -> tuple[int, int] | None:
        """Return the first and last slice of a box over several slices; a box on one slice sets no limits."""
        if prompts.box is None:
            return None
        first, last = prompts.box[2 * self._axis : 2 * self._axis + 2]
        return None if first == last else (first, last)
