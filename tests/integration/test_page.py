"""The routes of the page: sessions, prompts, notes, acceptance, the next case and learning, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import nibabel
import numpy as np
import pytest
import requests

from causal_sam.imaging import PackedMask
from serving.page.schemas import Refusal

from .server import REQUEST_SECONDS, Server

pytestmark = pytest.mark.integration

# A note that the rules and the network read differently.
UNCLEAR = "More liver posteriorly, less liver anteriorly, as the old mask had it."


class Page:
    """Requests of the page to the server, as one user."""

    def __init__(self, server: Server, user: str = "one") -> None:
        self.url, self.user = f"{server.url}/causal-sam/api", user

    def ask(self, method: str, path: str, body: Any = None, *, status: int = 200, **headers: str) -> Any:
        answer = requests.request(
            method,
            f"{self.url}/{path}",
            params={"client_id": self.user},
            json=body,
            headers=headers,
            timeout=REQUEST_SECONDS,
        )
        assert answer.status_code == status, answer.text
        if status >= 400:
            Refusal.model_validate(answer.json())
        is_json = answer.headers["content-type"] == "application/json"
        return answer.json() if is_json else answer

    def post(self, path: str, body: Any = None, **more: Any) -> Any:
        return self.ask("POST", path, body or {}, **more)


@pytest.fixture
def page(server: Server) -> Page:
    return Page(server)


def masks(session: dict[str, Any]) -> dict[str, np.ndarray]:
    """Masks (I, J, K) of an answer."""
    return {each["name"]: PackedMask.from_json(each["mask"]).unpack() for each in session["labels"] if each["mask"]}


def packed(*voxels: tuple[int, int, int], shape: tuple[int, ...]) -> dict[str, Any]:
    mask = np.zeros(shape, bool)
    mask[tuple(np.transpose(voxels))] = True
    return PackedMask.pack(mask).as_json()


def case_of(page: Page, image: str) -> dict[str, Any]:
    return next(case for case in page.ask("GET", "cases") if case["id"] == image)


def test_from_an_image_to_an_accepted_label(page: Page, server: Server) -> None:
    assert case_of(page, "fresh1")["state"] != "accepted"  # other tests may have clicked it, as somebody else
    opened = page.ask("GET", "cases/fresh1/session")
    assert opened["labels"] == []
    shape = tuple(opened["shape"])
    one = page.post(
        "cases/fresh1/prompts", {"kind": "points", "label": "liver", "foreground": [[12, 10, 3]], "follow": False}
    )
    liver = masks(one)["liver"]
    assert liver[12, 10, 3]
    assert one["labels"][0]["volume_ml"] > 0
    assert one["labels"][0]["foreground"] == [[12, 10, 3]]
    assert one["steps"][1]["text"].startswith("+ point, slice ")
    # A box and strokes of another label; only what changed is sent.
    known = [label["key"] for label in one["labels"]]
    drawn = packed((2, 2, 0), (2, 3, 0), shape=shape)
    two = page.post("cases/fresh1/prompts", {"kind": "brush", "label": "new lesion", "painted": drawn, "known": known})
    assert masks(two).keys() == {"new lesion"}
    assert masks(two)["new lesion"].sum() == 2
    erased = {"kind": "brush", "label": "new lesion", "painted": packed((2, 2, 0), shape=shape), "erase": True}
    assert masks(page.post("cases/fresh1/prompts", erased))["new lesion"].sum() == 1
    # The history goes back and forth exactly.
    back = page.post("cases/fresh1/history", {"position": 1})
    assert [step["kind"] for step in back["steps"]] == ["start", "prompts", "mask", "mask"]
    np.testing.assert_array_equal(masks(back)["liver"], liver)
    assert "new lesion" not in masks(back)
    page.post("cases/fresh1/history", {"position": 3})
    locked = page.post("cases/fresh1/locks", {"labels": ["liver"]})
    assert [label["is_locked"] for label in locked["labels"]] == [True, False]
    refused = page.post("cases/fresh1/reset", {"labels": ["liver"]}, status=422)
    assert "locked" in refused["detail"]
    assert case_of(page, "fresh1")["state"] == "in work"
    accepted = page.post("cases/fresh1/accept")
    assert {label["source"] for label in accepted["labels"]} == {"accepted"}
    case = case_of(page, "fresh1")
    assert (case["state"], case["labels"]) == ("accepted", ["liver", "new lesion"])
    saved = nibabel.load(server.studies / "labels" / "final" / "fresh1.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(saved.dataobj) == 1, liver)
    # Another user starts from the accepted label.
    np.testing.assert_array_equal(masks(Page(server, "two").ask("GET", "cases/fresh1/session"))["liver"], liver)


def test_a_first_answer_has_a_certainty_and_losses_of_other_labels_are_told(page: Page) -> None:
    shape = tuple(page.ask("GET", "cases/fresh9/session")["shape"])
    point = {"kind": "points", "label": "liver", "foreground": [[12, 10, 3]], "follow": False}
    (liver,) = page.post("cases/fresh9/prompts", point)["labels"]
    assert 0 < liver["certainty"] <= 1
    body = [(i, j, 3) for i in range(4, 20) for j in range(4, 16)]
    painted = {"kind": "brush", "label": "spleen", "painted": packed(*body, shape=shape)}
    answer = page.post("cases/fresh9/prompts", painted)
    lost = liver["volume_ml"] - answer["labels"][0]["volume_ml"]
    assert answer["taken_ml"] == {"liver": pytest.approx(lost, abs=2e-3)}
    assert "from liver: undo and lock it to prevent that" in answer["message"]
    assert {label["certainty"] for label in answer["labels"]} == {None}
    back = page.post("cases/fresh9/history", {"position": 1})
    assert back["labels"][0]["certainty"] == liver["certainty"]
    assert back["taken_ml"] == {}


def test_stray_parts_are_found_and_removed(page: Page) -> None:
    shape = tuple(page.ask("GET", "cases/fresh10/session")["shape"])
    body = [(i, j, k) for i in range(4, 12) for j in range(4, 12) for k in range(2, 5)]
    painted = {"kind": "brush", "label": "spleen", "painted": packed(*body, (18, 4, 2), (18, 5, 2), shape=shape)}
    drawn = masks(page.post("cases/fresh10/prompts", painted))["spleen"]
    (found,) = [each for each in page.ask("GET", "cases/fresh10/stray-parts")["labels"] if each["label"] == "spleen"]
    assert (found["count"], found["place"][0], found["place"][2]) == (1, 18, 2)
    rest = page.post("cases/fresh10/stray-parts/remove", {"labels": ["spleen"]})
    drawn[18, 4:6, 2] = False
    np.testing.assert_array_equal(masks(rest)["spleen"], drawn)
    assert "from spleen" in rest["message"]
    assert page.ask("GET", "cases/fresh10/stray-parts")["labels"] == []


def test_every_kind_of_prompt_and_its_refusals(page: Page) -> None:
    shape = tuple(page.ask("GET", "cases/fresh2/session")["shape"])
    inside = packed(*((i, 10, 3) for i in range(8, 16)), shape=shape)
    for prompt in (
        {"kind": "box", "box": [6, 18, 5, 15, 3, 3]},
        {"kind": "lasso", "corners": [[6, 5, 3], [18, 5, 3], [18, 15, 3], [6, 15, 3]]},
        {"kind": "scribble", "inside": inside},
    ):
        answer = page.post("cases/fresh2/prompts", {"label": f"by {prompt['kind']}", "follow": False, **prompt})
        assert masks(answer)[f"by {prompt['kind']}"].any(), prompt
    for wrong, words in (
        ({"kind": "points", "label": "liver"}, "at least one point"),
        ({"kind": "points", "label": "note", "foreground": [[1, 1, 1]]}, "No label can be called"),
        ({"kind": "points", "label": "liver", "foreground": [[999, 1, 1]]}, "outside the volume"),
        ({"kind": "scribble", "label": "liver", "inside": packed((0, 0, 0), shape=(9, 9, 9))}, "the image has"),
        ({"kind": "scribble", "label": "liver"}, "Nothing was scribbled"),
    ):
        assert words in page.post("cases/fresh2/prompts", wrong, status=422)["detail"]
    assert "No label can be called" in page.post("cases/fresh2/locks", {"labels": ["note"]}, status=422)["detail"]
    assert "malformed" in page.post("cases/fresh2/prompts", {"kind": "magic"}, status=422)["detail"]
    page.ask("GET", "cases/nobody/session", status=404)


def test_a_note_is_previewed_confirmed_and_undone(page: Page) -> None:
    shape = tuple(page.ask("GET", "cases/fresh3/session")["shape"])
    body = [(i, j, k) for i in range(4, 12) for j in range(4, 12) for k in range(2, 5)]
    painted = {"kind": "brush", "label": "liver", "painted": packed(*body, (18, 4, 2), (18, 5, 2), shape=shape)}
    before = masks(page.post("cases/fresh3/prompts", painted))["liver"]
    note = "liver: remove the stray part"
    seen = page.post("cases/fresh3/note/preview", {"note": note})
    (change,) = seen["changes"]
    assert change["label"] == "liver"
    assert change["lost_ml"] > 0 == change["gained_ml"]
    np.testing.assert_array_equal(masks(page.ask("GET", "cases/fresh3/session"))["liver"], before)
    assert seen["sentences"][0].startswith("remove the stray part of the liver: \N{MINUS SIGN}")
    assert seen["doubts"] == []
    question = page.post("cases/fresh3/note/preview", {"note": "it looks funny"}, status=422)
    assert question["question"] == question["detail"]
    assert question["choices"] == []
    done = page.post("cases/fresh3/note", {"note": note, "plan": seen["plan"]})
    np.testing.assert_array_equal(before & ~masks(done)["liver"], PackedMask.from_json(change["lost"]).unpack())
    undone = page.post("cases/fresh3/history", {"position": done["position"] - 1})
    np.testing.assert_array_equal(masks(undone)["liver"], before)
    (entry,) = page.ask("GET", "cases/fresh3/notes")
    assert (entry["act"], entry["note"], entry["is_undone"]) == ("note", note, True)
    assert entry["effects"][0]["lost_ml"] > 0
    page.post("cases/fresh3/history", {"position": done["position"]})
    assert not page.ask("GET", "cases/fresh3/notes")[0]["is_undone"]
    # A note is carried out on the masks as they are, not as they were at its preview.
    page.post("cases/fresh3/history", {"position": done["position"] - 1})
    seen = page.post("cases/fresh3/note/preview", {"note": note})
    other = {"kind": "brush", "label": "liver", "painted": packed((18, 14, 4), shape=shape)}
    page.post("cases/fresh3/prompts", other)
    later = page.post("cases/fresh3/note", {"note": note, "plan": seen["plan"]})
    assert not masks(later)["liver"][18].any()


def test_what_a_note_may_mean_can_be_chosen(page: Page) -> None:
    shape = tuple(page.ask("GET", "cases/fresh3/session")["shape"])
    body = [(i, j, k) for i in range(4, 12) for j in range(4, 12) for k in range(1, 5)]
    page.post("cases/fresh3/prompts", {"kind": "brush", "label": "liver", "painted": packed(*body, shape=shape)})
    note = {"note": UNCLEAR}
    choice = page.post("cases/fresh3/note/preview", note, status=422)["choices"][0]
    seen = page.post("cases/fresh3/note/preview", {**note, "plan": choice["plan"]})
    assert seen["plan"] == choice["plan"]
    assert seen["sentences"][0].startswith(choice["sentence"].partition(";")[0])
    act = choice["plan"]["interventions"][0]
    for plan, words in (
        ({"question": "Which?"}, "has interventions, not a question"),
        ({"interventions": [{**act, "label": "note"}]}, "There is no label 'note'"),
    ):
        for route in ("note", "note/preview"):
            assert words in page.post(f"cases/fresh3/{route}", {**note, "plan": plan}, status=422)["detail"]
    assert "empty" in page.post("cases/fresh3/note", {"note": " ", "plan": choice["plan"]}, status=422)["detail"]
    page.post("cases/fresh3/locks", {"labels": ["liver"]})
    assert "locked" in page.post("cases/fresh3/note", {**note, "plan": choice["plan"]}, status=422)["detail"]
    page.post("cases/fresh3/locks", {"labels": []})


def test_long_work_answers_as_a_stream_of_events(page: Page) -> None:
    prompt = {"kind": "points", "label": "liver", "foreground": [[12, 10, 3]], "follow": True}
    answer = page.post("cases/fresh4/prompts", prompt, accept="text/event-stream")
    *progress, timing, last = answer.text.strip().split("\n\n")
    assert timing.startswith("event: timing\n")
    times = json.loads(timing.partition("data: ")[2])
    assert 0 < times["model"] <= times["request"]
    assert all(each.startswith("event: progress\n") for each in progress)
    assert last.startswith("event: answer\ndata: ")
    assert masks(json.loads(last.partition("data: ")[2]))["liver"].any()
    refused = page.post("cases/fresh4/prompts", {**prompt, "foreground": []}, accept="text/event-stream")
    assert refused.text.startswith('event: error\ndata: {"status": 422')


def test_images_come_as_the_viewer_needs_them(page: Page, server: Server) -> None:
    original = nibabel.load(server.studies / "turned_SAL.nii.gz")
    answer = page.ask("GET", "cases/turned_SAL/image")
    content = answer.content
    assert answer.headers["content-length"] == str(len(content))
    shown = nibabel.Nifti1Image.from_bytes(content)
    assert nibabel.aff2axcodes(shown.affine) == ("R", "A", "S")
    axes = page.ask("GET", "cases/turned_SAL/session")["axes"]
    turned = np.asanyarray(original.dataobj)
    for axis, (_, sign) in enumerate(axes):
        turned = np.flip(turned, axis) if sign < 0 else turned
    np.testing.assert_array_equal(turned.transpose(np.argsort([to for to, _ in axes])), np.asanyarray(shown.dataobj))
    assert page.ask("GET", "cases/ct/thumbnail").content.startswith(b"\x89PNG")
    assert "no image" in page.ask("GET", "cases/nobody/thumbnail", status=404)["detail"]
    assert case_of(page, "ct")["modality"] == "CT"


def test_the_next_case_and_what_was_learned(page: Page) -> None:
    chosen = page.post("next")
    assert chosen["id"]
    assert chosen["why"]
    assert page.ask("GET", "training")["is_running"] is False
    assert page.ask("GET", "versions") == []
    events = page.ask("GET", "training/events").text
    assert events.startswith("event: training\n")
    page.post("versions/7/rollback", status=404)
