"""The browser page in Chromium, against the real server: from opening it to an accepted label."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from causal_sam.phantom.studies import write_demo_studies

from . import servers
from .conftest import ARTIFACTS, CT, MR
from .page import ANSWER_MS, AXE, SHOW_MS, CausalSamPage

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]

INBOX = "z-inbox"  # the last one, so that it is not the next case
LIVER, SPLEEN = (66, 53, 39), (150, 75, 40)
# A note that the rules and the network read differently.
UNCLEAR = "More liver posteriorly, less liver anteriorly, as the old mask had it."
# An empty view has the colour of its ground and of its border.
MIN_COLOURS = 20
Open = Callable[[str], CausalSamPage]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two studies, and a copy of the CT for the inbox."""
    made, studies = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("page_studies")
    write_demo_studies(made)
    for name in (CT, MR):
        shutil.copy(made / f"{name}.nii.gz", studies)
    shutil.copy(made / f"{CT}.nii.gz", studies / f"{INBOX}.nii.gz")
    return studies


@pytest.fixture(scope="module")
def site(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.monai_label(str(folder), tmp_path_factory.mktemp("page_server")) as url:
        yield url


@pytest.fixture
def open_page(browser: Browser, site: str, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Open the page for a user; a picture of each is kept after the test, and none may have failed."""
    pages: list[CausalSamPage] = []

    def open_for(user: str) -> CausalSamPage:
        pages.append(CausalSamPage(browser, f"{site}/causal-sam/", user))
        return pages[-1]

    yield open_for
    for page in pages:
        page.picture(ARTIFACTS / f"{request.node.name}-{page.user}.png")
        page.close()
        assert page.errors == []
        assert page.foreign == []


def test_from_opening_the_page_to_an_accepted_label(open_page: Open, folder: Path) -> None:
    page = open_page("reader")
    page.open(CT)
    page.choose("Point", "liver", follow=True)
    assert "liver" in page.drag(LIVER)
    liver = page.masks(CT)["liver"]
    assert liver[LIVER]
    assert page.shown(CT) == {"liver": liver.sum()}
    # The step in words; a click of another label takes voxels, says so, and is undone at hand.
    expect(page.tab.locator(".history [aria-current]")).to_contain_text("+ point, slice")
    page.choose("Point", "spleen")
    assert "from liver" in page.drag(LIVER)
    page.button("Undo this").click()
    page.wait()
    np.testing.assert_array_equal(page.masks(CT)["liver"], liver)
    # A note: a question, a preview that changes nothing, and what it does when it is confirmed.
    note = page.tab.get_by_label("Note", exact=True)
    note.fill("it looks funny")
    page.button("Preview").click()
    expect(page.tab.get_by_role("alert")).to_contain_text("Question")
    # What it may mean is offered, and a click previews it.
    note.fill(UNCLEAR)
    page.button("Preview").click()
    choice = page.tab.get_by_role("list", name="What the note may mean").get_by_role("button").first
    first_act = choice.inner_text().partition(";")[0]
    page.picture(ARTIFACTS / "page-question.png")
    choice.click()
    expect(page.tab.get_by_role("group", name="The plan")).to_contain_text(first_act, timeout=ANSWER_MS)
    expect(note).to_have_value(UNCLEAR)
    note.fill("liver is a bit too large")
    page.show(SPLEEN)
    before = page.tab.evaluate(crosshair := "() => window.causalSam.crosshair")
    page.button("Preview").click()
    page.wait()
    assert page.tab.evaluate(crosshair) != before
    expect(page.button("Do it")).to_be_in_viewport()
    expect(page.tab.get_by_role("group", name="The plan")).to_contain_text(
        re.compile("shrink the liver slightly: \N{MINUS SIGN}[0-9]+ ml")
    )
    page.picture(ARTIFACTS / "page-preview.png")
    page.button("Cancel").click()
    assert page.wait() == "Ready."
    assert page.tab.evaluate(crosshair) == before
    page.button("Preview").click()
    page.wait()
    np.testing.assert_array_equal(page.masks(CT)["liver"], liver)
    page.button("Do it").click()
    page.wait()
    assert page.tab.evaluate(crosshair) == before
    expect(note).to_be_focused()
    expect(note).to_have_value("")
    smaller = page.masks(CT)["liver"]
    assert 0 < smaller.sum() < liver.sum()
    assert not (smaller & ~liver).any()
    assert page.shown(CT) == {"liver": smaller.sum()}
    page.button("Undo").click()
    page.wait()
    np.testing.assert_array_equal(page.masks(CT)["liver"], liver)
    assert page.shown(CT) == {"liver": liver.sum()}
    page.tab.get_by_text("Notes on this case").click()
    past = page.tab.locator(".past li")
    expect(past.first).to_contain_text("liver is a bit too large")
    expect(past.first).to_contain_text("undone")
    page.button("Accept").click()
    assert "Accepted: liver" in page.wait()
    expect(page.button("Accepted")).to_be_disabled()
    expect(page.case(CT)).to_contain_text("accepted by reader")
    assert (folder / "labels" / "final" / f"{CT}.nii.gz").is_file()
    page.tab.get_by_text("Learning", exact=True).click()
    page.tab.get_by_text("Effort for each accepted label").click()
    expect(page.tab.get_by_role("img", name="Clicks for 1 accepted label:")).to_be_visible()
    page.picture(ARTIFACTS / "page-effort.png")
    page.button("Next case").click()
    page.wait()
    expect(page.case(MR)).to_have_attribute("aria-current", "true")


def test_every_kind_of_prompt_by_pointer_and_by_keyboard(open_page: Open) -> None:
    page = open_page("artist")
    page.open(MR)
    i, j, k = LIVER
    square = [(i - 20, j - 20, k), (i + 20, j - 20, k), (i + 20, j + 20, k), (i - 20, j + 20, k)]
    # On another slice than the prompts, whose labels are locked.
    line = [(i - 20, j - 20, k + 2), (i + 20, j - 20, k + 2)]
    sizes = {}
    for tool, path in (
        ("Box", [square[0], square[2]]),
        ("Lasso", square),
        ("Scribble", [square[0], LIVER]),
        ("Brush", line),
    ):
        label = f"by {tool.lower()}"
        page.tab.get_by_label("New label").fill(label)
        page.button("Add").click()
        page.choose(tool, label)
        page.drag(*path)
        sizes[label] = page.shown(MR)[label]
        assert sizes[label] > 20, label
        page.button(f"Lock {label}").click()
        page.wait()
        page.picture(ARTIFACTS / f"page-{tool.lower()}.png")
    page.button("Lock by brush").click()
    page.wait()
    page.choose("Erase", "by brush")
    page.drag(line[0], (i, j - 20, k + 2))
    assert 0 < page.shown(MR)["by brush"] < sizes["by brush"]
    # The keyboard alone: a label by its number, the tool by its letter, the prompt at the crosshair.
    page.show(SPLEEN)
    page.tab.locator(".image").focus()
    page.tab.keyboard.press("2")
    page.tab.keyboard.press("p")
    page.press("Enter")
    assert page.masks(MR)["spleen"][SPLEEN]
    page.press("Control+z")
    assert "spleen" not in page.masks(MR)
    page.press("Control+y")
    assert "spleen" in page.masks(MR)


def test_the_inbox_is_worked_through_by_keyboard(open_page: Open, folder: Path) -> None:
    page = open_page("sorter")
    page.tab.goto(page.url)
    page.case(INBOX).wait_for()
    page.tab.keyboard.press("i")
    page.tab.get_by_role("button", name="Find masks in").click()
    entry = page.tab.locator(".entry").filter(has_text=INBOX)
    expect(entry).to_contain_text("liver", timeout=ANSWER_MS)
    expect(entry.locator("img")).to_be_visible()
    expect(page.tab.get_by_text("Not enough accepted labels")).to_be_visible()
    page.picture(ARTIFACTS / "page-inbox.png")
    accepted = folder / "labels" / "final" / f"{INBOX}.nii.gz"
    entry.locator(".case").focus()
    # Select all, say, or the key that is still held after the case before.
    for other in ("ctrlKey", "metaKey", "altKey", "repeat"):
        entry.locator(".case").dispatch_event("keydown", {"key": "a", other: True})
    page.wait()
    assert not accepted.exists()
    # The inbox may be left while the case is being accepted.
    page.tab.keyboard.press("a")
    assert page.press("i").startswith(f"Accepted {INBOX}: ")
    assert accepted.is_file()
    page.tab.keyboard.press("i")
    expect(entry).to_have_count(0)
    page.tab.keyboard.press("i")
    expect(page.case(INBOX)).to_contain_text("accepted by sorter")


def test_the_uncertainty_of_the_label_is_shown_on_demand(open_page: Open) -> None:
    page = open_page("doubter")
    page.open(MR)
    page.choose("Point", "liver", follow=True)
    page.drag(LIVER)
    overlay = "() => window.causalSam.overlay !== null"
    assert not page.tab.evaluate(overlay)
    page.tab.keyboard.press("u")
    page.tab.wait_for_function(overlay, timeout=ANSWER_MS)
    expect(page.tab.locator(".legend")).to_contain_text("as likely wrong")
    page.picture(ARTIFACTS / "page-uncertainty.png")
    page.tab.keyboard.press("u")
    page.tab.wait_for_function("() => window.causalSam.overlay === null", timeout=ANSWER_MS)


def test_the_3d_view_is_drawn_on_request(open_page: Open) -> None:
    page = open_page("sculptor")
    page.open(CT)
    view = page.tab.locator(".solid")
    expect(view).to_be_hidden()
    page.tab.get_by_label("View", exact=True).select_option("all")
    expect(view).to_be_visible()
    for _ in range(SHOW_MS // 1000):
        picture = Image.open(io.BytesIO(view.screenshot())).convert("RGB")
        if len(picture.getcolors(maxcolors=picture.width * picture.height)) > MIN_COLOURS:
            break
        page.tab.wait_for_timeout(1000)
    else:
        raise AssertionError("nothing is drawn in the 3D view")
    box, whole = view.bounding_box(), page.tab.locator(".slices").bounding_box()
    assert box["width"] < 0.6 * whole["width"]  # it leaves room for the slices, which take prompts beside it
    page.choose("Point", "spleen")
    assert "spleen" in page.drag(SPLEEN)


def test_a_rule_of_the_protocol_is_checked_and_carried_out(open_page: Open, folder: Path) -> None:
    (folder / "protocol.md").write_text("- The spleen is one piece\n- Aorta down to the bifurcation\n")
    page = open_page("ruler")
    page.open(CT)
    i, j, k = SPLEEN
    for corner in (SPLEEN, (i - 40, j, k)):  # two pieces, the first one larger
        page.choose("Brush", "spleen")
        page.drag(corner, (corner[0] + (12 if corner == SPLEEN else 4), j, k))
    pieces = page.masks(CT)["spleen"]
    page.tab.get_by_text("Protocol", exact=True).click()
    page.button("Check the rules").click()
    page.wait()
    rules = page.tab.get_by_role("region", name="Protocol")
    expect(rules).to_contain_text("does not hold")
    expect(rules).to_contain_text('How can "Aorta down to the bifurcation" be seen on a mask?')
    page.button("Carry out: The spleen is one piece").click()
    page.wait()
    np.testing.assert_array_equal(page.masks(CT)["spleen"], pieces)
    page.picture(ARTIFACTS / "page-protocol.png")
    page.button("Do it").click()
    page.wait()
    largest = page.masks(CT)["spleen"]
    assert largest[SPLEEN]
    assert 0 < largest.sum() < pieces.sum()
    expect(rules).to_contain_text("The masks have changed since.")
    page.button("Check again").click()
    page.wait()
    expect(rules).not_to_contain_text("does not hold")


def test_two_users_and_a_restart_of_the_server(
    browser: Browser, folder: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    masks = {}
    for _ in ("first", "again"):
        with servers.monai_label(str(folder), tmp_path_factory.mktemp("restarted")) as url:
            pages = {user: CausalSamPage(browser, f"{url}/causal-sam/", user) for user in ("ann", "ben")}
            for user, page in pages.items():
                page.open(MR)
                if not masks.get(user):
                    page.choose("Brush", "liver" if user == "ann" else "spleen")
                    page.drag(LIVER, (LIVER[0] + 20, LIVER[1], LIVER[2]))
                    masks[user] = page.shown(MR)
                assert page.shown(MR) == masks[user], user
            for page in pages.values():
                page.close()
    assert masks["ann"].keys() == {"liver"}
    assert masks["ben"].keys() == {"spleen"}


def test_the_page_is_accessible(open_page: Open) -> None:
    if not AXE.is_file():
        report = pytest.fail if os.environ.get("CI") else pytest.skip
        report("axe-core is not installed: run `make page`")
    page = open_page("axe")
    page.tab.goto(page.url)
    page.case(CT).wait_for()
    assert page.serious_problems() == []
    page.open(CT)
    page.choose("Brush", "liver")
    page.drag(LIVER, (LIVER[0] + 20, LIVER[1], LIVER[2]))
    page.tab.get_by_label("Note", exact=True).fill("liver: remove the stray part")
    page.button("Preview").click()
    page.wait()
    assert page.serious_problems() == []
    page.button("Keys").click()
    assert page.serious_problems() == []


def test_small_pieces_are_shown_before_acceptance_and_views_are_enlarged(open_page: Open) -> None:
    page = open_page("tidy")
    page.open(MR)
    i, j, k = LIVER
    page.choose("Brush", "spleen")
    page.drag((i - 15, j, k), (i + 15, j, k))
    body = page.masks(MR)["spleen"]
    page.tab.get_by_label("Size").fill("1")
    page.drag((i, j + 40, k))
    assert page.masks(MR)["spleen"].sum() > body.sum()
    page.button("Accept").click()
    page.wait()
    pieces = page.tab.get_by_role("group", name="Small parts")
    expect(pieces).to_contain_text("1 small piece of spleen")
    page.tab.locator("body").dispatch_event("keydown", {"key": "a", "repeat": True})  # is no answer
    page.wait()
    expect(pieces).to_be_visible()
    page.button("Remove and accept").click()
    assert "Accepted: spleen" in page.wait()
    np.testing.assert_array_equal(page.masks(MR)["spleen"], body)
    # The number of a slice by its slider; one view alone, and back; clicks that only move the crosshair.
    page.tab.get_by_label("Slice of the axial view").fill("3")
    expect(page.tab.locator(".caption").first).to_contain_text("Axial 3 /")
    page.button("Show the coronal view alone").click()
    expect(page.tab.locator(".caption")).to_have_count(1)
    page.button("Show the other views again").click()
    expect(page.tab.locator(".caption")).to_have_count(3)
    page.tab.keyboard.down("Shift")
    page.drag(LIVER)
    page.tab.keyboard.up("Shift")
    np.testing.assert_array_equal(page.masks(MR)["spleen"], body)


def test_a_label_that_somebody_accepted_meanwhile_is_shown_before_anything_replaces_it(open_page: Open) -> None:
    (early, late), (i, j, k) = map(open_page, ("early", "late")), SPLEEN
    for page, length in ((early, 20), (late, 40)):
        page.open(CT)
        page.choose("Brush", "spleen")
        page.drag(SPLEEN, (i - length, j, k))
    late.button("Accept").click()
    assert "Accepted: " in late.wait()
    early.tab.bring_to_front()
    early.button("Accept").click()
    assert early.wait().startswith("Nothing was accepted: the masks are not those that you saw")
    assert early.shown(CT) == late.shown(CT)
    expect(early.button("Accepted")).to_be_disabled()


def test_the_page_says_whether_a_step_was_cancelled_in_time(open_page: Open) -> None:
    page = open_page("hasty")
    page.open(CT)
    lock = page.button("Lock pancreas")  # a label without a mask
    locks, answers = re.compile("/locks"), []
    page.tab.route(locks, lambda route: None, times=1)  # the server never hears of it
    with page.tab.expect_request(locks):
        lock.click()
    assert page.press("Escape") == "Cancelled; nothing was changed."
    expect(lock).to_have_attribute("aria-pressed", "false")
    # The server has locked it, and its answer is on the way.
    page.tab.route(locks, lambda route: answers.append(route.fetch()), times=1)
    lock.click()
    while not answers:
        page.tab.wait_for_timeout(100)
    assert page.press("Escape").startswith("It was too late to cancel")
    expect(lock).to_have_attribute("aria-pressed", "true")
    lock.click()
    page.wait()
    expect(lock).to_have_attribute("aria-pressed", "false")
