"""Answers of inferences as DICOM SEG."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import BackgroundTasks
from fastapi.responses import FileResponse
from monailabel.interfaces.utils.app import app_instance

from causal_sam.errors import InputError


def answer_as_dicom_seg(background_tasks: BackgroundTasks, image: str, result: Mapping[str, Any]) -> FileResponse:
    """Answer the mask of an inference as DICOM SEG, with the names that the task gives.

    MONAI Label's own answer takes names and order of the segments from the client.

    Args:
        background_tasks: of the request; they remove the files.
        image: the series, in a `SegmentStore`.
        result: of the app's inference.

    Raises:
        InputError: there is no mask, or it is empty.
    """
    if not result.get("file"):
        raise InputError("The task gave no mask, so there is nothing to write as DICOM SEG.")
    mask = Path(result["file"])
    background_tasks.add_task(mask.unlink, missing_ok=True)
    with tempfile.NamedTemporaryFile(suffix=".dcm", delete=False) as file:
        path = Path(file.name)
    background_tasks.add_task(path.unlink, missing_ok=True)
    try:
        app_instance().datastore().write_result(image, mask, {"params": result["params"]}, path)
    except BaseException:
        # Background tasks follow an answer, not an error.
        mask.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise
    return FileResponse(path, media_type="application/dicom", filename=path.name)
