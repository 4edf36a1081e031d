"""The model of the server: loaded once, shared by all requests, and used by a limited number of them at a time."""

from __future__ import annotations

import logging
import threading

from cachetools import LRUCache

from causal_sam.imaging import Volume
from causal_sam.intervention.correction import Corrector, load_corrector
from causal_sam.prompting import EmbeddingCache, NamedLabels, Predictor
from causal_sam.sam.registry import load_model
from serving.conf import AppConf

logger = logging.getLogger(__name__)


class PredictorPool:
    """Predictors for the images in use; all share the model, its embeddings and one background thread.

    Args:
        conf: says which model, and how much memory its embeddings may take.

    Attributes:
        computing: hold it around work with the model. More requests than this side by side would only slow each other
            down and add up their memory; those that wait have not begun.
    """

    def __init__(self, conf: AppConf) -> None:
        self._conf = conf
        self._lock = threading.Lock()
        self._base: Predictor | None = None
        self._predictors: LRUCache[tuple[str, bytes, str], Predictor] = LRUCache(
            # A predictor keeps its volume in memory, so it counts as that.
            conf.volume_mb * 2**20,
            getsizeof=lambda predictor: predictor.slices.volume.array.nbytes,
        )
        self.computing = threading.BoundedSemaphore(conf.parallel)
        self._taught: tuple[tuple[int, int], NamedLabels] | None = None
        self._teaching = threading.Lock()
        self._corrector: Corrector | None = None

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
                self._base = Predictor(model, cache, ahead=conf.encode_ahead)
                logger.info("Model %s is loaded on %s.", model.name, model.device)
            return self._base

    def corrector(self) -> Corrector:
        """What corrects masks by notes, with the same model.

        Raises:
            CheckpointError: the weights of the modulation are missing, damaged or another model's.
        """
        predictor = self.base()
        with self._lock:
            if self._corrector is None:
                self._corrector = load_corrector(predictor.encoder, self._conf.film)
            return self._corrector

    def taught(self) -> NamedLabels | None:
        """The labels that the model was taught, as they are in the file now; None if nothing was taught yet.

        The file is read again when it changes, so that training needs no restart.

        Raises:
            CheckpointError: the file cannot be used.
        """
        path = self._conf.label_prompts
        if path is None or not path.is_file():
            return None
        stat = path.stat()
        version = (stat.st_mtime_ns, stat.st_size)
        with self._teaching:
            if self._taught is None or self._taught[0] != version:
                self._taught = (version, NamedLabels.load(path, self.base().model))
                logger.info("Taught labels: %s.", ", ".join(self._taught[1].taught.names))
            return self._taught[1]

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
