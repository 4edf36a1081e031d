"""A data store of MONAI Label with small made-up images, whose labels were accepted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import nibabel
import numpy as np
from monailabel.datastore.local import LocalDatastore

AFFINE = np.diag([-2.0, -2.0, 6.0, 1.0])
NAME = "block"


def draw(number: int) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    """Make an image of a bright block, and the label map of it."""
    label = np.zeros((40, 36, 5), np.uint8)
    label[10 + number : 26 + number, 10:26] = 1
    image = np.random.default_rng(number).normal(300, 8, label.shape) + 200 * label
    return nibabel.Nifti1Image(image.astype(np.float32), AFFINE), nibabel.Nifti1Image(label, AFFINE)


def accept(
    folder: Path,
    numbers: Iterable[int],
    draw: Callable[[int], tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]] = draw,
    names: Sequence[str] = (NAME,),
) -> Path:
    """Put an image for each number into a data store, and accept its label; return the folder.

    ``names`` are those of the values 1, 2, ….
    """
    info = {"label_info": [{"name": name, "idx": value} for value, name in enumerate(names, start=1)]}
    folder.mkdir(exist_ok=True)
    store = LocalDatastore(str(folder), extensions=["*.nii.gz"], auto_reload=False)
    for number in numbers:
        image, label = draw(number)
        with tempfile.TemporaryDirectory() as elsewhere:
            path = str(Path(elsewhere) / f"case{number}.nii.gz")
            nibabel.save(image, path)
            store.add_image(f"case{number}", path, {})
            nibabel.save(label, path)
            store.save_label(f"case{number}", path, "final", info)
    return folder
