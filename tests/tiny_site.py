"""A data store of MONAI Label as accepted labels leave it, small enough that an update takes seconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from filelock import FileLock

from causal_sam.site.accepted import DATA_STORE, FINAL, LOCK
from causal_sam.site.paths import SitePaths, UpdateConfig

AFFINE = np.diag([-2.0, -2.0, 6.0, 1.0])
SHAPE = (40, 36, 5)
# Nothing that is in the generated abdomens, which take long to measure.
LEFT, RIGHT = "left block", "right block"
PLACES = {LEFT: (slice(22, 34), slice(10, 26)), RIGHT: (slice(6, 18), slice(10, 26))}


def quick(**changes: Any) -> UpdateConfig:
    """How to learn in a moment: without other styles, measured on what was learned, and published however bad."""
    moment = {"epochs": 24, "batch": 4, "pairs": 2, "lad": False, "validation": 0.0}
    return UpdateConfig(**{**moment, "min_dice": 0.0, "min_label_dice": 0.0, **changes})


class TinySite:
    """A data store with bright blocks, and an adapter store beside it.

    Args:
        folder: is made.
    """

    def __init__(self, folder: Path) -> None:
        self.data, self.store = folder / "studies", folder / "versions"
        self.labels = self.data / "labels" / FINAL
        self.labels.mkdir(parents=True)
        self._write({})

    def site(self, **changes: Any) -> SitePaths:
        """Where labels come from, and where versions go."""
        return SitePaths(**{"data": self.data, "store": self.store, "image_size": 64, "device": "cpu"} | changes)

    def accept(self, number: int, names: Mapping[str, str] | None = None, **image_info: Any) -> str:
        """Make an image and accept a label of it.

        Args:
            number: of the image.
            names: place in `PLACES` -> name; by default all, under the names of the places.
            image_info: such as the patient.

        Returns:
            The id of the image.
        """
        names = dict(zip(PLACES, PLACES, strict=True)) if names is None else names
        label_map = np.zeros(SHAPE, np.uint8)
        for value, place in enumerate(names, start=1):
            label_map[PLACES[place]] = value
        image = np.random.default_rng(number).normal(300, 8, SHAPE) + 200 * (label_map > 0)
        image_id = f"case{number:02d}"
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), AFFINE), self.data / f"{image_id}.nii.gz")
        info = {"label_info": [{"name": name, "idx": value} for value, name in enumerate(names.values(), start=1)]}
        self.save(image_id, label_map, info, image_info)
        return image_id

    def save(
        self,
        image_id: str,
        label_map: np.ndarray,
        info: Mapping[str, Any],
        image_info: Mapping[str, Any] | None = None,
        affine: np.ndarray = AFFINE,
    ) -> None:
        """Accept a label of an image that is there, or another one in its place."""
        nibabel.save(nibabel.Nifti1Image(label_map, affine), self.labels / f"{image_id}.nii.gz")
        objects = self.objects()
        image = {"ext": ".nii.gz", "info": dict(image_info or {})}
        objects[image_id] = {"image": image, "labels": {FINAL: {"ext": ".nii.gz", "info": dict(info)}}}
        self._write(objects)

    def objects(self) -> dict[str, Any]:
        """What the data store knows."""
        return json.loads((self.data / DATA_STORE).read_text())["objects"]

    def digests(self) -> dict[str, str]:
        """SHA-256 of all files of the data store, by their names."""
        files = [path for path in self.data.rglob("*") if path.is_file() and path.name != LOCK]
        return {str(path.relative_to(self.data)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def _write(self, objects: Mapping[str, Any]) -> None:
        told = {"name": "tiny", "description": "", "images_dir": ".", "labels_dir": "labels", "objects": objects}
        with FileLock(self.data / LOCK):
            (self.data / DATA_STORE).write_text(json.dumps(told))
