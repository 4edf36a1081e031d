"""Scores of the studies of a data store, for choosing the next one to label; the database can be deleted.

It is kept apart from MONAI Label's index, which is written whole with each change.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

logger = logging.getLogger(__name__)

FILE = "causal_sam_scores.sqlite"
FORMAT = 1


@dataclass(frozen=True)
class Stamp:
    """What changes when an image is replaced.

    Attributes:
        modified_ns: when it was written last; 0 if there is none.
        size: in bytes.
    """

    modified_ns: int = 0
    size: int = 0

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Look at a file, or at all files of a folder."""
        try:
            files = [file.stat() for file in path.iterdir()] if path.is_dir() else [path.stat()]
        except OSError:
            return cls()
        return cls(max((file.st_mtime_ns for file in files), default=0), sum(file.st_size for file in files))


@dataclass(frozen=True)
class Score:
    """The scores of one study.

    Attributes:
        stamp: of the image that it was found on.
        style: sentence about how the image was made and looks; None if it could not be described.
        taught: `LabelPrompter.digest` of what the model was taught then; None if that was nothing.
        uncertainty: of the model, 0 to 1; None without taught labels, or if it could not be computed.
        failure: why the image cannot be segmented, a sentence; None if it can.
    """

    stamp: Stamp
    style: str | None = None
    taught: str | None = None
    uncertainty: float | None = None
    failure: str | None = None


_SCORE = TypeAdapter(Score)


class Scores:
    """The scores of the studies of one data store, by image id, in memory and in a database.

    Safe to use from several threads and processes. A change writes the score that changed. A database that cannot be
    read is begun anew, since all in it can be computed again.

    Args:
        path: of the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._images: dict[str, Score] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._images = self._open()
        except (sqlite3.DatabaseError, ValidationError) as error:
            if isinstance(error, sqlite3.OperationalError):
                self._warn(error)
                return
            logger.warning("%s is damaged or of another version; scores are computed again.", path)
            self._begin_anew()
        except OSError as error:
            self._warn(error)

    def get(self, image_id: str) -> Score | None:
        """Return the score of a study; None if it has none."""
        with self._lock:
            return self._images.get(image_id)

    def all(self) -> dict[str, Score]:
        """Return all scores."""
        with self._lock:
            return dict(self._images)

    def put(self, image_id: str, score: Score) -> None:
        """Keep the score of a study, in memory alone if the database cannot be written."""
        with self._lock:
            self._images[image_id] = score
            if self._database is None:
                return
            try:
                with self._database:
                    row = image_id, _SCORE.dump_json(score).decode()
                    self._database.execute("INSERT OR REPLACE INTO scores VALUES (?, ?)", row)
            except sqlite3.Error as error:
                self._warn(error)

    def _open(self) -> dict[str, Score]:
        """Open the database, and read it."""
        self._database = sqlite3.connect(self._path, check_same_thread=False)
        # No file comes and goes beside it: servers watch this folder.
        self._database.execute("PRAGMA journal_mode = TRUNCATE")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version not in (0, FORMAT):
            raise sqlite3.DatabaseError(f"format {version}")
        with self._database:
            self._database.execute("CREATE TABLE IF NOT EXISTS scores (image TEXT PRIMARY KEY, score TEXT NOT NULL)")
            self._database.execute(f"PRAGMA user_version = {FORMAT}")
        rows = self._database.execute("SELECT image, score FROM scores").fetchall()
        return {image_id: _SCORE.validate_json(score) for image_id, score in rows}

    def _begin_anew(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        try:
            self._path.unlink()
            self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)
            self._images = self._open()
        except (OSError, sqlite3.Error) as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        logger.warning("Scores are kept in memory alone: %s cannot be written (%s).", self._path, error)
        self._database = None
