"""Input and output of interpreters of notes, and their base class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from langchain_core.runnables import Runnable, RunnableConfig

from causal_sam.errors import InputError
from causal_sam.notes.schema import Direction, Intervention, Plan, is_valid_name

Plane = Literal["axial", "coronal", "sagittal"]
MAX_NOTE_LENGTH = 1000  # characters
MAX_LABELS = 500


class NoteContext(Protocol):
    """Read-only access of an interpreter to the image and its masks.

    Each method may raise `InputError` with a sentence for the interpreter.
    """

    def measure(self, label: str) -> Mapping[str, Any]:
        """Measure the mask of a label; see `measure_mask` for the names and units."""
        ...

    def style(self) -> str:
        """Describe acquisition and appearance of the image, without patient data."""
        ...

    def probability_beside(self, label: str) -> Mapping[str, Any]:
        """Compare the mask of a label with where the context of the volume expects it, by patient direction.

        Returns:
            ``certainty`` of the context, 0 to 1; ``probable_ml``: direction -> volume outside the mask that probably
            belongs to it; ``improbable_ml``: direction -> volume of the mask that probably does not;
            ``mean_probability``: direction -> mean probability just outside of the mask.
        """
        ...

    def plausible_end(self, label: str, direction: Direction) -> Mapping[str, Any]:
        """Say where a label plausibly ends in a direction.

        Returns:
            ``beyond_mask_mm``: distance from the end of the mask, negative if the mask goes too far; ``slice``: number
            of that slice in the viewer, if the direction crosses the slices.
        """
        ...

    def preview(self, interventions: Sequence[Intervention], on_slice: Callable[[int], object]) -> str:
        """Describe the effect of all interventions of a plan without applying them.

        Args:
            interventions: interventions in their order.
            on_slice: called with the number of processed slices; its exceptions end the preview.
        """
        ...


@dataclass(frozen=True)
class ImageSlices:
    """Slices of the image that a note counts: "two slices short", "above slice 17", "the last three slices".

    Attributes:
        count: number of slices; the viewer counts them from 1.
        spacing_mm: distance between neighbouring slices in mm.
        is_axial: True if they are axial, which the viewer counts from the head.
        nonempty: label -> first and last slice of its mask.
        plane: their plane; None for any but the axial one if it is not known.
    """

    count: int
    spacing_mm: float
    is_axial: bool
    nonempty: Mapping[str, tuple[int, int]]
    plane: Plane | None = None


@dataclass(frozen=True)
class NoteRequest:
    """A note with the labels that it may refer to.

    Args:
        note: text of the clinician.
        labels: labels that are present, in the site's order.
        current: label that a note without a name refers to.
        sides: label -> "left" or "right" side of the body, where the name does not determine it.
        slices: slices of the image; None if they are not known, so that a note that counts them gives a question.
        context: read-only access for tools of a chat model; None for none.

    Raises:
        InputError: the note is empty or too long, there is no label, or ``current`` or ``sides`` name an unknown one.
    """

    note: str
    labels: tuple[str, ...]
    current: str | None = None
    sides: Mapping[str, Direction] = field(default_factory=dict)
    slices: ImageSlices | None = None
    context: NoteContext | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if not self.note.strip():
            raise InputError("The note is empty; write what is wrong, such as: spleen leaks into the stomach.")
        if len(self.note) > MAX_NOTE_LENGTH:
            raise InputError(f"The note has {len(self.note)} characters, and {MAX_NOTE_LENGTH} is the most.")
        if not 0 < len(self.labels) <= MAX_LABELS or not all(map(is_valid_name, self.labels)):
            raise InputError(f"A note needs 1 to {MAX_LABELS} labels that it can be about, each with a usable name.")
        unknown = {self.current or self.labels[0], *self.sides} - set(self.labels)
        if unknown:
            raise InputError(f"There is no label {min(unknown)!r}; present are {', '.join(self.labels)}.")
        if not set(self.sides.values()) <= {"left", "right"}:
            raise InputError("The side of a label must be left or right.")


@dataclass(frozen=True)
class Interpretation:
    """Result of an interpreter.

    Attributes:
        plan: interventions, or a question.
        interpreter: "embedded", or the name of the chat model that read the note.
        notice: sentence for the user if the requested interpreter failed; None otherwise.
        choices: plans to choose from, where the plan is a question and its answer may be one of them.
    """

    plan: Plan
    interpreter: str
    notice: str | None = None
    choices: tuple[Plan, ...] = ()


class Interpreter(Runnable[NoteRequest, Interpretation]):
    """Base class of interpreters, as a LangChain runnable.

    Attributes:
        run_type: run type for callbacks of LangChain.
    """

    run_type: ClassVar[str]

    def invoke(self, input: NoteRequest, config: RunnableConfig | None = None, **kwargs: Any) -> Interpretation:
        """Read a note.

        Args:
            input: note with its labels.
            config: LangChain configuration with callbacks; tracing is disabled.
            kwargs: unused; part of LangChain's signature.
        """
        from langsmith import tracing_context

        with tracing_context(enabled=False):
            return self._call_with_config(self._read, input, config, run_type=self.run_type)

    @abstractmethod
    def _read(self, request: NoteRequest) -> Interpretation:
        """Read a note without LangChain's callbacks."""
