"""Labels that were saved in the data store, as masks by label name: brush edits reach the server only that way."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import Volume, read_volume
from causal_sam.learning.accepted import frame_in_info, is_on_grid, names_in_info, values_by_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedLabel:
    """The newest label of an image.

    Attributes:
        path: the label map.
        version: path, time and size of the file: another one means that a label was saved since.
        info: what the client said about it when saving.
        is_final: a person accepted it.
    """

    path: Path
    version: tuple[str, int, int]
    info: Mapping[str, Any]
    is_final: bool


class SavedLabels:
    """The labels in the data store.

    Args:
        datastore: of the app.
        indices: the label set, name -> value; for label maps whose client did not say what its values mean.
    """

    def __init__(self, datastore: Datastore, indices: Mapping[str, int]) -> None:
        self._datastore = datastore
        self._indices = indices

    def newest(self, image_id: str | None, frame: int = 0) -> SavedLabel | None:
        """Return the label of an image that was saved last; None if there is none.

        One that a person accepted counts before all that a task saved, which may be newer and is no better for it.

        Args:
            image_id: of the data store.
            frame: of the image. What the server saved itself says of which frame it is, what clients save is for all.
        """
        # Other stores keep labels on a server and have no time for them.
        if image_id is None or not isinstance(self._datastore, LocalDatastore):
            return None
        found = []
        for tag in self._datastore.get_labels_by_image_id(image_id):
            path = self._datastore.get_label_uri(image_id, tag)
            try:
                stat = os.stat(path)
            except OSError:
                continue
            info = self._datastore.get_label_info(image_id, tag)
            if frame_in_info(info) in (None, frame):
                version = (path, stat.st_mtime_ns, stat.st_size)
                found.append(SavedLabel(Path(path), version, info, tag == DefaultLabelTag.FINAL))
        return max(found, key=lambda label: (label.is_final, label.version[1]), default=None)

    def masks(self, label: SavedLabel, volume: Volume) -> dict[str, NDArray[np.bool_]]:
        """Read the masks of a saved label; none if it cannot be read or is not on the grid of ``volume``.

        A label that the client named and that has no voxels gives an empty mask: it was erased.
        """
        try:
            saved = read_volume(label.path)
        except InputError as error:
            logger.warning("The saved label %s is not used: %s", label.path.name, error)
            return {}
        if not is_on_grid(saved, volume):
            logger.warning("The saved label %s is not used: it is not on the grid of its image.", label.path.name)
            return {}
        present = [int(value) for value in np.unique(saved.array) if value > 0]
        named = names_in_info(label.info)
        if named:
            values = values_by_name(named, present)
        else:
            values = {name: value for name, value in self._indices.items() if value in present}
        return {name: saved.array == value for name, value in values.items()}
