"""Texts to vectors: one interface to all text encoders, which remembers what it has encoded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from cachetools import LRUCache
from torch import Tensor
from torch.nn import functional as F

from causal_sam.errors import InputError

CACHED_TEXTS = 4096
BATCH = 64


class TextEncoder:
    """A frozen text encoder, shared by any number of threads.

    Args:
        name: under which it was loaded.
        fingerprint: hash of all that its vectors depend on. What was trained on the vectors of one encoder means
            nothing with those of another, so keep it beside the weights.
        dimension: length D of the vectors.
        embed: N texts -> NxD vectors of any length, on the device where they shall stay.
    """

    def __init__(self, name: str, fingerprint: str, dimension: int, embed: Callable[[list[str]], Tensor]) -> None:
        self.name, self.fingerprint, self.dimension = name, fingerprint, dimension
        self._embed = embed
        self._vectors: LRUCache[str, Tensor] = LRUCache(CACHED_TEXTS)
        # Held while encoding too: tokenizers are not safe to share.
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors of ``texts``.

        Returns:
            NxD float32 tensor of unit vectors. It can be part of a computation that is differentiated.

        Raises:
            InputError: a text is empty.
        """
        if not all(text.strip() for text in texts):
            raise InputError("An empty text cannot be encoded; give at least one word.")
        with self._lock:
            found = {text: self._vectors[text] for text in texts if text in self._vectors}
            missing = [text for text in dict.fromkeys(texts) if text not in found]
            for start in range(0, len(missing), BATCH):
                batch = missing[start : start + BATCH]
                with torch.inference_mode():
                    vectors = F.normalize(self._embed(batch).float(), dim=-1)
                # A copy outside of inference mode: autograd accepts it, and it does not keep the batch alive.
                found.update((text, vector.clone()) for text, vector in zip(batch, vectors, strict=True))
            self._vectors.update((text, found[text]) for text in missing)
        return torch.stack([found[text] for text in texts]) if texts else torch.empty(0, self.dimension)
