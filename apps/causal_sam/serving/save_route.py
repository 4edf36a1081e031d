"""Saving a label off the event loop.

MONAI Label's own endpoint is a coroutine that saves where it is. With a DICOMweb server that converts the label and
sends it to the archive, which takes seconds, and nobody else would get an answer meanwhile.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, File, Form, UploadFile
from monailabel.config import RBAC_ANNOTATOR, settings
from monailabel.endpoints.datastore import save_label
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.datastore import DefaultLabelTag

from serving.infer_route import checked_object


def save(
    background_tasks: BackgroundTasks,
    image: str,
    label: Annotated[UploadFile, File()],
    user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))],
    params: Annotated[str, Form()] = "{}",
    tag: str = DefaultLabelTag.FINAL.value,
) -> Any:
    """Save a label as MONAI Label's endpoint does; being no coroutine, it runs in a thread."""
    checked_object(params)
    return save_label(background_tasks, image, params, tag, label, user.username)


def install_save_route(app: FastAPI) -> None:
    """Answer ``PUT /datastore/label`` with `save`, before MONAI Label's own route of the same path is tried."""
    app.add_api_route(
        f"{settings.MONAI_LABEL_API_STR}/datastore/label",
        save,
        methods=["PUT"],
        tags=["Datastore"],
        response_model=None,
        summary=f"{RBAC_ANNOTATOR}Save Finished Label",
    )
    app.router.routes.insert(0, app.router.routes.pop())
