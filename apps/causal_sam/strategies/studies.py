"""The studies of a data store, as the choice of the next one needs them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import ImageLabelModel, LocalDatastore
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from causal_sam.site.scores import Score, Stamp
from serving.data.images import ImageRef


class Studies:
    """Images and labels of a data store, and those of them that are on this machine.

    Args:
        datastore: data store of the app.
        find: image id -> its file, fetched from a server if need be; raises as `ImageFinder.find` does.
    """

    def __init__(self, datastore: Datastore, find: Callable[[str], ImageRef]) -> None:
        self._datastore, self._find = datastore, find
        # The stores of servers remember their listings for a while, in memories that threads must not share.
        self._listing = threading.Lock()

    def unlabelled(self) -> list[str]:
        """Return the ids of the images that nobody has labelled, in order.

        Raises:
            requests.RequestException: the server of the images does not answer as it should.
        """
        if self._is_on_server:
            with self._listing:
                listed = set(self._datastore.get_unlabeled_images())
        else:
            listed = self._here().keys()
        # The listing that the store of a server remembers may be older than labels saved here.
        return sorted(listed - set(self.accepted()))

    def accepted(self) -> list[str]:
        """Return the ids of the images whose labels were accepted, as far as this machine has them, in order."""
        return sorted(name for name, entry in self._here().items() if DefaultLabelTag.FINAL in entry.labels)

    def given(self, image_id: str) -> list[Mapping[str, Any]]:
        """Return when (``ts``) and to whom strategies gave an image, by MONAI Label's records.

        They lie in the info of the image, which clients may write too: what is no record is left out.
        """
        records = self._datastore.get_image_info(image_id).get("strategy")
        return [
            {**record, "strategy": name}
            for name, record in (records.items() if isinstance(records, dict) else ())
            if isinstance(record, dict) and isinstance(record.get("ts"), int | float)
        ]

    def fetch(self, image_id: str) -> Path:
        """Return the file of an image; it is fetched from its server first if it is not here.

        Raises:
            InputError: there is no such image, or it cannot be read.
            requests.RequestException: the server of the images does not answer as it should.
        """
        return self._find(image_id).path

    def is_here(self, image_id: str) -> bool:
        """Return True if an image is on this machine."""
        return self._path(image_id) is not None

    def stamp(self, image_id: str) -> Stamp | None:
        """Return the stamp of an image that is on this machine; None if it is not."""
        path = self._path(image_id)
        return None if path is None else Stamp.of(path)

    def is_current(self, image_id: str, score: Score) -> bool:
        """Return True if a score is about the image as it is now; an image that is only on a server does not change."""
        path = self._path(image_id)
        return path is None or Stamp.of(path) == score.stamp

    @property
    def _is_on_server(self) -> bool:
        return isinstance(self._datastore, DICOMWebDatastore) or not isinstance(self._datastore, LocalDatastore)

    def _here(self) -> dict[str, ImageLabelModel]:
        """Images and labels on this machine; a copy, since other threads add to them."""
        return dict(self._datastore._datastore.objects) if isinstance(self._datastore, LocalDatastore) else {}

    def _path(self, image_id: str) -> Path | None:
        if image_id not in self._here():
            return None
        # The method of this very class: that of the DICOMweb store fetches what it does not have.
        return Path(LocalDatastore.get_image_uri(self._datastore, image_id))
