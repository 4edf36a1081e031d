"""Sessions on disk, in place of MONAI Label's: a folder each, with the image that a client uploaded and works on.

A session's folder is named by a random UUID, which the server chose. It holds ``session.json`` and the image, alone in
a folder of its own. Nothing that a client sends becomes a path.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastapi import UploadFile
from monailabel.config import settings

from causal_sam.errors import InputError
from causal_sam.imaging.limits import TooLargeError
from serving.sessions.archives import MAX_FILES, unpack
from serving.sessions.uploads import DICOM, check_upload, copy_limited, stored_extension

logger = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_META, _IMAGE, _PART = "session.json", "image", ".part"
MIN_EXPIRY, DEFAULT_EXPIRY = 60, 3600


def sessions_folder() -> Path:
    """The folder of all sessions, as MONAI Label's settings name it."""
    configured = settings.MONAI_LABEL_SESSION_PATH.strip()
    return Path(configured) if configured else Path.home() / ".cache" / "monailabel" / "sessions"


class TooManySessionsError(InputError):
    """There is no room for another session."""

    status = 429


@dataclass(frozen=True)
class SessionLimits:
    """Limits of sessions.

    Attributes:
        count: sessions at a time.
        image_bytes: maximum size of one session.
        total_bytes: maximum size of all sessions together.
        expiry: seconds without a request after which a session is removed, at most.
    """

    count: int
    image_bytes: int
    total_bytes: int
    expiry: int


@dataclass(frozen=True)
class Session:
    """An uploaded image.

    Attributes:
        name: the id.
        image: file, or folder of a DICOM series.
        create_ts, last_access_ts: seconds since 1970.
        expiry: seconds without a request after which it is removed.
    """

    name: str
    image: Path
    create_ts: int
    last_access_ts: int
    expiry: int

    def to_json(self) -> dict[str, Any]:
        """Return the form for clients: with MONAI Label's keys, and without paths of this machine."""
        return {**asdict(self), "image": self.image.name, "path": self.name, "meta": {}}


class SessionStore:
    """The sessions in a folder; any number of threads and servers may share it.

    Args:
        folder: folder of the sessions, created with the first one. Files with other names are left alone.
        limits: limits of the sessions.
    """

    def __init__(self, folder: Path, limits: SessionLimits) -> None:
        self.folder, self._limits = folder, limits
        self._creating = threading.Lock()

    def get_session(self, session_id: str, update_ts: bool = True) -> Session | None:
        """Return a session; None if there is none of this id.

        Args:
            session_id: id from a client.
            update_ts: count this as a use, so that the session expires later.
        """
        if not _ID.fullmatch(session_id):
            return None
        meta = self.folder / session_id / _META
        try:
            if update_ts:
                os.utime(meta)
            content, used = json.loads(meta.read_bytes()), int(meta.stat().st_mtime)
            name, created, expiry = str(content["image"]), int(content["create_ts"]), int(content["expiry"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        # The file may have come from anywhere: what it names must be what the server put here.
        image = self.folder / session_id / _IMAGE / name if name else self.folder / session_id / _IMAGE
        if "/" in name or name in (".", "..") or "\0" in name or image.is_symlink() or not image.exists():
            return None
        return Session(session_id, image, created, used, min(expiry, self._limits.expiry))

    def add_session(self, uploads: Sequence[UploadFile], expiry: int = 0, *, is_archive: bool = False) -> Session:
        """Keep uploaded files as a session.

        Args:
            uploads: one image, or the files of one DICOM series.
            expiry: seconds without a request after which it may be removed; 0 for the longest.
            is_archive: the one file is a zip or tar archive of them.

        Raises:
            TooManySessionsError: there are as many sessions, or as many bytes of them, as there may be.
            TooLargeError: the files are too large, or too many.
            InputError: there is no file, an archive cannot be unpacked, or an image is none that can be read.
        """
        self.remove_expired()
        session_id = str(uuid.uuid4())
        part = self.folder / f"{session_id}{_PART}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.mkdir(mode=0o700)
            (part / _IMAGE).mkdir(mode=0o700)
            files = self._written(uploads, part, is_archive=is_archive)
            if len(files) > 1 and any(file.suffix != DICOM for file in files):
                raise InputError("Several files must be those of one DICOM series; upload other images one by one.")
            check_upload(files[0])
            longest = self._limits.expiry
            content = {
                "image": files[0].name if len(files) == 1 else "",
                "create_ts": int(time.time()),
                "expiry": min(max(expiry, MIN_EXPIRY), longest) if expiry > 0 else longest,
            }
            (part / _META).write_text(json.dumps(content), encoding="utf-8")
            with self._creating:
                self._check_room(folder_size(part))
                part.rename(self.folder / session_id)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        session = self.get_session(session_id)
        assert session is not None
        return session

    def remove_session(self, session_id: str) -> None:
        """Remove a session; nothing happens if there is none."""
        if _ID.fullmatch(session_id):
            shutil.rmtree(self.folder / session_id, ignore_errors=True)

    def remove_expired(self) -> int:
        """Remove the sessions that nobody used for so long, and those that are damaged; return how many."""
        count = 0
        for folder in self._folders():
            session_id = folder.name.removesuffix(_PART)
            session = None if folder.name.endswith(_PART) else self.get_session(session_id, update_ts=False)
            try:
                last, expiry = (
                    (folder.stat().st_mtime, self._limits.expiry)
                    if session is None
                    else (session.last_access_ts, session.expiry)
                )
            except OSError:
                continue
            if last + expiry < time.time():
                shutil.rmtree(folder, ignore_errors=True)
                count += 1
        return count

    def _written(self, uploads: Sequence[UploadFile], part: Path, *, is_archive: bool) -> list[Path]:
        limit = self._limits.image_bytes
        if not uploads:
            raise InputError("Upload at least one file.")
        if is_archive:
            if len(uploads) > 1:
                raise InputError("With uncompress, upload one archive.")
            archive = part / "archive"
            copy_limited(uploads[0].file, archive, limit, "The archive")
            files = unpack(archive, part / _IMAGE, limit)
            archive.unlink()
            return files
        if len(uploads) > MAX_FILES:
            raise TooLargeError(f"Upload at most {MAX_FILES} files.")
        files = []
        for number, upload in enumerate(uploads):
            name = f"{number:05d}" if len(uploads) > 1 else _IMAGE
            files.append(part / _IMAGE / f"{name}{stored_extension(upload.filename)}")
            limit -= copy_limited(upload.file, files[-1], limit, "What was uploaded")
        return files

    def _check_room(self, size: int) -> None:
        folders = [folder for folder in self._folders() if not folder.name.endswith(_PART)]
        if len(folders) >= self._limits.count:
            raise TooManySessionsError(
                f"There are {len(folders)} sessions, which is the most allowed: delete one, or wait until one expires."
            )
        if size + sum(map(folder_size, folders)) > self._limits.total_bytes:
            raise TooManySessionsError(
                f"All sessions together may take {self._limits.total_bytes} bytes, and there is no room left for this "
                "one: delete another, or wait until one expires."
            )

    def _folders(self) -> Iterator[Path]:
        try:
            entries = list(os.scandir(self.folder))
        except FileNotFoundError:
            return
        for entry in entries:
            if _ID.fullmatch(entry.name.removesuffix(_PART)) and entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder and those below; what vanishes meanwhile counts nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total
