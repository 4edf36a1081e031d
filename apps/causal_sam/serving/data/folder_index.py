"""The index of a folder, shared with other threads, servers and a training process.

Each change happens under the lock of the folder, on the content on disk at that time. Files that others add or remove
are noticed with the next look at the folder, by the times of the folders.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from monailabel.datastore.local import LocalDatastoreModel
from monailabel.interfaces.datastore import DefaultLabelTag

from causal_sam.errors import InputError
from causal_sam.site.label_files import PART
from serving.data.files import Extensions, nested_files
from serving.data.index import Index, keep_damaged, read_index, write_index
from serving.data.reconciling import finish_saves, reconcile, tag_folders

logger = logging.getLogger(__name__)

LOCK = ".lock"
LOCK_SECONDS = 60.0
LOCK_POLL_SECONDS = 0.01
# Folders whose time is this close to now may change again without another time.
SETTLED_NS = 50_000_000
# Seconds after which a partial upload of a killed server is deleted.
STALE_SECONDS = 3600
MAX_NESTED = 5


class ReadOnlyError(InputError):
    """The folder of the data store cannot be written."""

    status = 403


class LockedError(InputError):
    """Somebody keeps the folder of the data store locked."""

    status = 503


class FolderIndex:
    """Content of a folder, according to its index and its files.

    Args:
        path: path of the index, in the folder.
        empty: content to start from if there is no index.
        extensions: extensions of images and labels.
        watches: notice files that others add or delete.
        read_only: change nothing in the folder.

    Attributes:
        current: the index as it was read or written last; it is replaced, never changed.
        read_only: reason why the folder cannot be written; None if it can.

    Raises:
        InputError: the folder cannot be read.
    """

    def __init__(
        self, path: Path, empty: LocalDatastoreModel, extensions: Extensions, *, watches: bool, read_only: bool
    ) -> None:
        self._path, self._folder, self._empty, self._extensions = path, path.parent, empty, extensions
        self._watches = watches
        self.current = Index(empty)
        self.read_only = "this server is configured to leave it as it is" if read_only else None
        self._mutex = threading.RLock()
        self._file_lock = FileLock(self._folder / LOCK, timeout=LOCK_SECONDS, poll_interval=LOCK_POLL_SECONDS)
        self._seen: tuple | None = None
        self._read: tuple | None = None  # stamp of the index in `current`
        self._is_settled = False  # the index cannot have changed since without another stamp
        self._said: set[str] = set()
        self._open()

    @property
    def images(self) -> Path:
        """The folder of the images."""
        return Path(self.current.model.image_path())

    @property
    def latest(self) -> Index:
        """The index with what others changed until now; who holds the lock has it in `current`."""
        if self._mutex.acquire(blocking=False):  # who waits here would get what they get now
            try:
                if not self._file_lock.is_locked:
                    self.catch_up()
            finally:
                self._mutex.release()
        return self.current

    def refresh(self) -> None:
        """List again what is in the folder.

        Raises:
            OSError: the folder cannot be read.
            LockedError: somebody keeps it locked.
        """
        with self._mutex:
            self._seen = None
            self.catch_up(scan=True)

    def _open(self) -> None:
        """Read the index and list the folder for the first time."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"The studies folder {self._folder} cannot be used: {error.strerror or error}.") from error
        if self.read_only is None:
            try:
                with self.locked():
                    for tag in (DefaultLabelTag.FINAL, DefaultLabelTag.ORIGINAL):
                        Path(self.current.model.label_path(tag.value)).mkdir(parents=True, exist_ok=True)
                    self.images.mkdir(parents=True, exist_ok=True)
                    if not os.access(self._folder, os.W_OK) or not os.access(self.images, os.W_OK):
                        raise PermissionError(13, "Permission denied")
                    for part in self.images.glob(f".*{PART}"):
                        if time.time() - part.stat().st_mtime > STALE_SECONDS:
                            part.unlink(missing_ok=True)
            except OSError as error:
                self.read_only = error.strerror or str(error)
        if self.read_only is not None:
            logger.warning(
                "The studies folder %s cannot be written (%s): its images are served and segmented, but no label can "
                "be saved. Give the account of the server write access to the folder and all in it.",
                *(self._folder, self.read_only),
            )
        try:
            self.refresh()
        except OSError as error:
            raise InputError(f"The studies folder {self._folder} cannot be read: {error.strerror or error}.") from error
        labels = Path(self.current.model.label_path(None))
        if nested := nested_files(self.images, self._extensions, {labels}, MAX_NESTED):
            logger.warning(
                "Images in sub folders are not listed (%s): move them up into %s.", ", ".join(nested), self.images
            )

    def refuse_if_read_only(self) -> None:
        """Raise `ReadOnlyError` if the folder cannot be written."""
        if self.read_only is not None:
            raise ReadOnlyError(
                f"The studies folder of this server cannot be written ({self.read_only}), so nothing was saved: ask "
                "who runs the server for write access."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the folder, with the index as it is on disk."""
        with self._mutex:
            if self.read_only is not None:
                self._load()
                yield
                return
            try:
                self._file_lock.acquire()
            except Timeout as error:
                raise LockedError(
                    f"Another program keeps the studies folder locked for {LOCK_SECONDS:.0f} s; try again."
                ) from error
            try:
                self._load()
                yield
            finally:
                self._file_lock.release()

    @contextmanager
    def changing(self) -> Iterator[Index]:
        """Hold the lock of the folder, with a copy of the index to change; the block's end commits it."""
        self.refuse_if_read_only()
        with self.locked():
            index = self.current.copy()
            yield index
            if self.current is not index:
                self.commit(index)

    def _load(self) -> None:
        """Read the index again if it is another one than the last time; the caller holds the lock."""
        path, stamp = self._path, file_stamp(self._path)
        if stamp is not None and stamp == self._read and self._is_settled:
            return
        index, problems = self._parse(path)
        if problems and self.read_only is None:
            keep_damaged(path, problems)
        elif problems:
            self._say(f"{path} is damaged, and cannot be mended in a folder that cannot be written.")
        if lost := problems or stamp is None:
            # The server still has the last good index in memory, so a damaged file loses nothing.
            known = self.current.copy()
            known.model.objects |= index.model.objects
            known.vanished |= index.vanished
            index = known
        self._take(index, stamp)
        if self.read_only is None:
            finish_saves(index)
            if lost or not index.is_as_written:
                self.commit(index)

    def _parse(self, path: Path) -> tuple[Index, list[str]]:
        try:
            return read_index(path, self._empty)
        except OSError as error:
            # Without it nothing is known of the labels; to write another one would lose their names.
            self.read_only = f"{path.name}: {error.strerror or error}"
            self._say(
                f"{path} cannot be read ({error.strerror or error}): labels have no names here and none can be saved. "
                "Let it be a file that the account of the server may read and write."
            )
            return Index(self._empty.model_copy(update={"objects": {}})), []

    def _take(self, index: Index, stamp: tuple | None) -> None:
        self.current, self._read, self._is_settled = index, stamp, _is_settled(stamp)

    def commit(self, index: Index) -> None:
        """Write a changed index; from then on it counts."""
        write_index(self._path, index)
        self._take(index, file_stamp(self._path))

    def catch_up(self, scan: bool = False) -> None:
        """Notice what others changed on disk.

        Args:
            scan: list the folder even if nobody is to watch it, and raise what hinders that.
        """
        folders = self._folders() if self._watches or scan else []
        seen = (file_stamp(self._path), *map(file_stamp, folders))
        if seen == self._seen:
            return
        try:
            if seen[0] != self._read:
                with self.locked():
                    pass
            if folders:
                self._reconcile()
        except (OSError, LockedError) as error:
            if scan:
                raise
            self._say(f"What others changed in {self._folder} is not seen now ({error}).")
        self._seen = seen if all(map(_is_settled, seen)) else None

    def _folders(self) -> list[Path]:
        labels = Path(self.current.model.label_path(None))
        return [self.images, labels, *tag_folders(labels)]

    def _reconcile(self) -> None:
        """List the files of the folder; if they are others than the index has, change it."""
        index = self.current.copy()
        changed, sentences = reconcile(index, self._extensions)
        if changed and self.read_only is None:
            with self.locked():  # somebody may be changing it
                index = self.current.copy()
                changed, sentences = reconcile(index, self._extensions)
                if changed:
                    self.commit(index)
        elif changed:
            self._take(index, self._read)
        for sentence in sentences:
            self._say(sentence)

    def _say(self, sentence: str) -> None:
        """Log a sentence, once."""
        if sentence not in self._said:
            self._said.add(sentence)
            logger.warning("%s", sentence)


def file_stamp(path: Path) -> tuple[int, int, int] | None:
    """Time, size and number of a file, which change with its content; None if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _is_settled(stamp: tuple[int, int, int] | None) -> bool:
    return stamp is None or abs(time.time_ns() - stamp[0]) > SETTLED_NS
