"""Refinement of a label in 3D with a volume context, in place of following it from slice to slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging import PackedMask, nonempty_slices
from causal_sam.prompting.contexts import PreparedContext
from causal_sam.prompting.label_state import LabelState, Refinement, SliceRecord, Source
from causal_sam.prompting.local_edit import apply_edit_near_clicks, propagate_edit
from causal_sam.prompting.prediction import SlicePrediction
from causal_sam.prompting.predictor import Predictor
from causal_sam.prompting.prompts import Prompts, Voxel
from causal_sam.prompting.slots import OnSlice, Slot
from causal_sam.prompting.volume_mask import VolumeMask
from causal_sam.volume.context import CoarseMask

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ContextRequest:
    """A request compared with the state of the label.

    Attributes:
        prompts: all prompts of the label, those of slices that the request leaves out included.
        new: points that no slice was decided from.
        elsewhere: points inside other labels.
        is_anew: there is no mask in 3D yet, or prompts were taken back: it is decided as a whole.
        fixed: indices of slices that were drawn, and are not prompted now.
        unused: background points where there is nothing to correct.
    """

    prompts: Prompts
    new: Prompts
    elsewhere: tuple[Voxel, ...]
    is_anew: bool
    fixed: frozenset[int]
    unused: int

    @property
    def shown(self) -> Prompts:
        """All prompts, with points inside other labels as background."""
        return replace(self.prompts, background=(*self.prompts.background, *self.elsewhere))


class ContextRefiner:
    """Applies prompts to the state of a label with the context of its volume.

    Args:
        predictor: predictor for the volume.
        context: context of the volume.
        slot: entered around each use of the model.
        on_slice: called during long work with the number of slices done; what it raises ends the work.
    """

    def __init__(self, predictor: Predictor, context: PreparedContext, slot: Slot, on_slice: OnSlice) -> None:
        self._predictor, self._context = predictor, context
        self._slot, self._on_slice = slot, on_slice
        self._axis, self._frame = predictor.slices.axis, predictor.slices.frame

    def read(self, state: LabelState, prompts: Prompts, others: Sequence[Voxel], local: bool) -> ContextRequest | None:
        """Compare prompts with the state of their label.

        Args:
            state: state before.
            prompts: prompts of the request.
            others: points inside other labels.
            local: a mask that was segmented by its name changes only at the points.

        Returns:
            None if the prompts say nothing new, or correct a mask that somebody drew.
        """
        axis, records = self._axis, state.records(self._axis)
        indices = prompts.indices(axis)
        there = nonempty_slices(state.mask.unpack(), axis)
        by_model = _by_model(state, axis, there)
        drawn = there.difference(by_model, records)
        if not by_model and state.drawn(axis).difference(indices):
            return None
        takes_back = state.takes_back(prompts)
        is_anew = not there or not by_model or (state.is_automatic and not local)
        foreground, background, unused = list[Voxel](), list[Voxel](), 0
        for index in indices:
            here, record = prompts.on_slice(axis, index), records.get(index)
            if record is None:
                is_anew |= here.box is not None
            elif (takes_back and record.exceeds(here)) or record.has_other_box(here):
                is_anew, record = True, None
            inside, outside = here.foreground, here.background
            if record is not None:
                inside = tuple(voxel for voxel in inside if voxel not in record.foreground)
                outside = tuple(voxel for voxel in outside if voxel not in record.background | record.others)
            if not (here.foreground or here.box or index in there or there == frozenset()):
                unused += len(outside)
            foreground += inside
            background += outside
        whole = self._with_earlier(state, prompts, indices)
        if (is_anew and not (whole.foreground or whole.box)) or not (foreground or background or is_anew):
            return None
        own = {*whole.foreground, *whole.background}
        elsewhere = tuple(voxel for voxel in others if voxel not in own)
        fixed = drawn.difference(indices)
        return ContextRequest(whole, Prompts(tuple(foreground), tuple(background)), elsewhere, is_anew, fixed, unused)

    def refine(
        self, state: LabelState, request: ContextRequest, name: str | None, limits: tuple[int, int] | None
    ) -> Refinement | CoarseMask | None:
        """Return the state that a request leads to.

        Args:
            state: state before.
            request: result of `read` for this state.
            name: name of the label; None without.
            limits: first and last slice of the structure.

        Returns:
            The refinement. If the label is decided anew and the context does not know the structure: the coarse mask,
            if that holds a point at least, so that it may limit how far the structure is followed; else None.
        """
        before = state.mask.unpack()
        masker = self._context.masker(self._slot, self._on_slice)
        with self._slot(self._on_slice):
            if request.is_anew:
                coarse = masker.coarse(request.shown, name)
                if not masker.knows(coarse, request.prompts.foreground):
                    return coarse if masker.holds_any(coarse, request.prompts.foreground) else None
                answer = masker.draw(coarse, request.prompts, limits, request.fixed)
                for index in request.fixed:
                    self._frame.insert(self._frame.extract(before, index), answer.mask, index)
            else:
                answer = masker.correct(request.shown, name, before, request.new, request.fixed)
        # After the slot is given back, since this may ask the decoder, which takes a slot itself: two requests that
        # hold one and wait for another would wait for each other for ever.
        return self._decided(state, request, answer, before)

    def _decided(self, state: LabelState, request: ContextRequest, answer: VolumeMask, before: Mask) -> Refinement:
        """Let the mask agree with the points, and record what each prompted slice was decided from."""
        mask, prompted = answer.mask, request.prompts.indices(self._axis)
        records = dict(state.records(self._axis))
        if request.is_anew:
            records, decided = {}, prompted
        else:
            # A correction on another slice may have changed a prompted one too. Slices without a record were prompted
            # in another plane.
            changed = nonempty_slices(before ^ mask, self._axis).union(request.new.indices(self._axis))
            decided = [index for index in prompted if index in changed or index not in records]
        for index in decided:
            mask = self._enforced(request, mask, index)
            records[index] = self._record(request, answer.certainty, mask, index)
        followed = nonempty_slices(mask, self._axis).difference(records, request.fixed)
        now = replace(
            state,
            mask=PackedMask.pack(mask),
            axis=self._axis,
            slices=records,
            followed=followed,
            source=Source.USER,
            adjusted=frozenset(),
        )
        followed_now = tuple(sorted({*answer.changed}.difference(decided)))
        return Refinement(now, mask, tuple(decided), followed_now, request.unused)

    def _with_earlier(self, state: LabelState, prompts: Prompts, indices: Sequence[int]) -> Prompts:
        """Add the prompts of slices that the request leaves out, and the points that were given in another plane."""
        rest = [index for index in state.records(self._axis) if index not in indices]
        earlier = state.prompts_on(rest, self._axis)
        if state.axis != self._axis:
            inside, outside = (sorted(state.points(inside=each)) for each in (True, False))
            earlier = Prompts(tuple(inside), tuple(outside))
        return Prompts(
            tuple(dict.fromkeys((*prompts.foreground, *earlier.foreground))),
            tuple(dict.fromkeys((*prompts.background, *earlier.background))),
            prompts.box or earlier.box,
        )

    def _enforced(self, request: ContextRequest, mask: Mask, index: int) -> Mask:
        """Let the decoder correct a prompted slice, and those beside it, where the mask contradicts its points."""
        here = request.shown.on_slice(self._axis, index)
        before = self._frame.extract(mask, index).copy()
        if all(mask[v] for v in here.foreground) and not any(mask[v] for v in here.background):
            return mask
        answer = self._ask(here, before, index)
        inside, outside = ([self._frame.to_slice(v)[1:] for v in part] for part in (here.foreground, here.background))
        if before.any():
            decision = apply_edit_near_clicks(before, answer.mask, inside, outside, self._frame.spacing_rc)
        else:
            decision = answer.mask
        mask = mask.copy(order="K")
        self._frame.insert(decision, mask, index)
        kept = frozenset(request.prompts.indices(self._axis)) | request.fixed
        return propagate_edit(mask, before, index, inside + outside, self._frame, kept)

    def _ask(self, here: Prompts, before: Mask, index: int) -> SlicePrediction:
        previous = {index: self._predictor.mask_prompt(before)} if before.any() else None
        with self._slot(self._on_slice):
            return self._predictor.predict(here.foreground, here.background, here.box, previous).slices[index]

    def _record(self, request: ContextRequest, certainty: float, mask: Mask, index: int) -> SliceRecord:
        here = request.prompts.on_slice(self._axis, index)
        logits = self._predictor.mask_prompt(self._frame.extract(mask, index)).astype(np.float16)
        others = frozenset(voxel for voxel in request.elsewhere if voxel[self._axis] == index)
        return SliceRecord(
            frozenset(here.foreground),
            frozenset(here.background),
            here.box,
            logits,
            certainty,
            others=others,
        )


def _by_model(state: LabelState, axis: int, there: frozenset[int]) -> frozenset[int]:
    """Return the slices of a mask in 3D that nobody prompted or drew; none if it was never one.

    Args:
        state: the label.
        axis: voxel axis perpendicular to the slices.
        there: indices of the slices that its mask reaches.
    """
    if state.axis is None or state.followed is None:
        return frozenset()
    # What notes and other labels changed in a mask in 3D nobody drew.
    by_model = state.followed | state.adjusted
    if state.axis == axis:
        return by_model
    # In another plane, prompts of that plane led to all of it, unless somebody drew there.
    is_drawn = nonempty_slices(state.mask.unpack(), state.axis).difference(by_model, state.slices)
    return frozenset() if is_drawn else there
