"""All prompts that a client holds, as clients send them with each request, and which of them are new to a session."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from causal_sam.prompting.label_state import UNNAMED, LabelState, Source, is_unnamed
from causal_sam.prompting.prompts import Prompts, Voxel


@dataclass(frozen=True)
class PromptSet:
    """The prompts of all labels.

    Attributes:
        current: the label that the client works on; None if it does not say.
        prompts: each label's own prompts.
        shares_background: background points belong to no label, so that one left out takes nothing back.
    """

    current: str | None
    prompts: dict[str, Prompts]
    shares_background: bool = False

    def __bool__(self) -> bool:
        return any(self.prompts.values())

    @property
    def about(self) -> list[str]:
        """The labels that it is about: the current one, else all with points inside of them or a box."""
        if self.current is not None:
            return [self.current]
        return [label for label, prompts in self.prompts.items() if prompts.foreground or prompts.box]

    def others(self, label: str) -> list[Voxel]:
        """Points inside of other labels: they are outside of this one, but say nothing about it by themselves."""
        own = set(self.prompts[label].foreground)
        theirs = (prompts.foreground for other, prompts in self.prompts.items() if other != label)
        return [voxel for points in theirs for voxel in points if voxel not in own]

    def on_slice(self, axis: int, index: int) -> PromptSet:
        """Keep what lies on one slice."""
        return replace(self, prompts={label: each.on_slice(axis, index) for label, each in self.prompts.items()})

    def with_earlier(self, states: Mapping[str, LabelState], axis: int) -> dict[str, Prompts]:
        """The prompts of each label, with the background points of earlier requests where labels share these."""
        if not self.shares_background:
            return self.prompts
        completed = {}
        for label, prompts in self.prompts.items():
            state = states.get(label)
            before = state.prompts_on(prompts.indices(axis), axis).background if state is not None else ()
            kept = set(before).difference(prompts.foreground, prompts.background)
            completed[label] = replace(prompts, background=(*prompts.background, *sorted(kept)))
        return completed

    def new_in(
        self, states: Mapping[str, LabelState], locked: Collection[str], axis: int, *, only_new: bool
    ) -> dict[str, Prompts]:
        """Return the labels to decide: the current or only one, and those whose prompts say something new.

        Args:
            states: states of all labels of the session.
            locked: labels that nothing changes.
            axis: voxel axis perpendicular to the slices.
            only_new: leave out the current label, too, if its prompts say nothing new.

        Returns:
            Label -> prompts to decide it from.
        """
        completed = self.with_earlier(states, axis)
        closed = {*locked, *(label for label, state in states.items() if state.source is Source.ACCEPTED)}

        def is_requested(label: str, prompts: Prompts) -> bool:
            if not self.prompts[label] or label in locked:
                return False
            is_current = self.about == [label]
            if is_current and not only_new:
                return True
            if label in closed and not is_current and self.current is not None:
                return False
            if label not in states:
                return bool(prompts.foreground or prompts.box)
            return states[label].asks_for_change(prompts, axis)

        requested = [label for label, prompts in completed.items() if is_requested(label, prompts)]
        if not (requested or only_new) and self.current is None:  # the same prompts again, perhaps with other options
            requested = [label for label in self.about if label not in closed]
        return {label: completed[label] for label in requested}


def find_unnamed(states: Mapping[str, LabelState], prompts: Prompts) -> str:
    """Find the mask that prompts without a label name belong to; a new name if there is none.

    OHIF sends the points of its current label, but not which label that is. It sends all of them each time, so the mask
    is the one that was made from some of the same foreground points, or from the same box. Background points do not
    tell: in OHIF all labels share them.
    """
    shared = {name: state.in_common(prompts) for name, state in states.items() if is_unnamed(name)}
    best = max(shared, key=shared.__getitem__, default=None)
    if best is not None and shared[best]:
        return best
    return f"{UNNAMED} {1 + max((int(name.removeprefix(UNNAMED)) for name in shared), default=0)}"
