"""Saving a label off the event loop.

MONAI Label's own endpoint is a coroutine that saves where it is. With a DICOMweb server that converts the label and
sends it to the archive, which takes seconds, and nobody else would get an answer meanwhile.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, File, Form, UploadFile
from monailabel.config import settings
from monailabel.endpoints.datastore import save_label
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.datastore import DefaultLabelTag


def save(
    background_tasks: BackgroundTasks,
    image: str,
    label: Annotated[UploadFile, File()],
    user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))],
    params: Annotated[str, Form()] = "{}",
    tag: str = DefaultLabelTag.FINAL.value,
) -> Any:
    """Save a label as MONAI Label's endpoint does; being no coroutine, it runs in a thread."""
    return save_label(background_tasks, image, params, tag, label, user.username)
