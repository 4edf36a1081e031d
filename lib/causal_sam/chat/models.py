"""Chat models through LangChain: only where the operator agrees to what they are sent, and for a limited time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from causal_sam.errors import InputError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

T = TypeVar("T")

OPENAI, OLLAMA, HUGGING_FACE, GGUF = "openai", "ollama", "huggingface", "gguf"
# Providers that compute on this machine, unless an address or the model says otherwise.
LOCAL_PROVIDERS = frozenset({OLLAMA, HUGGING_FACE, GGUF})
OLLAMA_ADDRESS = "OLLAMA_HOST"
# Ollama passes models with this ending on to its own servers.
OLLAMA_REMOTE = "cloud"
# Where servers with the interface of OpenAI are; langchain-openai reads them in this order.
OPENAI_ADDRESSES = ("OPENAI_API_BASE", "OPENAI_BASE_URL")
THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})


@dataclass(frozen=True)
class Use:
    """What a chat model is for, in the words of messages.

    Attributes:
        model: what it is called.
        example: of a name.
        sent: what it is sent.
        option: that names it; the one for consent begins like it.
        providers: those of the local ones that can do it.
    """

    model: str
    example: str
    sent: str
    option: str
    providers: frozenset[str] = LOCAL_PROVIDERS


def load_chat_model(name: str, consent: bool, use: Use) -> BaseChatModel:
    """Make a chat model.

    Args:
        name: PROVIDER:MODEL, as LangChain's `init_chat_model` takes it.
        consent: whether what it is sent may leave this machine.
        use: what it is for.

    Raises:
        InputError: the name is of another form, the model is not on this machine and there is no consent, its package
            is missing, or it cannot be set up.
    """
    provider, colon, model = name.partition(":")
    if not (provider and colon and model):
        raise InputError(f"A {use.model} is named PROVIDER:MODEL, such as {use.example}, not {name!r}.")
    if not consent and not is_local(name):
        raise InputError(
            f"{name} is not on this machine, and {use.sent} leave it only with consent: give --{use.option}-consent "
            f"(of a server: --conf {use.option}_consent remote), or choose a local one "
            f"({', '.join(sorted(use.providers))})."
        )
    from langchain.chat_models import init_chat_model

    address = openai_address()
    try:
        if provider == OPENAI and address is not None:
            # Given by hand, so that no other variable can move it elsewhere.
            return init_chat_model(name, base_url=address)
        return init_chat_model(name)
    except ImportError as error:
        raise InputError(f"The {use.model} {name} needs a package that is not installed: {error}") from error
    except Exception as error:  # such as a key that is missing: every provider has errors of its own
        raise InputError(f"The {use.model} {name} cannot be used: {' '.join(str(error).split())}") from error


def is_local(name: str) -> bool:
    """Whether a model, named PROVIDER:MODEL, computes on this machine."""
    provider, _, model = name.partition(":")
    if provider == OLLAMA:
        address = os.environ.get(OLLAMA_ADDRESS, "").strip()
        return (not address or _is_here(address)) and not model.endswith(OLLAMA_REMOTE)
    if provider == OPENAI:
        address = openai_address()
        return address is not None and _is_here(address)
    return provider in LOCAL_PROVIDERS


def openai_address() -> str | None:
    """The address of the server with the interface of OpenAI; None for OpenAI's own."""
    addresses = (os.environ.get(variable, "").strip() for variable in OPENAI_ADDRESSES)
    return next(filter(None, addresses), None)


def _is_here(address: str) -> bool:
    host = urlsplit(address if "://" in address else f"//{address}").hostname
    return host is None or host in THIS_MACHINE


def within(seconds: float, call: Callable[[], T]) -> T:
    """Call a chat model, and wait for it no longer than some seconds.

    Not every provider has a time limit of its own. A call that hangs on is left behind, in a thread that does not keep
    the program from ending. Nothing of the call goes to a tracing service, even if one is set up in the environment.

    Args:
        seconds: the longest wait.
        call: without arguments.

    Raises:
        TimeoutError: there is no answer by then.
    """
    answer: Future[T] = Future()

    def work() -> None:
        from langsmith import tracing_context

        try:
            with tracing_context(enabled=False):
                answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, name="chat model", daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        if answer.done():
            raise
        raise TimeoutError(f"no answer within {seconds:g} seconds") from None
