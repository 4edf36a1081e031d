"""Interpreter that asks a chat model: an agent with read-only tools, whose answer is validated before use."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
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

from causal_sam.chat import ModelUse, call_with_timeout, load_chat_model
from causal_sam.chat.models import GGUF, HUGGING_FACE
from causal_sam.errors import InputError
from causal_sam.notes.chat_tools import make_tools
from causal_sam.notes.laterality import side_of
from causal_sam.notes.privacy import scrub
from causal_sam.notes.request import Interpretation, Interpreter, NoteRequest
from causal_sam.notes.schema import Action, Direction, Plan, Strength, first_error

logger = logging.getLogger(__name__)

NOTE_MODEL = ModelUse("chat model", "ollama:llama3.1", "notes", "llm")
SECONDS = 30.0
# Limits for one note: answers of the model, including tool calls; attempts at a plan.
MAX_MODEL_CALLS = 8
MAX_ATTEMPTS = 2
MAX_REASON_LENGTH = 300  # characters
JSON_ONLY = (
    "\nNo tools can be called. Answer with one JSON object and nothing else: "
    '{"interventions": [...]} or {"question": "..."}.\n'
)
_EMPTY_VALUES: tuple[Any, ...] = (None, [], "", "none", "None", "null")


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
    def _drop_empty_values(cls, content: Any) -> Any:
        """Drop fields that models fill with "none" and the like instead of leaving them out."""
        if not isinstance(content, Mapping):
            return content
        return {key: value for key, value in content.items() if value not in _EMPTY_VALUES}

    @field_validator("near")
    @classmethod
    def _check_name(cls, near: str | None) -> str | None:
        if near is not None and "[" in near:
            raise ValueError("must be the name of a structure; if the name was removed, ask for it")
        return near


class _Answer(BaseModel):
    """The plan of the note: interventions in the order of the note, or a question."""

    interventions: list[_Act] = Field(default_factory=list)
    question: str | None = Field(None, description="To the clinician, if nothing can be done.")

    @model_validator(mode="after")
    def _check_plan(self) -> _Answer:
        try:
            plan = self.plan()
        except ValidationError as error:
            raise ValueError(first_error(error)) from error
        kept = {act.label for act in plan.interventions if act.action == "keep" and act.slices is None}
        changed = [act.label for act in plan.interventions if act.action != "keep" and act.label in kept]
        if changed:
            raise ValueError(f"{changed[0]} is kept and changed: keep binds all other acts, so ask which is meant")
        return self

    def plan(self) -> Plan:
        """Return the plan, with each intervention once."""
        acts = list({json.dumps(act): act for act in self.model_dump()["interventions"]}.values())
        return Plan.model_validate({"interventions": acts, "question": self.question or None})


class ChatInterpreter(Interpreter):
    """Reads notes with a chat model, and with another interpreter if the model fails.

    The model can only call read-only tools and answer with a plan for the present labels or with a question. An invalid
    answer is returned to the model once, with the error. A model that cannot call tools is asked for JSON. The
    interpreter is thread-safe.

    Before it answers it may preview plans, a few times, and revise them; every preview ends with the time limit.

    A remote model receives the instructions, the unchanged names of the labels, the side of the body and the slices of
    each label, the note after `scrub`, and the answers of tools: numbers, and text after `scrub`. It receives no
    headers or pixels.

    Args:
        model: chat model of LangChain.
        name: name of the model in the interpretation and in messages.
        fallback: interpreter that reads the note if the model fails.
        is_remote: whether requests to the model leave this machine.
        seconds: time limit for one note, in seconds.
    """

    run_type = "chain"

    def __init__(
        self,
        model: BaseChatModel,
        name: str,
        fallback: Runnable[NoteRequest, Interpretation],
        is_remote: bool,
        seconds: float = SECONDS,
    ) -> None:
        self._model, self._name, self._fallback = model, name, fallback
        self._is_remote, self._seconds = is_remote, seconds
        self._calls_tools = True

    def _read(self, request: NoteRequest) -> Interpretation:
        conversation = _Conversation(self._model, request, self._is_remote, self._calls_tools)
        try:
            plan = call_with_timeout(self._seconds, conversation.plan)
        except Exception as error:  # providers raise errors of their own, and none may fail the request
            reason = _short(error)
            # The log omits the reason, which may quote the note.
            logger.warning("%s did not read a note: %s", self._name, type(error).__name__)
            reading = self._fallback.invoke(request)
            notice = f"{self._name} could not be used ({reason}), so the {reading.interpreter} interpreter read it."
            return replace(reading, notice=notice)
        finally:
            conversation.stop()
        self._calls_tools = conversation.calls_tools
        return Interpretation(plan, self._name)


class _Conversation:
    """Conversation with a model about one note.

    Attributes:
        calls_tools: whether the model can call tools, as far as is known.
    """

    def __init__(self, model: BaseChatModel, request: NoteRequest, is_remote: bool, calls_tools: bool) -> None:
        self._model, self._stopped = model, threading.Event()
        self.calls_tools = calls_tools

        def clean(text: str) -> str:
            return scrub(text, request.labels) if is_remote else text

        # Models that are made at run time have no static type.
        label: Any = (Literal[request.labels], ...)
        act: Any = create_model("Intervention", __base__=_Act, __doc__=_Act.__doc__, label=label)
        acts: Any = (list[act], Field(default_factory=list))
        self._answer = create_model("Plan", __base__=_Answer, __doc__=_Answer.__doc__, interventions=acts)
        self._tools = make_tools(request, act, clean, self._check_not_stopped)
        sides = {label: request.sides.get(label) or side_of(label) for label in request.labels}
        message: dict[str, Any] = {
            "note": clean(request.note),
            "labels": request.labels,
            "current": request.current,
            "sides": {label: side for label, side in sides.items() if side},
        }
        if request.slices is not None:
            message["slices"] = {"count": request.slices.count, "masks": dict(request.slices.nonempty)}
        self._note = json.dumps(message, ensure_ascii=False)

    def stop(self) -> None:
        """Refuse further calls of the model and its tools, also from a thread that nobody waits for."""
        self._stopped.set()

    def plan(self) -> Plan:
        """Ask for the plan of the note.

        Raises:
            InputError: the model's answers cannot be used.
            Exception: the provider fails.
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
                    pass  # the answer is prose; ask again, for JSON
        return self._ask_in_text()

    def _ask_agent(self) -> dict[str, Any]:
        errors: list[str] = []

        def retry_message(error: Exception) -> str:
            cause = error.source.__cause__ if isinstance(error, StructuredOutputValidationError) else None
            errors.append(first_error(cause) if isinstance(cause, ValidationError) else str(error))
            if len(errors) == MAX_ATTEMPTS:
                raise InputError(f"its answer cannot be used: {errors[-1]}")
            return f"This cannot be used: {errors[-1]}. Answer again."

        limit: Any = ModelCallLimitMiddleware(run_limit=MAX_MODEL_CALLS, exit_behavior="error")
        agent = create_agent(
            self._model,
            self._tools,
            system_prompt=_instructions(),
            middleware=[
                limit,
                _CancellationMiddleware(self._check_not_stopped),
            ],
            response_format=ToolStrategy(self._answer, handle_errors=retry_message),
        )
        return agent.invoke({"messages": [HumanMessage(self._note)]})

    def _ask_in_text(self) -> Plan:
        messages: list[BaseMessage] = [SystemMessage(_instructions() + JSON_ONLY), HumanMessage(self._note)]
        error_message = ""
        for _ in range(MAX_ATTEMPTS):
            self._check_not_stopped()
            text = self._model.invoke(messages).text
            try:
                return self._parsed(text)
            except ValidationError as error:
                error_message = first_error(error)
            except InputError as error:
                error_message = str(error)
            messages += [
                AIMessage(text),
                HumanMessage(f"This cannot be used: {error_message}. Answer with JSON again."),
            ]
        raise InputError(f"its answer cannot be used: {error_message}")

    def _parsed(self, text: str) -> Plan:
        """Parse the plan from the first JSON object in a text.

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

    def _check_not_stopped(self) -> None:
        if self._stopped.is_set():
            raise TimeoutError("nobody waits for the answer any more")


class _CancellationMiddleware(AgentMiddleware):
    """Middleware that calls a check before each call of the model."""

    def __init__(self, check_not_stopped: Callable[[], None]) -> None:
        super().__init__()
        self._check_not_stopped = check_not_stopped

    def before_model(self, state: Any, runtime: Any) -> None:
        self._check_not_stopped()


def load_language_model(name: str, consent: bool) -> BaseChatModel:
    """Load a chat model that reads notes.

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
    return load_chat_model(name, consent, NOTE_MODEL)


@cache
def _instructions() -> str:
    return Path(__file__).with_name("chat_prompt.md").read_text(encoding="utf-8")


def _is_about_tools(error: Exception) -> bool:
    """Return whether an error says that the model or its server does not support tools."""
    is_own = isinstance(error, InputError | TimeoutError)
    return isinstance(error, NotImplementedError) or (not is_own and "tool" in str(error).lower())


def _short(error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return reason if len(reason) <= MAX_REASON_LENGTH else f"{reason[:MAX_REASON_LENGTH]}…"
