"""The chain of a session's steps, in memory and on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from causal_sam.atomic import atomic_write
from causal_sam.errors import InputError
from causal_sam.imaging import PackedMask
from causal_sam.prompting.label_state import LabelState, Source, put, state_of

logger = logging.getLogger(__name__)

MAX_STEPS = 100
MAX_BYTES = 64 * 2**20
FORMAT = 1
CHAIN_FILE, STATE_SUFFIX = "session.json", ".state"
# Files hold what clinicians wrote and drew.
FOLDER_MODE, FILE_MODE = 0o700, 0o600
_STATE = TypeAdapter(LabelState)


class StepKind(Enum):
    """Kind of a step, as the beginning of a sentence about it."""

    START = "start of"
    PROMPTS = "prompts for"
    SCRIBBLE = "scribbles for"
    MASK = "drawing of"
    NAME = "automatic segmentation of"
    NOTE = "note"
    RESET = "reset of"
    LOCK = "lock of"


@dataclass(frozen=True, eq=False)
class Step:
    """One step, with the whole state that it leaves.

    Attributes:
        kind: kind of the step.
        about: the labels, or the text of a note.
        labels: name -> state of all labels after it.
        locked: names of the labels that no step changes.
    """

    kind: StepKind = StepKind.START
    about: str = ""
    labels: Mapping[str, LabelState] = field(default_factory=dict)
    locked: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return repr(self.about) if self.kind is StepKind.NOTE else f"{self.kind.value} {self.about}"


@dataclass(frozen=True, eq=False)
class History:
    """The chain of a session's steps.

    Attributes:
        steps: the oldest first; the first one cannot be undone.
        position: index of the step that is shown; those behind it are undone and can be redone.
        saved_version: version of the last saved label that was taken over; None if none was.
        notes: texts of all notes that were carried out, undone or not.
    """

    steps: tuple[Step, ...] = (Step(),)
    position: int = 0
    saved_version: str | None = None
    notes: frozenset[str] = frozenset()

    @property
    def head(self) -> Step:
        """The step that is shown."""
        return self.steps[self.position]

    @property
    def last_note(self) -> str | None:
        """The note that was carried out last and is not undone."""
        done = reversed(self.steps[: self.position + 1])
        return next((step.about for step in done if step.kind is StepKind.NOTE), None)

    @property
    def nbytes(self) -> int:
        """Approximate memory of all labels in all steps, each state once."""
        return sum(state.nbytes for state in self._states().values())

    def then(self, step: Step) -> History:
        """Add a step behind the one that is shown; the oldest are forgotten where there are too many, or too large."""
        notes = self.notes | {step.about} if step.kind is StepKind.NOTE else self.notes
        steps = (*self.steps[: self.position + 1], step)[-MAX_STEPS:]
        history = replace(self, steps=steps, position=len(steps) - 1, notes=notes)
        while len(history.steps) > 2 and history.nbytes > MAX_BYTES:
            history = replace(history, steps=history.steps[1:], position=history.position - 1)
        return history

    def undone(self) -> History:
        """Move one step back.

        Raises:
            InputError: there is none.
        """
        if not self.position:
            raise InputError(
                "There is nothing to undo: no earlier step is kept since the labels of the image were last saved."
            )
        return replace(self, position=self.position - 1)

    def redone(self) -> History:
        """Move one step forward.

        Raises:
            InputError: there is none.
        """
        if self.position + 1 == len(self.steps):
            raise InputError("There is nothing to redo: no step was undone, or something else was done since.")
        return replace(self, position=self.position + 1)

    def renamed(self, old: str, new: str) -> History:
        """Say that a mask is of another label. It is no step: it was so from the beginning."""
        return self._with_labels({new if name == old else name: state for name, state in self.head.labels.items()})

    def with_saved(
        self,
        masks: Mapping[str, NDArray[np.bool_]],
        version: str,
        *,
        accepted: bool,
        automatic: bool,
        is_whole: bool = False,
    ) -> History:
        """Take over a label map that was saved elsewhere: brush edits of a client come only so.

        It is not a step, since undoing it would not undo the saving. If it changes a mask, the chain starts again.

        Args:
            masks: (I, J, K) by name. An empty one erases an accepted label only: clients name all their labels, also
                those that another client segments.
            version: another one means that a label was saved since.
            accepted: a person accepted it.
            automatic: the masks were segmented by name, and nobody has corrected them.
            is_whole: the masks are all that the label map has: if a person accepted it, labels that were accepted
                before and that it lacks were removed.
        """
        states, is_changed = dict(self.head.labels), False
        if accepted and is_whole:
            removed = [name for name, state in states.items() if state.source is Source.ACCEPTED and name not in masks]
            masks = {**masks, **{name: np.zeros(states[name].mask.shape, bool) for name in removed}}
        for name, mask in masks.items():
            before = state_of(states, name, mask.shape)
            if before.source is not Source.ACCEPTED and not mask.any():
                continue
            is_same = before.mask.same_as(PackedMask.pack(mask))
            source = before.source if is_same else Source.AUTOMATIC if automatic else Source.USER
            put(states, name, before.edited(mask, Source.ACCEPTED if accepted else source))
            is_changed |= not is_same
        history = self._with_labels(states) if masks else self
        if is_changed:
            history = replace(history, steps=(replace(history.head, kind=StepKind.START),), position=0)
        return replace(history, saved_version=version)

    def _with_labels(self, labels: Mapping[str, LabelState]) -> History:
        """Replace the labels of the step that is shown, and forget those behind it."""
        return replace(self, steps=(*self.steps[: self.position], replace(self.head, labels=labels)))

    def save(self, folder: Path) -> None:
        """Write the chain into a folder of its own; a process killed meanwhile leaves the earlier chain.

        Each state has a file that is written once, so that a step costs its own changes alone.

        Raises:
            OSError: it cannot be written.
        """
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        states = self._states()
        for key, state in states.items():
            if not (path := folder / f"{key}{STATE_SUFFIX}").exists():
                _write(path, _STATE.dump_json(state, exclude={"key"}))
        steps = [
            [step.kind.name, step.about, {n: s.key for n, s in step.labels.items()}, sorted(step.locked)]
            for step in self.steps
        ]
        content = {"format": FORMAT, "steps": steps, "position": self.position, "saved_version": self.saved_version}
        _write(folder / CHAIN_FILE, json.dumps(content | {"notes": sorted(self.notes)}).encode())
        for path in folder.glob(f"*{STATE_SUFFIX}"):
            if path.stem not in states:
                path.unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path, shape: tuple[int, ...]) -> History:
        """Read a chain; a new one if there is none, or if it is damaged or of another volume, which the log says.

        Args:
            folder: folder that `save` wrote to.
            shape: shape of the volume.
        """
        path = folder / CHAIN_FILE
        if not path.exists():
            return cls()
        try:
            content = json.loads(path.read_bytes())
            if content["format"] != FORMAT:
                raise ValueError(f"it has format {content['format']}, and {FORMAT} is read")
            keys = {key for _, _, labels, _ in content["steps"] for key in labels.values()}
            states = {key: _read(folder / f"{Path(key).name}{STATE_SUFFIX}", shape) for key in keys}
            steps = tuple(
                Step(StepKind[kind], about, {n: states[key] for n, key in labels.items()}, frozenset(locked))
                for kind, about, labels, locked in content["steps"]
            )
            if not 0 <= content["position"] < len(steps):
                raise ValueError("it shows a step that it does not hold")
            return cls(steps, content["position"], content["saved_version"], frozenset(content["notes"]))
        except Exception as error:  # damaged files fail in their own ways
            logger.warning("The session in %s cannot be used, and a new one is begun: %s", folder, type(error).__name__)
            return cls()

    def _states(self) -> dict[str, LabelState]:
        return {state.key: state for step in self.steps for state in step.labels.values()}


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as part:
        part.touch(FILE_MODE)
        part.write_bytes(content)


def _read(path: Path, shape: tuple[int, ...]) -> LabelState:
    state = _STATE.validate_json(path.read_bytes())
    if state.mask.shape != shape:
        raise ValueError(f"it is of a volume of {state.mask.shape} voxels, not {shape}")
    object.__setattr__(state, "key", path.stem)
    return state
