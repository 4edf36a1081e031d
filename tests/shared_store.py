"""A data store with small images, whose labels say in their names which value they have."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from serving.data.folder_store import FolderStore

IMAGES = 12
SHAPE = (24, 20, 8)


def make_images(folder: Path) -> Path:
    """Make the images of a data store."""
    folder.mkdir()
    for number in range(IMAGES):
        save(folder / f"case{number}.nii.gz", 0)
    return folder


def save(path: Path, value: int) -> Path:
    """Write a label map that has one value everywhere."""
    nibabel.save(nibabel.Nifti1Image(np.full(SHAPE, value, np.uint8), np.eye(4)), path)
    return path


def opened(folder: Path, watches: bool = True) -> FolderStore:
    """Open the data store as a server does."""
    return FolderStore(str(folder), extensions=("*.nii.gz", "*.nii", "*.nrrd"), auto_reload=watches)


def named(value: int) -> dict:
    """What a client says of a label whose value is also in its name."""
    return {"label_info": [{"name": f"structure {value}", "idx": value}]}


def saved_pair(store: FolderStore, image_id: str, tag: str = "final") -> tuple[int, str]:
    """The value in a label's file, and the name that its info has for it."""
    with store.open_label(image_id, tag) as (path, info):
        array = np.asarray(nibabel.load(path).dataobj)
    assert array.min() == array.max(), "the file is not whole"
    (entry,) = info["label_info"]
    assert entry["idx"] == array.max(), (image_id, tag, entry, array.max())
    return int(array.max()), entry["name"]
