"""Chat models through LangChain, with the operator's consent for remote models and a time limit."""

from __future__ import annotations

import contextvars
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
# Providers on this machine, unless an address or the name of the model refers to another one.
LOCAL_PROVIDERS = frozenset({OLLAMA, HUGGING_FACE, GGUF})
OLLAMA_ADDRESS = "OLLAMA_HOST"
# Ollama forwards models with this suffix to its own servers.
OLLAMA_REMOTE = "cloud"
# Addresses of servers with OpenAI's interface, in the order in which langchain-openai reads them.
OPENAI_ADDRESSES = ("OPENAI_API_BASE", "OPENAI_BASE_URL")
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})


@dataclass(frozen=True)
class ModelUse:
    """Use of a chat model, with the words for messages.

    Attributes:
        model: kind of model.
        example: example of a model name.
        sent: data that the model receives.
        option: option with the model name; prefix of the option for consent.
        providers: suitable local providers.
    """

    model: str
    example: str
    sent: str
    option: str
    providers: frozenset[str] = LOCAL_PROVIDERS


def load_chat_model(name: str, consent: bool, use: ModelUse) -> BaseChatModel:
    """Load a chat model.

    Args:
        name: PROVIDER:MODEL, as LangChain's `init_chat_model` takes it.
        consent: whether the data may leave this machine.
        use: use of the model, for messages.

    Raises:
        InputError: the name has another form, the model is remote and there is no consent, its package
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
            # An explicit address cannot be overridden by another environment variable.
            return init_chat_model(name, base_url=address)
        return init_chat_model(name)
    except ImportError as error:
        raise InputError(f"The {use.model} {name} needs a package that is not installed: {error}") from error
    except Exception as error:  # providers raise errors of their own, for example for a missing key
        raise InputError(f"The {use.model} {name} cannot be used: {' '.join(str(error).split())}") from error


def is_local(name: str) -> bool:
    """Return whether a model, named PROVIDER:MODEL, runs on this machine."""
    provider, _, model = name.partition(":")
    if provider == OLLAMA:
        address = os.environ.get(OLLAMA_ADDRESS, "").strip()
        return (not address or _is_local_host(address)) and not model.endswith(OLLAMA_REMOTE)
    if provider == OPENAI:
        url = openai_address()
        return url is not None and _is_local_host(url)
    return provider in LOCAL_PROVIDERS


def openai_address() -> str | None:
    """Return the address of a server with OpenAI's interface; None for OpenAI's own."""
    addresses = (os.environ.get(variable, "").strip() for variable in OPENAI_ADDRESSES)
    return next(filter(None, addresses), None)


def _is_local_host(address: str) -> bool:
    host = urlsplit(address if "://" in address else f"//{address}").hostname
    return host is None or host in LOCAL_HOSTS


def call_with_timeout(seconds: float, call: Callable[[], T]) -> T:
    """Call a function in a thread and wait for its result for a limited time.

    Some providers have no time limit of their own. A call that exceeds the limit is abandoned in a daemon thread.
    Tracing services are disabled during the call, even if the environment enables one.

    Args:
        seconds: time limit in seconds.
        call: function without arguments.

    Raises:
        TimeoutError: the call has not returned in time.
    """
    answer: Future[T] = Future()

    def work() -> None:
        from langsmith import tracing_context

        try:
            with tracing_context(enabled=False):
                answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    # In the context of the request: tools keep its priority in the queue, and end when its client leaves.
    run = contextvars.copy_context().run
    threading.Thread(target=run, args=(work,), name="chat model", daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        if answer.done():
            raise
        raise TimeoutError(f"no answer within {seconds:g} seconds") from None
