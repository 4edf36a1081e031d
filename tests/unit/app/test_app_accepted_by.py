"""Who accepted a label that another client saved: what the report on the protocol and the list of cases say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.config import settings
from monailabel.endpoints.user.auth import User

from serving.data.folder_store import FolderStore
from serving.page.cases import list_cases
from serving.requests import datastore_routes

USER = User(username="ann")


class Protocol:
    """Remembers who accepted labels."""

    def __init__(self) -> None:
        self.users: list[str] = []

    def check_saved(self, resources: Any, image: Any, frame: int, user: str) -> None:
        self.users.append(user)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "ct.nii.gz")
    store = FolderStore(str(tmp_path), auto_reload=False)
    app = SimpleNamespace(
        datastore=lambda: store,
        finder=SimpleNamespace(find=lambda image: image),
        resources=SimpleNamespace(histories=SimpleNamespace(in_work=dict)),
        on_save_label=lambda image, label: {},
        protocol=Protocol(),
    )
    monkeypatch.setattr(datastore_routes, "app_instance", lambda: app)
    monkeypatch.setattr("serving.page.visits.app_instance", lambda: app)
    return app


@pytest.mark.parametrize(
    ("signs_in", "who", "by"),
    [(True, "ann", "ann"), (False, "address testclient, client slicer", "slicer")],
)
def test_who_accepted_a_label_is_not_what_the_client_says(
    app: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, signs_in: bool, who: str, by: str
) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", signs_in)
    server = FastAPI()
    server.put("/datastore/label", response_model=None)(datastore_routes.save_label)
    (role,) = datastore_routes.Annotator.__metadata__
    server.dependency_overrides[role.dependency] = lambda: USER
    label = tmp_path / "label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), label)
    params = '{"label_info": [{"name": "liver", "idx": 1}], "client_id": "slicer", "user": "dr.smith"}'
    with TestClient(server) as client, label.open("rb") as file:
        query = {"image": "ct"}
        saved = client.put("/datastore/label", params=query, files={"label": file}, data={"params": params})
    assert saved.status_code == 200, saved.text
    assert app.protocol.users == [who]
    assert [case.by for case in list_cases(USER)] == [[by]]
