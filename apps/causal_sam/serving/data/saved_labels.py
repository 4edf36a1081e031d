"""Labels that were saved in the data store, as masks by label name: brush edits reach the server only that way."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.exception import LabelNotFoundException
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import Volume, read_label_map
from causal_sam.imaging.label_names import named_masks, named_values
from causal_sam.site.accepted import frame_in_info
from causal_sam.site.label_files import CHECKSUM
from serving.data.folder_store import FolderStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedLabel:
    """The newest label of an image.

    Attributes:
        image_id: its image.
        tag: "final" if a person accepted it.
        path: the label map.
        version: another one means that a label was saved since.
        info: information from the client that saved it.
    """

    image_id: str
    tag: str
    path: Path
    version: Hashable
    info: Mapping[str, Any]

    @property
    def is_final(self) -> bool:
        """A person accepted it."""
        return self.tag == DefaultLabelTag.FINAL


class SavedLabels:
    """The labels in the data store.

    Args:
        datastore: data store of the app.
    """

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore

    def newest(self, image_id: str | None, frame: int | None = 0) -> SavedLabel | None:
        """Return the label of an image that was saved last; None if there is none.

        A label that a person accepted takes precedence over labels saved by tasks, even newer ones.

        Args:
            image_id: id in the data store.
            frame: index of the frame. Labels that the server saved name their frame; those of clients hold for all.
                None for a label of any frame.
        """
        # Other stores keep labels on a server and have no time for them.
        if image_id is None or not isinstance(self._datastore, FolderStore):
            return None
        found = []
        for tag, label in self._datastore.labels_of(image_id).items():
            path = self._datastore.label_path(image_id, tag, label)
            try:
                stat = os.stat(path)
            except OSError:
                continue
            if frame is None or frame_in_info(label.info) in (None, frame):
                names = tuple(named_values(label.info))
                version = (str(path), label.info.get(CHECKSUM, stat.st_mtime_ns), label.info.get("ts"), names)
                found.append((stat.st_mtime_ns, SavedLabel(image_id, tag, path, version, label.info)))
        return max(found, key=lambda each: (each[1].is_final, each[0]), default=(0, None))[1]

    def masks(self, label: SavedLabel, volume: Volume) -> tuple[dict[str, NDArray[np.bool_]], bool]:
        """Read the masks of a saved label; none if it cannot be read or is not on the grid of ``volume``.

        A label that the client named and that has no voxels gives an empty mask: it was erased. Values without a name
        give none: which structures they are is not guessed. If the label was saved again since, that one is read.

        Returns:
            Label name -> mask, and whether these are all that the label map has.
        """
        try:
            with self._datastore.open_label(label.image_id, label.tag) as (path, info):
                masks, unnamed = named_masks(read_label_map(path, volume), info)
        except (InputError, LabelNotFoundException) as error:
            logger.warning("The saved label %s is not used: %s", label.path.name, error)
            return {}, False
        if unnamed:
            logger.warning("The saved label %s has no names for its values %s.", label.path.name, unnamed[:8])
        return masks, not unnamed
