"""Style descriptions of the images in use, made in the background so that no request waits for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cachetools import LRUCache

from causal_sam.imaging import Volume
from causal_sam.style import StyleDescription

logger = logging.getLogger(__name__)

REMEMBERED = 256


class StyleCache:
    """Descriptions of images by their content; one is made at a time, in the background.

    Args:
        describe: image -> its description; it may take long, and fail.
    """

    def __init__(self, describe: Callable[[Volume], StyleDescription]) -> None:
        self._describe = describe
        self._lock = threading.Lock()
        # None while it is being made, and where it could not be.
        self._known: LRUCache[str, StyleDescription | None] = LRUCache(REMEMBERED)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="causal-sam-style")

    def look_up(self, volume: Volume) -> dict[str, str] | None:
        """Return the sentence about an image and its source; None until it is there. The first call asks for it."""
        key = volume.content_hash
        with self._lock:
            if key not in self._known:
                self._known[key] = None
                self._worker.submit(self._make, key, volume)
            described = self._known[key]
        return None if described is None else {"sentence": described.sentence, "source": described.source}

    def _make(self, key: str, volume: Volume) -> None:
        try:
            described = self._describe(volume)
        except Exception:  # an image that cannot be described can still be segmented
            logger.exception("The style of an image could not be described.")
            return
        if described.failure is not None:
            logger.warning("The style is the measured one: %s.", described.failure)
        with self._lock:
            self._known[key] = described
