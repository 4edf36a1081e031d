"""Chat models: which count as local, and a wait that ends."""

from __future__ import annotations

import threading

import pytest
from fake_chat import PlainModel, watched_tracers
from langchain_core.runnables import RunnableLambda

from causal_sam.chat import ModelUse, call_with_timeout, is_local, load_chat_model
from causal_sam.errors import InputError

LANGUAGE = ModelUse("chat model", "ollama:llama3.1", "notes", "llm")


@pytest.fixture(autouse=True)
def _no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OLLAMA_HOST", "OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("name", "addresses", "expected"),
    [
        ("ollama:llama3.1", {}, True),
        ("ollama:llama3.1", {"OLLAMA_HOST": ":11434"}, True),
        ("ollama:llama3.1", {"OLLAMA_HOST": "10.0.0.5"}, False),
        ("ollama:gpt-oss:120b-cloud", {}, False),
        ("huggingface:/models/llama", {}, True),
        ("gguf:/models/llama.gguf", {}, True),
        ("anthropic:claude", {}, False),
        ("nobody:model", {}, False),
        ("openai:gpt", {}, False),
        ("openai:gpt", {"OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"}, True),
        ("openai:gpt", {"OPENAI_API_BASE": "http://[::1]:8080/v1"}, True),
        ("openai:gpt", {"OPENAI_BASE_URL": "https://llm.clinic.example/v1"}, False),
        ("openai:gpt", {"OPENAI_BASE_URL": "http://localhost@evil.example/v1"}, False),
        ("openai:gpt", {"OPENAI_BASE_URL": "http://127.0.0.1.evil.example/v1"}, False),
        # The one that langchain-openai takes counts.
        ("openai:gpt", {"OPENAI_API_BASE": "https://far.example", "OPENAI_BASE_URL": "http://localhost"}, False),
        ("openai:gpt", {"OPENAI_API_BASE": "http://localhost", "OPENAI_BASE_URL": "https://far.example"}, True),
        ("azure_openai:gpt", {"OPENAI_BASE_URL": "http://localhost"}, False),
    ],
)
def test_what_computes_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, name: str, addresses: dict[str, str], expected: bool
) -> None:
    for variable, address in addresses.items():
        monkeypatch.setenv(variable, address)
    assert is_local(name) is expected


def test_the_address_that_was_looked_at_is_the_one_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def init(name: str, **more: str) -> PlainModel:
        given[name] = more
        return PlainModel(answers=[])

    monkeypatch.setattr("langchain.chat_models.init_chat_model", init)
    monkeypatch.setenv("OPENAI_API_BASE", "http://localhost:1234/v1")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://far.example/v1")
    load_chat_model("openai:gpt", False, LANGUAGE)
    load_chat_model("anthropic:claude", True, LANGUAGE)
    assert given == {"openai:gpt": {"base_url": "http://localhost:1234/v1"}, "anthropic:claude": {}}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gpt", "A chat model is named PROVIDER:MODEL, such as ollama:llama3.1, not 'gpt'"),
        ("openai:", "is named PROVIDER:MODEL"),
        ("openai:gpt", "notes leave it only with consent: give --llm-consent .*--conf llm_consent remote.*gguf, hugg"),
    ],
)
def test_models_without_consent_or_name_are_refused(name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_chat_model(name, False, LANGUAGE)


def test_answers_and_errors_come_through() -> None:
    assert call_with_timeout(60, lambda: 7) == 7
    with pytest.raises(TimeoutError, match="of its own"):
        call_with_timeout(60, lambda: (_ for _ in ()).throw(TimeoutError("of its own")))
    with pytest.raises(KeyError):
        call_with_timeout(60, lambda: {}["missing"])


def test_what_hangs_is_left_behind_in_a_thread_that_keeps_nothing_open() -> None:
    release, threads = threading.Event(), []

    def hang() -> None:
        threads.append(threading.current_thread())
        release.wait(60)

    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 seconds"):
        call_with_timeout(0.05, hang)
    release.set()
    assert threads[0].daemon


def test_a_tracing_service_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tracers = watched_tracers(monkeypatch)
    step = RunnableLambda(str)
    step.invoke(1)
    assert len(tracers) == 1
    call_with_timeout(60, lambda: step.invoke(1))
    assert len(tracers) == 1
