"""The routes of the inbox, of uncertainty and of effort, on an app whose context is scripted."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from scripted_app import LIVER, SHAPE, SPLEEN, App, write_image

from causal_sam.imaging import PackedMask
from causal_sam.imaging.overlap import dice
from causal_sam.notes.interpreter import EmbeddedInterpreter
from causal_sam.site.calibration import DiceBound
from scorings.effort import EffortScoring
from serving.inbox import Inbox
from serving.page import past_notes
from serving.page.routes import api_router
from serving.requests.errors import install_error_handlers
from serving.site_protocol import SiteProtocol
from strategies.studies import Studies

IMAGES = ("image", "second")


class Page:
    """Requests of one user."""

    def __init__(self, client: TestClient, app: Any) -> None:
        self.client, self.app = client, app

    def ask(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        answer = self.client.request(method, f"/causal-sam/api/{path}", params={"client_id": "one"}, json=body)
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


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
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


def test_cases_go_through_the_inbox(page: Page) -> None:
    inbox = page.ask("GET", "inbox")
    assert (inbox["cases"], inbox["waiting"]) == ([], 2)
    assert inbox["guarantee"].startswith("Not enough accepted labels for a guarantee: 0 of 9.")
    assert "search for them first" in page.post("cases/image/inbox/open", status=404)["detail"]
    last = page.search()
    assert (last["is_running"], last["done"], last["message"]) == (False, 2, "Found the masks of 2 cases.")
    inbox = page.ask("GET", "inbox")
    assert [case["id"] for case in inbox["cases"]] == list(IMAGES)
    first = inbox["cases"][0]
    assert [(label["name"], label["certainty"]) for label in first["labels"]] == [("liver", 0.9), ("spleen", 0.9)]
    assert (first["certainty"], first["bound"], first["missing"]) == (0.9, None, [])
    assert page.ask("GET", "cases/image/inbox/picture").content.startswith(b"\x89PNG")
    # Opened, corrected and accepted: the inbox learns how good its masks were.
    opened = page.post("cases/image/inbox/open")
    assert {(label["name"], label["source"], label["certainty"]) for label in opened["labels"]} == {
        ("liver", "automatic", 0.9),
        ("spleen", "automatic", 0.9),
    }
    assert [step["kind"] for step in opened["steps"]] == ["start", "name"]
    assert [case["id"] for case in page.ask("GET", "inbox")["cases"]] == ["second"]
    assert "has masks already" in page.post("cases/image/inbox/accept", status=422)["detail"]
    page.post("cases/image/reset", {"labels": ["spleen"]})  # which was wrong
    page.post("cases/image/accept")
    inbox = page.ask("GET", "inbox")
    assert inbox["accepted"] == 1
    assert page.app.inbox.masks.scores(page.app.inbox.cases()[0][0].model) == {"image": 0.9}
    # Accepted unopened: it leaves the inbox, and says nothing about the model.
    assert page.post("cases/second/inbox/accept")["message"] == "Accepted second: liver, spleen."
    inbox = page.ask("GET", "inbox")
    assert (inbox["cases"], inbox["waiting"], inbox["accepted"]) == ([], 0, 1)
    session = page.ask("GET", "cases/second/session")
    masks = {each["name"]: PackedMask.from_json(each["mask"]).unpack() for each in session["labels"]}
    assert dice(masks["liver"], LIVER) > 0.85
    assert dice(masks["spleen"], SPLEEN) > 0.85
    spent = page.ask("GET", "effort")
    assert {(each["id"], each["clicks"], each["notes"]) for each in spent} == {(name, 0, 0) for name in IMAGES}


def test_with_enough_accepted_labels_cases_have_a_bound(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.search()
    monkeypatch.setattr("serving.page.inbox._bound", lambda: DiceBound.of([0.1] * 9))
    (case, _) = page.ask("GET", "inbox")["cases"]
    assert case["bound"] == pytest.approx(0.8)
    assert [label["bound"] for label in case["labels"]] == [pytest.approx(0.8)] * 2


def test_all_that_is_found_by_name_is_kept_before_anybody_corrects_it(page: Page) -> None:
    from infers.organs import OrgansInferTask

    page.app._infers = {"causal_sam_organs": OrgansInferTask(page.app.resources)}
    page.post("cases/image/automatic", {"labels": ["liver"]})
    assert page.ask("GET", "inbox")["waiting"] == 2  # the other labels were not looked for
    page.post("cases/image/automatic")
    assert page.ask("GET", "inbox")["waiting"] == 1
    (found,), _ = page.app.inbox.cases()
    assert found.missing == []
    assert found.certainty == {"liver": 0.9, "spleen": 0.9}


def test_the_uncertainty_of_a_mask_lies_at_its_border(page: Page) -> None:
    page.search()
    page.post("cases/image/inbox/open")
    answer = page.client.get(
        "/causal-sam/api/cases/image/uncertainty", params={"client_id": "one", "label": "liver"}
    ).json()
    extent, corner = answer["extent"], answer["corner"]
    values = np.frombuffer(zlib.decompress(base64.b64decode(answer["values"])), np.uint8).reshape(extent)
    whole = np.zeros(SHAPE, np.uint8)
    whole[tuple(slice(c, c + e) for c, e in zip(corner, extent, strict=True))] = values
    assert answer["slices"] >= 6
    middle = (22, 28, 4)
    assert whole[middle] < 60 < whole[..., 4].max()
    nothing = page.client.get("/causal-sam/api/cases/image/uncertainty", params={"client_id": "one", "label": "kidney"})
    assert (nothing.json()["extent"], nothing.json()["slices"]) == ([0, 0, 0], 0)


def test_notes_know_whether_they_were_undone() -> None:
    def entry(act: str, note: str, user: str = "ann") -> dict[str, Any]:
        return {"time": "2026-01-01T00:00:00+00:00", "user": user, "act": act, "note": note, "image": "ct"}

    notes = past_notes.notes_in(
        [
            entry("note", "larger"),
            entry("note", "larger"),
            entry("refused", "funny"),
            entry("note", "larger", "ben"),
            entry("undo", "larger"),
            entry("undo", "larger"),
            entry("redo", "larger"),
        ]
    )
    assert [(note.act, note.user, note.is_undone) for note in notes] == [
        ("note", "ann", False),
        ("note", "ann", True),
        ("refused", "ann", False),
        ("note", "ben", False),
    ]
