"""Labels that were saved in the data store, as masks by label name: brush edits reach the server only that way."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import Volume, read_volume

logger = logging.getLogger(__name__)

# Two programs rarely write the same affine to the last digit.
GRID_TOLERANCE_MM = 0.01


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


def is_on_grid(label: Volume, image: Volume) -> bool:
    """Whether a label map has the voxels of an image; that of an image with several frames has but one."""
    return (
        label.frames == 1
        and label.shape == image.shape
        and np.allclose(label.affine, image.affine, atol=GRID_TOLERANCE_MM)
    )


def names_in_info(info: Mapping[str, Any]) -> dict[str, int]:
    """Label names with their values, as the client gave them in any of the forms that clients use.

    ``label_info`` is a list of objects with a name and perhaps ``idx`` or ``id``; ``label_names`` (also inside
    ``params``, where the server puts its own results) is an object of name -> value or a list in the order of values.
    """
    params = info.get("params")
    entries = info.get("label_info")
    if isinstance(entries, list) and entries:
        named = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
        pairs = [
            (entry["name"], entry.get("idx", entry.get("id", position)))
            for position, entry in enumerate(named, start=1)
        ]
    else:
        names = info.get("label_names") or (params.get("label_names") if isinstance(params, dict) else None) or {}
        if isinstance(names, list):
            names = {name: position for position, name in enumerate(names, start=1)}
        pairs = list(names.items()) if isinstance(names, dict) else []
    return {
        name.strip(): int(value)
        for name, value in pairs
        if isinstance(name, str) and name.strip() not in ("", "background") and str(value).isdigit() and int(value) > 0
    }


def frame_in_info(info: Mapping[str, Any]) -> int | None:
    """The frame that a label was made on, where the server put its own results; None if nothing says it."""
    params = info.get("params")
    frame = params.get("frame") if isinstance(params, dict) else None
    return frame if isinstance(frame, int) else None


def values_by_name(named: Mapping[str, int], present: Iterable[int]) -> dict[str, int]:
    """Decide which value of a label map is which name.

    Normally the values are those that the client said. Slicer counts all its segments there, but exports only some
    of them under the values 1, 2, ...: when a value is in the map that no name has, the names are taken by position.

    Args:
        named: from `names_in_info`.
        present: values in the label map, without 0.
    """
    if set(present) <= set(named.values()):
        return dict(named)
    return {name: position for position, name in enumerate(sorted(named, key=named.__getitem__), start=1)}


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
