"""OHIF with its companion: messages, live answers, undo, notes, acceptance, exports and the next case."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pydicom
import pytest
import requests

pytest.importorskip("playwright.sync_api", reason="the end-to-end tests need the package playwright")

from playwright.sync_api import Locator, expect

from .conftest import ARTIFACTS
from .ohif import ANSWER_MS, LOAD_MS, Viewer
from .studies import Study
from .test_ohif import inmost, largest_slice

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]  # the first test starts all servers

LABEL = "spleen"
ANSWER = re.compile(r"^(?!Working).+", re.DOTALL)


class Companion:
    """The companion's box on a page of the viewer."""

    def __init__(self, page: Page) -> None:
        self.box = page.locator("#causal-sam-companion")
        self._message = self.box.locator("#message")

    def button(self, name: str) -> Locator:
        return self.box.get_by_role("button", name=name, exact=True)

    def after(self, act: Callable[[], object]) -> str:
        """Act, and return the sentence of the answer."""
        self._message.evaluate("output => (output.textContent = '')")
        act()
        expect(self._message).to_have_text(ANSWER, timeout=ANSWER_MS)
        return self._message.inner_text()

    def press(self, name: str) -> str:
        return self.after(self.button(name).click)

    def preview(self, note: str) -> str:
        self.box.get_by_label("What is wrong?").fill(note)
        return self.press("Preview")


@pytest.fixture(scope="module")
def viewer(open_study: Callable[[Study], Viewer], mr: Study) -> Iterator[Viewer]:
    viewer = open_study(mr)
    viewer.points.open()
    viewer.points.choose_model("causal_sam")
    yield viewer
    viewer.screenshot(ARTIFACTS / "companion.png")


@pytest.fixture(scope="module")
def companion(viewer: Viewer) -> Companion:
    return Companion(viewer.page)


def mask(viewer: Viewer) -> np.ndarray:
    return viewer.segmentation().mask(LABEL)


def test_clicks_are_answered_and_taken_back(viewer: Viewer, companion: Companion, mr: Study) -> None:
    spleen = mr.organs[LABEL]
    voxel = inmost(spleen, largest_slice(spleen))
    while companion.press("Undo") != "There is no step to undo.":  # steps of earlier tests on this series
        pass
    viewer.points.choose_label(LABEL)
    companion.box.get_by_label("Answer each click").check()
    said = companion.after(lambda: viewer.click(voxel))
    assert said.startswith(f"{LABEL}: ")
    clicked = mask(viewer)
    assert clicked[voxel]
    # A background click is one for the label that was chosen before.
    edge = (*np.argwhere(clicked[:, :, voxel[2]])[0], voxel[2])
    viewer.points.choose_label("background")
    companion.after(lambda: viewer.click(edge))
    assert not mask(viewer)[edge]
    assert companion.press("Undo").startswith("Undone: \N{MINUS SIGN} point, slice ")
    np.testing.assert_array_equal(mask(viewer), clicked)
    companion.press("Undo")
    assert not mask(viewer).any()
    assert companion.press("Undo") == "There is no step to undo."
    companion.press("Redo")
    np.testing.assert_array_equal(mask(viewer), clicked)
    companion.box.get_by_label("Answer each click").uncheck()


def test_a_note_is_previewed_and_confirmed(viewer: Viewer, companion: Companion) -> None:
    before = mask(viewer)
    assert "?" in companion.preview("something is not right")
    assert not companion.button("Confirm").is_visible()
    # What it may mean is offered, and a click previews it; an edit of the note ends the preview.
    assert "?" in companion.preview(f"More {LABEL} posteriorly, less {LABEL} anteriorly, as the old mask had it.")
    choice = companion.box.get_by_role("list", name="What the note may mean").get_by_role("button").first
    assert companion.after(choice.click).startswith("Preview, nothing is changed")
    companion.box.get_by_label("What is wrong?").fill("another")
    assert not companion.button("Confirm").is_visible()
    # Doubts are said before it is done.
    companion.preview(f"{LABEL} is too small by 25 mm")
    assert companion.button("Do it anyway").is_visible()
    companion.button("Cancel").click()
    assert companion.preview(f"{LABEL} is too large by 3 mm").startswith("Preview, nothing is changed")
    expect(companion.box.locator("#changes .lost")).to_have_count(1)
    np.testing.assert_array_equal(mask(viewer), before)
    companion.press("Confirm")
    assert not companion.button("Confirm").is_visible()
    smaller = mask(viewer)
    assert smaller.sum() < before.sum()
    assert not (smaller & ~before).any()
    companion.press("Undo")
    np.testing.assert_array_equal(mask(viewer), before)


def test_the_viewers_own_answers_have_their_sentences(viewer: Viewer, companion: Companion) -> None:
    viewer.points.clear()
    viewer.points.choose_label(LABEL)
    said = companion.after(viewer.points.run)
    assert "give at least one foreground point" in said
    expect(viewer.page.get_by_text("give at least one foreground point").last).to_be_visible()


def test_masks_are_exported_and_accepted(
    viewer: Viewer, companion: Companion, mr: Study, orthanc_url: str, tmp_path: Path
) -> None:
    with viewer.page.expect_download(timeout=ANSWER_MS) as download:
        companion.box.get_by_label("Export as …").select_option("rtstruct")
    download.value.save_as(tmp_path / "a.dcm")
    header = pydicom.dcmread(tmp_path / "a.dcm")
    assert header.StudyInstanceUID == mr.study_uid
    assert [structure.ROIName for structure in header.StructureSetROISequence] == [LABEL]

    assert companion.press("Accept") == f"Accepted: {LABEL}."
    query = {"Level": "Series", "Query": {"StudyInstanceUID": mr.study_uid, "Modality": "SEG"}}
    (found,) = requests.post(f"{orthanc_url}/tools/find", json=query, timeout=30).json()
    requests.delete(f"{orthanc_url}/series/{found}", timeout=30)  # other tests begin without


def test_the_next_case_comes_with_its_reason(viewer: Viewer, companion: Companion, ct: Study) -> None:
    page = viewer.page
    page.locator(".monaiLabelPanel select").filter(has=page.locator("option[value=first]")).select_option("first")
    with page.expect_request(lambda request: "/activelearning/" in request.url) as asked:
        page.locator(".monaiLabelPanel .tab-label", has_text="Active Learning").click()
        page.get_by_role("button", name="Next Sample").click()
    assert asked.value.url.endswith("/activelearning/first")  # the viewer alone asks for random
    page.locator(".ReactModal__Content").press("Escape")
    expect(page.locator(".ReactModal__Content")).to_have_count(0)

    assert companion.press("Next case").endswith(".")
    companion.button("Open it").click()
    page.wait_for_url("**initialSeriesInstanceUID**", timeout=LOAD_MS)
    assert parse_qs(urlsplit(page.url).query)["StudyInstanceUIDs"] == [ct.study_uid]
