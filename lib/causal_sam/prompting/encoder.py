"""One way from a slice to its embedding, shared by the clicks of a user and the work done ahead of them."""

from __future__ import annotations

import torch

from causal_sam.prompting.cache import EmbeddingCache, EmbeddingKey
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.embedding import Embedding


class SliceEncoder:
    """Encodes slices through a cache.

    Args:
        model: its encoder must not change afterwards, except with its ``adapter_version``.
        cache: may be shared with other models.
    """

    def __init__(self, model: CausalSam, cache: EmbeddingCache) -> None:
        self.model = model
        self.cache = cache
        self._encoder_hash = model.encoder_hash()

    def embedding(self, slices: VolumeSlices, index: int) -> Embedding:
        """Embedding of slice ``index``, in main memory."""
        return self.cache.get_or_compute(self.key(slices, index), lambda: self._encode(slices, index))

    def key(self, slices: VolumeSlices, index: int) -> EmbeddingKey:
        """Cache key of slice ``index``."""
        return EmbeddingKey(
            slices.volume.content_hash,
            slices.axis,
            index,
            slices.geometry,
            (float(slices.window.low), float(slices.window.high)),
            self._encoder_hash,
            self.model.adapter_version,
        )

    @torch.inference_mode()
    def _encode(self, slices: VolumeSlices, index: int) -> Embedding:
        return self.model.encode(slices.image(index))
