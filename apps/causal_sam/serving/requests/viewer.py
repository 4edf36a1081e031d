"""The pages of OHIF, which come with MONAI Label, and the first page of the server."""

from __future__ import annotations

import os
from pathlib import Path

import monailabel.endpoints.ohif
from fastapi import FastAPI
from fastapi.responses import FileResponse, RedirectResponse
from monailabel.config import settings
from monailabel.utils.others.generic import get_mime_type

from serving.requests.sign_in import Reader

_FOLDER = Path(monailabel.endpoints.ohif.__file__).with_name("static") / "ohif"


def viewer(path: str, user: Reader) -> FileResponse:
    """Return a file of the viewer; for all other paths its page, which reads from its address what to show."""
    file = Path(os.path.realpath(_FOLDER / path))
    if not (file.is_relative_to(_FOLDER) and os.path.isfile(file)):  # a Path raises where a name is too long
        file = _FOLDER / "index.html"
    return FileResponse(file, media_type=get_mime_type(str(file)))


def install_first_page(app: FastAPI) -> None:
    """Let ``/`` lead to our page, in place of MONAI Label's, which loads scripts from a public server."""
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) != "/"]
    address = f"{settings.MONAI_LABEL_API_STR}/causal-sam/"
    app.add_api_route("/", lambda: RedirectResponse(address), include_in_schema=False, response_model=None)
