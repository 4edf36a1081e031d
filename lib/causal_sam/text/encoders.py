"""Interface of all text encoders, with a cache of vectors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from cachetools import LRUCache
from torch import Tensor
from torch.nn import functional as F

from causal_sam.errors import InputError

CACHE_SIZE = 4096
BATCH_SIZE = 64


class TextEncoder:
    """A frozen text encoder with a cache; thread-safe.

    Args:
        name: name under which the encoder was loaded.
        fingerprint: hash of everything that the vectors depend on. Keep it beside weights that were trained on the
            vectors, since they are meaningless with another encoder.
        dimension: length D of the vectors.
        embed: function that maps N texts to NxD vectors of any norm, on the target device.
    """

    def __init__(self, name: str, fingerprint: str, dimension: int, embed: Callable[[list[str]], Tensor]) -> None:
        self.name, self.fingerprint, self.dimension = name, fingerprint, dimension
        self._embed = embed
        self._vectors: LRUCache[str, Tensor] = LRUCache(CACHE_SIZE)
        # The lock also covers encoding, since tokenizers are not thread-safe.
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as unit vectors.

        Returns:
            NxD float32 tensor of unit vectors, which autograd accepts.

        Raises:
            InputError: a text is empty.
        """
        if not all(text.strip() for text in texts):
            raise InputError("An empty text cannot be encoded; give at least one word.")
        with self._lock:
            found = {text: self._vectors[text] for text in texts if text in self._vectors}
            missing = [text for text in dict.fromkeys(texts) if text not in found]
            for start in range(0, len(missing), BATCH_SIZE):
                batch = missing[start : start + BATCH_SIZE]
                with torch.inference_mode():
                    vectors = F.normalize(self._embed(batch).float(), dim=-1)
                # A copy outside inference mode is accepted by autograd and does not keep the batch alive.
                found.update((text, vector.clone()) for text, vector in zip(batch, vectors, strict=True))
            self._vectors.update((text, found[text]) for text in missing)
        return torch.stack([found[text] for text in texts]) if texts else torch.empty(0, self.dimension)
