"""Puts the page and its routes into the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from monailabel.config import settings
from starlette.staticfiles import StaticFiles

from serving.page import (
    acceptance,
    cases,
    effort,
    exports,
    inbox,
    learning,
    past_notes,
    protocol,
    sessions,
    stray_parts,
    uncertainty,
)
from serving.page.schemas import Refusal

PAGE = "/causal-sam"
STATIC = Path(__file__).with_name("static")


def api_router() -> APIRouter:
    """The routes under ``/causal-sam/api``."""
    refused = {"4XX": {"model": Refusal, "description": "The request is at fault."}}
    router = APIRouter(prefix=f"{PAGE}/api", tags=["Causal-SAM"], responses=refused)
    for part in (
        *(cases, sessions, acceptance, stray_parts, protocol, past_notes, uncertainty),
        *(exports, learning, effort, inbox),
    ):
        router.include_router(part.router)
    return router


def api_description() -> dict[str, Any]:
    """Describe the routes in OpenAPI, from which the types of the page are made."""
    app = FastAPI(title="Causal-SAM", version="1")
    app.include_router(api_router())
    return app.openapi()


def install_page(app: FastAPI) -> None:
    """Serve the page and its routes; ``/`` leads to the page.

    The files of the page are public, since they hold no data and show the form to sign in; all routes of the API need
    the roles of MONAI Label's own.
    """
    address = f"{settings.MONAI_LABEL_API_STR}{PAGE}"
    app.include_router(api_router(), prefix=settings.MONAI_LABEL_API_STR)
    app.mount(address, StaticFiles(directory=STATIC, html=True), name="causal-sam")
    app.openapi_schema = None
