"""What scoring methods have in common: the labels of a data store, and where their results are kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from causal_sam.atomic import atomic_write
from causal_sam.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedLabel:
    """A label of an image in the data store.

    Attributes:
        path: the label map.
        info: what the client or the server said about it when saving.
    """

    path: Path
    info: Mapping[str, Any]


def labelled_images(datastore: Datastore) -> Iterator[tuple[str, dict[str, SavedLabel]]]:
    """List the images with an accepted label, by id, each with its labels by tag.

    Raises:
        InputError: the data store keeps its labels elsewhere.
    """
    if not isinstance(datastore, LocalDatastore):
        raise InputError(
            "Labels can be scored in a folder of studies and on a DICOMweb server, not in this data store."
        )
    for image_id, entry in sorted(datastore.json()["objects"].items()):
        if DefaultLabelTag.FINAL in entry["labels"]:
            yield (
                image_id,
                {
                    tag: SavedLabel(Path(datastore.get_label_uri(image_id, tag)), label["info"])
                    for tag, label in entry["labels"].items()
                },
            )


def keep_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write the result of a scoring method to a file of its own.

    MONAI Label's scoring methods write into the data store. They run in a process of their own, which would write its
    whole file as it was when that process read it: labels that were saved meanwhile would lose their names.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            part.write_text(json.dumps(result, indent=1))
    except OSError as error:
        logger.warning("The result of scoring is not kept: %s cannot be written (%s).", path, error.strerror)
