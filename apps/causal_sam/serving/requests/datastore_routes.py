"""The routes by which images and labels come into the data store and go out of it.

MONAI Label's endpoints cut the name of an upload at its first dot, leave it behind where it is refused, and read the
file of a label while it may be replaced.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from zipfile import ZipFile

from fastapi import BackgroundTasks, File, Form, Request, UploadFile
from fastapi.responses import FileResponse, Response, StreamingResponse
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.endpoints.datastore import download_label
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import get_mime_type

from causal_sam.errors import InputError, NotFoundError
from causal_sam.site.accepted import frame_in_info
from causal_sam.site.label_files import CHECKSUM
from serving.data.files import Extensions
from serving.data.folder_store import FolderStore
from serving.opened_images import prepare_opened
from serving.requests.identifiers import checked_identifier
from serving.requests.inference import context_of, removed_on_failure
from serving.requests.json_objects import checked_object
from serving.requests.options import checked_client_id
from serving.requests.sign_in import Annotator, Reader
from serving.sessions.uploads import received

CHUNK_BYTES = 2**20


def save_label(
    request: Request,
    image: str,
    label: Annotated[UploadFile, File()],
    user: Annotator,
    params: Annotated[str, Form()] = "{}",
    tag: str = DefaultLabelTag.FINAL.value,
) -> Any:
    """Save a label; the answer for an accepted one has the check of the ``protocol``, if there are rules.

    Who accepted it is said by the sign-in, and not by the client.

    Raises:
        InputError: it cannot be saved, and nothing was.
    """
    app, info, tag = app_instance(), checked_object(params), tag or DefaultLabelTag.FINAL.value
    who = context_of(request, user, checked_client_id(info)).name
    info.pop("user", None)
    if settings.MONAI_LABEL_AUTH_ENABLE:
        info["user"] = who = user.username
    with received(label, "label") as path:
        label_id = app.datastore().save_label(image, str(path), tag, info)
    answer = {**(app.on_save_label(image, label_id) or {}), "image": image, "label": label_id}
    if tag == DefaultLabelTag.FINAL.value:
        report = app.protocol.check_saved(app.resources, app.finder.find(image), frame_in_info(info) or 0, who)
        if report is not None:
            answer["protocol"] = {"message": str(report), **report.to_dict()}
    return answer


def add_image(
    file: Annotated[UploadFile, File()],
    user: Annotator,
    image: str | None = None,
    params: Annotated[str, Form()] = "{}",
) -> Any:
    """Add an image, or replace it.

    Raises:
        InputError: it cannot be added, and nothing was.
    """
    info = checked_object(params)
    if settings.MONAI_LABEL_AUTH_ENABLE:
        info["user"] = user.username
    image = image or _stem(file.filename)
    if not image:
        raise InputError("Name the image: give image=<id>, or send its file with a name.")
    with received(file, "image") as path:
        return {"image": app_instance().datastore().add_image(image, str(path), info)}


def get_image(request: Request, image: str, user: Reader) -> StreamingResponse:
    """Send the file of an image, whole even if it is replaced or removed meanwhile.

    Raises:
        NotFoundError: there is none.
    """
    path = Path(app_instance().datastore().get_image_uri(image))
    prepare_opened(request.app, image)
    try:
        file = path.open("rb")
    except OSError as error:
        raise NotFoundError(f"There is no image {image!a} in the studies.") from error
    headers = dict(FileResponse(path, filename=path.name).headers)
    headers["content-length"] = str(os.fstat(file.fileno()).st_size)
    return StreamingResponse(_chunks(file), media_type=get_mime_type(str(path)), headers=headers)


def get_label(label: str, tag: str, user: Reader) -> Response:
    """Send the file of a label; its ``ETag`` is the ``checksum`` in the info that was saved with these bytes."""
    store = app_instance().datastore()
    if not isinstance(store, FolderStore):
        return download_label(label, tag)
    with store.open_label(label, tag) as (path, info):
        headers = {"ETag": f'"{info[CHECKSUM]}"'} if CHECKSUM in info else {}
        sent = FileResponse(path, media_type=get_mime_type(str(path)), filename=path.name)
        headers["Content-Disposition"] = sent.headers["content-disposition"]
        return Response(path.read_bytes(), media_type=sent.media_type, headers=headers)


def get_dataset(background_tasks: BackgroundTasks, user: Annotator, limit_cases: int | None = None) -> FileResponse:
    """Send all images with an accepted label, and these labels, in one archive.

    Raises:
        NotFoundError: no label was accepted yet.
    """
    store = app_instance().datastore()
    own = isinstance(store, FolderStore)
    path = _write_dataset(store, limit_cases) if own else Path(store.get_dataset_archive(limit_cases))
    background_tasks.add_task(path.unlink, missing_ok=True)
    return FileResponse(path, media_type="application/zip", filename="dataset.zip")


def _write_dataset(store: FolderStore, limit: int | None) -> Path:
    """Write all images with an accepted label, or at most ``limit``, into a temporary archive."""
    accepted = [image_id for image_id, entry in store.objects().items() if DefaultLabelTag.FINAL in entry.labels]
    if not accepted:
        raise NotFoundError("No label has been accepted yet, so there is no data set to send.")
    content = store.json() | {"objects": {}}
    with (
        tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as file,
        removed_on_failure(file.name),
        ZipFile(file, "w") as archive,
    ):
        for image_id in accepted[: limit if limit and limit > 0 else None]:
            content["objects"][image_id] = _add_case(archive, store, image_id)
        archive.writestr("metadata.json", json.dumps(content))
    return Path(file.name)


def _add_case(archive: ZipFile, store: FolderStore, image_id: str) -> dict[str, Any]:
    """Write an image and its label into the archive; return what is known of them."""
    with store.open_label(image_id, DefaultLabelTag.FINAL.value) as (label, info):
        image = Path(LocalDatastore.get_image_uri(store, image_id))
        archive.write(image, f"image/{image.name}")
        archive.write(label, f"label/{label.name}")
    entry = store.objects()[image_id].image.model_dump()
    ext = label.name.removeprefix(image_id)
    return {"image": entry, "labels": {DefaultLabelTag.FINAL.value: {"ext": ext, "info": info}}}


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _stem(filename: str | None) -> str:
    """The name of an upload without its extension."""
    if not filename:
        return ""
    checked_identifier(filename, "file name")
    known = Extensions(settings.MONAI_LABEL_DATASTORE_FILE_EXT).split(filename)
    return known[0] if known else Path(filename).stem
