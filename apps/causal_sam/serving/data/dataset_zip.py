"""All that was accepted in one archive, as MONAI Label's clients download it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from zipfile import ZipFile

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from causal_sam.errors import NotFoundError
from serving.data.folder_store import FolderStore


def write_dataset(store: FolderStore, limit: int | None) -> Path:
    """Write the images with an accepted label, these labels, and what is known of them, into a temporary file.

    Args:
        store: with the images on this machine.
        limit: how many images at most; None or 0 for all.

    Returns:
        The file, which the caller deletes.

    Raises:
        NotFoundError: no label was accepted yet.
        InputError: a label cannot be read.
    """
    accepted = [image_id for image_id, entry in store.objects().items() if DefaultLabelTag.FINAL in entry.labels]
    if not accepted:
        raise NotFoundError("No label has been accepted yet, so there is no data set to send.")
    content = store.json() | {"objects": {}}
    with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as file:
        try:
            with ZipFile(file, "w") as archive:
                for image_id in accepted[: limit if limit and limit > 0 else None]:
                    content["objects"][image_id] = _add(archive, store, image_id)
                archive.writestr("metadata.json", json.dumps(content))
        except BaseException:
            Path(file.name).unlink()
            raise
    return Path(file.name)


def _add(archive: ZipFile, store: FolderStore, image_id: str) -> dict:
    """Write an image and its label into the archive; return what is known of them."""
    with store.open_label(image_id, DefaultLabelTag.FINAL.value) as (label, info):
        image = Path(LocalDatastore.get_image_uri(store, image_id))
        archive.write(image, f"image/{image.name}")
        archive.write(label, f"label/{label.name}")
    entry = store.objects()[image_id].image.model_dump()
    ext = label.name.removeprefix(image_id)
    return {"image": entry, "labels": {DefaultLabelTag.FINAL.value: {"ext": ext, "info": info}}}
