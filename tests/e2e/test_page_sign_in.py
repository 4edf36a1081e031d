"""The browser page where users sign in, with a small OpenID Connect server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright.sync_api", reason="the end-to-end tests need the package playwright")

from oidc import PASSWORD, Realm, running_realm
from playwright.sync_api import Browser, Locator, expect

from causal_sam.phantom.studies import write_demo_studies

from . import servers
from .conftest import ARTIFACTS, CT
from .page import CausalSamPage

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]

LIVER = (66, 53, 39)


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with running_realm() as realm:
        yield realm


@pytest.fixture(scope="module")
def site(realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    made, studies = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("studies")
    write_demo_studies(made)
    shutil.copy(made / f"{CT}.nii.gz", studies)
    variables = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": realm.url}
    with servers.monai_label(str(studies), tmp_path_factory.mktemp("server"), variables) as url:
        yield url


def sign_in(dialog: Locator, password: str) -> None:
    dialog.get_by_label("Name").fill("ann")
    dialog.get_by_label("Password").fill(password)
    dialog.get_by_role("button", name="Sign in").click()


def test_users_sign_in_and_again_when_their_token_has_expired(browser: Browser, site: str, realm: Realm) -> None:
    page = CausalSamPage(browser, f"{site}/causal-sam/", "somebody")
    asked: list[str | None] = []
    page.tab.on("request", lambda sent: "/api/" in sent.url and asked.append(sent.headers.get("authorization")))
    page.tab.goto(page.url)
    dialog = page.tab.get_by_role("dialog", name="Sign in")
    expect(dialog).to_contain_text("Sign in to see the cases and your masks.")
    page.tab.keyboard.press("Escape")
    expect(dialog).to_be_visible()  # there is nothing to do without
    sign_in(dialog, "wrong")
    expect(dialog.get_by_role("alert")).to_have_text("The name or the password of the user is wrong.")
    asked.clear()
    sign_in(dialog, PASSWORD)
    page.case(CT).click()
    page.wait_until_shown()
    expect(page.case(CT).locator("img")).to_have_count(1)
    assert asked
    assert all(header and header.startswith("Bearer ") for header in asked)
    page.choose("Point", "liver")
    page.drag(LIVER)
    expect(page.case(CT)).to_contain_text("in work by ann")  # whatever the page itself calls its user
    shown = page.tab.evaluate("() => window.causalSam.labels.bitmap.reduce((count, value) => count + (value > 0), 0)")
    assert shown > 0
    # The token becomes one that is not valid any more.
    page.tab.evaluate("() => sessionStorage.setItem('causal-sam-token', 'a.b.c')")
    page.button("Undo").click()
    expect(dialog).to_contain_text("The token of the request is not valid; sign in again.")
    page.picture(ARTIFACTS / "page-sign-in.png")
    sign_in(dialog, PASSWORD)
    expect(dialog).to_have_count(0)
    expect(page.tab.get_by_role("status")).to_have_text("Ready.")
    expect(page.button("Undo")).to_be_enabled()  # the case is open again, with its steps
    assert "Undone" in page.press("Control+z")
    page.close()
    assert page.errors == []
    assert {address.removeprefix(site) for address in page.foreign} == {"/auth/token"}
