"""One interaction with one volume: prompts, drawings, names and notes in, masks of all labels out, undo for everything.

The app, the command line, the simulated annotator and scripts all work through this object::

    predictor = predictor_with_context(load_model("compact"))
    predictor.set_volume(volume)
    session = InteractiveSession(predictor, ["liver", "spleen"])
    session.add_point("liver", (66, 53, 39))                    # decides slice k=39, and follows the liver from there
    session.add_point("liver", (70, 53, 39), positive=False)
    session.lock("liver")                                       # no later step changes it
    session.add_box("spleen", (90, 120, 40, 80, 37, 37))
    session.undo()                                              # the box; a second undo takes back the lock
    values, names = session.label_map()                         # names: {"liver": 1, "spleen": 2}
    session.save(folder)                                        # and later, or in another process:
    session = InteractiveSession.load(folder, predictor, ["liver", "spleen"])

      start ──▶ prompts ──▶ prompts ──▶ lock ──▶ prompts        each step is immutable and holds the whole state
                                          ▲                     that it left; undo and redo move the position, a
                                       position                 new step forgets those behind it

Points are voxel indices (i, j, k), boxes (i0, i1, j0, j1, k0, k1) with both ends inclusive, masks bool (I, J, K), all
in the order of the image file. Each method that changes something adds one step, or raises and adds none.

The rules: a step changes the labels that it is about. Other labels lose the voxels that these gain, and no others,
since a voxel belongs to one label. A locked label loses none, an accepted one only to a point or a box's middle in it.
Clients that send all their points each time use `InteractiveSession.set_prompts`, which finds out what is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import FILE_ORDER, PackedMask
from causal_sam.prompting.history import History, Step, StepKind
from causal_sam.prompting.label_state import (
    LabelState,
    Source,
    States,
    is_unnamed,
    overlaps,
    protected_labels,
    settle,
    state_of,
)
from causal_sam.prompting.named import MAX_LABELS, LabelPrompter, NamedPrediction
from causal_sam.prompting.plan_corrector import PlanCorrector
from causal_sam.prompting.predictor import Predictor
from causal_sam.prompting.prompt_set import PromptSet
from causal_sam.prompting.prompts import Lasso, Prompts, Strokes, Voxel
from causal_sam.prompting.refinement import Refinement, Refiner
from causal_sam.prompting.slots import OnSlice, Slot, ignore, no_queue

MAX_UNNAMED = 16
Mask = NDArray[np.bool_]


class InteractiveSession:
    """The labels of one volume and how they came about.

    Args:
        predictor: predictor for the volume.
        labels: names with the values 1, 2, … of the label map.
        history: history of an earlier session on the same volume.
        slot: entered around each use of the model, where others use it too.
        on_slice: called during long work with the number of slices done; what it raises ends the work and the step.

    Attributes:
        history: the chain of steps; put an earlier value back to forget the steps since.
        spared: names of the labels that did not give way in the last step, since they are locked or accepted.
    """

    def __init__(
        self,
        predictor: Predictor,
        labels: Sequence[str] = (),
        *,
        history: History | None = None,
        slot: Slot = no_queue,
        on_slice: OnSlice = ignore,
    ) -> None:
        self.history = history or History()
        self.spared: set[str] = set()
        self._values = {name: value for value, name in enumerate(labels, start=1)}
        self._predictor, self._slot, self._on_slice = predictor, slot, on_slice
        self._refiner = Refiner(predictor, slot, on_slice)
        self._slices, self._axis = predictor.slices, predictor.slices.axis
        self._shape = self._slices.volume.shape

    @property
    def states(self) -> Mapping[str, LabelState]:
        """Name -> state of all labels; masks that were prompted without a name are here too."""
        return self.history.head.labels

    @property
    def locked(self) -> frozenset[str]:
        """Names of the locked labels."""
        return self.history.head.locked

    def state(self, label: str) -> LabelState:
        """State of a label; an empty one if there is none yet."""
        return state_of(self.states, label, self._shape)

    def mask(self, label: str) -> Mask:
        """Mask (I, J, K) of a label, a new array."""
        return self.state(label).mask.unpack()

    def masks(self) -> dict[str, Mask]:
        """Masks (I, J, K) of all labels that have a name and voxels."""
        return {n: s.mask.unpack() for n, s in self.states.items() if not (is_unnamed(n) or s.is_empty)}

    def label_map(self) -> tuple[NDArray[np.uint8], dict[str, int]]:
        """Draw all labels with names into one map.

        Returns:
            The map (I, J, K), and name -> value: the session's labels, and behind them other names that were used.

        Raises:
            InputError: these are more labels than values.
        """
        masks = self.masks()
        beyond = [name for name in masks if name not in self._values]
        names = self._values | {name: value for value, name in enumerate(beyond, start=len(self._values) + 1)}
        if len(names) > MAX_LABELS:
            raise InputError(f"There are {len(names)} labels in this image, and a label map holds {MAX_LABELS}.")
        label_map = np.zeros(self._shape, dtype=np.uint8, order=FILE_ORDER)
        for name, mask in masks.items():
            label_map[mask] = names[name]
        return label_map, names

    def add_point(
        self, label: str, voxel: Sequence[float], *, positive: bool = True, follow: bool = True, local: bool = True
    ) -> Refinement:
        """Add a point to its slice; it replaces an earlier point at the same voxel.

        Args:
            label: any name.
            voxel: (i, j, k).
            positive: the point is inside of the structure.
            follow: go on from the slice through the volume.
            local: change a mask that was drawn, or segmented by its name, only at the point.

        Raises:
            InputError: the point is outside of the volume, or the label is locked.
        """
        new = Prompts.checked(self._shape, *(([voxel], []) if positive else ([], [voxel])))
        (added,) = new.foreground + new.background
        before = self.state(label).prompts_on([added[self._axis]], self._axis)
        kept = [tuple(v for v in points if v != added) for points in (before.foreground, before.background)]
        prompts = Prompts(kept[0] + new.foreground, kept[1] + new.background, before.box)
        return self.set_prompts(PromptSet(label, {label: prompts}), follow=follow, local=local)[label]

    def add_box(self, label: str, box: Sequence[float], *, follow: bool = True) -> Refinement:
        """Add a box (i0, i1, j0, j1, k0, k1), ends inclusive; one of several slices also limits how far to follow.

        Raises:
            InputError: the box is not inside of the volume, or the label is locked.
        """
        new = Prompts.checked(self._shape, box=box)
        prompts = replace(self.state(label).prompts_on(new.indices(self._axis), self._axis), box=new.box)
        return self.set_prompts(PromptSet(label, {label: prompts}), follow=follow)[label]

    def add_lasso(self, label: str, corners: Sequence[Voxel], *, follow: bool = True) -> Refinement:
        """Draw a closed curve through voxels (i, j, k) of one slice around a label.

        Raises:
            InputError: the curve leaves the volume or is not on one slice, or the label is locked.
        """
        lasso = Lasso(Prompts.checked(self._shape, corners).foreground)
        before = self.state(label).prompts_on([lasso.index(self._axis)], self._axis)
        prompts = replace(before, box=lasso.box(self._axis))
        return self.set_prompts(PromptSet(label, {label: prompts}), lasso=lasso, follow=follow)[label]

    def set_prompts(
        self,
        prompt_set: PromptSet,
        *,
        lasso: Lasso | None = None,
        follow: bool = True,
        local: bool = True,
        only_new: bool = False,
    ) -> dict[str, Refinement]:
        """Take all prompts that a client holds, and apply the new ones as one step.

        Args:
            prompt_set: prompts of all labels; labels other than the current one change only if theirs are new.
            lasso: closed curve of the current label, whose bounding box is among its prompts.
            follow: go on from the prompted slices through the volume.
            local: change masks that were drawn, or segmented by name, only at the points.
            only_new: leave the current label unchanged, too, if it has no new prompts.

        Returns:
            Label -> what became of it, the current one last.

        Raises:
            InputError: the prompts cannot be used, or the current label is locked.
        """
        current = prompt_set.current
        states = self._begin([current] if current is not None and prompt_set.prompts.get(current) else [])
        requested = prompt_set.new_in(states, self.locked, self._axis, only_new=only_new)
        refinements = {}
        for name in sorted(prompt_set.prompts, key=lambda each: each == current):
            state = state_of(states, name, self._shape)
            if lasso is not None and name == current:
                state = state.with_lasso(lasso, self._slices.frame)
            refinements[name] = Refinement.unchanged(state)
            if name in requested:
                others = prompt_set.others(name)
                refinement = self._refiner.refine(
                    state, requested[name], others=others, follow=follow, local=local, name=name
                )
                if refinement.state is not state:
                    refinement = self._settle(states, name, refinement, requested[name])
                refinements[name] = refinement
        self._add(StepKind.PROMPTS, requested, states)
        return refinements

    def add_scribble(
        self, label: str, strokes: Strokes, *, shown: Mask | None = None, follow: bool = True
    ) -> Refinement:
        """Paint strokes inside and outside of a label; every painted voxel is in the mask as it was painted.

        Args:
            label: any name.
            strokes: painted voxels, on the grid of the volume.
            shown: the mask as the person sees it, brush edits included, which the strokes correct; None for that of the
                session.
            follow: go on from the slices with strokes through the volume.

        Raises:
            InputError: the label is locked.
        """
        states, prompts, axis = self._begin([label]), strokes.prompts(self._slices.frame), self._axis
        state = self.state(label) if shown is None else self.state(label).edited(shown)
        state = state.without_outgrown(prompts, axis)
        limits = None if strokes.region is None else (strokes.region[2 * axis], strokes.region[2 * axis + 1])
        refinement = self._refiner.refine(state, prompts, follow=follow, limits=limits, name=label)
        mask = strokes.enforced(refinement.mask)
        enforced = replace(refinement.state, mask=PackedMask.pack(mask))
        refinement = self._settle(states, label, replace(refinement, mask=mask, state=enforced), prompts)
        self._add(StepKind.SCRIBBLE, [label], states)
        return refinement

    def set_mask(self, label: str, mask: Mask, *, automatic: bool = False) -> None:
        """Draw a whole mask (I, J, K), or set an ``automatic`` one, any slice of which points may change.

        Raises:
            InputError: the mask is of another shape, or the label is locked.
        """
        states = self._begin([label])
        if mask.shape != self._shape:
            raise InputError(f"The mask has shape {mask.shape}, and the volume {self._shape}.")
        mask = mask.astype(bool)
        state = LabelState.automatic(mask, self._axis) if automatic else self.state(label).edited(mask)
        self._settle(states, label, Refinement.unchanged(state), Prompts())
        self._add(StepKind.MASK, [label], states)

    def segment_by_name(
        self, labels: Sequence[str], prompter: LabelPrompter | None, *, replace: bool = False
    ) -> tuple[NamedPrediction, list[str]]:
        """Segment labels by their names, but for the voxels of other labels.

        Args:
            labels: names that the prompter or the context of the volume knows, each once.
            prompter: prompter for the model's labels; it comes before the context. None without.
            replace: segment labels that somebody made or corrected too; otherwise these stay, as locked ones always do.

        Returns:
            The prediction for all labels, and the names of the labels that were not changed.

        Raises:
            InputError: a name is not known.
        """
        self._begin()
        stay = [n for n in labels if n in self.locked or (self.state(n).is_kept and not replace)]
        prediction = self._predictor.predict_named(labels, prompter, self._on_slice, self._slot)
        found = [name for name in labels if name not in stay]
        states = {name: state for name, state in self.states.items() if name not in found}
        for name in found:
            mask = prediction.label_map == labels.index(name) + 1
            for _, _, shared in overlaps(states, name, PackedMask.pack(mask)):
                mask &= ~shared
            states[name] = LabelState.automatic(mask, self._axis)
        self._add(StepKind.NAME, found, states)
        return prediction, stay

    def apply_note(
        self, note: str, plan: Any, corrector: PlanCorrector, *, confirm: bool = False, spare_others: bool = False
    ) -> Any:
        """Carry out the plan of a note.

        Args:
            note: text.
            plan: `causal_sam.notes.Plan` about labels that have masks.
            corrector: carries it out.
            confirm: make changes also if they are larger than is plausible.
            spare_others: let no label grow into labels that the plan does not act on, as if these were locked.

        Returns:
            Outcome of the corrector, whose masks are the session's now; with a ``question``, nothing was changed yet.

        Raises:
            InputError: an intervention would change a locked label, or cannot be carried out.
        """
        acts_on = {act.label for act in plan.interventions}
        states = self._begin(act.label for act in plan.interventions if act.action != "keep")
        protected = protected_labels(states, self.locked, acts_on)
        locked = protected | (states.keys() - acts_on) if spare_others else protected
        context = self._predictor.context
        coarse = {} if context is None else context.segment_known(sorted(acts_on), self._slot, self._on_slice)
        clicked = {name: sorted(self.state(name).points(inside=True)) for name in acts_on}
        limits: dict[str, Any] = {"locked": locked, "coarse": coarse, "clicked": clicked}
        with self._slot(self._on_slice) as on_slice:
            outcome = corrector.carry_out(plan, self._slices, self.masks(), on_slice, confirm=confirm, **limits)
        for name, mask in outcome.masks.items():
            source = Source.USER if name in acts_on else states[name].source
            states[name] = states[name].edited(mask, source, is_drawn=False)
        self._add(StepKind.NOTE, [note], states)
        return outcome

    def reset(self, labels: Iterable[str]) -> None:
        """Forget labels, what was saved of them included.

        Raises:
            InputError: one of them is locked.
        """
        there = [name for name in labels if name in self.states]
        states = self._begin(there)
        self._add(StepKind.RESET, there, {name: state for name, state in states.items() if name not in there})

    def lock(self, *labels: str, only: bool = False) -> None:
        """Let no later step change labels; with ``only`` all others are unlocked."""
        kept = frozenset() if only else self.locked
        self._add(StepKind.LOCK, labels, dict(self.states), kept.union(labels))

    def undo(self) -> Step:
        """Take back the last step that is not undone, to the bit, and return it; an `InputError` if there is none."""
        undone = self.history.head
        self.history = self.history.undone()
        return undone

    def redo(self) -> Step:
        """Do the step again that was undone last, to the bit, and return it; an `InputError` if there is none."""
        self.history = self.history.redone()
        return self.history.head

    @contextmanager
    def one_step(self) -> Iterator[None]:
        """Count the steps within the block as one, named as the last of them; none is added if it raises."""
        before = self.history
        try:
            yield
        except BaseException:
            self.history = before
            raise
        if self.history is not before:
            self.history = before.then(self.history.head)

    def save(self, folder: Path) -> None:
        """Write all steps into a folder of the session's own, which holds the old or the new ones at any moment.

        Raises:
            OSError: it cannot be written.
        """
        self.history.save(folder)

    @classmethod
    def load(cls, folder: Path, predictor: Predictor, labels: Sequence[str] = (), **options: Any) -> InteractiveSession:
        """Open the session that `save` wrote; a new one, and a line in the log, if it is damaged."""
        return cls(predictor, labels, history=History.load(folder, predictor.slices.volume.shape), **options)

    def _begin(self, labels: Iterable[str] = ()) -> States:
        """Refuse a step about a locked label; return the states to work on."""
        if locked := sorted(self.locked.intersection(labels)):
            raise InputError(f"{', '.join(locked)} {'is' if len(locked) == 1 else 'are'} locked: unlock before.")
        self.spared = set()
        return dict(self.states)

    def _settle(self, states: States, label: str, refinement: Refinement, prompts: Prompts) -> Refinement:
        state, spared = settle(states, label, refinement.state, prompts, self.locked)
        self.spared |= spared
        return replace(refinement, state=state, mask=state.mask.unpack()) if spared else refinement

    def _add(self, kind: StepKind, about: Iterable[str], states: States, locked: frozenset[str] | None = None) -> None:
        """Add a step, unless it changes nothing."""
        head = self.history.head
        locked = head.locked if locked is None else locked
        for name in [name for name in states if is_unnamed(name)][:-MAX_UNNAMED]:
            del states[name]
        is_same = states.keys() == head.labels.keys() and all(states[n] is head.labels[n] for n in states)
        if not is_same or locked != head.locked:
            text = ", ".join("the structure" if is_unnamed(name) else name for name in about)
            self.history = self.history.then(Step(kind, text, states, locked))
