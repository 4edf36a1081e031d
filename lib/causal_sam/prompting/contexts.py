"""Contexts of the volumes in use: prepared once, in the background for a volume that was opened, and kept in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from functools import partial

from cachetools import LRUCache

from causal_sam.prompting.borders import BorderDecoder
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.prefetch import PrefetchWorker
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.prompting.slots import OnSlice, Slot, ignore, no_queue
from causal_sam.prompting.volume_mask import VolumeMasker
from causal_sam.volume.context import CoarseMask
from causal_sam.volume.segmenter import CoarseSegmenter

DEFAULT_BYTES = 512 * 2**20
# Makes the context of a volume, which is not prepared yet, from an encoder and the volume's whole slices.
MakeContext = Callable[[SliceEncoder, VolumeSlices], CoarseSegmenter]


class _VolumeLeftError(Exception):
    """Nobody needs the context any more that is prepared in the background."""


class PreparedContext:
    """Context of one volume, prepared when it is first needed.

    Args:
        masker: masks from the context.
        on_ready: called once, when the context is prepared.
    """

    def __init__(self, masker: VolumeMasker, on_ready: Callable[[], object] = lambda: None) -> None:
        self._masker, self._on_ready = masker, on_ready
        self._lock = threading.Lock()
        self._is_ready = False

    @property
    def nbytes(self) -> int:
        """Memory of the context and of its volume in bytes."""
        volume = self._masker.slices.volume.array.nbytes
        return volume + (self._masker.context.nbytes if self._is_ready else 0)

    def masker(self, slot: Slot = no_queue, on_slice: OnSlice = ignore) -> VolumeMasker:
        """Return what makes masks, after the context is prepared.

        The caller must hold no slot: who prepares the context waits for one.

        Args:
            slot: entered around the use of the model.
            on_slice: called before each slice with the number of slices prepared; what it raises ends the work.
        """
        # No lock is held meanwhile: a click prepares by itself what the background has begun, and need not wait until
        # that has a slot again. Their slices are shared by the cache of embeddings.
        if not self._is_ready:
            with slot(on_slice) as yield_slot:
                self._masker.context.prepare(yield_slot)
            with self._lock:
                is_first, self._is_ready = not self._is_ready, True
            if is_first:
                self._on_ready()
        return self._masker

    def segment_known(
        self, names: Iterable[str], slot: Slot = no_queue, on_slice: OnSlice = ignore
    ) -> dict[str, CoarseMask]:
        """Return coarse masks of the structures that the context knows, by the names as given; see `masker`."""
        known = [name for name in names if self.knows(name)]
        return self.masker(slot, on_slice).context.segment_named(known) if known else {}

    def knows(self, name: str) -> bool:
        """Return True if the context can find a structure by this name, in any spelling."""
        return self._masker.context.knows(name)


class ContextCache:
    """Contexts of volumes, the least recently used dropped first.

    Args:
        encoder: encoder of the compact model without adapters.
        make: makes the context of a volume.
        max_bytes: limit of all contexts together.
        slot: entered around the use of the model in the background, where others use it too.
    """

    def __init__(
        self, encoder: SliceEncoder, make: MakeContext, max_bytes: int = DEFAULT_BYTES, slot: Slot = no_queue
    ) -> None:
        self._encoder, self._make, self._slot = encoder, make, slot
        self._lock = threading.Lock()
        self._contexts: LRUCache[Hashable, PreparedContext] = LRUCache(
            max_bytes, getsizeof=lambda context: context.nbytes
        )
        # One that is larger than the limit is kept until there is another.
        self._large: dict[Hashable, PreparedContext] = {}
        self._worker = PrefetchWorker()
        self._wanted: set[Hashable] = set()

    def of(self, slices: VolumeSlices) -> PreparedContext:
        """Return the context of a volume; it is prepared when it is used."""
        key = _key(slices)
        with self._lock:
            context = self._contexts.pop(key, None) or self._large.pop(key, None)
            if context is None:
                own = slices.scaled(self._encoder.model.image_size)
                segmenter = self._make(self._encoder, own)
                masker = VolumeMasker(segmenter, BorderDecoder(self._encoder, own))
                context = PreparedContext(masker, lambda: self._count_again(key))
            self._keep(key, context)  # with its size now, which grows as it is used
            return context

    def start(self, slices: VolumeSlices) -> None:
        """Begin to prepare the context of a volume in the background; the latest volume comes first."""
        key = _key(slices)
        with self._lock:
            self._wanted.add(key)
        self._worker.cancel(key)
        self._worker.submit(key, [partial(self._prepare, key, self.of(slices))])

    def leave(self, slices: VolumeSlices) -> None:
        """Cancel the background preparation for a volume."""
        key = _key(slices)
        with self._lock:
            self._wanted.discard(key)
        self._worker.cancel(key)

    def holds_both(self, slices: VolumeSlices, other: VolumeSlices) -> bool:
        """Return True if the context of another volume fits into the memory beside a prepared one.

        Args:
            slices: volume whose context is prepared.
            other: volume whose context takes as much for each voxel.
        """
        share = other.volume.array.size / slices.volume.array.size
        return self.of(slices).nbytes * (1 + share) <= self._contexts.maxsize

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is prepared in the background; return False after ``timeout`` seconds."""
        return self._worker.wait(timeout)

    def close(self) -> None:
        """Give up all that is prepared in the background."""
        with self._lock:
            self._wanted.clear()
        self._worker.close()

    def _prepare(self, key: Hashable, context: PreparedContext) -> None:
        def on_slice(done: int) -> None:
            if key not in self._wanted:
                raise _VolumeLeftError

        try:
            context.masker(self._slot, on_slice)
        except _VolumeLeftError:
            return
        finally:
            with self._lock:
                self._wanted.discard(key)

    def _count_again(self, key: Hashable) -> None:
        """Count the memory of a context that is prepared now."""
        with self._lock:
            context = self._contexts.pop(key, None) or self._large.pop(key, None)
            if context is not None:
                self._keep(key, context)

    def _keep(self, key: Hashable, context: PreparedContext) -> None:
        if context.nbytes <= self._contexts.maxsize:
            self._contexts[key] = context
        else:
            self._large = {key: context}


def _key(slices: VolumeSlices) -> Hashable:
    return slices.volume.content_hash, slices.volume.affine.tobytes(), slices.axis
