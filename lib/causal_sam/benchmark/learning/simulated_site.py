"""A simulated site with a data store on disk in MONAI Label's format, so that updates run as in production."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from causal_sam.benchmark.ood.protocols import Scan
from causal_sam.imaging import FILE_ORDER, write_mask
from causal_sam.site.accepted import DATA_STORE, FINAL

_EXTENSION = ".nii.gz"


class SimulatedSite:
    """A data store with images and accepted labels.

    Args:
        folder: folder to create.
        scans: images; an image's id contains its position.
    """

    def __init__(self, folder: Path, scans: Sequence[Scan]) -> None:
        self.folder, self._scans = folder, list(scans)
        (folder / "labels" / FINAL).mkdir(parents=True)
        self._objects: dict[str, dict[str, Any]] = {}
        for number, scan in enumerate(self._scans):
            image_id = f"image{number:03d}"
            image = nibabel.Nifti1Image(np.asarray(scan.volume.array), scan.volume.affine)
            nibabel.save(image, folder / f"{image_id}{_EXTENSION}")
            self._objects[image_id] = {"image": {"ext": _EXTENSION, "info": {"PatientID": scan.patient}}, "labels": {}}
        self._write()

    def accept(self, number: int, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        """Save the label of an image as a client does on submission.

        Args:
            number: position of the scan.
            masks: name -> mask, in the volume's voxel order.
        """
        volume = self._scans[number].volume
        label_map = np.zeros(volume.shape, np.uint8, order=FILE_ORDER)
        for value, mask in enumerate(masks.values(), start=1):
            label_map[mask] = value
        image_id = f"image{number:03d}"
        write_mask(label_map, volume, self.folder / "labels" / FINAL / f"{image_id}{_EXTENSION}")
        names = [{"name": name, "idx": value} for value, name in enumerate(masks, start=1)]
        self._objects[image_id]["labels"][FINAL] = {"ext": _EXTENSION, "info": {"label_info": names}}
        self._write()

    def _write(self) -> None:
        store = {"name": "simulated", "description": "", "images_dir": ".", "labels_dir": "labels"}
        (self.folder / DATA_STORE).write_text(json.dumps({**store, "objects": self._objects}))
