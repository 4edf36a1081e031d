"""Route by which the masks of a case leave for another program."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, BackgroundTasks
from fastapi.responses import FileResponse, Response

from causal_sam.export import FORMATS, export_label_map
from infers.base import IMAGE_ID_KEY
from serving.data.dicomweb_store import DicomWebStore
from serving.data.incoming_labels import IncomingLabel
from serving.page.visits import ToCase, app
from serving.requests.inference import removed_on_failure

router = APIRouter()
FILES = {format.media_type: {} for format in FORMATS.values()}


@router.get("/cases/{case}/export", response_class=FileResponse, responses={200: {"content": FILES}})
async def export_case(
    case: ToCase,
    format: Literal[tuple(FORMATS)],
    background_tasks: BackgroundTasks,
) -> Response:
    """Return the masks of the client's session as a file.

    The formats are those of the command `causal-sam export`: `nifti`, `nrrd` (a segmentation of 3D Slicer), `csv`
    (volumes and intensities), and for images of a DICOMweb server `dicom_seg`, `rtstruct` and `dicom_sr` (an archive
    with the DICOM SEG that is measured).
    """

    def write() -> FileResponse:
        chosen = FORMATS[format]
        with case.open_session() as call:
            label_map, names = call.session.label_map()
            image_id = call.request[IMAGE_ID_KEY]
        info = {"label_info": [{"name": name, "idx": value} for name, value in names.items()]}
        segmented = IncomingLabel(call.volume, label_map, info).segmented()
        store = app().datastore()
        is_series = isinstance(store, DicomWebStore) and image_id is not None
        sources = (lambda: store.source_images(image_id, case.frame)) if is_series else None
        with tempfile.NamedTemporaryFile(suffix=chosen.suffix, delete=False) as file:
            path = Path(file.name)
        with removed_on_failure(path):
            export_label_map(segmented, format, path, sources)
        background_tasks.add_task(path.unlink, missing_ok=True)
        return FileResponse(path, media_type=chosen.media_type, filename=f"{case.image_id}-{format}{chosen.suffix}")

    return await case.run(write)
