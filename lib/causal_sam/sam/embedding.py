"""Output of the image encoder as one value that can be cached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Maps = TypeVar("Maps", Tensor, NDArray[np.float32])


class Window(NamedTuple):
    """A part of the input: its first row and column, and how many of them, in positions of the features."""

    top: int
    left: int
    rows: int
    columns: int

    def of(self, maps: Maps, scale: int = 1) -> Maps:
        """Return the part of maps (..., H, W) that have ``scale`` times as many rows and columns as the features."""
        first_row, first_column, rows, columns = (scale * number for number in self)
        return maps[..., first_row : first_row + rows, first_column : first_column + columns]


class Embedding(NamedTuple):
    """Encoder output of B slices.

    Attributes:
        features: BxCxhxw, SAM's image embedding.
        skips: finer features for the decoder, finest first; empty for the official SAM models.
    """

    features: Tensor
    skips: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Memory of all tensors in bytes."""
        return sum(t.numel() * t.element_size() for t in (self.features, *self.skips))

    def at(self, rows: Tensor) -> Embedding:
        """Return the embedding of the slices with K indices, in their order; an index may be repeated."""
        return Embedding(self.features[rows], tuple(skip[rows] for skip in self.skips))

    def cut(self, window: Window) -> Embedding:
        """Return the part of the embedding in a window, as views."""
        size = self.features.shape[-1]
        return Embedding(window.of(self.features), tuple(window.of(s, s.shape[-1] // size) for s in self.skips))

    def to(self, device: torch.device | str) -> Embedding:
        """Return the embedding on another device; tensors that are already there are shared."""
        return Embedding(self.features.to(device), tuple(skip.to(device) for skip in self.skips))


def joined(embeddings: Sequence[Embedding]) -> Embedding:
    """Return the embedding of all slices of some embeddings, in their order."""
    return Embedding(
        torch.cat([embedding.features for embedding in embeddings]),
        tuple(torch.cat(skips) for skips in zip(*(embedding.skips for embedding in embeddings), strict=True)),
    )
