"""A labelled case of a data set, and helpers for its readers."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError, join_limited
from causal_sam.imaging import Volume, read_label_map, read_volume, with_modality

logger = logging.getLogger(__name__)

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha")
# Name of an MR sequence in a data set -> common name.
SEQUENCES = {
    **dict.fromkeys(("t1", "t1w", "t1n"), "T1"),
    **dict.fromkeys(("t1ce", "t1gd", "t1c"), "T1 post-contrast"),
    **dict.fromkeys(("t2", "t2w"), "T2"),
    **dict.fromkeys(("flair", "t2f"), "FLAIR"),
    "adc": "ADC",
}


class LayoutMismatch(InputError):
    """A folder does not have the layout of a data set; the message says what is missing."""


@dataclass(frozen=True)
class Case:
    """An image with its label map.

    Attributes:
        group: name of the data set.
        name: name of the case within its data set; sequences of a case share it.
        image: image file, or folder of a DICOM series.
        label: file or folder of the label map, on the grid of the image or a part of it, with axes in any order.
        modality: DICOM code; "" if unknown.
        sequence: MR sequence or contrast phase; "" if unknown.
        labels: value, or tuple of values, of the label map -> name; tuples may overlap. None names all values except 0
            "label 1" and so on.
        frame: index of the frame of the image, from 0.
        frames: required number of frames of the image; None for any number.
        is_complete: whether ``labels`` lists all permitted values except 0.
        label_reader: function that reads the values of the label map, such as `read_label_map`.
        scribbles: label map of what a person drew: a value of ``labels`` in that structure, 0 outside of all of them,
            and any other value where nothing was drawn. None if nobody drew.
    """

    group: str
    name: str
    image: Path
    label: Path
    modality: str = ""
    sequence: str = ""
    labels: Mapping[int, str] | Mapping[tuple[int, ...], str] | Mapping[int | tuple[int, ...], str] | None = None
    frame: int = 0
    frames: int | None = None
    is_complete: bool = False
    label_reader: Callable[[Path, Volume], NDArray[np.integer]] = read_label_map
    scribbles: Path | None = None

    def names(self) -> list[str]:
        """Return the names of the structures; files are read only if `labels` is None.

        Raises:
            InputError: as for `read`.
        """
        return list(self.read()[1] if self.labels is None else self.labels.values())

    def read(self) -> tuple[Volume, dict[str, NDArray[np.bool_]]]:
        """Read the image, and name -> mask of its structures, in the image's voxel order.

        The sequence of an MR image becomes its tag SequenceName, unless the file has that tag.

        Raises:
            InputError: a file cannot be read, the image has another number of frames, the label map has several frames
                or an unlisted value, or the grids differ.
        """
        volume = read_volume(self.image, self.frame)
        if self.frames is not None and volume.frames != self.frames:
            raise InputError(
                f"{self.image} has {volume.frames} frames, and its data set names {self.frames} channels: they must be "
                "as many."
            )
        volume = with_modality(volume, self.modality or volume.modality)
        if self.sequence and volume.modality == "MR":
            volume = replace(volume, tags={"SequenceName": self.sequence, **volume.tags})
        values = self.label_reader(self.label, volume)
        labels = self.labels
        if labels is None or self.is_complete:
            present = set(np.unique(values[values != 0]).tolist())
            if labels is None:
                labels = {value: f"label {value}" for value in sorted(present)}
            known = {value for key in labels for value in np.atleast_1d(key).tolist()}
            if unknown := present - known:
                raise InputError(
                    f"{self.label} has {join_limited(sorted(unknown))}, and the values of {self.group} are 0 and "
                    f"{join_limited(sorted(known), len(known))}: it is damaged, or of another data set."
                )
        return volume, {name: np.isin(values, value) for value, name in labels.items()}

    def read_scribbles(self, volume: Volume) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
        """Read what a person drew for each structure: inside of it, and outside of it, which is in the others too.

        Args:
            volume: the image.

        Returns:
            Name -> two masks in the image's voxel order; structures in which nothing was drawn are left out.

        Raises:
            InputError: the file cannot be read, or its grid is another one.
        """
        if self.scribbles is None or self.labels is None:
            return {}
        values = read_label_map(self.scribbles, volume)
        drawn = np.isin(values, [0, *(v for key in self.labels for v in np.atleast_1d(key).tolist())])
        inside = {name: np.isin(values, value) for value, name in self.labels.items()}
        return {name: (mask, drawn & ~mask) for name, mask in inside.items() if mask.any()}


def warn_left_out(group: str, names: Sequence[str]) -> None:
    """Log the cases of a data set without label map or image."""
    if names:
        logger.warning("Left out of %s, since the image or the label map is missing: %s.", group, join_limited(names))


def image_files(directory: Path) -> dict[str, Path]:
    """Return name without extension -> path of the images in a folder; empty if the folder does not exist."""
    if not directory.is_dir():
        return {}
    files = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    return {
        path.name.removesuffix(extension): path
        for path in files
        for extension in EXTENSIONS
        if path.name.endswith(extension)
    }


def pair_files(
    images: Path, labels: Path, pattern: re.Pattern[str], label_name: str
) -> tuple[list[tuple[str, Path, Path]], list[str]]:
    """Match numbered images with their label maps.

    Args:
        images: folder of the images.
        labels: folder of the label maps.
        pattern: file name of an image without extension, with the number as group 1.
        label_name: template of the name of a label map, with ``{}`` for the number.

    Returns:
        (number, image, label map) of each pair, and the names of the images without a label map.
    """
    label_files, pairs, unpaired = image_files(labels), [], []
    for name, image in image_files(images).items():
        if number := pattern.fullmatch(name):
            label = label_files.get(label_name.format(number[1]))
            if label is None:
                unpaired.append(name)
            else:
                pairs.append((number[1], image, label))
    return pairs, unpaired
