"""The page's routes on an app whose context is scripted, without the server of MONAI Label."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from scripted_app import App, write_image

from causal_sam.notes.interpreter import EmbeddedInterpreter
from scorings.effort import EffortScoring
from serving.inbox import Inbox
from serving.page.routes import api_router
from serving.requests.errors import install_error_handlers
from serving.site_protocol import SiteProtocol
from strategies.studies import Studies


class Page:
    """Requests of one user.

    Attributes:
        client: client of the server.
        app: the parts of the app.
        user: name of the user.
    """

    def __init__(self, client: TestClient, app: Any, user: str = "one") -> None:
        self.client, self.app, self.user = client, app, user

    def of(self, user: str) -> Page:
        """Requests of another user."""
        return Page(self.client, self.app, user)

    def ask(self, method: str, path: str, body: Any = None, *, status: int = 200, **query: Any) -> Any:
        query |= {"client_id": self.user}
        answer = self.client.request(method, f"/causal-sam/api/{path}", params=query, json=body)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.headers["content-type"] == "application/json" else answer

    def post(self, path: str, body: Any = None, **more: Any) -> Any:
        return self.ask("POST", path, body or {}, **more)

    def search(self) -> dict[str, Any]:
        """Search for masks in all cases, and return the last event."""
        self.post("inbox/search")
        *_, last = self.ask("GET", "inbox/search/events").text.strip().split("\n\n")
        assert last.startswith("event: inbox\n")
        return json.loads(last.partition("data: ")[2])


def save_label(page: Page, image: str, array: NDArray[np.uint8], info: dict[str, Any], folder: Path) -> None:
    """Store an accepted label as other programs do, unchecked."""
    store = page.app.datastore()
    path = folder / "label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array, nibabel.load(store.get_image_uri(image)).affine), path)
    store.store_label(image, path, "final", info)


@contextmanager
def scripted_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """Serve the page's routes on the images "image" and "second"."""
    folder = tmp_path / "studies"
    folder.mkdir()
    parts = App(folder, monkeypatch)
    write_image(folder / "second.nii.gz")
    parts.store.refresh()
    resources = parts.resources
    studies = Studies(parts.store, parts.finder.find)
    names = resources.labels.names
    scoring = EffortScoring(resources.click_log, resources.journal, tmp_path / "effort.json")
    app = SimpleNamespace(
        resources=resources,
        finder=parts.finder,
        datastore=lambda: parts.store,
        inbox=Inbox(studies, resources.predictors, names, resources.automatic, "axial", 10**9),
        protocol=SiteProtocol(folder / "protocol.md", tmp_path / "journal", EmbeddedInterpreter()),
        on_save_label=lambda image_id, label_id: None,
        requests_per_client=16,
        _scoring_methods={"effort": scoring},
    )
    monkeypatch.setattr("serving.inbox.NICENESS", 0)
    monkeypatch.setattr("serving.page.visits.PROGRESS_SECONDS", 0.05)
    for module in ("page.visits", "requests.inference"):
        monkeypatch.setattr(f"serving.{module}.app_instance", lambda: app)
    server = FastAPI()
    server.include_router(api_router())
    install_error_handlers(server)
    with TestClient(server) as client:
        yield Page(client, app)
