"""Embeddings are expensive and clicks are many: keep them in a bounded memory, and on disk if asked to."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from cachetools import LRUCache
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as format_safetensors

from causal_sam.plain_cache import PlainCache
from causal_sam.sam.embedding import Embedding

logger = logging.getLogger(__name__)

DEFAULT_DISK_BYTES = 4 * 2**30


@dataclass(frozen=True)
class EmbeddingKey:
    """Everything that an embedding depends on.

    Attributes:
        volume: content hash of the volume's voxels.
        axis: voxel axis that is perpendicular to the slice.
        index: voxel index of the slice along ``axis``.
        geometry: rotation and scale of the slice in the model's input (`VolumeSlices.geometry`): two volumes of the
            same voxels with different affines are different images.
        window: low and high end of the intensity window.
        encoder: hash of the encoder's weights.
        adapter: adapter version.
    """

    volume: str
    axis: int
    index: int
    geometry: tuple[int, ...]
    window: tuple[float, float]
    encoder: str
    adapter: str

    def digest(self) -> str:
        """Hexadecimal SHA-256 of the key, its name on disk."""
        return hashlib.sha256(repr(astuple(self)).encode()).hexdigest()


class EmbeddingCache:
    """Least-recently-used embeddings, shared by any number of threads.

    An embedding that several threads request at once is computed once. Embeddings are kept in main memory,
    wherever the model is.

    Args:
        max_bytes: limit of all tensors kept in memory. An embedding larger than this is handed out but not kept.
        directory: folder of the disk tier, which outlives the process and may be shared by several; None for none.
        max_disk_bytes: limit of the disk tier.

    Raises:
        InputError: ``directory`` cannot be used.
    """

    def __init__(
        self, max_bytes: int, directory: Path | str | None = None, max_disk_bytes: int = DEFAULT_DISK_BYTES
    ) -> None:
        self._lock = threading.Lock()
        self._memory: LRUCache[EmbeddingKey, Embedding] = LRUCache(max_bytes, getsizeof=lambda e: e.nbytes)
        self._running: dict[EmbeddingKey, Future[Embedding]] = {}
        self._disk = None if directory is None else PlainCache(directory, max_disk_bytes, "embeddings")

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that are kept in memory."""
        with self._lock:
            return int(self._memory.currsize)

    def __len__(self) -> int:
        """Number of embeddings kept in memory."""
        with self._lock:
            return len(self._memory)

    def __contains__(self, key: EmbeddingKey) -> bool:
        """Return True if the embedding is in memory; does not count as a use."""
        with self._lock:
            return key in self._memory

    def get_or_compute(self, key: EmbeddingKey, compute: Callable[[], Embedding]) -> Embedding:
        """Return the embedding of ``key``, computing it if no tier has it.

        While one thread computes, other callers of the same key wait for its result. If ``compute`` raises, all of
        them get the exception, nothing is kept, and the next call tries again.
        """
        with self._lock:
            if key in self._memory:
                return self._memory[key]
            running = self._running.get(key)
            if running is None:
                future = self._running[key] = Future()
        if running is not None:
            return running.result()
        try:
            embedding = self._load(key)
            if embedding is None:
                embedding = _owning_its_memory(compute())
                self._store(key, embedding)
        except BaseException as error:
            with self._lock:
                del self._running[key]
            future.set_exception(error)
            raise
        with self._lock:
            if embedding.nbytes <= self._memory.maxsize:
                self._memory[key] = embedding
            del self._running[key]
        future.set_result(embedding)
        return embedding

    def holds(self, count: int) -> bool:
        """Return True if a number of embeddings fits into memory, if each is as large as the mean of those in it."""
        with self._lock:
            return not self._memory or count * self._memory.currsize <= len(self._memory) * self._memory.maxsize

    def close(self) -> None:
        """Close the files of the disk tier; what is stored stays."""
        if self._disk is not None:
            self._disk.close()

    def _load(self, key: EmbeddingKey) -> Embedding | None:
        """Read from the disk tier; a damaged embedding is a miss, since it can always be computed."""
        data = None if self._disk is None else self._disk.get(key.digest())
        if data is None:
            return None
        try:
            tensors = parse_safetensors(data)
            skips = (tensors[f"skip{number}"] for number in range(len(tensors) - 1))
            return _owning_its_memory(Embedding(tensors["features"], tuple(skips)))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            logger.warning("An embedding on disk could not be read and is computed again: %s", error)
            return None

    def _store(self, key: EmbeddingKey, embedding: Embedding) -> None:
        if self._disk is not None:
            tensors = {f"skip{number}": skip for number, skip in enumerate(embedding.skips)}
            self._disk.set(key.digest(), format_safetensors({"features": embedding.features, **tensors}))


def _owning_its_memory(embedding: Embedding) -> Embedding:
    """Move the tensors to main memory, copying views: a view keeps all of its base alive, unseen by the limit."""

    def own(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach().to("cpu").contiguous()
        return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()

    return Embedding(own(embedding.features), tuple(own(skip) for skip in embedding.skips))
