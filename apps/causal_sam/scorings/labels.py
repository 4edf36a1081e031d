"""Common parts of the scoring methods: the labels of a data store, and the files of results."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from causal_sam.atomic import atomic_write
from causal_sam.errors import InputError
from serving.data.folder_store import FolderStore

logger = logging.getLogger(__name__)


def labelled_images(datastore: Datastore) -> Iterator[tuple[str, Mapping[str, DataModel]]]:
    """List the images with an accepted label, by id, each with the entries of its labels by tag.

    Raises:
        InputError: the data store keeps its labels elsewhere.
    """
    if not isinstance(datastore, FolderStore):
        raise InputError(
            "Labels can be scored in a folder of studies and on a DICOMweb server, not in this data store."
        )
    for image_id, entry in sorted(datastore.objects().items()):
        if DefaultLabelTag.FINAL in entry.labels:
            yield image_id, entry.labels


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
