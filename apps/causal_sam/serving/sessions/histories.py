"""The steps of each client on each image: the last used in memory, and all on disk, so that a restart loses nothing.

A session's folder is named by a hash of the image and the client, and can be read by this account alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from causal_sam.atomic import atomic_write
from causal_sam.prompting.history import CHAIN_FILE, FILE_MODE, FOLDER_MODE, History
from causal_sam.site.scores import Stamp
from serving.keyed_locks import KeyedLocks
from serving.sessions.store import folder_size

logger = logging.getLogger(__name__)

FOLDER, OWNER_FILE = "sessions", "owner.json"
MAX_COUNT = 1000
# On disk, the sessions used the longest time ago are removed first.
MAX_DISK_BYTES = 4 * 2**30
EXPIRY_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True)
class Owner:
    """Image and client of a session; each is None if it has no name.

    Attributes:
        image_id: id in the data store.
        client: name of the client.
    """

    image_id: str | None = None
    client: str | None = None


@dataclass
class OpenHistory:
    """A history that one request works on; the value that it has at the end is kept."""

    history: History


class _Kept(NamedTuple):
    """A history in memory, its size in bytes, and the stamp of its chain on disk."""

    history: History
    nbytes: int
    stamp: Stamp


class HistoryStore:
    """The histories of all clients; several servers may share the folder, if a client asks one after the other.

    Args:
        folder: folder of the sessions, created with the first step; None keeps nothing on disk.
        max_bytes: limit of all together in memory; the one used last is kept even if it is larger.
        max_count: limit of their number, in memory and on disk.
    """

    def __init__(self, folder: Path | None, max_bytes: int, max_count: int = MAX_COUNT) -> None:
        self._folder, self._max_bytes, self._max_count = folder, max_bytes, max_count
        self._guard = threading.Lock()
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._in_use = KeyedLocks()
        self._owners: dict[str, tuple[Owner, float]] = {}  # by folder, with the time of the last step
        if folder is not None:
            self._remove_old()
            self._owners |= _owners_in(folder)

    def __len__(self) -> int:
        """Number of histories in memory."""
        with self._guard:
            return len(self._kept)

    @contextmanager
    def open(self, key: Hashable, shape: tuple[int, int, int], owner: Owner = Owner()) -> Iterator[OpenHistory]:
        """Work on one history; other requests for the same one wait, those for others do not.

        If the block raises, the history stays as it was.

        Args:
            key: key of the image and the client; None for an image that is never requested again.
            shape: shape of the image.
            owner: names of the image and the client, for `in_work`.
        """
        if key is None:
            yield OpenHistory(History())
            return
        with self._in_use.hold(key):
            before = self._current(key, shape)
            opened = OpenHistory(before)
            yield opened
            if opened.history is not before:
                if opened.history.position:
                    with self._guard:
                        self._owners[_name(key)] = owner, time.time()
                if self._folder is not None:
                    self._save(self._path(key), opened.history, owner)
            self._keep(key, opened.history)

    def in_work(self) -> dict[str, dict[str, float]]:
        """Return image id -> client -> time of the last step in seconds since 1970, of sessions that have steps."""
        with self._guard:
            owners = list(self._owners.values())
        found: dict[str, dict[str, float]] = {}
        for owner, last in owners:
            if owner.image_id is not None and owner.client is not None:
                clients = found.setdefault(owner.image_id, {})
                clients[owner.client] = max(last, clients.get(owner.client, last))
        return found

    def _current(self, key: Hashable, shape: tuple[int, int, int]) -> History:
        """The history in memory, or that on disk if there is none, or if another server has written one since."""
        with self._guard:
            kept = self._kept.get(key)
        if kept is not None and self._stamp(key) in (kept.stamp, Stamp()):
            return kept.history
        return History() if self._folder is None else History.load(self._path(key), shape)

    def _path(self, key: Hashable) -> Path:
        return self._folder / _name(key)

    def _stamp(self, key: Hashable) -> Stamp:
        """Stamp of the chain on disk; the empty one if there is none."""
        return Stamp() if self._folder is None else Stamp.of(self._path(key) / CHAIN_FILE)

    def _keep(self, key: Hashable, history: History) -> None:
        stamp = self._stamp(key)
        with self._guard:
            self._kept[key] = _Kept(history, history.nbytes, stamp)
            self._kept.move_to_end(key)
            while len(self._kept) > self._max_count or (
                len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self._max_bytes
            ):
                self._kept.popitem(last=False)

    def _save(self, path: Path, history: History, owner: Owner) -> None:
        try:
            self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            is_new = not path.exists()
            history.save(path)
            if history.position and not (path / OWNER_FILE).exists():
                with atomic_write(path / OWNER_FILE) as part:
                    part.touch(FILE_MODE)
                    part.write_text(json.dumps(asdict(owner)))
            if is_new:
                self._remove_old()
        except OSError as error:
            logger.warning("A session will not survive a restart: %s cannot be written (%s).", path, error.strerror)

    def _remove_old(self) -> None:
        """Remove the sessions that expired, and those beyond the limits but for the last one."""
        try:
            used = {folder: _last_used(folder) for folder in self._folder.iterdir()}
        except OSError:  # there is none yet, or another server has just removed one
            return
        bytes_left = MAX_DISK_BYTES
        for number, folder in enumerate(sorted(used, key=used.__getitem__, reverse=True)):
            bytes_left -= folder_size(folder)
            is_expired = used[folder] + EXPIRY_SECONDS < time.time()
            if is_expired or number >= self._max_count or (number and bytes_left < 0):
                shutil.rmtree(folder, ignore_errors=True)
                with self._guard:
                    self._owners.pop(folder.name, None)


def _name(key: Hashable) -> str:
    """Return the name of a session's folder."""
    return hashlib.sha256(repr(key).encode()).hexdigest()[:32]


def _owners_in(folder: Path) -> dict[str, tuple[Owner, float]]:
    """Return the owners of the sessions on disk that have steps, by folder, without those that cannot be read."""
    owners = {}
    for path in folder.glob(f"*/{OWNER_FILE}"):
        try:
            owners[path.parent.name] = Owner(**json.loads(path.read_bytes())), _last_used(path.parent)
        except (OSError, ValueError, TypeError):
            logger.warning("Nothing says whose the session in %s is.", path.parent.name)
    return owners


def _last_used(folder: Path) -> float:
    chain = folder / CHAIN_FILE
    return (chain if chain.exists() else folder).stat().st_mtime
