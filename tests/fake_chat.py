"""A chat model that answers what a test gives it, and remembers all that it was sent."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool
from langsmith.utils import tracing_is_enabled


class PlainModel(BaseChatModel):
    """Answers in turn, with texts or messages; an exception is raised. It cannot call tools."""

    answers: list[Any]
    sent: list[list[BaseMessage]] = []  # noqa: RUF012 (a field of pydantic, copied for each instance)
    threads: list[threading.Thread] = []  # noqa: RUF012
    traced: list[Any] = []  # noqa: RUF012
    held: threading.Event | None = None

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.sent.append(list(messages))
        self.threads.append(threading.current_thread())
        self.traced.append(tracing_is_enabled())
        if self.held is not None:
            self.held.wait(60)
        answer = self.answers[len(self.sent) - 1]
        if isinstance(answer, Exception):
            raise answer
        message = answer if isinstance(answer, AIMessage) else AIMessage(answer)
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def everything(self) -> str:
        """All texts, calls and answers of tools that it was sent; not the ids of messages, which are random."""
        return "\n".join(message.model_dump_json(exclude={"id"}) for messages in self.sent for message in messages)


class ToolModel(PlainModel):
    """A model that can call tools."""

    tools: list[BaseTool] = []  # noqa: RUF012

    def bind_tools(self, tools: list[BaseTool], **kwargs: Any) -> ToolModel:
        self.tools[:] = tools
        return self

    @property
    def everything(self) -> str:
        """All that it was sent, with the tools that it was offered."""
        offered = [f"{tool.name} {tool.description} {tool.tool_call_schema}" for tool in self.tools]
        return "\n".join([super().everything, *offered])


def call(*names: str, **arguments: Any) -> AIMessage:
    """A message that calls tools, all with the same arguments."""
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": str(i)} for i, name in enumerate(names)])


def plan(*acts: dict[str, Any], **more: Any) -> AIMessage:
    """A message with a plan."""
    return call("Plan", interventions=list(acts), **more)


def watched_tracers(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Switch tracing on, as LANGSMITH_TRACING=true does, and return the list of tracers that LangChain makes then."""
    made: list[object] = []

    class Tracer(BaseCallbackHandler):
        def __init__(self, **more: Any) -> None:
            made.append(self)
            self.run_map: dict[str, Any] = {}

    # The environment is read once in a process.
    monkeypatch.setattr("langsmith._internal._context._GLOBAL_TRACING_ENABLED", True)
    monkeypatch.setattr("langchain_core.tracers.langchain.LangChainTracer", Tracer)
    return made
