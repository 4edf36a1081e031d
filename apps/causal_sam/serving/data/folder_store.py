"""MONAI Label's store of a local folder, safe to share: by threads, by servers, and with a training process.

A label's file and the names of its values change together (see `causal_sam.site.label_files`), under the lock of the
folder (see `FolderIndex`). Everything stays where plain MONAI Label reads it.
"""

from __future__ import annotations

import copy
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cachetools import LRUCache
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from causal_sam.atomic import sync
from causal_sam.errors import InputError
from causal_sam.imaging import read_volume
from causal_sam.imaging.limits import MAX_VOXELS
from causal_sam.site.accepted import frame_in_info
from causal_sam.site.label_files import CHECKSUM, PART, ChangedLabelError, checksum, label_copy, pending_path
from serving.data.files import Extensions, same_id
from serving.data.folder_index import LOCK, FolderIndex, file_stamp
from serving.data.incoming_labels import check_label, checked_info, checked_tag
from serving.data.index import Index, storable
from serving.requests.identifiers import checked_identifier

logger = logging.getLogger(__name__)

# The form in which labels are stored, also where no image has it.
NIFTI = Extensions(("*.nii.gz",))
MAX_CHECKSUMS = 4096


class FolderStore(LocalDatastore):
    """A folder with images, labels and ``datastore_v2.json``.

    Args:
        datastore_path: the folder.
        images_dir: name of the subfolder of the images, if there is no index.
        labels_dir: name of the subfolder of the labels, if there is no index.
        datastore_config: file name of the index.
        extensions: patterns of the files of images and labels.
        auto_reload: notice files that others add or delete.
        read_only: change nothing in the folder.
        max_voxels: limit of one image; a larger one is neither taken nor labelled.

    Raises:
        InputError: the folder cannot be read.
    """

    def __init__(
        self,
        datastore_path: str,
        images_dir: str = ".",
        labels_dir: str = "labels",
        datastore_config: str = "datastore_v2.json",
        extensions: str | Sequence[str] = ("*.nii.gz", "*.nii"),
        auto_reload: bool = False,
        read_only: bool = False,
        max_voxels: int = MAX_VOXELS,
    ) -> None:
        # MONAI Label's own initialisation fails on a damaged index and starts threads; its methods need these.
        self._datastore_path = datastore_path
        self._datastore_config_path = os.path.join(datastore_path, datastore_config)
        self._lock_file = os.path.join(datastore_path, LOCK)
        self._extensions = [extensions] if isinstance(extensions, str) else list(extensions)
        self._auto_reload = auto_reload
        self._max_voxels = max_voxels
        self._known = Extensions(self._extensions)
        self._checksums: LRUCache[tuple, str] = LRUCache(MAX_CHECKSUMS)
        empty = LocalDatastoreModel(
            name="new-dataset", description="New Dataset", images_dir=images_dir, labels_dir=labels_dir
        )
        empty.base_path = datastore_path
        path = Path(self._datastore_config_path)
        self._index = FolderIndex(path, empty, self._known, watches=auto_reload, read_only=read_only)

    @property
    def is_writable(self) -> bool:
        """Labels can be saved here."""
        return self._index.read_only is None

    # --- What MONAI Label's methods read

    @property
    def _datastore(self) -> LocalDatastoreModel:
        """Images and labels as they are now; it is replaced with each change, and never changes itself."""
        return self._index.latest.model

    def get_image_uri(self, image_id: str) -> str:
        """Return the path of an image; empty if there is none."""
        return super().get_image_uri(self.known_id(image_id))

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return what is known of an image."""
        return super().get_image_info(self.known_id(image_id))

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Return the path of a label; empty if there is none."""
        return super().get_label_uri(self.known_id(label_id), label_tag)

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """Return what is known of a label; nothing about its names if its file was changed since it was saved."""
        image_id = self.known_id(label_id)
        label = self._datastore.label(image_id, label_tag)
        if label is None:
            return {}
        path = self.label_path(image_id, label_tag, label)
        if label.info.get(CHECKSUM) in (None, self._checksum(path)):
            return copy.deepcopy(label.info)
        with self._index.locked():  # it may have been saved since
            label = self._index.current.model.label(image_id, label_tag)
            same = label is not None and label.info.get(CHECKSUM) in (None, self._checksum(path))
            return copy.deepcopy(label.info) if same else _unnamed(label.info if label is not None else {})

    def known_id(self, image_id: str) -> str:
        """Return the id under which an image is kept that a client names by ``image_id``."""
        return same_id(image_id, self.objects().keys())

    def objects(self) -> Mapping[str, ImageLabelModel]:
        """Return the entries of all images by their ids; they are replaced with each change, and never change."""
        return self._datastore.objects

    def labels_of(self, image_id: str) -> dict[str, DataModel]:
        """Return the entries of the labels of an image by their tags."""
        entry = self.objects().get(self.known_id(image_id))
        return dict(entry.labels) if entry is not None else {}

    def label_path(self, image_id: str, tag: str, label: DataModel) -> Path:
        """The file of a label."""
        return Path(self._index.current.model.label_path(tag), self._filename(image_id, label.ext))

    @contextmanager
    def open_label(self, image_id: str, tag: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Give a copy of a label's file and the info that was saved with these very bytes.

        Raises:
            LabelNotFoundException: there is no such label.
            InputError: its file cannot be read.
        """
        image_id = self.known_id(image_id)
        with ExitStack() as stack:
            try:
                opened = self._opened(stack, image_id, tag)
            except (ChangedLabelError, OSError):
                with self._index.locked():  # somebody may be saving it
                    try:
                        opened = self._opened(stack, image_id, tag)
                    except ChangedLabelError:
                        opened = self._opened(stack, image_id, tag, is_named=False)
                    except OSError as error:
                        raise InputError(
                            f"The label of {image_id} cannot be read: {error.strerror or error}."
                        ) from error
            yield opened

    def _opened(self, stack: ExitStack, image_id: str, tag: str, is_named: bool = True) -> tuple[Path, dict[str, Any]]:
        label = _label(self._datastore, image_id, tag)
        info = copy.deepcopy(label.info) if is_named else _unnamed(label.info)
        return stack.enter_context(label_copy(self.label_path(image_id, tag, label), info)), info

    def _to_id(self, file: str) -> tuple[str, str]:
        """Cut a file name into the id and the extension of an image or label; the extension may be empty."""
        return self._known.split(file) or (file, "")

    # --- What changes it

    def add_image(self, image_id: str, image_filename: str, image_info: Mapping[str, Any] | None) -> str:
        """Add an image, or replace it; its labels keep their files and names.

        Args:
            image_id: id of the image; empty to use the name of the file.
            image_filename: path of a file with any known extension.
            image_info: information from the client.

        Returns:
            The id of the image.

        Raises:
            InputError: the id, the info or the extension cannot be used, or the file is no image that can be read.
            TooLargeError: the image has more voxels than the limit.
            ReadOnlyError: the folder cannot be written.
        """
        source = Path(image_filename)
        if (parts := self._known.split(source.name)) is None:
            raise InputError(f"The image must be a file of type {', '.join(self._known.known)}.")
        stem, ext = parts
        image_id = self.known_id(checked_identifier(image_id or stem, "image id"))
        info = storable(image_info or {}, "image's params")
        self._index.refuse_if_read_only()
        try:
            read_volume(source, max_voxels=self._max_voxels)
        except InputError as error:
            # The server gave the file a name of its own, which tells the client nothing.
            raise type(error)(str(error).replace(source.name, "The image")) from error
        part = self._index.images.joinpath(f".{uuid.uuid4().hex}{PART}")
        try:
            _copy(source, part, self._index.images)
            with self._index.changing() as index:
                before = index.model.objects.get(image_id)
                # The id of some images is the whole name of their file.
                if before is not None and (before.image.ext or image_id).lower().endswith(ext.lower()):
                    ext = before.image.ext
                name = self._filename(image_id, ext)
                if (other := index.owner(name)) not in (None, image_id):
                    raise InputError(f"The file {name!a} is that of image {other!a}: choose another image id.")
                info |= {"ts": int(time.time()), "name": name}
                part.replace(Path(os.path.realpath(self._index.images / name)))
                labels = {} if before is None else before.labels
                index.model.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=ext), labels=labels)
                self._index.commit(index)
                if before is not None and before.image.ext != ext:
                    (self._index.images / self._filename(image_id, before.image.ext)).unlink(missing_ok=True)
        finally:
            part.unlink(missing_ok=True)
        if labels:
            logger.info("Image %s was replaced; its labels stay, and are used if they are on its grid.", image_id)
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Delete an image and its labels.

        Raises:
            ImageNotFoundException: there is none.
            ReadOnlyError: the folder cannot be written.
        """
        image_id = self.known_id(image_id)
        with self._index.changing() as index:
            entry = _entry(index, image_id)
            for tag, label in entry.labels.items():
                self.label_path(image_id, tag, label).unlink(missing_ok=True)
            (self._index.images / self._filename(image_id, entry.image.ext)).unlink(missing_ok=True)
            del index.model.objects[image_id]
            index.vanished.pop(image_id, None)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: Mapping[str, Any] | None
    ) -> str:
        """Save a label: its file and what is said about it change together, or not at all.

        Args:
            image_id: id of its image.
            label_filename: path of a file with any known extension.
            label_tag: tag of the label.
            label_info: information from the client; its names belong to the values of this file.

        Returns:
            The id of the label, which is that of the image.

        Raises:
            ImageNotFoundException: there is no such image.
            InputError: the tag, the names or the file cannot be used.
            ReadOnlyError: the folder cannot be written.
        """
        image_id, tag, info = self.known_id(image_id), checked_tag(label_tag), checked_info(label_info)
        self._index.refuse_if_read_only()
        _entry(self._index.latest, image_id)
        path, frame = Path(LocalDatastore.get_image_uri(self, image_id)), frame_in_info(info) or 0
        image = read_volume(path, frame, self._max_voxels)
        incoming = check_label(Path(label_filename), image, info, tag)
        with tempfile.TemporaryDirectory(prefix="causal-sam-label-") as folder:
            return self.store_label(image_id, incoming.write(Path(folder)), tag, incoming.info)

    def store_label(self, image_id: str, path: Path, tag: str, label_info: Mapping[str, Any]) -> str:
        """Store a label that was checked as `save_label` does.

        Args:
            image_id: id of its image.
            path: path of the label map.
            tag: tag of the label.
            label_info: information on the label; its names belong to the values of this file.

        Raises:
            ImageNotFoundException: there is no such image.
            InputError: the info cannot be kept.
            ReadOnlyError: the folder cannot be written.
        """
        info = checked_info(label_info)
        _, ext = self._known.split(path.name) or NIFTI.split(path.name) or ("", "")
        with self._index.changing() as index:
            before = _entry(index, image_id).labels.get(tag)
            folder = Path(index.model.label_path(tag))
            folder.mkdir(parents=True, exist_ok=True)
            name = self._filename(image_id, ext)
            part = pending_path(folder / name)
            try:
                _copy(path, part, folder)
                info |= {"ts": int(time.time()), "name": name, CHECKSUM: checksum(part)}
                index.put_label(image_id, tag, DataModel(info=info, ext=ext))
                self._index.commit(index)
            finally:
                if self._index.current is not index:
                    part.unlink(missing_ok=True)
            part.replace(os.path.realpath(folder / name))
            if before is not None and before.ext != ext:
                (folder / self._filename(image_id, before.ext)).unlink(missing_ok=True)
        logger.info("Saved label %s of image %s.", tag, image_id)
        return image_id

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Delete a label.

        Raises:
            LabelNotFoundException: there is none.
            ReadOnlyError: the folder cannot be written.
        """
        image_id = self.known_id(label_id)
        with self._index.changing() as index:
            label = _label(index.model, image_id, label_tag)
            self.label_path(image_id, label_tag, label).unlink(missing_ok=True)
            index.put_label(image_id, label_tag, None)

    def update_image_info(self, image_id: str, info: Mapping[str, Any]) -> None:
        """Add to what is known of an image.

        Raises:
            ImageNotFoundException: there is none.
            InputError: the info cannot be kept.
        """
        image_id, added = self.known_id(image_id), storable(info, "image's info")
        with self._index.changing() as index:
            entry = _entry(index, image_id)
            merged = storable({**entry.image.info, **added}, "image's info")
            image = DataModel(info=merged, ext=entry.image.ext)
            index.model.objects[image_id] = ImageLabelModel(image=image, labels=entry.labels)

    def update_label_info(self, label_id: str, label_tag: str, info: Mapping[str, Any]) -> None:
        """Add to what is known of a label, its names perhaps; which file they belong to stays.

        Raises:
            LabelNotFoundException: there is none.
            InputError: the info cannot be kept.
        """
        image_id, added = self.known_id(label_id), checked_info(info)
        with self._index.changing() as index:
            label = _label(index.model, image_id, label_tag)
            own = {key: label.info[key] for key in ("name", CHECKSUM) if key in label.info}
            merged = checked_info({**label.info, **added}) | own
            index.put_label(image_id, label_tag, DataModel(info=merged, ext=label.ext))

    def set_name(self, name: str) -> None:
        """Name the data store."""
        with self._index.changing() as index:
            index.model.name = name

    def set_description(self, description: str) -> None:
        """Describe the data store."""
        with self._index.changing() as index:
            index.model.description = description

    def refresh(self) -> None:
        """List again what is in the folder."""
        self._index.refresh()

    def _checksum(self, path: Path) -> str | None:
        """Checksum of a file, computed again when it changed; None if it cannot be read."""
        key = (str(path), file_stamp(path))
        try:
            return self._checksums.get(key) or self._checksums.setdefault(key, checksum(path))
        except OSError:
            return None


def _entry(index: Index, image_id: str) -> ImageLabelModel:
    entry = index.model.objects.get(image_id)
    if entry is None:
        raise ImageNotFoundException(f"Image {image_id} not found")
    return entry


def _label(model: LocalDatastoreModel, image_id: str, tag: str) -> DataModel:
    label = model.label(image_id, tag)
    if label is None:
        raise LabelNotFoundException(f"Label: {image_id} Tag: {tag} not found")
    return label


def _unnamed(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the information on a label that stays valid after its file was changed."""
    return {key: info[key] for key in ("ts", "name") if key in info}


def _copy(source: Path, part: Path, folder: Path) -> None:
    """Copy a file to the disk of the folder, readable for those who may read the folder."""
    shutil.copyfile(source, part)
    part.chmod(folder.stat().st_mode & 0o666)
    sync(part)
