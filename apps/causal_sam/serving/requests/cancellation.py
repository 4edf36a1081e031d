"""Ends long work whose client is gone."""

from __future__ import annotations

import logging
import time

from serving.requests.clients import Connection
from serving.requests.errors import ClientGoneError

logger = logging.getLogger(__name__)

# Seconds between two log lines about a structure that is being followed.
PROGRESS_SECONDS = 2.0


class CancellationMonitor:
    """Ends long work when its client is gone, and logs how far it is."""

    def __init__(self, connection: Connection | None) -> None:
        self._connection = connection
        self._logged = time.monotonic()

    def __call__(self, done: int) -> None:
        if self._connection is not None and self._connection.is_closed:
            raise ClientGoneError("The client went away while its request was answered; nothing was changed.")
        if time.monotonic() - self._logged >= PROGRESS_SECONDS:
            self._logged = time.monotonic()
            logger.info("Long work: %d slices done.", done)
