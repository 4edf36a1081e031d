"""The interpreter that needs neither a network nor a chat model: lexicon, rules, and sentence embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from causal_sam.errors import InputError
from causal_sam.intervention.fragments import Fragment, divide
from causal_sam.intervention.meaning import Meanings, masked
from causal_sam.intervention.mentions import Names
from causal_sam.intervention.reader import Reader, Unclear
from causal_sam.intervention.schema import LONGEST_QUESTION, MOST_INTERVENTIONS, Direction, Intervention, Plan, is_name
from causal_sam.intervention.vocabulary import load_vocabulary
from causal_sam.text import TextEncoder, load_lexicon, load_text_encoder

LONGEST_NOTE = 1000  # characters
MOST_LABELS = 500
KEPT_NAMES = 64  # lists of labels


@dataclass(frozen=True)
class NoteRequest:
    """A note, and what it is about.

    Args:
        note: as the clinician wrote it.
        labels: that are present, in the order in which the site lists them.
        current: the label that a note without a name is about.
        sides: label -> "left" or "right", the side of the body that it is on, where its name does not say it.

    Raises:
        InputError: the note is empty or too long, there is no label, or ``current`` or ``sides`` name another one.
    """

    note: str
    labels: tuple[str, ...]
    current: str | None = None
    sides: Mapping[str, Direction] = field(default_factory=dict)

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


class EmbeddedInterpreter(Runnable[NoteRequest, Plan]):
    """Reads notes with a lexicon and rules; what these do not know, it compares with examples by meaning.

    It does not guess: a note that is ambiguous, or asks for what no act can do, gives a question. A note can only
    choose among the acts, whatever it says. Any number of threads may share one.

    Args:
        encoder: of sentences; None to do without.
    """

    def __init__(self, encoder: TextEncoder | None = None) -> None:
        self._vocabulary = load_vocabulary()
        self._meanings = Meanings(encoder, self._vocabulary.examples) if encoder else None
        self._names = lru_cache(KEPT_NAMES)(lambda labels: Names(labels, load_lexicon(), self._vocabulary))

    def invoke(self, input: NoteRequest, config: RunnableConfig | None = None, **kwargs: Any) -> Plan:
        """Return the plan of a note.

        Args:
            input: the note and the labels.
            config: of LangChain, for tracing.
            kwargs: not used; LangChain passes them on.
        """
        return self._call_with_config(self._plan, input, config, run_type="parser")

    def _plan(self, request: NoteRequest) -> Plan:
        names = self._names(request.labels)
        fragments = divide(request.note, names, self._vocabulary)
        reader = Reader(names, self._vocabulary, request.sides, request.current)
        try:
            found = reader.read(fragments) or self._by_meaning(request, fragments)
        except Unclear as unclear:
            return Plan(question=str(unclear)[:LONGEST_QUESTION])
        if not found:
            return Plan(question=reader.ask_what()[:LONGEST_QUESTION])
        if len(found) > MOST_INTERVENTIONS:
            return Plan(question=f"Which of the {len(found)} corrections come first? {MOST_INTERVENTIONS} go at once.")
        return Plan(interventions=tuple(found))

    def _by_meaning(self, request: NoteRequest, fragments: list[Fragment]) -> list[Intervention]:
        marks = [mark for fragment in fragments for mark in fragment.marks]
        # Encoders hardly tell a sentence from its negation.
        is_no_match = any(mark.kind in ("not", "asks", "foreign", "wrong") for mark in marks)
        if self._meanings is None or not marks or is_no_match:
            return []
        action = self._meanings.action(masked([(mark.text, mark.mention is not None) for mark in marks]))
        if action is None:
            return []
        reader = Reader(self._names(request.labels), self._vocabulary, request.sides, request.current)
        return reader.read_as(action, fragments)


def load_interpreter() -> EmbeddedInterpreter:
    """Load the embedded interpreter, with the text encoder of the package."""
    return EmbeddedInterpreter(load_text_encoder())
