"""MONAI Label's list of images and labels, ``datastore_v2.json``: read entry by entry, written whole or not at all."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastoreModel
from pydantic import Field

from causal_sam.atomic import atomic_write
from causal_sam.errors import InputError
from serving.requests.json_objects import checked_object

logger = logging.getLogger(__name__)

_FOLDERS = ("images_dir", "labels_dir")
# Numbers that only some JSON parsers of MONAI Label and its clients can read.
_ODD_NUMBER = re.compile(rb"NaN|Infinity|[:,\[]\s*-?\d{31,}")
MAX_INFO_BYTES = 2**20


class _Content(LocalDatastoreModel):
    """Content of the file: MONAI Label's entries, and entries of files that are not there now."""

    vanished: dict[str, ImageLabelModel] = Field(default_factory=dict)


@dataclass
class Index:
    """Images and labels by image id.

    Attributes:
        model: content in MONAI Label's form. Its entries are replaced, never changed, since other threads read them.
        vanished: entries of images and labels whose files were deleted by others; their names come back with the file
            if it is still the same.
        is_as_written: the file is in a form that MONAI Label and other programs read.
    """

    model: LocalDatastoreModel
    vanished: dict[str, ImageLabelModel] = field(default_factory=dict)
    is_as_written: bool = True

    def copy(self) -> Index:
        """Return an index whose entries can be replaced without changing this one."""
        return Index(self.model.model_copy(update={"objects": dict(self.model.objects)}), dict(self.vanished))

    def owner(self, name: str) -> str | None:
        """Return the id of the image whose file has a name."""
        return next((each for each, entry in self.model.objects.items() if each + entry.image.ext == name), None)

    def put_label(self, image_id: str, tag: str, label: DataModel | None) -> None:
        """Replace the entry of a label; None for none. The entry of a vanished one is deleted."""
        for objects in (self.model.objects, self.vanished):
            if (entry := objects.get(image_id)) is not None:
                labels = {each: data for each, data in entry.labels.items() if each != tag}
                if label is not None and objects is self.model.objects:
                    labels[tag] = label
                objects[image_id] = ImageLabelModel(image=entry.image, labels=labels)

    def text(self) -> str:
        """The content of the file."""
        content = _Content.model_construct(**dict(self.model), vanished=self.vanished)
        left_out = {"base_path"} if self.vanished else {"base_path", "vanished"}
        return content.model_dump_json(exclude=left_out, indent=2, ensure_ascii=True)


def storable(info: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return an info as it will be read again from the index.

    Args:
        info: information on an image or label.
        what: noun for the sentence.

    Raises:
        InputError: it could not be read again, or by every client: see `checked_json`; or ``strategy``, in which
            MONAI Label keeps to whom a study was given, is something else.
    """
    records = info.get("strategy", {})
    if not isinstance(records, Mapping) or not all(isinstance(each, Mapping) for each in records.values()):
        raise InputError(f"The {what} must not have 'strategy': the server keeps there to whom it gave a study.")
    try:
        text = json.dumps(info, default=str)
    except (ValueError, RecursionError) as error:
        raise InputError(f"The {what} cannot be kept: a number or a list in it is too large.") from error
    if len(text) > MAX_INFO_BYTES:
        raise InputError(f"The {what} is longer than {MAX_INFO_BYTES // 2**20} MiB.")
    return checked_object(text, what)


def read_index(path: Path, empty: LocalDatastoreModel) -> tuple[Index, list[str]]:
    """Read an index; what cannot be read of it is left out.

    Args:
        path: path of the file.
        empty: content to return if there is no file.

    Returns:
        The index, and a phrase for each thing that was left out.

    Raises:
        OSError: the file is there and cannot be read.
    """
    index = Index(empty.model_copy(update={"objects": {}}))
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return index, []
    if (sound := _sound(raw)) is not None:
        index.vanished = sound.vanished
        for key in ("name", "description", *_FOLDERS, "objects"):
            setattr(index.model, key, getattr(sound, key))
        return index, []
    index.is_as_written = False
    try:
        content = _parsed(raw)
    except (ValueError, RecursionError):
        return index, ["all of it"]
    if not isinstance(content, dict) or not isinstance(content.get("objects"), dict):
        return index, ["all of it"]
    problems: list[str] = []
    for key in ("name", "description", *_FOLDERS):
        value = content.get(key, getattr(empty, key))
        if isinstance(value, str) and value.isprintable() and (value or key not in _FOLDERS):
            setattr(index.model, key, value)
        else:
            problems.append(key)
    for image_id, entry in content["objects"].items():
        _read_entry(index.model.objects, image_id, entry, problems)
    vanished = content.get("vanished", {})
    for image_id, entry in vanished.items() if isinstance(vanished, dict) else ():
        _read_entry(index.vanished, image_id, entry, problems)
    return index, problems


def write_index(path: Path, index: Index) -> None:
    """Write an index in place of the old one; the caller holds the lock.

    Raises:
        OSError: it cannot be written; the old one is as it was.
    """
    path = path.resolve()  # a link goes on to lead to the file
    with atomic_write(path) as part:
        part.write_text(index.text(), encoding="utf-8")
        if path.exists():
            shutil.copymode(path, part)


def keep_damaged(path: Path, problems: list[str]) -> None:
    """Keep a copy of an index that is damaged, and say what to do.

    Raises:
        OSError: it cannot be copied.
    """
    kept = path.with_name(f"{path.name}.damaged-{datetime.now():%Y%m%d-%H%M%S-%f}")
    shutil.copy(path, kept)
    shown = ", ".join(problems[:5]) + (f" and {len(problems) - 5} more" if len(problems) > 5 else "")
    logger.warning(
        "%s is damaged (%s cannot be read): images and labels are listed by their files, but labels without a readable "
        "entry have lost the names of their values and are not used for learning until they are saved again. The "
        "damaged file is kept as %s; to get the names back, stop the server and restore %s from a backup.",
        *(path, shown, kept.name, path.name),
    )


def _sound(raw: bytes) -> _Content | None:
    """Read an index at once that has nothing wrong in it; None if it must be looked at entry by entry."""
    if _ODD_NUMBER.search(raw):
        return None
    try:
        content = _Content.model_validate_json(raw)
        content.model_dump_json()
    except ValueError:
        return None
    folders = (content.images_dir, content.labels_dir)
    entries = (*content.objects.items(), *content.vanished.items())
    names = (f"{image_id}{data.ext}" for image_id, entry in entries for data in (entry.image, *entry.labels.values()))
    tags = (tag for _, entry in entries for tag in entry.labels)
    sound = all(folder and folder.isprintable() for folder in folders) and all(map(_is_file_name, (*names, *tags)))
    return content if sound and all(image_id for image_id, _ in entries) else None


def _is_file_name(name: str) -> bool:
    return name not in ("", ".", "..") and not any(character in name for character in "/\\\0")


def _parsed(content: bytes) -> Any:
    # Bytes that are no text make the entries unreadable that they are in, and no others.
    encoding = json.detect_encoding(content)
    return json.loads(content.decode(encoding, "surrogateescape"), parse_int=_lenient_int)


def _lenient_int(digits: str) -> int | float:
    """An integer; infinity, which no entry may hold, for one that is too long."""
    return int(digits) if len(digits) <= 30 else float("inf")


def _read_entry(objects: dict[str, ImageLabelModel], image_id: str, entry: Any, problems: list[str]) -> None:
    """Put an entry into ``objects``, without those of its labels that cannot be read."""
    try:
        image = _data(image_id, entry["image"])
        labels = entry.get("labels", {})
        if not isinstance(labels, dict):
            raise TypeError
    except (InputError, KeyError, TypeError, AttributeError, ValueError):
        problems.append(f"the entry of image {image_id[:40]!a}")
        return
    objects[image_id] = ImageLabelModel(image=image)
    for tag, label in labels.items():
        try:
            if not _is_file_name(tag):
                raise InputError("no folder has this name")
            tag.encode()
            objects[image_id].labels[tag] = _data(image_id, label)
        except (InputError, TypeError, ValueError):
            problems.append(f"the label {tag[:40]!a} of image {image_id[:40]!a}")


def _data(name: str, value: Any) -> DataModel:
    """Check what is known of one file."""
    data = DataModel.model_validate(value)
    if not name or not _is_file_name(name + data.ext):
        raise InputError("no file has this name")
    (name + data.ext).encode()
    return DataModel(ext=data.ext, info=storable(data.info, "entry"))
