"""Images that clients have opened: their volume contexts are prepared in the background."""

from __future__ import annotations

import logging
import threading

from fastapi import FastAPI

from causal_sam.errors import CausalSamError
from serving.data.images import ImageFinder, VolumeCache, volume_key
from serving.models import PredictorPool
from serving.private_log import origin

logger = logging.getLogger(__name__)


class OpenedImages:
    """Reads images that clients open, and begins to prepare their contexts; the latest one only, if many are opened.

    Args:
        finder: finds the file of an image.
        volumes: decoded images.
        predictors: the model.
        plane: plane that is segmented if a client names none.
    """

    def __init__(self, finder: ImageFinder, volumes: VolumeCache, predictors: PredictorPool, plane: str) -> None:
        self._finder, self._volumes, self._predictors, self._plane = finder, volumes, predictors, plane
        self._lock = threading.Lock()
        self._waiting: str | None = None
        self._thread: threading.Thread | None = None

    def add(self, image_id: str) -> None:
        """Prepare an image; returns at once."""
        if not self._predictors.base().has_contexts:
            return
        with self._lock:
            self._waiting = image_id
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="causal-sam-opened", daemon=True)
                self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no image is waiting to be read; return False after ``timeout`` seconds."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._lock:
                image_id, self._waiting = self._waiting, None
                if image_id is None:
                    self._thread = None
                    return
            try:
                volume = self._volumes.get(volume_key(self._finder.find(image_id).path))
                self._predictors.for_volume(volume, self._plane).prepare_context()
            except CausalSamError as error:  # the client gets the same error when it segments
                logger.info("The opened image is not prepared (%s).", origin(error))
            except Exception:
                logger.warning("Preparing an opened image failed; it is done when it is needed.", exc_info=True)


def prepare_opened(app: FastAPI, image_id: str) -> None:
    """Prepare an image that a client opens, if the server has been started; returns at once."""
    opened: OpenedImages | None = getattr(app.state, "opened_images", None)
    if opened is not None:
        opened.add(image_id)
