"""Fixtures of the end-to-end tests: an Orthanc with two studies, the MONAI Label server on it, and a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from . import servers
from .studies import Study, write_studies

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from .ohif import Viewer

CHROMIUM = shutil.which("chromium")
CHROMIUM_OPTIONS = [
    "--no-sandbox",  # CI runs as root
    "--use-angle=swiftshader",  # the viewer needs WebGL, also where there is no GPU
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
MODEL = "causal_sam"
CT, MR = "ct-portal-venous", "mr-t1"
ARTIFACTS = servers.ROOT / "artifacts" / "e2e"


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    """Skip what cannot run here; on CI, which installs everything, a missing tool is a failure."""
    missing = []
    if servers.ORTHANC_EXECUTABLE is None:
        missing.append("Orthanc (Debian package orthanc)")
    if not servers.DICOMWEB_PLUGIN.exists():
        missing.append("Orthanc's DICOMweb plugin (Debian package orthanc-dicomweb)")
    if CHROMIUM is None:
        missing.append("Chromium (Debian package chromium)")
    if missing:
        report = pytest.fail if os.environ.get("CI") else pytest.skip
        report(f"the end-to-end tests need {', '.join(missing)}")


@pytest.fixture(scope="session")
def studies(_tools: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    """The studies in Orthanc, by name: a CT and an MR of the same phantom."""
    return write_studies(tmp_path_factory.mktemp("studies"), [CT, MR])


@pytest.fixture(scope="session")
def ct(studies: dict[str, Study]) -> Study:
    """The CT study."""
    return studies[CT]


@pytest.fixture(scope="session")
def mr(studies: dict[str, Study]) -> Study:
    """The MR study."""
    return studies[MR]


@pytest.fixture(scope="session")
def orthanc_url(studies: dict[str, Study], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of an Orthanc that holds the studies."""
    with servers.orthanc(tmp_path_factory.mktemp("orthanc")) as url:
        for study in studies.values():
            servers.upload(url, study.dicom)
        yield url


@pytest.fixture(scope="session")
def server(orthanc_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of the MONAI Label server that serves Orthanc's studies; its log is kept as an artefact."""
    folder = tmp_path_factory.mktemp("monailabel")
    try:
        with servers.monai_label(f"{orthanc_url}/dicom-web", folder) as url:
            yield url
    finally:
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "monailabel.log", ARTIFACTS)


@pytest.fixture(scope="session")
def browser(_tools: None) -> Iterator[Browser]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def open_study(browser: Browser, server: str) -> Iterator[Callable[[Study], Viewer]]:
    """Open a study in OHIF and connect the MONAI Label panel."""
    from .ohif import Viewer

    context = browser.new_context(viewport={"width": 1400, "height": 900})
    # The viewer's pages ask for web fonts; no test may depend on, or wait for, anything outside this machine.
    context.route(lambda url: not url.startswith(server), lambda route: route.abort())

    def open_in_new_tab(study: Study) -> Viewer:
        viewer = Viewer(context.new_page())
        viewer.open(server, study.study_uid)
        viewer.connect(server)
        return viewer

    yield open_in_new_tab
    context.close()


@pytest.fixture(scope="module")
def _ct_viewer(open_study: Callable[[Study], Viewer], ct: Study) -> Viewer:
    return open_study(ct)


@pytest.fixture(scope="module")
def _mr_viewer(open_study: Callable[[Study], Viewer], mr: Study) -> Viewer:
    return open_study(mr)


@pytest.fixture
def ct_viewer(_ct_viewer: Viewer, request: pytest.FixtureRequest) -> Iterator[Viewer]:
    """OHIF with the CT study, no points set; each test uses a label of its own. A picture is kept after the test."""
    yield from _for_one_test(_ct_viewer, request.node.name)


@pytest.fixture
def mr_viewer(_mr_viewer: Viewer, request: pytest.FixtureRequest) -> Iterator[Viewer]:
    """OHIF with the MR study, no points set. A picture is kept after the test."""
    yield from _for_one_test(_mr_viewer, request.node.name)


def _for_one_test(viewer: Viewer, name: str) -> Iterator[Viewer]:
    viewer.page.bring_to_front()
    viewer.points.open()
    viewer.points.choose_model(MODEL)
    viewer.points.clear()
    yield viewer
    viewer.screenshot(ARTIFACTS / f"{name}.png")
