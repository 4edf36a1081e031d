"""One image with its label map, and how the two are read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import Volume, read_label_map, read_volume, with_modality

logger = logging.getLogger(__name__)

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha")
MAX_NAMED = 5  # of a list in a sentence
# What data sets call MR sequences -> one name for each.
SEQUENCES = {
    **dict.fromkeys(("t1", "t1w", "t1n"), "T1"),
    **dict.fromkeys(("t1ce", "t1gd", "t1c"), "T1 post-contrast"),
    **dict.fromkeys(("t2", "t2w"), "T2"),
    **dict.fromkeys(("flair", "t2f"), "FLAIR"),
    "adc": "ADC",
}


class OtherLayout(InputError):
    """A folder is not laid out as a data set is; the message says what is missing."""


@dataclass(frozen=True)
class Case:
    """One image with its label map.

    Attributes:
        group: data set that it belongs to.
        name: of the case within its data set; its sequences have the same name.
        image: file of the image, or folder of a DICOM series.
        label: file or folder of the label map, on the grid of the image or a part of it, in any order of its axes.
        modality: DICOM code; "" when unknown.
        sequence: MR sequence or contrast phase; "" when unknown.
        labels: name of each value of the label map, or of several together, and then they may overlap; None takes all
            values but 0 and calls them "label 1" and so on.
        frame: which one of the image, counted from 0.
        frames: how many the image must have; None for any number.
        is_complete: whether ``labels`` has all values but 0 that there may be.
        label_reader: gives the values of the label map, as `read_label_map` does.
    """

    group: str
    name: str
    image: Path
    label: Path
    modality: str = ""
    sequence: str = ""
    labels: Mapping[int | tuple[int, ...], str] | None = None
    frame: int = 0
    frames: int | None = None
    is_complete: bool = False
    label_reader: Callable[[Path, Volume], NDArray[np.integer]] = read_label_map

    def names(self) -> list[str]:
        """Return the names of the structures that `read` gives; no file is read where `labels` has them.

        Raises:
            InputError: as `read`.
        """
        return list(self.read()[1] if self.labels is None else self.labels.values())

    def read(self) -> tuple[Volume, dict[str, NDArray[np.bool_]]]:
        """Return the image and for each structure its mask, both in the image's voxel order.

        The sequence of an MR image is its tag SequenceName, unless the file has that tag.

        Raises:
            InputError: a file cannot be read, the image has another number of frames, the label map has several frames
                or a value that is not in its list, or the two are not on the same grid.
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
            there = set(np.unique(values[values != 0]).tolist())
            if labels is None:
                labels = {value: f"label {value}" for value in sorted(there)}
            known = {value for key in labels for value in np.atleast_1d(key).tolist()}
            if unknown := there - known:
                raise InputError(
                    f"{self.label} has {listed(sorted(unknown))}, and the values of {self.group} are 0 and "
                    f"{listed(sorted(known), len(known))}: it is damaged, or of another data set."
                )
        return volume, {name: np.isin(values, value) for value, name in labels.items()}


def say_left_out(group: str, names: Sequence[str]) -> None:
    """Log which cases of a data set have no label map, or no image."""
    if names:
        logger.warning("Left out of %s, for want of an image or a label map: %s.", group, listed(names))


def listed(items: Sequence[object], most: int = MAX_NAMED) -> str:
    """Items for a sentence.

    >>> listed(["a", "b"]), listed([1, 2, 3, 4], most=2)
    ('a, b', '1, 2 and 2 more')
    """
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more


def image_files(directory: Path) -> dict[str, Path]:
    """Files of images in a folder by their names without the ending; none if there is no such folder."""
    if not directory.is_dir():
        return {}
    files = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    return {
        path.name.removesuffix(extension): path
        for path in files
        for extension in EXTENSIONS
        if path.name.endswith(extension)
    }
