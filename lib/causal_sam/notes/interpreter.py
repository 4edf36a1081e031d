"""The interpreter that needs neither a network nor a chat model: a lexicon and rules."""

from __future__ import annotations

from functools import lru_cache

from langchain_core.runnables import Runnable

from causal_sam.chat import is_local
from causal_sam.notes.fragments import divide
from causal_sam.notes.mentions import Names
from causal_sam.notes.reader import Reader, Unclear
from causal_sam.notes.request import Interpreter, NoteRequest, Reading
from causal_sam.notes.schema import LONGEST_QUESTION, MOST_INTERVENTIONS, Plan
from causal_sam.notes.vocabulary import load_vocabulary
from causal_sam.text import load_lexicon

EMBEDDED = "embedded"
KEPT_NAMES = 64  # lists of labels


class EmbeddedInterpreter(Interpreter):
    """Reads notes with a lexicon and rules.

    It does not guess: it answers a note that is ambiguous, or that asks for something no act can do, with a question.
    A note can only choose among the acts, whatever it says. Threads may share one interpreter.
    """

    run_type = "parser"

    def __init__(self) -> None:
        self._vocabulary = load_vocabulary()
        self._names = lru_cache(KEPT_NAMES)(lambda labels: Names(labels, load_lexicon(), self._vocabulary))

    def _read(self, request: NoteRequest) -> Reading:
        return Reading(self._plan(request), EMBEDDED)

    def _plan(self, request: NoteRequest) -> Plan:
        names = self._names(request.labels)
        fragments = divide(request.note, names, self._vocabulary)
        reader = Reader(names, self._vocabulary, request.sides, request.current)
        try:
            found = reader.read(fragments)
        except Unclear as unclear:
            return Plan(question=str(unclear)[:LONGEST_QUESTION])
        if not found:
            return Plan(question=reader.ask_what()[:LONGEST_QUESTION])
        if len(found) > MOST_INTERVENTIONS:
            return Plan(question=f"Which of the {len(found)} corrections come first? {MOST_INTERVENTIONS} go at once.")
        return Plan(interventions=tuple(found))


def load_interpreter(
    llm: str | None = None, consent: bool = False, seconds: float | None = None
) -> Runnable[NoteRequest, Reading]:
    """Load an interpreter of notes.

    Args:
        llm: a chat model, PROVIDER:MODEL, as LangChain's `init_chat_model` takes it, huggingface:FOLDER or gguf:FILE;
            None or "embedded" for the interpreter that needs none.
        consent: whether notes, without what may say something of a person, may be sent to a remote model.
        seconds: the longest wait for the chat model; None for the usual time.

    Raises:
        InputError: the name is of another form, the model is not on this machine and there is no consent, its package
            is missing, or it cannot be set up.
    """
    embedded = EmbeddedInterpreter()
    if llm is None or llm == EMBEDDED:
        return embedded
    # Agents take a second to import, which nobody else should wait for.
    from causal_sam.notes.chat import SECONDS, ChatInterpreter, load_language_model

    model = load_language_model(llm, consent)
    return ChatInterpreter(model, llm, embedded, is_remote=not is_local(llm), seconds=seconds or SECONDS)
