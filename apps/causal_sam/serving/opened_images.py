"""Images that clients have opened, and those that they probably open next: their contexts are prepared ahead."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from fastapi import FastAPI

from causal_sam.errors import CausalSamError
from causal_sam.prompting.contexts import ContextCache
from causal_sam.prompting.slices import VolumeSlices
from serving.data.images import ImageFinder, VolumeCache, volume_key
from serving.models import PredictorPool
from serving.private_log import origin

logger = logging.getLogger(__name__)

# Seconds between looks whether another image was opened, while the context of the last one is prepared.
LOOK_SECONDS = 0.2
# Returns the id of the image that is probably opened next; None if none is worth the work.
ChooseNext = Callable[[], str | None]


class OpenedImages:
    """Reads images that clients open, and begins to prepare their contexts; the latest one only, if many are opened.

    When that is done and nothing else was opened, the image that comes next is prepared too, if there is room for both
    in all caches: what is prepared ahead never replaces anything of the image that is open.

    Args:
        finder: finds the file of an image.
        volumes: decoded images.
        predictors: the model.
        plane: plane that is segmented if a client names none.
    """

    def __init__(self, finder: ImageFinder, volumes: VolumeCache, predictors: PredictorPool, plane: str) -> None:
        self._finder, self._volumes, self._predictors, self._plane = finder, volumes, predictors, plane
        self._lock = threading.Lock()
        self._waiting: tuple[str, ChooseNext] | None = None
        self._ahead: tuple[str, VolumeSlices] | None = None
        self._thread: threading.Thread | None = None

    def add(self, image_id: str, choose_next: ChooseNext = lambda: None) -> None:
        """Prepare an image, and then the one that probably comes next; returns at once.

        Args:
            image_id: image that a client opens.
            choose_next: called when the image is prepared, in a thread.
        """
        contexts = self._predictors.contexts()
        if contexts is None:
            return
        with self._lock:
            if self._ahead is not None and self._ahead[0] != image_id:
                contexts.leave(self._ahead[1])
            self._ahead = None
            self._waiting = image_id, choose_next
            if self._thread is None:
                run = partial(self._run, contexts)
                self._thread = threading.Thread(target=run, name="causal-sam-opened", daemon=True)
                self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no image is waiting to be read; return False after ``timeout`` seconds."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def _run(self, contexts: ContextCache) -> None:
        while True:
            with self._lock:
                opened, self._waiting = self._waiting, None
                if opened is None:
                    self._thread = None
                    return
            image_id, choose_next = opened
            try:
                slices = self._slices(image_id)
                contexts.start(slices)
                if self._is_done(contexts):
                    self._prepare_next(contexts, image_id, slices, choose_next)
            except CausalSamError as error:  # the client gets the same error when it segments
                logger.info("The opened image is not prepared (%s).", origin(error))
            except Exception:
                logger.warning("Preparing an opened image failed; it is done when it is needed.", exc_info=True)

    def _slices(self, image_id: str) -> VolumeSlices:
        volume = self._volumes.get(volume_key(self._finder.find(image_id).path))
        return self._predictors.for_volume(volume, self._plane).slices

    def _is_done(self, contexts: ContextCache) -> bool:
        """Wait for the context; return False as soon as another image is opened."""
        while not contexts.wait(LOOK_SECONDS):
            if self._waiting is not None:
                return False
        return self._waiting is None

    def _prepare_next(
        self, contexts: ContextCache, image_id: str, slices: VolumeSlices, choose_next: ChooseNext
    ) -> None:
        chosen = choose_next()
        # That it fits is known when it is read; until then, images of a site count as alike.
        if chosen in (None, image_id) or not self._volumes.holds(2 * slices.volume.array.nbytes):
            return
        ahead = self._slices(chosen)
        cache = self._predictors.base().cache
        if not (contexts.holds_both(slices, ahead) and cache.holds(slices.frame.count + ahead.frame.count)):
            return
        with self._lock:
            if self._waiting is not None:
                return
            self._ahead = chosen, ahead
            contexts.start(ahead)


def prepare_opened(app: FastAPI, image_id: str, choose_next: ChooseNext = lambda: None) -> None:
    """Prepare an image that a client opens, if the server has been started; returns at once. See `OpenedImages.add`."""
    opened: OpenedImages | None = getattr(app.state, "opened_images", None)
    if opened is not None:
        opened.add(image_id, choose_next)
