"""The vision model's description: what it is sent, what of its answers is used, and what happens when it fails."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import cv2
import diskcache
import numpy as np
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.style import describe
from causal_sam.style.vision import VisionDescriber, find_problem, load_vision_model

GOOD = "A noisy T1-weighted image with thick slices, a bias field and low contrast."


class Fake(BaseChatModel):
    """Answers what it was given, one after the other, and remembers what it was sent."""

    answers: list[str]
    sent: list[list[BaseMessage]] = []  # noqa: RUF012 (a field of pydantic, copied for each instance)
    seconds: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.sent.append(list(messages))
        time.sleep(self.seconds)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.answers[len(self.sent) - 1]))])


def volume(seed: int = 0) -> Volume:
    array = np.random.default_rng(seed).normal(300, 20, (40, 32, 8)).astype(np.float32)
    tags = {"Manufacturer": "SIEMENS", "BodyPartExamined": "SecretPart"}
    return Volume(array, np.diag([-1.0, -1.0, 5.0, 1.0]), "MR", tags, Path("Doe^Jane.nii.gz"))


def test_the_model_sees_one_picture_and_nothing_of_the_header() -> None:
    model = Fake(answers=[GOOD])
    described = VisionDescriber(model, "fake:one").describe(volume())
    assert described.sentence == described.model_sentence == GOOD
    assert described.source == "fake:one"
    assert described.measured_sentence == describe(volume()).sentence
    (message,) = model.sent[0]
    text, image = message.content
    assert [text["type"], image["type"]] == ["text", "image"]
    png = base64.b64decode(image["base64"])
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert max(decoded.shape) > 256
    assert decoded.std() > 10
    everything = str(message.content) + png.decode("latin-1")
    assert not any(word in everything for word in ("Doe", "Jane", "SIEMENS", "SecretPart"))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("Noise.", "characters"),
        ("x" * 700, "characters"),
        ("A T1 image of Mr. Smith with noise in it.", "a name"),
        ("A T1 image acquired on 12.03.2019 with noise.", "a date"),
        ("A T1 image, Patient ID: 77, with some noise.", "a field of a header"),
        ("A T1 image with the number 123456 burnt in.", "a long number"),
        ("A T1 image, write to a.b@c.org for more of it.", "an address"),
    ],
)
def test_answers_that_cannot_be_used_are_asked_for_again_and_then_given_up(answer: str, problem: str) -> None:
    assert problem in find_problem(answer)
    model = Fake(answers=[answer, GOOD])
    assert VisionDescriber(model, "fake:one").describe(volume()).sentence == GOOD
    assert problem in model.sent[1][-1].content
    stubborn = Fake(answers=[answer, answer, GOOD])
    described = VisionDescriber(stubborn, "fake:one").describe(volume())
    assert len(stubborn.sent) == 2
    assert described.sentence == describe(volume()).sentence
    assert described.source == "measured"
    assert problem in described.failure


def test_good_answers_are_used() -> None:
    assert find_problem(GOOD) == ""
    assert find_problem("A CT image at 120 kV with 0.7 mm pixels and a 512 x 512 matrix, some streaks.") == ""


def test_answers_are_kept_by_image_and_model(tmp_path: Path) -> None:
    model = Fake(answers=[GOOD, GOOD + " It is sharp.", GOOD + " It is blurred."])
    describer = VisionDescriber(model, "fake:one", tmp_path)
    first = describer.describe(volume())
    assert VisionDescriber(model, "fake:one", tmp_path).describe(volume()) == first
    assert len(model.sent) == 1
    assert describer.describe(volume(1)).sentence.endswith("sharp.")
    assert VisionDescriber(model, "fake:two", tmp_path).describe(volume()).sentence.endswith("blurred.")


def test_failures_are_not_kept_and_the_measured_description_stands_in(tmp_path: Path) -> None:
    slow = Fake(answers=[GOOD], seconds=0.5)
    described = VisionDescriber(slow, "fake:one", tmp_path, seconds=0.05).describe(volume())
    assert described.failure == "fake:one: no answer within 0.05 seconds"
    assert described.sentence == describe(volume()).sentence
    broken = VisionDescriber(Fake(answers=[]), "fake:one", tmp_path).describe(volume())
    assert broken.failure
    assert VisionDescriber(Fake(answers=[GOOD]), "fake:one", tmp_path).describe(volume()).sentence == GOOD


@pytest.mark.parametrize(
    ("name", "consent", "sentence"),
    [
        ("llava", False, "is named PROVIDER:MODEL"),
        ("openai:gpt", False, "pixels leave it only with consent"),
        ("nobody:model", True, "cannot be used"),
    ],
)
def test_models_that_cannot_be_used_are_refused(name: str, consent: bool, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_vision_model(name, consent)


@pytest.mark.parametrize(
    ("address", "model", "is_refused"),
    [
        ("", "llava", False),
        ("127.0.0.1:11434", "llava", False),
        ("http://localhost:11434", "llava", False),
        ("gpu.clinic.example:11434", "llava", True),
        ("https://gpu.clinic.example", "llava", True),
        ("", "qwen3-vl:235b-cloud", True),
    ],
)
def test_a_local_provider_that_computes_elsewhere_needs_consent(
    monkeypatch: pytest.MonkeyPatch, address: str, model: str, is_refused: bool
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", address)
    monkeypatch.setattr("langchain.chat_models.init_chat_model", lambda name: Fake(answers=[GOOD]))
    if is_refused:
        with pytest.raises(InputError, match="only with consent"):
            load_vision_model(f"ollama:{model}", False)
    else:
        load_vision_model(f"ollama:{model}", False)
    load_vision_model(f"ollama:{model}", True)


def test_what_a_provider_misses_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_key(name: str) -> None:
        raise RuntimeError("no API key\nwas given")

    monkeypatch.setattr("langchain.chat_models.init_chat_model", without_key)
    with pytest.raises(InputError, match="The vision model some:model cannot be used: no API key was given"):
        load_vision_model("some:model", True)


def test_a_kept_answer_that_is_a_python_object_is_never_opened(tmp_path: Path) -> None:
    describer = VisionDescriber(Fake(answers=[GOOD]), "fake:one", tmp_path)
    describer.describe(volume())
    with diskcache.Cache(str(tmp_path)) as cache:
        for key in list(cache):
            cache[key] = {"not": "a text"}
    model = Fake(answers=[GOOD])
    assert VisionDescriber(model, "fake:one", tmp_path).describe(volume()).sentence == GOOD
    assert len(model.sent) == 1


def test_a_cache_folder_that_cannot_be_used_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give a writable folder"):
        VisionDescriber(Fake(answers=[GOOD]), "fake:one", tmp_path / "file")
