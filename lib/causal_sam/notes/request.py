"""What interpreters of notes are given, and what they give back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from langchain_core.runnables import Runnable, RunnableConfig

from causal_sam.errors import InputError
from causal_sam.notes.schema import Direction, Intervention, Plan, is_name

LONGEST_NOTE = 1000  # characters
MOST_LABELS = 500


class NoteContext(Protocol):
    """What an interpreter may ask of the image and its masks. Nothing is changed by it.

    Each may raise `InputError` with a sentence for the interpreter.
    """

    def measure(self, label: str) -> Mapping[str, Any]:
        """Measure the mask of a label: numbers by name, such as `measure_mask` gives them."""
        ...

    def style(self) -> str:
        """Describe how the image was made and looks, with nothing of the patient."""
        ...

    def preview(self, intervention: Intervention) -> str:
        """Say what an intervention would change."""
        ...


@dataclass(frozen=True)
class NoteRequest:
    """A note, and what it is about.

    Args:
        note: as the clinician wrote it.
        labels: that are present, in the order in which the site lists them.
        current: the label that a note without a name is about.
        sides: label -> "left" or "right", the side of the body that it is on, where its name does not say it.
        context: answers the questions of a chat model; None if there is only the note.

    Raises:
        InputError: the note is empty or too long, there is no label, or ``current`` or ``sides`` name another one.
    """

    note: str
    labels: tuple[str, ...]
    current: str | None = None
    sides: Mapping[str, Direction] = field(default_factory=dict)
    context: NoteContext | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if not self.note.strip():
            raise InputError("The note is empty; write what is wrong, such as: spleen leaks into the stomach.")
        if len(self.note) > LONGEST_NOTE:
            raise InputError(f"The note has {len(self.note)} characters, and {LONGEST_NOTE} is the most.")
        if not 0 < len(self.labels) <= MOST_LABELS or not all(map(is_name, self.labels)):
            raise InputError(f"A note needs 1 to {MOST_LABELS} labels that it can be about, each with a usable name.")
        unknown = {self.current or self.labels[0], *self.sides} - set(self.labels)
        if unknown:
            raise InputError(f"There is no label {min(unknown)!r}; present are {', '.join(self.labels)}.")
        if not set(self.sides.values()) <= {"left", "right"}:
            raise InputError("The side of a label must be left or right.")


@dataclass(frozen=True)
class Reading:
    """What an interpreter made of a note.

    Attributes:
        plan: what to do, or a question.
        interpreter: "embedded", or the name of the chat model that read it.
        notice: a sentence if the interpreter that was asked for could not be used; None otherwise.
    """

    plan: Plan
    interpreter: str
    notice: str | None = None


class Interpreter(Runnable[NoteRequest, Reading]):
    """What reads notes, as a step of LangChain.

    Attributes:
        run_type: what callbacks of LangChain are told it is.
    """

    run_type: ClassVar[str]

    def invoke(self, input: NoteRequest, config: RunnableConfig | None = None, **kwargs: Any) -> Reading:
        """Read a note.

        Args:
            input: the note and the labels.
            config: of LangChain, for the callbacks given in it; nothing goes to a tracing service.
            kwargs: not used; LangChain passes them on.
        """
        from langsmith import tracing_context

        with tracing_context(enabled=False):
            return self._call_with_config(self._read, input, config, run_type=self.run_type)

    @abstractmethod
    def _read(self, request: NoteRequest) -> Reading:
        """Read a note, without LangChain."""
