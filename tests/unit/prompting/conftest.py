"""The real compact network with random weights, which records what it is asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from causal_sam.sam import CausalSam, Decoded, Embedding
from causal_sam.sam.compact import build_compact

IMAGE_SIZE = 64  # the weights are random anyway: small enough to run hundreds of times


class RecordingSam(CausalSam):
    """The real model; keeps what it was asked, and lets a test wait inside an encode."""

    def __init__(self) -> None:
        super().__init__(build_compact(IMAGE_SIZE), "compact")
        self.encoded: list[Tensor] = []
        self.decoded: list[dict] = []
        self.before_encode: Callable[[int], None] = lambda number: None

    def encode(self, images: Tensor) -> Embedding:
        self.encoded.append(images)
        self.before_encode(len(self.encoded))
        return super().encode(images)

    def decode(self, embedding: Embedding, **prompts) -> Decoded:
        self.decoded.append(prompts)
        return super().decode(embedding, **prompts)


@pytest.fixture(scope="session")
def compact() -> RecordingSam:
    torch.manual_seed(0)
    return RecordingSam().eval()


@pytest.fixture
def model(compact) -> RecordingSam:
    compact.encoded, compact.decoded = [], []
    compact.before_encode = lambda number: None
    return compact
