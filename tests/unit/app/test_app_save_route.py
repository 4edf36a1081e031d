"""Saving a label: off the event loop, and with parameters that can be read."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.endpoints import datastore

from serving import save_route
from serving.errors import install_error_handlers
from serving.requests import routes

FILE = {"label": ("label.nii.gz", b"voxels")}


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(datastore.router)
    monkeypatch.setattr(routes, "REPLACEMENTS", {("PUT", "/datastore/label"): save_route.save})
    routes.install_routes(app)

    @app.get("/info/")
    async def info() -> dict[str, bool]:
        return {"answers": True}

    return app


def test_others_are_answered_while_a_label_is_saved(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    began, may_end = threading.Event(), threading.Event()

    def slow(background_tasks, image, params, tag, label, user) -> dict[str, str]:
        began.set()
        assert may_end.wait(60)
        return {"image": image, "tag": tag, "bytes": label.file.read().decode()}

    monkeypatch.setattr(save_route, "save_label", slow)
    with TestClient(app) as client, ThreadPoolExecutor() as pool:
        saving = pool.submit(client.put, "/datastore/label", params={"image": "ct", "tag": "final"}, files=FILE)
        assert began.wait(60)
        assert client.get("/info/").json() == {"answers": True}
        assert not saving.done()
        may_end.set()
        assert saving.result().json() == {"image": "ct", "tag": "final", "bytes": "voxels"}


def test_parameters_that_are_no_object_are_said_and_nothing_is_saved(app: FastAPI, monkeypatch) -> None:
    monkeypatch.setattr(save_route, "save_label", lambda *args: pytest.fail("saved"))
    with TestClient(app) as client:
        for params, sentence in (("{", "not valid JSON"), ("[1]", "must be a JSON object")):
            response = client.put("/datastore/label", params={"image": "ct"}, files=FILE, data={"params": params})
            assert response.status_code == 422
            assert sentence in response.json()["detail"]
