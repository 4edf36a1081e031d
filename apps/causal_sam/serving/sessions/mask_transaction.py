"""One request's changes to a working mask: made on a copy, one label a voxel, put back as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import FILE_ORDER, PackedMask, Volume
from causal_sam.prompting import Predictor
from causal_sam.prompting.prompts import Prompts
from serving.data.label_set import MAX_LABELS
from serving.data.saved_labels import SavedLabel, SavedLabels
from serving.requests.clicks import NO_PROMPTS, Clicks, Lasso, Options, slices_of
from serving.sessions.refinement import Refinement, Refiner, asks_for_change
from serving.sessions.working_masks import LabelState, Source, WorkingMask, is_unnamed

# The task that segments labels by their names; what it saves was made by nobody.
AUTOMATIC_MODEL = "causal_sam_organs"


class MaskTransaction:
    """One request's copy of a working mask: what fails on the way leaves the working mask as it was.

    A request changes the labels that it is about. Others lose the voxels that these gain, and nothing else, since a
    voxel belongs to one label. An accepted label gives way only to a request that clicks inside of it. Masks without a
    name are not in any label map, and stay apart.

    Attributes:
        volume: the image.
        current: name of the current label in the working mask; None in a label map without one.
        states: of all labels.
        notes: carried out and not undone.
        undone: texts of the notes that were undone.
        spared: names of the accepted labels that did not give way.
    """

    def __init__(
        self, working: WorkingMask, clicks: Clicks, options: Options, volume: Volume, saved: SavedLabel | None
    ) -> None:
        self.volume = volume
        self.is_label_map = clicks.is_label_map
        self.current = clicks.current
        if clicks.current is None and not clicks.is_label_map:
            self.current = working.unnamed_label(clicks.prompts[None])
        self.states = dict(working.labels)
        self.notes, self.undone = list(working.notes), working.undone
        self._working = working
        self._clicks = clicks
        self._options = options
        self._saved = saved
        self.spared: set[str] = set()
        self._draft: LabelState | None = None  # of the current label, with a lasso that nothing is decided from yet

    def state(self, name: str) -> LabelState:
        """State of a label; an empty one if there is none yet."""
        return self.states.get(name) or LabelState(PackedMask(self.volume.shape))

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """Masks of the labels that have a name and voxels."""
        named = {name: state for name, state in self.states.items() if not is_unnamed(name)}
        return {name: state.mask.unpack() for name, state in named.items() if not state.is_empty}

    def put(self, name: str, state: LabelState) -> None:
        """Give a label its new state; the voxels that it gained leave the other labels."""
        gained = state.mask.unpack() & ~self.state(name).mask.unpack()
        for other, theirs, shared in self._overlaps(name, gained):
            self.states[other] = theirs.edited(theirs.mask.unpack() & ~shared, theirs.source)
        self.states[name] = state

    def fill(self, name: str, mask: NDArray[np.bool_], axis: int) -> None:
        """Give a label the mask that was found by its name, but for the voxels of other labels."""
        mask = mask.copy()
        for _, _, shared in self._overlaps(name, mask):
            mask &= ~shared
        self.states[name] = LabelState.found(mask, axis)

    def take_over_saved(self, labels: SavedLabels) -> None:
        """Replace what was saved since the working mask last looked: brush edits reach the server only by saving."""
        if self._saved is None or self._saved.version == self._working.saved_version:
            return
        for name, mask in labels.masks(self._saved, self.volume).items():
            before = self.state(name)
            if before.source is not Source.ACCEPTED and not mask.any():
                continue  # clients name all their segments, also those that another client segments
            is_same = before.mask.same_as(PackedMask.pack(mask))
            source = before.source if is_same else Source.USER
            if self._saved.is_final:
                source = Source.ACCEPTED
            elif not is_same and self._saved.info.get("model") == AUTOMATIC_MODEL:
                source = Source.AUTOMATIC
            self.put(name, before.edited(mask, source))
            if not is_same:
                self.notes = []  # to undo them would undo what was drawn since, too

    def reset(self) -> None:
        """Start the labels that the request is about again from nothing, if the client asks for it."""
        if self._options.reset:
            for name in self._clicks.asked:
                self.states.pop(self._name(name), None)

    def take_over_lasso(self, lasso: Lasso, predictor: Predictor) -> None:
        """Let a closed curve be the mask that its slice is decided from; one taken over before is not again."""
        axis, frame = predictor.slices.axis, predictor.slices.frame
        state = self.state(self.current)
        record = state.slices.get(lasso.index(axis)) if state.axis == axis else None
        if record is None or record.box != lasso.box(axis):
            mask = state.mask.unpack()
            frame.insert(lasso.filled(frame), mask, lasso.index(axis))
            self._draft = state.edited(mask)

    def refine(
        self,
        refiner: Refiner,
        predictor: Predictor,
        *,
        follow: bool,
        watch: Callable[[str], Callable[[int], object]],
        only_new: bool = False,
    ) -> dict[str, Refinement]:
        """Change the labels as the request's prompts say, the current one last, and return what became of each.

        Args:
            refiner: of single labels.
            predictor: of the volume.
            follow: go on from the prompted slices through the volume.
            watch: name of a label -> what is called while it is followed.
            only_new: leave also the current label as it is if nothing new is said of it.
        """
        axis = predictor.slices.axis
        asked = [name for name in self._clicks.prompts if self._asks(name, axis, only_new)]
        if not (asked or only_new) and self.current is None:  # the same clicks again, perhaps with other options
            asked = [name for name in self._clicks.asked if self.state(name).source is not Source.ACCEPTED]
        refinements = {}
        for name in sorted(self._clicks.prompts, key=lambda each: each == self._clicks.current):
            ours = self._name(name)
            state, prompts = self.state(ours), self._own_prompts(name, axis)
            if self._draft is not None and ours == self.current:
                state = self._draft
            if name not in asked:
                refinements[ours] = Refinement.unchanged(state)
                continue
            refinement = refiner.refine(
                state,
                prompts,
                predictor,
                others=self._clicks.others(name),
                follow=follow,
                local=self._options.local,
                check=watch(ours),
            )
            refinements[ours] = self.settle(ours, refinement, prompts)
        return refinements

    def settle(self, name: str, refinement: Refinement, prompts: Prompts) -> Refinement:
        """Put the new state of a label, without what belongs to accepted labels in which nothing is prompted."""
        clicked = list(prompts.foreground)
        if prompts.box is not None:
            clicked.append(tuple((a + b) // 2 for a, b in zip(prompts.box[::2], prompts.box[1::2], strict=True)))
        mask = refinement.mask
        gained = mask & ~self.state(name).mask.unpack()
        for other, theirs, shared in self._overlaps(name, gained):
            if theirs.source is Source.ACCEPTED:
                inside = theirs.mask.unpack()
                if not any(inside[voxel] for voxel in clicked):
                    mask = mask & ~shared
                    self.spared.add(other)
        if mask is not refinement.mask:
            refinement = Refinement(
                refinement.state.edited(mask), mask, refinement.decided, refinement.followed, refinement.unused
            )
        self.put(name, refinement.state)
        return refinement

    def commit(self) -> None:
        """Put everything that changed into the working mask."""
        self._working.labels.clear()
        self._working.labels.update(self.states)
        self._working.notes, self._working.undone = self.notes, self.undone
        if self._saved is not None:
            self._working.saved_version = self._saved.version

    def _name(self, name: str | None) -> str:
        return self.current if name is None else name

    def _asks(self, name: str | None, axis: int, only_new: bool) -> bool:
        """Whether the request is about a label: the current or only one, or one of which it says something new."""
        prompts, state = self._clicks.prompts[name], self.state(self._name(name))
        is_current = self._clicks.asked == [name]
        if prompts == NO_PROMPTS:
            return False
        if is_current and not only_new:
            return True
        if not is_current and self.current is not None and state.source is Source.ACCEPTED:
            return False
        return asks_for_change(state, self._own_prompts(name, axis), axis)

    def _own_prompts(self, name: str | None, axis: int) -> Prompts:
        """The prompts of a label, with the background clicks of before where labels share these.

        In a request for a label map they belong to no label, so that one left out takes nothing back.
        """
        prompts, state = self._clicks.prompts[name], self.state(self._name(name))
        if not self.is_label_map or state.axis != axis:
            return prompts
        here = set(slices_of(prompts, axis)) & state.slices.keys()
        before = {voxel for index in here for voxel in state.slices[index].background}
        kept = before.difference(prompts.foreground, prompts.background)
        return Prompts(prompts.foreground, (*prompts.background, *sorted(kept)), prompts.box)

    def _overlaps(self, name: str, mask: NDArray[np.bool_]) -> Iterable[tuple[str, LabelState, NDArray[np.bool_]]]:
        """The labels that have voxels of a mask of another one: name, state and these voxels."""
        if is_unnamed(name):
            return
        box = PackedMask.pack(mask)
        for other, theirs in list(self.states.items()):
            if other == name or is_unnamed(other) or not box.touches(theirs.mask):
                continue
            shared = mask & theirs.mask.unpack()
            if shared.any():
                yield other, theirs, shared


def draw_label_map(
    states: Mapping[str, LabelState], values: Mapping[str, int], shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """Draw all labels of a working mask that have names into one map.

    Args:
        states: name -> state, as a `MaskTransaction` left them: no voxel belongs to two.
        values: the label set, name -> value.
        shape: of the volume.

    Returns:
        The map, and name -> value: those of the label set, and behind them those of other labels that the client named.

    Raises:
        InputError: these are more labels than values.
    """
    drawn = {name: state for name, state in states.items() if not is_unnamed(name) and not state.is_empty}
    beyond = [name for name in drawn if name not in values]
    names = {**values, **{name: len(values) + n for n, name in enumerate(beyond, start=1)}}
    if len(names) > MAX_LABELS:
        raise InputError(f"There are {len(names)} labels in this image, and a label map holds {MAX_LABELS}.")
    label_map = np.zeros(shape, dtype=np.uint8, order=FILE_ORDER)
    for name, state in drawn.items():
        label_map[state.mask.unpack()] = names[name]
    return label_map, names
