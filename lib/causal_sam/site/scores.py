"""Scores of the studies of a data store for active learning, in a database that can be deleted.

The database is separate from MONAI Label's index, which is rewritten as a whole with each change.
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
    """Time and size of an image's files, which change if the image is replaced.

    Attributes:
        modified_ns: time of the last modification in ns; 0 without files.
        size: size in bytes.
    """

    modified_ns: int = 0
    size: int = 0

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Return the stamp of a file, or of all files in a folder."""
        try:
            files = [file.stat() for file in path.iterdir()] if path.is_dir() else [path.stat()]
        except OSError:
            return cls()
        return cls(max((file.st_mtime_ns for file in files), default=0), sum(file.st_size for file in files))


@dataclass(frozen=True)
class Score:
    """The scores of one study.

    Attributes:
        stamp: stamp of the image.
        style: style description of the image; None if it could not be described.
        taught: `LabelPrompter.digest` of the adapters behind the uncertainty; None without adapters.
        uncertainty: uncertainty of the model, 0 to 1; None without adapters, or if it could not be computed.
        failure: sentence on why the image cannot be segmented; None if it can.
    """

    stamp: Stamp
    style: str | None = None
    taught: str | None = None
    uncertainty: float | None = None
    failure: str | None = None


_SCORE = TypeAdapter(Score)


class Scores:
    """Scores of the studies of a data store by image identifier, in memory and in a database.

    The object is safe for several threads and processes. An unreadable database is recreated, since all scores can be
    computed again.

    Args:
        path: path of the database.
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
            self._recreate()
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
        """Store the score of a study, in memory only if the database cannot be written."""
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
        """Open and read the database."""
        self._database = sqlite3.connect(self._path, check_same_thread=False)
        # No temporary files appear beside the database, since servers watch this folder.
        self._database.execute("PRAGMA journal_mode = TRUNCATE")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version not in (0, FORMAT):
            raise sqlite3.DatabaseError(f"format {version}")
        with self._database:
            self._database.execute("CREATE TABLE IF NOT EXISTS scores (image TEXT PRIMARY KEY, score TEXT NOT NULL)")
            self._database.execute(f"PRAGMA user_version = {FORMAT}")
        rows = self._database.execute("SELECT image, score FROM scores").fetchall()
        return {image_id: _SCORE.validate_json(score) for image_id, score in rows}

    def _recreate(self) -> None:
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
