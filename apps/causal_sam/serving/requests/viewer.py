"""The pages of OHIF, which come with MONAI Label."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import monailabel.endpoints.ohif
from fastapi import Depends
from fastapi.responses import FileResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.utils.others.generic import get_mime_type

_FOLDER = Path(monailabel.endpoints.ohif.__file__).with_name("static") / "ohif"


def viewer(path: str, user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]) -> FileResponse:
    """Return a file of the viewer; for all other paths its page, which reads from its address what to show."""
    file = Path(os.path.realpath(_FOLDER / path))
    if not (file.is_relative_to(_FOLDER) and os.path.isfile(file)):  # a Path raises where a name is too long
        file = _FOLDER / "index.html"
    return FileResponse(file, media_type=get_mime_type(str(file)))
