"""Interpreter of notes by a lexicon and rules, without a network or a chat model."""

from __future__ import annotations

from functools import lru_cache

from langchain_core.runnables import Runnable

from causal_sam.chat import is_local
from causal_sam.notes.division import split_into_fragments
from causal_sam.notes.mentions import NameFinder
from causal_sam.notes.reader import ClarificationNeeded, Reader
from causal_sam.notes.request import Interpretation, Interpreter, NoteRequest
from causal_sam.notes.schema import MAX_INTERVENTIONS, MAX_QUESTION_LENGTH, Plan
from causal_sam.notes.vocabulary import load_vocabulary
from causal_sam.text import load_lexicon

EMBEDDED = "embedded"
LABEL_LIST_CACHE_SIZE = 64  # label lists with a prepared `NameFinder`


class EmbeddedInterpreter(Interpreter):
    """Reads notes with a lexicon and rules.

    It does not guess: it answers an ambiguous note, or a request that no act can fulfil, with a question. A note can
    only choose among the acts. The interpreter is thread-safe.
    """

    run_type = "parser"

    def __init__(self) -> None:
        self._vocabulary = load_vocabulary()
        self._names = lru_cache(LABEL_LIST_CACHE_SIZE)(
            lambda labels: NameFinder(labels, load_lexicon(), self._vocabulary)
        )

    def _read(self, request: NoteRequest) -> Interpretation:
        return Interpretation(self._plan(request), EMBEDDED)

    def _plan(self, request: NoteRequest) -> Plan:
        names = self._names(request.labels)
        slice_mm = None if request.slices is None else request.slices.spacing_mm
        fragments = split_into_fragments(request.note, names, self._vocabulary, slice_mm)
        reader = Reader(names, self._vocabulary, request)
        try:
            found = reader.read(fragments)
        except ClarificationNeeded as clarification:
            return Plan(question=str(clarification)[:MAX_QUESTION_LENGTH])
        if not found:
            return Plan(question=reader.general_question()[:MAX_QUESTION_LENGTH])
        if len(found) > MAX_INTERVENTIONS:
            return Plan(question=f"Which of the {len(found)} corrections come first? {MAX_INTERVENTIONS} go at once.")
        return Plan(interventions=tuple(found))


def load_interpreter(
    llm: str | None = None, consent: bool = False, seconds: float | None = None
) -> Runnable[NoteRequest, Interpretation]:
    """Load an interpreter of notes.

    Args:
        llm: chat model as PROVIDER:MODEL of LangChain's `init_chat_model`, huggingface:FOLDER or gguf:FILE;
            None or "embedded" for the interpreter without a model.
        consent: whether de-identified notes may be sent to a remote model.
        seconds: time limit of the chat model for one note; None for the default.

    Raises:
        InputError: the name has another form, the model is remote and there is no consent, its package
            is missing, or it cannot be set up.
    """
    embedded = EmbeddedInterpreter()
    if llm is None or llm == EMBEDDED:
        return embedded
    # LangChain's agents take a second to import.
    from causal_sam.notes.chat import SECONDS, ChatInterpreter, load_language_model

    model = load_language_model(llm, consent)
    return ChatInterpreter(model, llm, embedded, is_remote=not is_local(llm), seconds=seconds or SECONDS)
