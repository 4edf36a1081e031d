"""The pages of OHIF, which come with MONAI Label, and the first page of the server."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import monailabel.endpoints.ohif
from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from monailabel.config import settings
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import get_mime_type
from starlette.staticfiles import StaticFiles

from serving.requests.sign_in import Reader

_FOLDER = Path(monailabel.endpoints.ohif.__file__).with_name("static") / "ohif"
_PAGE = _FOLDER / "index.html"
COMPANION = "/causal-sam/companion"
_COMPANION_FOLDER = Path(__file__).parents[1] / "companion"


def viewer(path: str, user: Reader) -> Response:
    """Return a file of the viewer; for all other paths its page, which reads from its address what to show."""
    file = Path(os.path.realpath(_FOLDER / path))
    if file == _PAGE or not (file.is_relative_to(_FOLDER) and os.path.isfile(file)):  # a Path raises for long names
        return HTMLResponse(_page(app_instance().has_companion))
    return FileResponse(file, media_type=get_mime_type(str(file)))


@cache
def _page(has_companion: bool) -> str:
    """Return the viewer's page, with our companion if it is switched on."""
    page = _PAGE.read_text(encoding="utf-8")
    # First of all scripts, so that it sees all of the viewer's requests.
    script = f'<script type="module" src="{settings.MONAI_LABEL_API_STR}{COMPANION}/companion.js"></script>'
    return page.replace("<head>", f"<head>{script}", 1) if has_companion else page


def install_companion(app: FastAPI) -> None:
    """Serve the scripts of the companion, which hold no data."""
    app.mount(f"{settings.MONAI_LABEL_API_STR}{COMPANION}", StaticFiles(directory=_COMPANION_FOLDER), name="companion")


def install_first_page(app: FastAPI) -> None:
    """Let ``/`` lead to our page, in place of MONAI Label's, which loads scripts from a public server."""
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) != "/"]
    address = f"{settings.MONAI_LABEL_API_STR}/causal-sam/"
    app.add_api_route("/", lambda: RedirectResponse(address), include_in_schema=False, response_model=None)
