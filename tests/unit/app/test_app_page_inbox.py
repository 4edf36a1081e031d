"""The routes of the inbox, of uncertainty and of effort, on an app whose context is scripted."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from scripted_app import LIVER, SHAPE, SPLEEN
from unit.app.scripted_page import Page, save_label, scripted_page

from causal_sam.imaging import PackedMask
from causal_sam.imaging.overlap import dice
from causal_sam.site.calibration import DiceBound
from serving.page import past_notes

IMAGES = ("image", "second")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    with scripted_page(tmp_path, monkeypatch) as made:
        yield made


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
    answer = page.ask("GET", "cases/image/uncertainty", name="liver")
    extent, corner = answer["extent"], answer["corner"]
    values = np.frombuffer(zlib.decompress(base64.b64decode(answer["values"])), np.uint8).reshape(extent)
    whole = np.zeros(SHAPE, np.uint8)
    whole[tuple(slice(c, c + e) for c, e in zip(corner, extent, strict=True))] = values
    assert answer["slices"] >= 6
    middle = (22, 28, 4)
    assert whole[middle] < 60 < whole[..., 4].max()
    nothing = page.ask("GET", "cases/image/uncertainty", name="kidney")
    assert (nothing["extent"], nothing["slices"]) == ([0, 0, 0], 0)


def test_only_masks_that_somebody_looked_at_are_accepted_from_the_inbox(page: Page, tmp_path: Path) -> None:
    page.search()
    (case, _) = page.ask("GET", "inbox")["cases"]
    refused = page.post("cases/image/inbox/accept", {"model": "of yesterday"}, status=409)
    assert refused["detail"] == "Other masks were found in image meanwhile: look at them, then accept."
    page.post("cases/image/inbox/accept", {"model": case["model"]})
    # A label that was put there since the list was loaded, and whose values have no names.
    save_label(page, "second", np.ones(SHAPE, np.uint8), {}, tmp_path)
    assert "has an accepted label already" in page.post("cases/second/inbox/accept", status=409)["detail"]
    assert page.app.datastore().get_label_info("second", "final").keys() == {"ts", "name", "checksum"}


def test_the_inbox_is_about_the_first_frame(page: Page) -> None:
    image = nibabel.load(page.app.datastore().get_image_uri("image"))
    frames = np.stack(2 * [image.get_fdata(dtype=np.float32)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(frames, image.affine), image.get_filename())
    page.search()
    for route in ("open", "accept"):
        refused = page.ask("POST", f"cases/image/inbox/{route}", {}, status=422, frame=1)
        assert refused["detail"] == "The automatic masks are of frame 0, not 1: leave frame out."


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
