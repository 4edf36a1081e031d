"""What was found out about the studies of a data store, to choose the next one to label: a file that can be lost.

It is kept apart from MONAI Label's own file, which must not be written behind its back: it writes that file whole, from
what it has in memory, so another writer's changes would be lost, or labels with them.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from causal_sam.atomic import atomic_write

logger = logging.getLogger(__name__)

FILE = "causal_sam_scores.json"
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
    """What was found out about a study.

    Attributes:
        stamp: of the image that it was found on.
        style: sentence about how the image was made and looks; None if it could not be described.
        taught: `NamedLabels.digest` of what the model was taught then; None if that was nothing.
        uncertainty: of the model, 0 to 1; None without taught labels, or if it could not be computed.
        failure: why the image cannot be segmented, a sentence; None if it can.
    """

    stamp: Stamp
    style: str | None = None
    taught: str | None = None
    uncertainty: float | None = None
    failure: str | None = None


_IMAGES = TypeAdapter(dict[str, Score])


class Scores:
    """The scores of the studies of one data store, by image id, in memory and in a file.

    Safe to use from several threads. The file is replaced with each change, whole or not at all; one that cannot be
    read is begun anew, since all in it can be computed again.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._images = _read(path)

    def get(self, image_id: str) -> Score | None:
        """Return the score of a study; None if it has none."""
        with self._lock:
            return self._images.get(image_id)

    def all(self) -> dict[str, Score]:
        """Return all scores."""
        with self._lock:
            return dict(self._images)

    def put(self, image_id: str, score: Score) -> None:
        """Keep the score of a study, in memory alone if the file cannot be written."""
        with self._lock:
            self._images[image_id] = score
            self._write()

    def _write(self) -> None:
        images = {image_id: asdict(score) for image_id, score in sorted(self._images.items())}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path) as part:
                part.write_text(json.dumps({"format": FORMAT, "images": images}, indent=1))
        except OSError as error:
            logger.warning("Scores are kept in memory alone: %s cannot be written (%s).", self._path, error.strerror)


def _read(path: Path) -> dict[str, Score]:
    try:
        content = json.loads(path.read_bytes())
        if content["format"] == FORMAT:
            return _IMAGES.validate_python(content["images"])
        logger.warning("%s is of another version of Causal-SAM; scores are computed again.", path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        logger.warning("%s is damaged; scores are computed again.", path)
    return {}
