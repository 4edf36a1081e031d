"""Disk cache of bytes and text, robust against full, damaged and manipulated folders."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import diskcache

from causal_sam.errors import InputError

logger = logging.getLogger(__name__)


class _PlainDisk(diskcache.Disk):
    """Disk format that never unpickles, so that a manipulated folder cannot run code."""

    def get(self, key: Any, raw: bool) -> Any:
        if not raw:
            raise ValueError("pickled key")
        return super().get(key, raw)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode == diskcache.core.MODE_PICKLE:
            raise ValueError("pickled value")
        return super().fetch(mode, filename, value, read)


class PlainCache:
    """Persistent cache in a folder with least-recently-used eviction, which processes may share.

    Args:
        folder: created if it is missing.
        max_bytes: size limit of the folder.
        what: plural noun for log and error messages, such as "embeddings".

    Raises:
        InputError: the folder cannot be used.
    """

    def __init__(self, folder: Path | str, max_bytes: int, what: str) -> None:
        self._what = what
        try:
            self._cache = diskcache.Cache(
                str(folder), disk=_PlainDisk, size_limit=max_bytes, eviction_policy="least-recently-used"
            )
        except (OSError, sqlite3.Error) as error:
            raise InputError(
                f"The cache of {what} cannot use the folder {folder} ({error}); give a writable folder."
            ) from error

    def get(self, key: str) -> Any:
        """Return the value of a key; None if there is none or the disk fails, since it can be computed again."""
        try:
            return self._cache.get(key)
        except (OSError, sqlite3.Error, diskcache.Timeout, ValueError, TypeError) as error:
            logger.warning("The cache of %s could not be read: %s", self._what, error)
            return None

    def set(self, key: str, value: bytes | str) -> None:
        """Store a value, unless the disk fails."""
        try:
            self._cache.set(key, value)
        except (OSError, sqlite3.Error, diskcache.Timeout, ValueError) as error:
            logger.warning("The cache of %s could not be written: %s", self._what, error)

    def close(self) -> None:
        """Close the files of the cache, which are kept."""
        self._cache.close()
