"""Labelled images in a folder, in the layouts that people have."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import Volume, read_volume

logger = logging.getLogger(__name__)

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha")
LABEL_ENDINGS = ("_label", "_seg", "-label", "-seg")
FOLDER_PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"))
# Largest difference of two affines, in millimetre, of what still is one grid.
SAME_GRID_MM = 1e-2

LAYOUTS = """\
cases.json with a list of {set, case, image, label, modality, sequence, labels: {value: name}}, paths relative to it;
images/ and labels/ with equal file names; imagesTr/ and labelsTr/ with dataset.json (Decathlon, nnU-Net);
or pairs NAME.nii.gz and NAME_label.nii.gz (also _seg, -label, -seg; .nii, .nrrd, .mha)"""


@dataclass(frozen=True)
class Case:
    """One image with its label map.

    Attributes:
        group: data set that it belongs to.
        name: of the case within its data set.
        image: file of the image.
        label: file of the label map, on the same grid.
        modality: DICOM code; "" when unknown.
        sequence: MR sequence or contrast phase; "" when unknown.
        labels: name of each value of the label map; None takes all values but 0 and calls them "label 1" and so on.
    """

    group: str
    name: str
    image: Path
    label: Path
    modality: str = ""
    sequence: str = ""
    labels: Mapping[int, str] | None = None

    def read(self) -> tuple[Volume, dict[str, NDArray[np.bool_]]]:
        """Return the image, or its first frame, and for each structure its mask, both in the image's voxel order.

        Raises:
            InputError: a file cannot be read, the label map has several frames, or the two are not on the same grid.
        """
        volume = read_volume(self.image)
        if self.modality:
            volume = replace(volume, modality=self.modality)
        label = read_volume(self.label)
        if label.frames > 1:
            raise InputError(f"{self.label} has {label.frames} frames: a label map has one number for each voxel.")
        if label.shape != volume.shape or np.abs(label.affine - volume.affine).max() > SAME_GRID_MM:
            raise InputError(
                f"{self.label} is not on the grid of {self.image} (shapes {label.shape} and {volume.shape}): "
                "resample the label map to its image."
            )
        values = np.rint(np.nan_to_num(label.array)).astype(int)
        labels = self.labels
        if labels is None:
            labels = {int(value): f"label {value}" for value in np.unique(values) if value != 0}
        return volume, {name: values == value for value, name in labels.items()}


def read_cases(directory: Path) -> list[Case]:
    """Find the labelled images of a folder; those of `cases.json` without an image or label are left out, and said.

    Raises:
        InputError: the folder does not exist, has none of the known layouts, or a list in it cannot be used.
    """
    if not directory.is_dir():
        raise InputError(f"There is no folder {directory}: give one with images and label maps.")
    if (directory / "cases.json").is_file():
        cases = _listed(directory)
    else:
        cases = [case for pair in FOLDER_PAIRS for case in _in_two_folders(directory, *pair)] or _in_pairs(directory)
    if not cases:
        raise InputError(f"{directory} has no labelled images. Known layouts: {' '.join(LAYOUTS.split())}.")
    return cases


def _listed(directory: Path) -> list[Case]:
    path = directory / "cases.json"
    try:
        entries = json.loads(path.read_text())
        cases = []
        for entry in entries:
            if not entry.get("image") or not entry.get("label"):
                logger.info("Left out %s of %s: it has no image or no label map.", entry["case"], entry["set"])
                continue
            labels = {int(value): str(name) for value, name in entry["labels"].items()}
            cases.append(
                Case(
                    str(entry["set"]),
                    str(entry["case"]),
                    directory / entry["image"],
                    directory / entry["label"],
                    str(entry.get("modality") or ""),
                    str(entry.get("sequence") or ""),
                    labels,
                )
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be used ({type(error).__name__}: {error}): it must be a list of objects with set, case, "
            "image, label and labels."
        ) from error
    return cases


def _in_two_folders(directory: Path, images: str, labels: str) -> list[Case]:
    if not (directory / images).is_dir() or not (directory / labels).is_dir():
        return []
    modality, names = _dataset(directory / "dataset.json")
    by_stem = {_stem(path): path for path in _files(directory / labels)}
    cases = []
    for path in _files(directory / images):
        stem = _stem(path)
        # nnU-Net numbers the channels: NAME_0000 is the first, and labels carry the name alone.
        label = by_stem.get(stem) or by_stem.get(stem.removesuffix("_0000"))
        if label is not None:
            cases.append(Case(directory.name, _stem(label), path, label, modality, "", names))
    return cases


def _dataset(path: Path) -> tuple[str, dict[int, str] | None]:
    """Modality and label names of a `dataset.json`; Decathlon has value -> name, nnU-Net 2 has name -> value."""
    if not path.is_file():
        return "", None
    try:
        description = json.loads(path.read_text())
        labels = description["labels"]
        pairs = [(name, value) if str(value).isdigit() else (value, name) for name, value in labels.items()]
        names = {int(value): str(name) for name, value in pairs if int(value) != 0}
        channels = description.get("modality") or description.get("channel_names") or {"0": ""}
        channel = str(channels.get("0", ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be used ({type(error).__name__}: {error}): it must name the labels as Decathlon or "
            "nnU-Net do."
        ) from error
    modality = "CT" if channel.upper() == "CT" else "MR" if channel.upper().startswith("MR") else ""
    return modality, names


def _in_pairs(directory: Path) -> list[Case]:
    by_stem = {_stem(path): path for path in _files(directory)}
    cases = []
    for stem, path in by_stem.items():
        label = next((by_stem[stem + ending] for ending in LABEL_ENDINGS if stem + ending in by_stem), None)
        if label is not None:
            cases.append(Case(directory.name, stem, path, label))
    return cases


def _files(directory: Path) -> Sequence[Path]:
    return sorted(path for path in directory.iterdir() if path.name.endswith(EXTENSIONS))


def _stem(path: Path) -> str:
    extension = next(extension for extension in EXTENSIONS if path.name.endswith(extension))
    return path.name.removesuffix(extension)
