"""The index and the files of a folder made to agree: files come and go, names stay with the bytes they were for."""

from __future__ import annotations

import os
import time
from pathlib import Path

from monailabel.datastore.local import DataModel, ImageLabelModel

from causal_sam.site.label_files import CHECKSUM, PART, checksum
from serving.data.files import Extensions, FoundFile, list_files, new_ids
from serving.data.index import Index


def tag_folders(labels: Path) -> list[Path]:
    """The folders of labels, one for each tag."""
    try:
        return sorted(Path(entry.path) for entry in os.scandir(labels) if entry.is_dir() and entry.name[0] != ".")
    except OSError:
        return []


def finish_saves(index: Index) -> None:
    """Put the labels in place whose savers were killed after the index named them; the caller holds the lock.

    Raises:
        OSError: a file cannot be put in place.
    """
    for folder in tag_folders(Path(index.model.label_path(None))):
        for part in folder.glob(f".*{PART}"):
            name = part.name.removeprefix(".").removesuffix(PART)
            labels = (
                entry.labels[folder.name].info.get(CHECKSUM)
                for image_id, entry in index.model.objects.items()
                if folder.name in entry.labels and image_id + entry.labels[folder.name].ext == name
            )
            if next(labels, None) == checksum(part):
                part.replace(os.path.realpath(folder / name))
            else:
                part.unlink()


def reconcile(index: Index, extensions: Extensions) -> tuple[bool, list[str]]:
    """Let an index list the images and labels that are in its folder.

    Args:
        index: changed in place; its entries are replaced, not changed.
        extensions: extensions of images and labels.

    Returns:
        Whether the index was changed, and a sentence for each file that is not listed.

    Raises:
        OSError: a folder cannot be read.
    """
    images = Path(index.model.image_path())
    sentences: list[str] = []
    files, left_out = list_files(images, extensions)
    sentences += [f"{str(images / name)!a} is not listed: it {problem}." for name, problem in left_out.items()]
    changed = _reconcile_images(index, images, files)
    for folder in tag_folders(Path(index.model.label_path(None))):
        files, left_out = list_files(folder, extensions)
        sentences += [f"{str(folder / name)!a} is not listed: it {problem}." for name, problem in left_out.items()]
        changed |= _reconcile_labels(index, folder, files, sentences)
    return changed | _forget_labels_without_folder(index), sentences


def _reconcile_images(index: Index, folder: Path, files: list[FoundFile]) -> bool:
    objects, changed = index.model.objects, False
    here, listed = {file.name for file in files}, set()
    for image_id, entry in list(objects.items()):
        name = image_id + entry.image.ext
        listed.add(name)
        if name not in here and not (folder / name).is_file():
            before = index.vanished.get(image_id)
            labels = {**(before.labels if before else {}), **entry.labels}
            index.vanished[image_id] = ImageLabelModel(image=entry.image, labels=labels)
            del objects[image_id]
            changed = True
    for image_id, file in new_ids([file for file in files if file.name not in listed], objects).items():
        before = index.vanished.get(image_id)
        known = before is not None and before.image.ext == file.ext
        info = before.image.info if known else {"ts": int(time.time()), "name": file.name}
        objects[image_id] = ImageLabelModel(image=DataModel(ext=file.ext, info=info))
        changed = True
    return changed


def _reconcile_labels(index: Index, folder: Path, files: list[FoundFile], sentences: list[str]) -> bool:
    tag, objects, changed = folder.name, index.model.objects, False
    here, listed = {file.name for file in files}, set()
    for image_id, entry in list(objects.items()):
        label = entry.labels.get(tag)
        if label is None:
            continue
        name = image_id + label.ext
        listed.add(name)
        if name not in here and not (folder / name).is_file():
            _vanish(index, image_id, tag)
            changed = True
    # If a label has several files, the newest counts.
    for file in sorted(files, key=lambda file: (folder / file.name).stat().st_mtime_ns, reverse=True):
        if file.name in listed:
            continue
        entry = objects.get(file.stem)
        if entry is None:
            sentences.append(f"The label {str(folder / file.name)!a} is not listed: it has no image of its name.")
        elif tag in entry.labels:
            other = file.stem + entry.labels[tag].ext
            sentences.append(f"The label {str(folder / file.name)!a} is not listed: {other!r} is that label.")
        else:
            label = _returned(index, folder, file) or DataModel(
                ext=file.ext, info={"ts": int(time.time()), "name": file.name}
            )
            objects[file.stem] = ImageLabelModel(image=entry.image, labels={**entry.labels, tag: label})
            changed = True
    return changed


def _forget_labels_without_folder(index: Index) -> bool:
    tags = {folder.name for folder in tag_folders(Path(index.model.label_path(None)))}
    gone = [(image, tag) for image, entry in index.model.objects.items() for tag in entry.labels if tag not in tags]
    for image_id, tag in gone:
        _vanish(index, image_id, tag)
    return bool(gone)


def _vanish(index: Index, image_id: str, tag: str) -> None:
    """Take a label out of the list, and remember its names for the case that the same file comes back."""
    entry, before = index.model.objects[image_id], index.vanished.get(image_id)
    labels = {**(before.labels if before else {}), tag: entry.labels[tag]}
    index.vanished[image_id] = ImageLabelModel(image=entry.image, labels=labels)
    rest = {each: label for each, label in entry.labels.items() if each != tag}
    index.model.objects[image_id] = ImageLabelModel(image=entry.image, labels=rest)


def _returned(index: Index, folder: Path, file: FoundFile) -> DataModel | None:
    """The entry of a label that has come back; None if it is another file than the one that vanished, or was new."""
    before = index.vanished.get(file.stem)
    label = before.labels.get(folder.name) if before is not None else None
    if label is None or label.ext != file.ext or label.info.get(CHECKSUM) != checksum(folder / file.name):
        return None
    return label
