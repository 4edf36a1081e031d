"""Accepted labels in a data store of MONAI Label, with their structures by name.

The data store is a local folder, or the cache folder of a DICOMweb store. It is only read.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import Volume, read_volume
from causal_sam.imaging.label_maps import read_label_map
from causal_sam.imaging.label_names import named_masks, named_values
from causal_sam.site.label_files import CHECKSUM, ChangedLabelError, checksum, label_copy

logger = logging.getLogger(__name__)

DATA_STORE, LOCK = "datastore_v2.json", ".lock"
FINAL = "final"
Read = TypeVar("Read")
# Affines of different programs differ in the last digits.
GRID_TOLERANCE_MM = 0.01
LOCK_SECONDS = 30.0


@dataclass(frozen=True)
class AcceptedLabel:
    """A label that a person has accepted.

    Attributes:
        image_id: identifier in the data store.
        study: patient or study of the image; training and held-out images never share one.
        image: file of the image.
        label: file of the label map.
        info: info that the client sent with the label.
    """

    image_id: str
    study: str
    image: Path
    label: Path
    info: Mapping[str, Any]

    def digest(self) -> str:
        """Return the SHA-256 of the file that was saved with the info, in hexadecimal digits.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            known = self.info.get(CHECKSUM)
            return (known if isinstance(known, str) else checksum(self.label)).removeprefix("SHA256:")
        except OSError as error:
            raise InputError(f"The label of {self.image_id} cannot be read: {error.strerror}.") from error


def accepted_labels(folder: Path) -> list[AcceptedLabel]:
    """List the accepted labels of a data store, sorted by the identifiers of their images.

    Args:
        folder: folder of the data store, with a ``datastore_v2.json``.

    Raises:
        InputError: the data store does not exist, is damaged, or is locked.
    """
    path = folder / DATA_STORE
    if not path.is_file():
        raise InputError(f"{folder} is no data store of MONAI Label: it has no {DATA_STORE}.")
    try:
        content = _read_index(folder)
        labels_dir, images_dir = content.get("labels_dir", "labels"), content.get("images_dir", ".")
        images, labels = folder / images_dir, folder / labels_dir / FINAL
        objects = content["objects"].items()
    except Timeout as error:
        raise InputError(f"The data store {folder} is locked: try again when nobody writes to it.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is damaged: restore it, or remove it and accept the labels again.") from error
    found = []
    for image_id, entry in objects:
        try:
            if FINAL not in entry["labels"]:
                continue
            image, final = entry["image"], entry["labels"][FINAL]
            label = AcceptedLabel(
                image_id,
                _study(image_id, image["info"]),
                images / f"{image_id}{image['ext']}",
                labels / f"{image_id}{final['ext']}",
                {**final["info"]},
            )
        except (KeyError, TypeError, AttributeError, ValueError):
            logger.warning("The entry of image %s in %s is damaged: its label is not used.", ascii(image_id), path)
            continue
        found.append(label)
    return sorted(found, key=lambda label: label.image_id)


def _read_index(folder: Path) -> dict[str, Any]:
    """Read the index under its lock, since plain MONAI Label writes it in place.

    Raises:
        OSError, ValueError, RecursionError, Timeout: the index cannot be read.
    """
    path = folder / DATA_STORE
    try:
        with FileLock(folder / LOCK, LOCK_SECONDS):
            return json.loads(path.read_bytes())
    except Timeout:
        raise
    except OSError:  # a read-only folder has no lock
        return json.loads(path.read_bytes())


def read_accepted(
    label: AcceptedLabel, values: Mapping[str, int] = MappingProxyType({})
) -> tuple[Volume, dict[str, NDArray[np.bool_]]]:
    """Read an image and its labelled structures.

    Names without voxels are omitted, since clients send all possible names.

    Args:
        label: accepted label.
        values: label name -> value, for label maps without names.

    Returns:
        The image, and name -> mask in its voxel order.

    Raises:
        InputError: a file is missing or damaged, the label is not on the grid of its image, its checksum differs, or
            one of its values has no name.
    """
    for kind, path in (("image", label.image), ("label", label.label)):
        if not os.path.exists(path):
            raise InputError(f"The {kind} of {label.image_id} was deleted.")
    volume = _read("image", label.image_id, lambda: read_volume(label.image, frame_in_info(label.info) or 0))
    with _verified_copy(label) as path:
        try:
            label_map = _read("label", label.image_id, lambda: read_label_map(path, volume))
        except InputError as error:
            raise InputError(f"The label of {label.image_id} is not learned: {error}") from error
    if not label_map.any():
        raise InputError(f"The label of {label.image_id} is empty.")
    info = label.info if named_values(label.info) else {"label_names": dict(values)}
    structures, unnamed = named_masks(label_map, info)
    if unnamed:
        raise InputError(
            f"The label of {label.image_id} is not learned: nothing says for certain which structures its values "
            f"{_join(unnamed)} are. Save it again with their names."
        )
    return volume, {name: mask for name, mask in structures.items() if mask.any()}


@contextmanager
def _verified_copy(label: AcceptedLabel) -> Iterator[Path]:
    """Yield a copy of the file that was saved with the names of a label."""
    with ExitStack() as stack:
        try:
            path = stack.enter_context(label_copy(label.label, label.info))
        except ChangedLabelError as error:
            raise InputError(
                f"The label of {label.image_id} is not learned: its file was changed or saved again since its names "
                "were written down. The next update takes it if it was saved with names."
            ) from error
        except OSError as error:
            raise InputError(f"The label of {label.image_id} cannot be read: {error.strerror or error}.") from error
        yield path


def is_on_grid(label: Volume, image: Volume) -> bool:
    """Return whether a label map has the grid of an image; a label map always has a single frame."""
    return (
        label.frames == 1
        and label.shape == image.shape
        and np.allclose(label.affine, image.affine, atol=GRID_TOLERANCE_MM)
    )


def frame_in_info(info: Mapping[str, Any]) -> int | None:
    """Return the frame of a label from the server's own results in its info; None if it is unknown."""
    params = info.get("params")
    frame = params.get("frame") if isinstance(params, dict) else None
    return frame if isinstance(frame, int) else None


def _join(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:8])) + (" and others" if len(values) > 8 else "")


def _read(kind: str, image_id: str, read: Callable[[], Read]) -> Read:
    try:
        return read()
    except (InputError, MemoryError):
        raise
    except OSError as error:
        raise InputError(f"The {kind} of {image_id} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # readers raise many types for damaged files, and one file must not stop the training
        raise InputError(f"The {kind} of {image_id} cannot be read: it is damaged.") from error


def _study(image_id: str, info: Mapping[str, Any]) -> str:
    """Return the patient or the study of an image, as far as the data store knows them."""
    for key in ("PatientID", "StudyInstanceUID"):
        if info.get(key) not in (None, "", "UNK"):
            return str(info[key])
    return image_id
