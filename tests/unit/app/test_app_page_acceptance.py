"""What the page accepts and under which names, with several users at one image; the context is scripted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scripted_app import LIVER, SHAPE, SPLEEN
from unit.app.scripted_page import Page, save_label, scripted_page

from causal_sam.imaging import PackedMask

CUBE = np.zeros(SHAPE, bool)
CUBE[2:6, 2:6, 2:4] = True
NAMED = {"label_info": [{"name": "Liver", "idx": 1}]}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    with scripted_page(tmp_path, monkeypatch) as made:
        yield made


def paint(page: Page, label: str, mask: NDArray[np.bool_], *, image: str = "image", **more: Any) -> dict[str, Any]:
    painted = {"kind": "brush", "label": label, "painted": PackedMask.pack(mask).as_json(), **more}
    return page.post(f"cases/{image}/prompts", painted)


def shown(session: dict[str, Any]) -> set[str]:
    return {label["name"] for label in session["labels"] if label["volume_ml"]}


def keys(session: dict[str, Any]) -> list[str]:
    return [label["key"] for label in session["labels"]]


def saved_names(page: Page, image: str = "image") -> set[str]:
    return {each["name"] for each in page.app.datastore().get_label_info(image, "final")["label_info"]}


def test_names_of_structures_of_the_same_kind_are_labels_of_their_own(page: Page) -> None:
    page.app.resources.labels.__init__(["liver", "lesion"])
    paint(page, "metastasis", SPLEEN)
    assert shown(paint(page, "cyst", CUBE)) == {"metastasis", "cyst"}
    # Other spellings and names of the same structure are the server's label.
    assert shown(paint(page, "Hepatic", LIVER)) == {"metastasis", "cyst", "liver"}


def test_a_label_keeps_the_name_that_it_was_saved_with(page: Page, tmp_path: Path) -> None:
    save_label(page, "image", LIVER.astype(np.uint8), NAMED, tmp_path)
    assert page.post("cases/image/locks", {"labels": ["Liver"]})["labels"][0]["is_locked"]
    page.post("cases/image/locks", {"labels": []})
    assert shown(paint(page, "Liver", CUBE)) == {"Liver"}
    assert shown(page.post("cases/image/reset", {"labels": ["Liver"]})) == set()


def test_a_lock_of_a_label_without_a_mask_is_shown(page: Page) -> None:
    locked = page.post("cases/image/locks", {"labels": ["spleen"]})
    assert (locked["labels"], locked["locked"]) == ([], ["spleen"])
    assert page.post("cases/image/locks", {"labels": []})["locked"] == []


def test_a_label_that_somebody_removed_from_the_accepted_one_stays_removed(page: Page) -> None:
    ann, ben = page.of("ann"), page.of("ben")
    paint(ann, "liver", LIVER)
    paint(ann, "cyst", CUBE)
    ann.post("cases/image/accept")
    assert shown(ben.ask("GET", "cases/image/session")) == {"liver", "cyst"}
    ben.post("cases/image/reset", {"labels": ["cyst"]})
    ben.post("cases/image/accept")
    assert shown(ann.ask("GET", "cases/image/session")) == {"liver"}
    paint(ann, "spleen", SPLEEN)
    ann.post("cases/image/accept")
    assert saved_names(page) == {"liver", "spleen"}


def test_what_nobody_accepted_is_not_removed_by_a_label_of_somebody_else(page: Page) -> None:
    ann, ben = page.of("ann"), page.of("ben")
    paint(ann, "cyst", CUBE)
    paint(ben, "liver", LIVER)
    ben.post("cases/image/accept")
    assert shown(ann.ask("GET", "cases/image/session")) == {"liver", "cyst"}


def test_a_label_with_values_without_names_removes_nothing(page: Page, tmp_path: Path) -> None:
    paint(page, "spleen", SPLEEN)
    page.post("cases/image/accept")
    save_label(page, "image", LIVER.astype(np.uint8) + 4 * CUBE.astype(np.uint8), NAMED, tmp_path)
    assert shown(page.ask("GET", "cases/image/session")) == {"Liver", "spleen"}


def test_only_masks_that_the_user_sees_are_accepted(page: Page) -> None:
    ann, ben = page.of("ann"), page.of("ben")
    seen = keys(paint(ann, "liver", LIVER))
    paint(ben, "liver", CUBE | SPLEEN)
    ben.post("cases/image/accept")
    by_ben = page.app.datastore().get_label_info("image", "final")
    (stray,) = ann.ask("GET", "cases/image/stray-parts")["labels"]
    for refused in (
        ann.post("cases/image/accept", {"known": seen}, status=409),
        ann.post("cases/image/stray-parts/remove", {"labels": [stray["label"]], "known": seen}, status=409),
    ):
        assert refused["detail"].startswith("Nothing was accepted: the masks are not those that you saw")
    assert page.app.datastore().get_label_info("image", "final") == by_ben
    seen = keys(ann.ask("GET", "cases/image/session"))
    assert ann.post("cases/image/accept", {"known": seen})["message"] == "Accepted: liver."


def test_programs_that_show_no_masks_accept_what_the_session_has(page: Page) -> None:
    paint(page, "liver", LIVER)
    assert page.post("cases/image/accept")["message"] == "Accepted: liver."


@pytest.mark.parametrize("shape", [SHAPE, (4, 4, 4)], ids=["without a name", "on another grid"])
def test_an_accepted_label_that_cannot_be_shown_is_not_replaced(
    page: Page, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    array = np.ones(shape, np.uint8)
    array[0] = 2
    save_label(page, "image", array, NAMED, tmp_path)
    paint(page, "spleen", SPLEEN)
    refused = page.post("cases/image/accept", status=409)["detail"]
    assert "move image.nii.gz out of the folder of accepted labels" in refused
    saved = nibabel.load(page.app.datastore().get_label_uri("image", "final"))
    np.testing.assert_array_equal(np.asanyarray(saved.dataobj), array)


def test_the_accepted_label_of_another_frame_is_not_replaced(page: Page, tmp_path: Path) -> None:
    save_label(page, "image", LIVER.astype(np.uint8), {**NAMED, "params": {"frame": 1}}, tmp_path)
    paint(page, "spleen", SPLEEN)
    refused = page.post("cases/image/accept", status=409)["detail"]
    assert refused.startswith("Frame 1 of this image has an accepted label, and an image has only one")


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_disk_is_said_when_a_label_is_accepted(
    page: Page, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    paint(page, "liver", LIVER)

    def fail(*args: Any) -> str:
        raise OSError(28, "No space left", "/studies/Jane Doe")

    monkeypatch.setattr(page.app.datastore(), "save_label", fail)
    page.client.headers["accept"] = "text/event-stream" if stream else "application/json"
    page.client._transport.raise_server_exceptions = False
    answer = page.client.post("/causal-sam/api/cases/image/accept", params={"client_id": page.user}, json={})
    sentence = "The server failed (OSError); its log has the details, your masks are kept."
    if stream:
        assert answer.text == f"event: error\ndata: {json.dumps({'status': 500, 'detail': sentence})}\n\n"
        assert "A request about a case failed." in caplog.text
    else:
        assert (answer.status_code, answer.json()) == (500, {"detail": sentence})


def test_a_protocol_that_fails_hinders_no_acceptance(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    (Path(page.app.inbox.studies.fetch("image")).parent / "protocol.md").write_text("- The liver is one piece\n")

    def fail(*args: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("serving.site_protocol.check_protocol", fail)
    paint(page, "liver", LIVER)
    assert page.post("cases/image/accept")["message"] == "Accepted: liver."
