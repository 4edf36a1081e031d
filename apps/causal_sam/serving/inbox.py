"""The inbox: automatic masks of the cases that nobody has labelled yet, found in the background when somebody asks."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from causal_sam.errors import CausalSamError
from causal_sam.imaging import read_volume
from causal_sam.prompting import EmbeddingCache, LabelPrompter, Predictor, shipped_contexts
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.site.automatic_masks import AutomaticCase, AutomaticMasks
from causal_sam.site.scores import Stamp
from serving.models import PredictorPool
from serving.private_log import origin
from serving.requests.clients import Priority
from strategies.studies import Studies

logger = logging.getLogger(__name__)

# Embeddings of one case at a time; those of the cases that people work on stay in the cache of the server.
CACHE_BYTES = 256 * 2**20
# Niceness of the thread, as in nice(1): everything else on the machine goes first.
NICENESS = 10
STOP_SECONDS = 5.0
NOTHING_KNOWN = (
    "No label is known by name yet: accept labels and let the server learn from them, or offer labels that it knows."
)


class _StoppedError(Exception):
    """Somebody stopped the search, or the server ends."""


@dataclass(frozen=True)
class InboxProgress:
    """Progress of the search for automatic masks.

    Attributes:
        is_running: True until it ends.
        done: number of cases that are done.
        total: number of cases to do.
        message: sentence about how the last search ended; empty while it runs.
    """

    is_running: bool = False
    done: int = 0
    total: int = 0
    message: str = ""


class Inbox:
    """Finds masks by name in the cases without an accepted label that are on this machine, one case at a time.

    The model is held for one slice at a time, after everybody else.

    Args:
        studies: studies of the data store.
        predictors: the model.
        names: labels that the server offers.
        masks: keeps the masks.
        plane: plane in which the slices are segmented.
        max_voxels: limit of one image; a larger one is left out.
    """

    def __init__(
        self,
        studies: Studies,
        predictors: PredictorPool,
        names: Sequence[str],
        masks: AutomaticMasks,
        plane: str,
        max_voxels: int,
    ) -> None:
        self.studies, self.masks = studies, masks
        self._predictors, self._names, self._plane, self._max_voxels = predictors, list(names), plane, max_voxels
        self._lock = threading.Lock()
        self._progress = InboxProgress()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def progress(self) -> InboxProgress:
        """Progress of the search that runs, or ran last."""
        return self._progress

    def cases(self) -> tuple[list[AutomaticCase], list[str]]:
        """List the cases without an accepted label that are on this machine.

        Returns:
            Those whose masks the model in use has found, and the ids of the others.

        Raises:
            requests.RequestException: the server of the images does not answer as it should.
        """
        model = self._predictors.automatic_model(self._predictors.current_bundle())
        found, waiting = [], []
        for image_id in self.studies.unlabelled():
            stamp = self.studies.stamp(image_id)
            case = None if stamp is None else self.masks.get(image_id, model)
            if case is not None and case.stamp == stamp:
                found.append(case)
            elif stamp is not None:
                waiting.append(image_id)
        return found, waiting

    def start(self) -> None:
        """Begin to find masks in the cases that wait; nothing happens if that runs."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._stopping.clear()
            self._progress = InboxProgress(is_running=True)
            self._thread = threading.Thread(target=self._run, name="causal-sam-inbox", daemon=True)
            self._thread.start()
        # No thread may be inside the tensor library while the interpreter is taken down.
        atexit.register(self.stop)

    def stop(self) -> None:
        """End after the slice that is being worked on; the cases that are done stay."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(STOP_SECONDS)

    def _run(self) -> None:
        if sys.platform == "linux":  # where each thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        message = "The search failed; the log of the server says why."
        try:
            message = self._find_all()
        except _StoppedError:
            message = f"Stopped after {self._progress.done} of {self._progress.total} cases."
        except Exception:
            logger.exception("Finding masks for the inbox failed.")
        finally:
            self._progress = replace(self._progress, is_running=False, message=message)

    def _find_all(self) -> str:
        """Find the masks of all cases that wait, and return a sentence about it."""
        _, waiting = self.cases()
        self._progress = replace(self._progress, total=len(waiting))
        predictor, failed = self._predictor(), 0
        for done, image_id in enumerate(waiting, start=1):
            self._check(0)
            try:
                if not self._find(predictor, image_id):
                    return NOTHING_KNOWN
            except CausalSamError as error:  # the client gets the same error when it opens the case
                failed += 1
                logger.info("A case has no automatic masks (%s).", origin(error))
            self._progress = replace(self._progress, done=done)
        words = "1 case" if len(waiting) - failed == 1 else f"{len(waiting) - failed} cases"
        return f"Found the masks of {words}." + (f" {failed} cannot be segmented." if failed else "")

    def _find(self, predictor: Predictor, image_id: str) -> bool:
        """Find the masks of one case; return False if no label is known.

        Raises:
            CausalSamError: the case cannot be segmented.
            OSError: the masks cannot be kept.
        """
        path = self.studies.fetch(image_id)
        stamp, volume = Stamp.of(path), read_volume(path, max_voxels=self._max_voxels)
        bundle = self._predictors.current_bundle()
        labels: LabelPrompter | None = None if bundle is None else bundle.labels
        predictor.set_volume(volume, self._plane)
        names = [name for name in self._names if predictor.knows_name(name, labels)]
        if not names:
            return False
        slot = partial(self._predictors.inference_slots.hold, priority=Priority.BACKGROUND)
        prediction = predictor.predict_named(names, labels, self._check, slot)
        model = self._predictors.automatic_model(bundle)
        self.masks.put(image_id, stamp, model, names, prediction, volume.voxel_ml)
        return True

    def _predictor(self) -> Predictor:
        """Return a predictor with caches of its own, for one case at a time."""
        base = self._predictors.base()
        cache = EmbeddingCache(CACHE_BYTES)
        contexts = shipped_contexts(SliceEncoder(base.model, cache), 0) if base.has_contexts else None
        return Predictor(base.model, cache, prefetch_slices=0, contexts=contexts)

    def _check(self, done: int) -> None:
        if self._stopping.is_set():
            raise _StoppedError
