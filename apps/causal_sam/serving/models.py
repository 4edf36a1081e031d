"""The model of the server: loaded once, shared by all requests, and used by a limited number of them at a time."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from cachetools import LRUCache

from causal_sam.correction.corrector import Corrector, load_corrector
from causal_sam.errors import CausalSamError, InputError
from causal_sam.imaging import Volume
from causal_sam.prompting import EmbeddingCache, LabelPrompter, Predictor, shipped_contexts
from causal_sam.prompting.contexts import ContextCache
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.shipped_context import context_digest
from causal_sam.sam.adapter_bundle import AdapterBundle, FilmPart, fitting_film
from causal_sam.sam.loading import load_model
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.versions import StoreError, version_name
from serving.conf import AppConf
from serving.inference_slots import InferenceSlots
from serving.requests.clients import Priority

logger = logging.getLogger(__name__)

# After a failure to load a version the next request tries again, those behind it after a pause that grows.
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 60.0
_UNKNOWN = -1


@dataclass(frozen=True)
class LoadedBundle:
    """An adapter bundle, ready for use. A request asks for it once, and so never sees two versions.

    Attributes:
        labels: prompter for the labels, with the model and its adapters.
        version: number in the adapter store; None for the files of the configuration.
        corrector: corrector with the FiLM part of a version; None for that of the configuration or of the model.
    """

    labels: LabelPrompter
    version: int | None
    corrector: Corrector | None = None


class PredictorPool:
    """Predictors for the images in use; all share the model, its embeddings and one background thread.

    Args:
        conf: says which model, and how much memory its embeddings may take.
        store: versions of the adapters.

    Attributes:
        inference_slots: limits how many requests use the model at a time; hold one around work with the model.
    """

    def __init__(self, conf: AppConf, store: AdapterStore) -> None:
        self._conf, self._store = conf, store
        self._lock = threading.Lock()
        self._base: Predictor | None = None
        self._contexts: ContextCache | None = None
        self._predictors: LRUCache[tuple[str, bytes, str], Predictor] = LRUCache(
            # A predictor keeps its volume in memory, so it counts as that.
            conf.volume_mb * 2**20,
            getsizeof=lambda predictor: predictor.slices.volume.array.nbytes,
        )
        self.inference_slots = InferenceSlots(conf.parallel)
        self._version: LoadedBundle | None = None  # bundle loaded last from the store
        self._version_number: int | None = None  # number of the version that was current then
        self._is_loaded = True  # True if the bundle is that version, not a fallback
        self._problem: str | None = None
        self._retry_at, self._pause = 0.0, 0.0
        # Files of the configuration: their state when they were read last, their content, and the bundle made from it.
        self._state: list[tuple[Path, int, int]] = []
        self._files, self._from_files = AdapterBundle(), None
        self._loading = threading.Lock()
        for path in conf.adapter_bundle:
            if not path.is_file():
                logger.warning("The adapter bundle %s is not there yet. Once it is, it is used.", path)
        self._corrector: tuple[FilmPart | None, Corrector] | None = None

    def base(self) -> Predictor:
        """Load the model if this has not been done, and return a predictor without a volume.

        Raises:
            CheckpointError: the weights are missing or damaged.
        """
        with self._lock:
            if self._base is None:
                conf = self._conf
                model = load_model(conf.model, conf.checkpoint, device=conf.device)
                cache = EmbeddingCache(conf.cache_mb * 2**20, conf.cache_dir)
                slot = partial(self.inference_slots.hold, priority=Priority.BACKGROUND)
                max_bytes = conf.context_mb * 2**20
                self._contexts = shipped_contexts(SliceEncoder(model, cache), max_bytes, slot) if max_bytes else None
                self._base = Predictor(
                    model, cache, prefetch_slices=conf.prefetch_slices, prefetch_slot=slot, contexts=self._contexts
                )
                logger.info("Model %s is loaded on %s.", model.name, model.device)
            return self._base

    def contexts(self) -> ContextCache | None:
        """Return the contexts of the volumes; None if they are off.

        Raises:
            CheckpointError: as `base`.
        """
        self.base()
        return self._contexts

    def corrector(self, bundle: LoadedBundle | None) -> Corrector:
        """Return the corrector of masks by notes: with the film of a version, of the configuration or of the model.

        Args:
            bundle: bundle that the request uses.

        Raises:
            CheckpointError: the film is damaged or belongs to another model.
        """
        if bundle is not None and bundle.corrector is not None:
            return bundle.corrector
        encoder = self.base().encoder
        with self._loading:
            film = self._read_files().film
            if self._corrector is None or self._corrector[0] is not film:
                self._corrector = film, load_corrector(encoder, film)
            return self._corrector[1]

    def current_bundle(self) -> LoadedBundle | None:
        """Return the labels in use: those of the current version of the store, else those of the configuration.

        Both are loaded again when they change, so that training needs no restart. While the current version cannot be
        loaded, the one that was loaded before stays in use, and `problem` says so; later requests try again.

        Returns:
            None if there are no labels yet, or none can be loaded.

        Raises:
            CheckpointError: a file of the configuration cannot be used.
        """
        with self._loading:
            return self._current_version() or self._configured()

    def automatic_model(self, bundle: LoadedBundle | None) -> str:
        """Identify the weights that decide which masks are found by name: the model, the context and a bundle.

        Raises:
            CheckpointError: the weights of the model are missing or damaged.
        """
        labels = "" if bundle is None else bundle.labels.digest
        return hashlib.sha256(f"{self._base_digest}\n{labels}".encode()).hexdigest()

    @cached_property
    def _base_digest(self) -> str:
        base = self.base()
        return "\n".join((base.model.name, base.model.encoder_hash(), context_digest() if base.has_contexts else ""))

    @property
    def problem(self) -> str | None:
        """Sentence why the last `current_bundle` is not of the current version; None if it is."""
        return self._problem

    def _current_version(self) -> LoadedBundle | None:
        try:
            number = self._store.current()
        except StoreError as error:
            self._report(f"{error} {_in_use(self._version)}")
            self._version_number = _UNKNOWN  # so that it is loaded once the store can be read
            return self._version
        if number != self._version_number:
            self._version_number, self._is_loaded = number, number is None
            self._retry_at, self._pause = 0.0, 0.0
            self._problem = None
        if not self._is_loaded and time.monotonic() >= self._retry_at:
            self._load(number)
        return self._version

    def _load(self, number: int) -> None:
        """Load a version, or what stands in for it; if it is not that version, it is tried again after a pause."""
        try:
            with self._store.lease_current() as (version, wrong):
                if self._version is None or self._version.version != version.number:
                    bundle, base = AdapterBundle.read(version.adapter), self.base()
                    labels = LabelPrompter.from_bundle(bundle, base.model)
                    film = fitting_film(bundle, base.model)
                    corrector = None if film is None else load_corrector(base.encoder, film)
                    self._version = LoadedBundle(labels, version.number, corrector)
                    logger.info("%s is in use: %s.", version_name(version.number), ", ".join(labels.metadata.names))
        except (CausalSamError, OSError, RuntimeError, MemoryError) as error:
            wrong = f"{version_name(number)} cannot be loaded ({str(error).rstrip('.')}). {_in_use(self._version)}"
        self._is_loaded = wrong is None
        self._report(wrong)
        self._retry_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause + FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS)

    def _report(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:  # not with each request
            logger.error("%s", problem)
        self._problem = problem

    def _configured(self) -> LoadedBundle | None:
        files = self._read_files()
        if files.labels is not None and self._from_files is None:
            self._from_files = LoadedBundle(LabelPrompter.from_bundle(files, self.base().model), None)
            logger.info("Labels of the configuration: %s.", ", ".join(files.labels.metadata.names))
        return self._from_files

    def _read_files(self) -> AdapterBundle:
        """Read the files of the configuration if they changed."""
        paths = [path for path in self._conf.adapter_bundle if path.is_file()]
        state = [(path, stat.st_mtime_ns, stat.st_size) for path in paths for stat in [path.stat()]]
        if state != self._state:
            bundles = [AdapterBundle.read(path) for path in paths]
            labels = next((bundle.labels for bundle in bundles if bundle.labels is not None), None)
            film = next((bundle.film for bundle in bundles if bundle.film is not None), None)
            self._files, self._from_files, self._state = AdapterBundle(labels, film), None, state
        return self._files

    def for_volume(self, volume: Volume, plane: str) -> Predictor:
        """Return the predictor of a volume.

        Raises:
            InputError: the volume has no such plane.
        """
        key = (volume.content_hash, volume.affine.tobytes(), plane)
        with self._lock:
            predictor = self._predictors.get(key)
        if predictor is None:
            predictor = self.base().for_volume(volume, plane)
            with self._lock:
                if volume.array.nbytes <= self._predictors.maxsize:
                    predictor = self._predictors.setdefault(key, predictor)
        return predictor


class VersionUnusableError(InputError):
    """A version was published, and neither it nor one before it can be loaded."""

    status = 503


def with_problem(params: dict[str, Any], problem: str | None) -> dict[str, Any]:
    """Say in the parameters of a response why the current version is not the one that was used, if it is not."""
    return (
        params
        if problem is None
        else {**params, "version_problem": problem, "message": f"{params['message']} {problem}"}
    )


def _in_use(version: LoadedBundle | None) -> str:
    return "No version is in use." if version is None else f"{version_name(version.version)} stays in use."
