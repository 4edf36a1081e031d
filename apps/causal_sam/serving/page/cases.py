"""Routes about the images of the studies: the list, thumbnails, the image for the viewer, and the next one."""

from __future__ import annotations

import threading
from dataclasses import replace

from cachetools import LRUCache, cached
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from monailabel.datastore.local import ImageLabelModel
from monailabel.interfaces.datastore import DefaultLabelTag
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from causal_sam.errors import NotFoundError
from causal_sam.imaging import Volume, slice_axis
from causal_sam.imaging.label_names import named_values
from causal_sam.imaging.writing import stream_image
from serving.data.dicomweb_store import DicomWebStore
from serving.data.folder_store import FolderStore
from serving.data.images import VolumeKey, volume_key
from serving.opened_images import prepare_opened
from serving.page.pictures import picture_of_slice
from serving.page.schemas import Case, NextCase
from serving.page.visits import ClientId, ToCase, app
from serving.requests.background_tasks import client_of_strategy, next_sample
from serving.requests.sign_in import Reader
from strategies.style_aware import NAME as STYLE_AWARE
from strategies.style_aware import StyleAware

THUMBNAIL_SIDE = 128
MAX_THUMBNAILS = 1000
router = APIRouter()
# Image id -> modality that its voxels show, for files that do not say it; known once an image was read.
_modalities: dict[str, str] = {}


@router.get("/cases")
def list_cases(user: Reader) -> list[Case]:
    """List the images of the studies with their states, in order of their ids."""
    store, in_work = app().datastore(), app().resources.histories.in_work()
    entries = store.objects() if isinstance(store, FolderStore) else {}
    titles = store.titles() if isinstance(store, DicomWebStore) else {}
    return [
        _case(image_id, titles.get(image_id), entries.get(image_id), in_work.get(image_id, {}))
        for image_id in sorted(store.list_images())
    ]


def _case(image_id: str, title: str | None, entry: ImageLabelModel | None, clients: dict[str, float]) -> Case:
    final = None if entry is None else entry.labels.get(DefaultLabelTag.FINAL)
    case = Case(
        id=image_id,
        title=title or image_id,
        state="accepted" if final else "in work" if clients else "new",
        by=sorted(clients),
        changed=max(clients.values(), default=None),
        modality="" if entry is None else str(entry.image.info.get("Modality", "")),
        is_here=entry is not None,
    )
    case.modality = case.modality or _modalities.get(image_id, "")
    if final is not None:
        by = final.info.get("user") or final.info.get("client_id")
        case.by, case.changed = [str(by)] if by else [], final.info.get("ts")
        case.labels = [name for name, _ in named_values(final.info)]
    return case


@router.get("/cases/{case}/thumbnail", response_class=Response, responses={200: {"content": {"image/png": {}}}})
async def thumbnail(case: ToCase) -> Response:
    """Return the middle slice as a PNG.

    Raises:
        NotFoundError: there is no such image, or it is in the archive alone.
    """

    def draw() -> Response:
        store = app().datastore()
        is_here = not isinstance(store, FolderStore) or store.known_id(case.image_id) in store.objects()
        if not is_here and case.image_id in store.list_images():
            raise NotFoundError(f"{case.image_id} has no thumbnail yet: it is fetched when somebody opens it.")
        png, _modalities[case.image_id] = _thumbnail(volume_key(case.image().path, case.frame))
        return Response(png, media_type="image/png")

    return await case.run(draw)


@cached(LRUCache(MAX_THUMBNAILS), lock=threading.Lock())
def _thumbnail(key: VolumeKey) -> tuple[bytes, str]:
    """The middle slice as a PNG, and the modality of the image."""
    volume = app().resources.volumes.get(key)
    return picture_of_slice(volume, volume.shape[slice_axis(volume)] // 2, THUMBNAIL_SIDE), volume.modality


@router.get(
    "/cases/{case}/image",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def image(case: ToCase, client_id: ClientId = None) -> Response:
    """Return the image as NIfTI without compression, its axes swapped and flipped to run right, anterior and superior.

    ``axes`` of the session lead to the voxels of the file. Voxels are whole numbers of at most 32 bits, or float32.
    """

    def convert() -> StreamingResponse:
        volume = case.volume()
        client = client_of_strategy(case.request, case.user, {"client_id": client_id})
        strategy: StyleAware = app()._strategies[STYLE_AWARE]
        prepare_opened(case.request.app, case.image_id, lambda: strategy.next_after(case.image_id, client))
        size, parts = stream_image(_towards_ras(volume))
        return StreamingResponse(
            parts,
            media_type="application/octet-stream",
            headers={"Content-Length": str(size), "Cache-Control": "no-store"},
        )

    return await case.run(convert)


def _towards_ras(volume: Volume) -> Volume:
    turn = io_orientation(volume.affine)
    affine = volume.affine @ inv_ornt_aff(turn, volume.shape)
    return replace(volume, array=apply_orientation(volume.array, turn), affine=affine)


@router.post("/next")
def next_case(request: Request, user: Reader, client_id: ClientId = None) -> NextCase:
    """Choose the next case, and say why."""
    chosen = next_sample(request, STYLE_AWARE, user, {"client_id": client_id})
    if not chosen:
        return NextCase(id=None, why="All cases that can be read have an accepted label.")
    return NextCase(id=chosen["id"], why=chosen.get("why", ""))
