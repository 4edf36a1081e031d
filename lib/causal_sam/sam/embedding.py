"""Output of the image encoder as one value that can be cached."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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

    def to(self, device: torch.device | str) -> Embedding:
        """Return the embedding on another device; tensors that are already there are shared."""
        return Embedding(self.features.to(device), tuple(skip.to(device) for skip in self.skips))
