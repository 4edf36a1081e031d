"""Temporary files of answers until they are sent."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import uuid
from pathlib import Path

logger = logging.getLogger(__name__)


class ResultsFolder:
    """A folder of our own in the temporary directory; a new one is made if somebody cleans it up.

    MONAI Label deletes a result once it is sent. Its client saves what it gets under the same file name in the folder
    for temporary files, so on one machine a result must not lie right there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._make()

    def new_path(self, extension: str) -> Path:
        """Return the path of a file that is not there yet.

        Args:
            extension: file extension, with the dot.
        """
        with self._lock:
            if not self._is_there():
                logger.warning("The folder of results %s was removed: another one is made.", self._folder.name)
                self._make()
            return Path(self._folder.name) / f"{uuid.uuid4().hex}{extension}"

    def _make(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="causal-sam-results-", ignore_cleanup_errors=True)
        self._status = os.stat(self._folder.name)

    def _is_there(self) -> bool:
        try:
            # The very folder: another of its name may belong to somebody else.
            return os.path.samestat(os.stat(self._folder.name), self._status)
        except FileNotFoundError:
            return False
