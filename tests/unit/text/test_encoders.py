"""All text encoders cache vectors, check texts and are thread-safe."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from causal_sam.errors import InputError
from causal_sam.text import TextEncoder


class Embed:
    """Vectors of a text's length and first letter, and a record of what was asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.running = 0

    def __call__(self, texts: list[str]) -> torch.Tensor:
        self.running += 1
        assert self.running == 1, "two threads in the model at once"
        self.batches.append(texts)
        vectors = torch.tensor([[len(text), ord(text[0]), 1.0] for text in texts], dtype=torch.float64)
        self.running -= 1
        return vectors


@pytest.fixture
def embed() -> Embed:
    return Embed()


@pytest.fixture
def encoder(embed) -> TextEncoder:
    return TextEncoder("fake", "0", 3, embed)


def test_unit_vectors_in_the_order_of_the_texts(encoder):
    vectors = encoder.encode(["liver", "aorta", "liver"])
    assert vectors.shape == (3, 3)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    assert torch.equal(vectors[0], vectors[2])
    assert torch.equal(vectors[1], encoder.encode(["aorta"])[0])


def test_each_text_is_encoded_once(encoder, embed):
    encoder.encode(["liver", "spleen", "liver"])
    encoder.encode(["spleen", "aorta"])
    assert embed.batches == [["liver", "spleen"], ["aorta"]]


def test_many_texts_go_in_batches(encoder, embed):
    assert len(encoder.encode([f"rib {number}" for number in range(150)])) == 150
    assert [len(batch) for batch in embed.batches] == [64, 64, 22]


def test_more_texts_than_are_kept(encoder, monkeypatch):
    monkeypatch.setattr("causal_sam.text.encoders.CACHE_SIZE", 2)
    small = TextEncoder("small", "0", 3, Embed())
    texts = ["liver", "spleen", "aorta", "heart"]
    assert torch.equal(small.encode(texts), encoder.encode(texts))


def test_vectors_can_be_trained_on(encoder):
    layer = nn.Linear(3, 1)
    layer(encoder.encode(["liver"])).sum().backward()
    assert layer.weight.grad is not None


def test_no_text_gives_no_vector(encoder):
    assert encoder.encode([]).shape == (0, 3)


@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_text_is_refused(encoder, embed, empty):
    with pytest.raises(InputError, match="empty text"):
        encoder.encode(["liver", empty])
    assert embed.batches == []


def test_threads_share_it(encoder, embed):
    texts = [f"rib {number}" for number in range(40)]
    answers: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: answers.append(encoder.encode(texts))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    assert embed.batches == [texts]
