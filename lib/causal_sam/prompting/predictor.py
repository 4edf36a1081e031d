"""Clicks and boxes in, masks out: the one object that applications talk to."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.prompting.cache import EmbeddingCache
from causal_sam.prompting.contexts import ContextCache, PreparedContext
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.implied import with_implied_foreground
from causal_sam.prompting.named import LabelPrompter, NamedPrediction, is_known, segment_named, unknown_names
from causal_sam.prompting.named_context import add_from_context
from causal_sam.prompting.prediction import Prediction, SlicePrediction, as_iou
from causal_sam.prompting.prefetch import PrefetchWorker
from causal_sam.prompting.prompts import Prompts, checked_previous
from causal_sam.prompting.propagation import Followed, Propagation, Propagator
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.prompting.slots import OnSlice, Slot, ignore, no_queue
from causal_sam.prompting.zoom import Extent, crop_around, is_cut, wider
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.volume.context import CoarseMask

DEFAULT_CACHE_BYTES = 512 * 2**20
_session_numbers = itertools.count()


class _Session:
    """A volume and the number by which the worker knows what was begun for it."""

    def __init__(self, slices: VolumeSlices) -> None:
        self.slices = slices
        self.number = next(_session_numbers)


class Predictor:
    """Segments the slices of a volume that the user prompts.

    Safe to use from several threads. A prediction belongs to the volume that was set when it began; requests on
    different volumes at the same time use one predictor each, from `for_volume`.

    Args:
        model: model in evaluation mode.
        cache: embedding cache; by default 512 MiB of memory.
        prefetch_slices: number of slices on each side of a prompted one that are encoded in the background; 0 for none.
        zoom: whether small structures are looked at again on a crop around them; by default if the model's
            `ModelSpec` says so.
        prefetch_slot: makes what is entered around each encoding in the background, where others use the model too.
        contexts: volume contexts, which give prompts their third dimension; None to follow structures from slice to
            slice.
    """

    def __init__(
        self,
        model: CausalSam,
        cache: EmbeddingCache | None = None,
        *,
        prefetch_slices: int = 1,
        zoom: bool | None = None,
        prefetch_slot: Callable[[], AbstractContextManager[object]] = nullcontext,
        contexts: ContextCache | None = None,
    ) -> None:
        self.model, self._contexts = model, contexts
        self._encoder = SliceEncoder(model, EmbeddingCache(DEFAULT_CACHE_BYTES) if cache is None else cache)
        self._prefetch_slices, self._prefetch_slot = prefetch_slices, prefetch_slot
        self._zoom = model.spec.zoom if zoom is None else zoom
        self._worker = PrefetchWorker()
        self._lock = threading.Lock()
        self._session: _Session | None = None

    @property
    def cache(self) -> EmbeddingCache:
        """The embeddings."""
        return self._encoder.cache

    @property
    def encoder(self) -> SliceEncoder:
        """Encoder that computes the embeddings or finds them in the cache."""
        return self._encoder

    @property
    def slices(self) -> VolumeSlices:
        """Geometry of the volume that is set: the slice axis, and the frame of its canonical slices.

        Raises:
            InputError: no volume is set.
        """
        return self._current().slices

    @property
    def has_contexts(self) -> bool:
        """True if volumes have contexts."""
        return self._contexts is not None

    @property
    def context(self) -> PreparedContext | None:
        """Context of the volume that is set; None without contexts.

        Raises:
            InputError: no volume is set.
        """
        return None if self._contexts is None else self._contexts.of(self.slices)

    def prepare_context(self) -> None:
        """Begin to prepare the context of the volume in the background, if there are contexts.

        Raises:
            InputError: no volume is set.
        """
        if self._contexts is not None:
            self._contexts.start(self.slices)

    def mask_prompt(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Turn a mask of a slice that is not from this model, say an edited one, into a value for ``previous``.

        Args:
            mask: bool (rows, columns), canonical.

        Returns:
            LxL logits.
        """
        return self.slices.low_res_prompt(mask, self.model.mask_size)

    def set_volume(self, volume: Volume, plane: str = "auto") -> None:
        """Choose the volume of the predictions to come; prefetching for the one before is given up.

        Args:
            volume: 3D; a 2D image has one axis of size 1.
            plane: "auto" (the plane in which the image was acquired), "axial", "coronal" or "sagittal".

        Raises:
            InputError: there is no such plane.
        """
        session = _Session(VolumeSlices(volume, plane, self.model.image_size))
        with self._lock:
            former, self._session = self._session, session
        if former is not None:
            self._worker.cancel(former.number)
            if self._contexts is not None:
                self._contexts.leave(former.slices)

    def for_volume(self, volume: Volume, plane: str = "auto") -> Predictor:
        """Return a predictor for one volume that shares this one's model, cache and background thread.

        Raises:
            InputError: there is no such plane.
        """
        predictor = copy.copy(self)
        predictor._lock = threading.Lock()
        predictor._session = None
        predictor.set_volume(volume, plane)
        return predictor

    def predict(
        self,
        foreground: Sequence[Sequence[float]] = (),
        background: Sequence[Sequence[float]] = (),
        box: Sequence[float] | None = None,
        previous: Mapping[int, NDArray[np.floating]] | None = None,
    ) -> Prediction:
        """Segment every slice that has a foreground point or lies inside the box.

        One foreground point alone can mean a part or the whole: of three hypotheses the one with the best predicted
        IoU is taken. Any further prompt decides, so the model's single answer is taken.

        Args:
            foreground: voxel indices (i, j, k) of the file inside the structure.
            background: voxel indices (i, j, k) of the file outside of it. A slice may have background points alone if
                ``previous`` has its mask.
            box: (i0, i1, j0, j1, k0, k1) voxel indices, both ends inclusive.
            previous: slice index -> LxL ``low_res_logits`` of the mask that the prompts correct.

        Raises:
            InputError: no volume is set, or a prompt cannot be used; the sentence says which and what is valid.
        """
        session = self._current()
        slices = session.slices
        prompts = Prompts.checked(slices.volume.shape, foreground, background, box)
        refined = checked_previous(previous, slices.volume.shape[slices.axis], self.model.mask_size)
        indices = prompts.slices(slices.axis, refined)
        with self._worker.foreground():
            answers = {
                index: self._predict_slice(slices, index, prompts.on_slice(slices.axis, index), refined.get(index))
                for index in indices
            }
        self._prefetch(session, indices)
        return Prediction(answers, slices.axis, slices.volume.shape, slices.frame)

    def propagate(
        self,
        anchors: Mapping[int, NDArray[np.bool_]],
        *,
        before: NDArray[np.bool_] | None = None,
        changed: Iterable[int] | None = None,
        limits: tuple[int, int] | None = None,
        on_slice: Callable[[int], object] = lambda done: None,
        coarse: CoarseMask | None = None,
    ) -> Propagation:
        """Follow a structure from the slices that were prompted or drawn through the volume.

        Args:
            anchors: slice index -> mask (rows, columns), canonical, such as the masks of a `Prediction`; these slices
                stay as they are.
            before: mask of an earlier call, in the file's voxel order.
            changed: slices that were prompted, drawn or given up since then: only what they can reach is followed
                again. None for all.
            limits: first and last slice that may be followed.
            on_slice: called before each slice with the number of slices followed so far; what it raises ends the work.
            coarse: see `Propagator`.

        Raises:
            InputError: no volume is set, or there is nothing to follow.
        """
        slices = self._current().slices

        def follow(index: int, mask: NDArray[np.bool_]) -> Followed:
            with self._worker.foreground():
                return self._follow(slices, index, mask)

        return Propagator(slices.frame, follow, on_slice, coarse).propagate(anchors, before, changed, limits)

    def knows_name(self, name: str, labels: LabelPrompter | None = None) -> bool:
        """Return True if labels, or the context of the volume, know a structure by a name.

        Raises:
            InputError: no volume is set.
        """
        return is_known(name, labels) or (self.context is not None and self.context.knows(name))

    def predict_named(
        self,
        names: Sequence[str],
        labels: LabelPrompter | None,
        on_slice: OnSlice = ignore,
        slot: Slot = no_queue,
    ) -> NamedPrediction:
        """Segment the whole volume by label names.

        Args:
            names: labels that the model or the context of the volume was trained on, each once.
            labels: prompter for the labels that the model was trained on, which come before the context; None without.
            on_slice: called before each slice with the number of slices done; what it raises ends the work.
            slot: entered around the use of the model.

        Raises:
            InputError: no volume is set, or a name is not known.
        """
        slices, context = self.slices, self.context
        by_context = [name for name in names if not is_known(name, labels) and context and context.knows(name)]
        trained = [name for name in names if name not in by_context]
        prediction = None
        if labels is not None and (trained or not names):
            encoder = self._encoder
            if labels.model is not self.model:  # the learned labels came with adapters
                encoder = SliceEncoder(labels.model, encoder.cache)
            with slot(on_slice) as yield_slot, self._worker.foreground():
                prediction = segment_named(encoder, slices, trained, labels, yield_slot)
        elif trained or not names:
            raise unknown_names(trained, ())
        if context is None or not by_context:
            assert prediction is not None
            return prediction
        masker = context.masker(slot, on_slice)
        with slot(on_slice), self._worker.foreground():
            return add_from_context(prediction, names, trained, by_context, masker)

    def wait_for_prefetch(self, timeout: float | None = None) -> bool:
        """Wait for the prefetching; return False if it is not done after ``timeout`` seconds."""
        return self._worker.wait(timeout)

    def close(self) -> None:
        """Give up prefetching and wait for what runs; also for predictors made by `for_volume`."""
        self._worker.close()
        if self._contexts is not None:
            self._contexts.close()

    def _current(self) -> _Session:
        with self._lock:
            session = self._session
        if session is None:
            raise InputError("Set a volume before predicting.")
        return session

    def _predict_slice(
        self, slices: VolumeSlices, index: int, prompts: Prompts, previous: NDArray[np.float32] | None
    ) -> SlicePrediction:
        if previous is not None and prompts.background and not prompts.foreground and prompts.box is None:
            prompts = with_implied_foreground(slices, index, prompts, slices.logits(torch.from_numpy(previous)) > 0)
        whole = self._decode(slices, index, prompts, previous)
        if not self._zoom:
            return whole
        # Also a correction begins with the whole slice: it may say that the structure is much larger than it seemed.
        extent = self._extent(slices, prompts)
        extent.include_mask(whole.mask)
        crop = crop_around(slices, extent, self.model.image_size)
        while crop is not None:
            part = slices.cropped(crop)
            seen = whole.logits[crop.area]
            answer = self._decode(part, index, prompts, part.low_res(seen, self.model.mask_size))
            if not is_cut(answer.mask, crop, slices):
                logits = whole.logits.copy()
                logits[crop.area] = answer.logits
                low_res = slices.low_res(logits, self.model.mask_size)
                return SlicePrediction(logits > 0, logits, low_res, answer.predicted_iou)
            crop = wider(slices, crop)
        return whole

    def _follow(self, slices: VolumeSlices, index: int, mask: NDArray[np.bool_]) -> Followed:
        """Segment a slice from the mask of a neighbouring one, on the crop that its size there asks for."""
        extent = Extent()
        extent.include_mask(mask)
        crop = crop_around(slices, extent, self.model.image_size) if self._zoom else None
        while crop is not None:
            answer = self._decode_neighbour(slices.cropped(crop), index, mask[crop.area], extent)
            if not is_cut(answer.mask, crop, slices):
                return Followed(crop.area, answer.logits, answer.predicted_iou)
            crop = wider(slices, crop)
        answer = self._decode_neighbour(slices, index, mask, extent)
        return Followed((slice(None), slice(None)), answer.logits, answer.predicted_iou)

    def _decode_neighbour(
        self, slices: VolumeSlices, index: int, mask: NDArray[np.bool_], extent: Extent
    ) -> SlicePrediction:
        box = None
        if not self.model.spec.mask_alone:
            first, last = (
                slices.frame.to_voxel(index, row, column)
                for row, column in ((extent.top, extent.left), (extent.bottom, extent.right))
            )
            box = tuple(end for pair in zip(first, last, strict=True) for end in sorted(pair))
        prompt = slices.low_res_prompt(mask, self.model.mask_size)
        return self._decode(slices, index, Prompts((), (), box), prompt)

    def _extent(self, slices: VolumeSlices, prompts: Prompts) -> Extent:
        """Rows and columns of the prompts."""
        extent = Extent()
        for voxel in prompts.foreground + prompts.background:
            _, row, column = slices.frame.to_slice(voxel)
            extent.include(row, column, row, column)
        if prompts.box is not None:
            extent.include(*slices.extent(prompts.box))
        return extent

    @torch.inference_mode()
    def _decode(
        self, slices: VolumeSlices, index: int, prompts: Prompts, mask_logits: NDArray[np.float32] | None
    ) -> SlicePrediction:
        """Ask the model once, on whole or cropped slices; the answer is of their size."""
        embedding = self._encoder.embedding(slices, index).to(self.model.device)
        points = point_labels = boxes = masks = None
        clicked = prompts.foreground + prompts.background
        if clicked:
            points = slices.points(clicked)[None]
            labels = [1] * len(prompts.foreground) + [0] * len(prompts.background)
            point_labels = torch.tensor([labels])
        if prompts.box is not None:
            boxes = slices.box(prompts.box)[None]
        if mask_logits is not None:
            masks = torch.from_numpy(mask_logits)[None, None]
        decoded = self.model.decode(
            embedding,
            points=points,
            point_labels=point_labels,
            boxes=boxes,
            mask_logits=masks,
            multimask=len(clicked) == 1 and boxes is None and masks is None,
        )
        best = int(decoded.iou[0].argmax())
        low_res = decoded.logits[0, best].float().cpu()
        logits = slices.logits(low_res)
        return SlicePrediction(logits > 0, logits, low_res.numpy(), as_iou(decoded.iou[0, best]))

    def _prefetch(self, session: _Session, indices: Iterable[int]) -> None:
        """Ask for the neighbours of the slices that were prompted, nearest first."""
        prompted = sorted(indices)
        count = session.slices.volume.shape[session.slices.axis]
        wanted: dict[int, None] = {}
        for distance in range(1, self._prefetch_slices + 1):
            for index in prompted:
                wanted.update(dict.fromkeys((index + distance, index - distance)))
        wanted_here = [index for index in wanted if 0 <= index < count and index not in set(prompted)]

        def prefetch(index: int) -> None:
            with self._prefetch_slot():
                self._encoder.embedding(session.slices, index)

        with self._lock:  # a volume set meanwhile has cancelled this session's work: do not begin new
            if self._session is session:
                self._worker.submit(session.number, [partial(prefetch, index) for index in wanted_here])
