"""The interpreter that asks a chat model: an agent with read-only tools, whose answer is checked before it counts."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelCallLimitMiddleware
from langchain.agents.structured_output import StructuredOutputValidationError, ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable
from pydantic import BaseModel, Field, ValidationError, create_model, field_validator, model_validator

from causal_sam.chat import Use, load_chat_model, within
from causal_sam.chat.models import GGUF, HUGGING_FACE
from causal_sam.errors import InputError
from causal_sam.notes.chat_tools import make_tools, problem
from causal_sam.notes.laterality import side_of
from causal_sam.notes.privacy import scrub
from causal_sam.notes.request import Interpreter, NoteRequest, Reading
from causal_sam.notes.schema import Action, Direction, Plan, Strength

logger = logging.getLogger(__name__)

LANGUAGE = Use("chat model", "ollama:llama3.1", "notes", "llm")
SECONDS = 30.0
# Answers of the model to one note, with those that ask for tools; answers that may be a plan.
MOST_CALLS = 8
ATTEMPTS = 2
LONGEST_REASON = 300  # characters
IN_TEXT = (
    "\nNo tools can be called. Answer with one JSON object and nothing else: "
    '{"interventions": [...]} or {"question": "..."}.\n'
)
_NOTHING = (None, [], "", "none", "None", "null")


class _Act(BaseModel):
    """One act on one label."""

    label: str
    action: Action
    direction: Direction | None = Field(None, description="Where on the label, as a direction of the patient.")
    near: str | None = Field(None, description="The neighbour; exclude needs it.")
    slices: list[int] | None = Field(None, description="The first and the last slice.")
    extent_mm: float | None = Field(None, description="How far, in millimetres, if the note says.")
    strength: Strength = "moderate"

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, content: Any) -> Any:
        """Models write "none" and more for what is not there."""
        if not isinstance(content, Mapping):
            return content
        return {key: value for key, value in content.items() if value not in _NOTHING}

    @field_validator("near")
    @classmethod
    def _is_name(cls, near: str | None) -> str | None:
        if near is not None and "[" in near:
            raise ValueError("must be the name of a structure; if that was taken out, ask for it")
        return near


class _Answer(BaseModel):
    """The plan of the note: interventions in its order, or a question."""

    interventions: list[_Act] = Field(default_factory=list)
    question: str | None = Field(None, description="To the clinician, if nothing can be done.")

    @model_validator(mode="after")
    def _is_plan(self) -> _Answer:
        try:
            self.plan()
        except ValidationError as error:
            raise ValueError(problem(error)) from error
        return self

    def plan(self) -> Plan:
        """Return the plan, with each intervention once."""
        acts = list({json.dumps(act): act for act in self.model_dump()["interventions"]}.values())
        return Plan.model_validate({"interventions": acts, "question": self.question or None})


class ChatInterpreter(Interpreter):
    """Reads notes with a chat model, and where it fails, with another interpreter.

    The model can only look things up, and answer with a plan for labels that are present, or a question; an answer of
    another form is sent back once with what is wrong. A model that cannot call tools is asked for JSON. Any number of
    threads may share one.

    What a remote model is sent: the instructions, the names of the labels as they are, on which side of the body they
    are, the note after `scrub`, and what tools answer: numbers, and words after `scrub`. Nothing of headers, no pixels.

    Args:
        model: of LangChain.
        name: which the reading gives.
        fallback: reads the note if the model fails.
        is_remote: whether what the model is sent leaves this machine.
        seconds: the longest wait for the plan of a note.
    """

    run_type = "chain"

    def __init__(
        self,
        model: BaseChatModel,
        name: str,
        fallback: Runnable[NoteRequest, Reading],
        is_remote: bool,
        seconds: float = SECONDS,
    ) -> None:
        self._model, self._name, self._fallback = model, name, fallback
        self._is_remote, self._seconds = is_remote, seconds
        self._calls_tools = True

    def _read(self, request: NoteRequest) -> Reading:
        conversation = _Conversation(self._model, request, self._is_remote, self._calls_tools)
        try:
            plan = within(self._seconds, conversation.plan)
        except Exception as error:  # providers fail in their own ways, and none may stop the work
            reason = _short(error)
            logger.warning("%s did not read a note: %s", self._name, type(error).__name__)  # the reason may quote it
            reading = self._fallback.invoke(request)
            notice = f"{self._name} could not be used ({reason}), so the {reading.interpreter} interpreter read it."
            return Reading(reading.plan, reading.interpreter, notice)
        finally:
            conversation.stop()
        self._calls_tools = conversation.calls_tools
        return Reading(plan, self._name)


class _Conversation:
    """What is said with a model about one note.

    Attributes:
        calls_tools: whether the model can, as far as is known.
    """

    def __init__(self, model: BaseChatModel, request: NoteRequest, is_remote: bool, calls_tools: bool) -> None:
        self._model, self._stopped = model, threading.Event()
        self.calls_tools = calls_tools

        def clean(text: str) -> str:
            return scrub(text, request.labels) if is_remote else text

        label = (Literal[request.labels], ...)
        act = create_model("Intervention", __base__=_Act, __doc__=_Act.__doc__, label=label)
        acts = (list[act], Field(default_factory=list))
        self._answer = create_model("Plan", __base__=_Answer, __doc__=_Answer.__doc__, interventions=acts)
        self._tools = make_tools(request, act, clean, self._check)
        sides = {label: request.sides.get(label) or side_of(label) for label in request.labels}
        self._note = json.dumps(
            {
                "note": clean(request.note),
                "labels": request.labels,
                "current": request.current,
                "sides": {label: side for label, side in sides.items() if side},
            },
            ensure_ascii=False,
        )

    def stop(self) -> None:
        """Say nothing more to the model, and let it look up nothing more, even if it is left behind."""
        self._stopped.set()

    def plan(self) -> Plan:
        """Ask for the plan of the note.

        Raises:
            InputError: the model's answers cannot be used.
            Exception: of the provider.
        """
        if self.calls_tools:
            try:
                state = self._ask_agent()
            except Exception as error:
                if not _is_about_tools(error):
                    raise
                self.calls_tools = False
            else:
                answer = state.get("structured_response")
                if answer is not None:
                    return answer.plan()
                try:
                    return self._parsed(state["messages"][-1].text)
                except (InputError, ValidationError):
                    pass  # it spoke instead of answering: it is asked in plain words
        return self._ask_in_text()

    def _ask_agent(self) -> dict[str, Any]:
        problems: list[str] = []

        def once(error: Exception) -> str:
            cause = error.source.__cause__ if isinstance(error, StructuredOutputValidationError) else None
            problems.append(problem(cause) if isinstance(cause, ValidationError) else str(error))
            if len(problems) == ATTEMPTS:
                raise InputError(f"its answer cannot be used: {problems[-1]}")
            return f"This cannot be used: {problems[-1]}. Answer again."

        agent = create_agent(
            self._model,
            self._tools,
            system_prompt=_instructions(),
            middleware=[
                ModelCallLimitMiddleware(run_limit=MOST_CALLS, exit_behavior="error"),
                _Stop(self._check),
            ],
            response_format=ToolStrategy(self._answer, handle_errors=once),
        )
        return agent.invoke({"messages": [HumanMessage(self._note)]})

    def _ask_in_text(self) -> Plan:
        messages: list[BaseMessage] = [SystemMessage(_instructions() + IN_TEXT), HumanMessage(self._note)]
        said = ""
        for _ in range(ATTEMPTS):
            self._check()
            text = self._model.invoke(messages).text
            try:
                return self._parsed(text)
            except ValidationError as error:
                said = problem(error)
            except InputError as error:
                said = str(error)
            messages += [AIMessage(text), HumanMessage(f"This cannot be used: {said}. Answer with JSON again.")]
        raise InputError(f"its answer cannot be used: {said}")

    def _parsed(self, text: str) -> Plan:
        """The plan of the first JSON object in a text.

        Raises:
            InputError: there is none.
            ValidationError: it is no plan.
        """
        decoder = json.JSONDecoder()
        for place, letter in enumerate(text):
            if letter == "{":
                try:
                    content, _ = decoder.raw_decode(text, place)
                except ValueError:
                    continue
                return self._answer.model_validate(content).plan()
        raise InputError("it holds no JSON object")

    def _check(self) -> None:
        if self._stopped.is_set():
            raise TimeoutError("nobody waits for the answer any more")


class _Stop(AgentMiddleware):
    """Calls a check before the model is asked."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self._check = check

    def before_model(self, state: Any, runtime: Any) -> None:
        self._check()


def load_language_model(name: str, consent: bool) -> BaseChatModel:
    """Make a chat model that reads notes.

    Args:
        name: PROVIDER:MODEL, as LangChain's `init_chat_model` takes it; the weights of huggingface:FOLDER and gguf:FILE
            are loaded into this process.
        consent: whether notes may leave this machine.

    Raises:
        InputError: the name is of another form, the model is not on this machine and there is no consent, its package
            is missing, or it cannot be set up.
    """
    provider, _, model = name.partition(":")
    if model and provider in (GGUF, HUGGING_FACE):
        from causal_sam.chat.local import load_gguf, load_hugging_face

        return load_gguf(model) if provider == GGUF else load_hugging_face(model)
    return load_chat_model(name, consent, LANGUAGE)


@cache
def _instructions() -> str:
    return Path(__file__).with_name("chat_prompt.md").read_text(encoding="utf-8")


def _is_about_tools(error: Exception) -> bool:
    """Whether a model, or its server, refuses to be given tools."""
    is_own = isinstance(error, InputError | TimeoutError)
    return isinstance(error, NotImplementedError) or (not is_own and "tool" in str(error).lower())


def _short(error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"
