"""From the image that a request names to the decoded volume, read once and kept within a limit."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from cachetools import LRUCache, cached
from monailabel.interfaces.datastore import Datastore

from causal_sam.errors import InputError, NotFoundError
from causal_sam.imaging import Volume, read_volume
from causal_sam.imaging.limits import MAX_VOXELS
from serving.sessions.store import sessions_folder


class ForbiddenPathError(InputError):
    """A client requested a file outside the studies."""

    status = 403


@dataclass(frozen=True)
class ImageRef:
    """An image that may be read.

    Attributes:
        path: file, or folder of a DICOM series.
        image_id: id in the data store; None for a file that was given by its path.
    """

    path: Path
    image_id: str | None


class ImageFinder:
    """Finds the file of an image, and refuses files that are not the studies'.

    Args:
        datastore: knows the images by id.
        studies: the studies folder, or the address of a server.
    """

    def __init__(self, datastore: Datastore, studies: str) -> None:
        self._datastore = datastore
        self._studies = None if "://" in studies else Path(studies).resolve()

    def find(self, image: str, *, server_chose: bool = False) -> ImageRef:
        """Return the image of an id, or of a path inside the studies folder.

        Args:
            image: id, absolute path, or path relative to the studies folder.
            server_chose: the path is the server's own, of an upload or a session, and not from a client.

        Raises:
            NotFoundError: neither the data store nor the folder has it.
            ForbiddenPathError: the path leads out of the studies folder, also by a link.
            InputError: the series cannot be read as a volume.
            requests.RequestException: the DICOMweb server does not answer as it should.
        """
        if server_chose:
            return ImageRef(_existing_upload(image), None)
        if image and (known := self._datastore.get_image_uri(image)):
            return ImageRef(Path(known), image)
        if self._studies is not None and image and "\0" not in image:
            path = (self._studies / image).resolve()
            if path == self._studies or not path.is_relative_to(self._studies):
                # The answer does not depend on whether the file exists, so it reveals nothing about this machine.
                raise ForbiddenPathError(
                    "The image must be an id of the data store or a file inside the studies folder."
                )
            if path.exists():
                return ImageRef(path, None)
        raise NotFoundError(f"There is no image {image!r} in the studies; /datastore/?output=all lists the ids.")


def _existing_upload(image: str) -> Path:
    path = Path(image)
    own = (Path(tempfile.gettempdir()).resolve(), sessions_folder().resolve())
    if not any(path.resolve().is_relative_to(folder) for folder in own):
        raise ForbiddenPathError("The image of a session or upload must be where the server keeps those.")
    if not path.exists():
        raise NotFoundError("The uploaded image is gone; upload it again.")
    return path


VolumeKey = tuple[str, int, tuple[tuple[str, int, int], ...]]


def volume_key(path: Path, frame: int = 0) -> VolumeKey:
    """Return a key that changes with the image in a file or folder: its path, with time and size of its files.

    Args:
        path: path of the file or folder.
        frame: index of the frame; each is an image of its own.

    Raises:
        NotFoundError: there is no such file.
    """
    try:
        files = sorted(os.scandir(path), key=lambda entry: entry.name) if path.is_dir() else None
        stats = [(entry.name, entry.stat()) for entry in files] if files is not None else [("", path.stat())]
    except OSError as error:
        raise NotFoundError(f"The image {path.name} cannot be read: {error.strerror}.") from error
    return str(path), frame, tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


class VolumeCache:
    """Decoded volumes, the least recently used dropped first; each is read once, however many ask for it.

    Args:
        max_bytes: limit of the arrays. A larger volume is handed out but not kept.
        max_voxels: limit of one image; a larger one is not read.
    """

    def __init__(self, max_bytes: int, max_voxels: int = MAX_VOXELS) -> None:
        self._volumes: LRUCache[VolumeKey, Volume] = LRUCache(max_bytes, getsizeof=lambda volume: volume.array.nbytes)
        self._changed = threading.Condition()
        self._read = cached(self._volumes, key=lambda key: key, condition=self._changed)(
            lambda key: read_volume(*key[:2], max_voxels)
        )

    def get(self, key: VolumeKey) -> Volume:
        """Return the volume of `volume_key`, reading it if it is not kept.

        Raises:
            InputError: the file cannot be read as an image, or has no such frame.
        """
        return self._read(key)

    def holds(self, nbytes: int) -> bool:
        """Return True if arrays of so many bytes can be kept at a time."""
        return nbytes <= self._volumes.maxsize

    def kept(self, key: VolumeKey) -> Volume | None:
        """Return the volume of `volume_key` if it is kept."""
        with self._changed:
            return self._volumes.get(key)
