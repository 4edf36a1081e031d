"""Latency of the browser page in Chromium, by the browser's own clock: from an act of the user to what is drawn of it.

The page notes these times in the browser's timeline (User Timing), as ``causal-sam open`` and ``causal-sam step``. The
time of the model comes with each answer of the server.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from causal_sam.benchmark.http_latency import WARM_UP_SECONDS, running_server, write_volume
from causal_sam.errors import CausalSamError

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

WAIT_MS = 600_000
OPENED = 3
SCREEN = (1280, 800)
# Without a graphics card, Chromium draws WebGL by its own program.
CHROMIUM_OPTIONS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run")
LABEL = "liver"
# A voxel of the liver in the demo study.
DEMO_CASE, DEMO_LIVER = "ct-portal-venous", (66, 53, 39)
_POSITION = "(voxel) => window.causalSam.positionOf(window.causalSam.grid.toFile(voxel))"
_MOVE = "(voxel) => window.causalSam.moveTo(window.causalSam.grid.toFile(voxel))"
_TIMES = "(name) => performance.getEntriesByName(name).map(({ duration, detail }) => ({ duration, ...detail }))"
_COUNT = "([name, count]) => performance.getEntriesByName(name).length > count"

Voxel = tuple[int, int, int]


@dataclass(frozen=True)
class Step:
    """Seconds of one act on the page.

    Attributes:
        model: seconds that the model worked.
        answered: seconds from the act to the decoded answer.
        drawn: seconds from the act to the picture with the new mask.
        page: seconds that the processor worked for the page's thread meanwhile.
    """

    model: float
    answered: float
    drawn: float
    page: float


@dataclass(frozen=True)
class Steps:
    """Acts of one kind, one after the other.

    Attributes:
        name: name of the kind.
        steps: their times.
        load: load average of the machine over the last minute, when they were done.
    """

    name: str
    steps: list[Step]
    load: float

    def median(self, seconds: Callable[[Step], float]) -> float:
        """Return the median over the steps of some time."""
        return float(np.median([seconds(step) for step in self.steps]))


@dataclass(frozen=True)
class PageLatency:
    """Times of the page with one volume.

    Attributes:
        opened: seconds from choosing the case in the list until its image is drawn, as often as it was measured.
        kinds: acts.
        load: load average of the machine over the last minute, when the cases were opened.
    """

    opened: list[float]
    kinds: list[Steps]
    load: float


@dataclass(frozen=True)
class FirstMask:
    """Seconds from the command that starts the server with the demo studies.

    Attributes:
        served: until the page is there.
        listed: until the browser shows the list of cases.
        opened: until the first case is drawn; one click.
        mask: until the first mask is drawn; another click.
        load: load average of the machine over the last minute.
    """

    served: float
    listed: float
    opened: float
    mask: float
    load: float


def measure_page(
    shape: Voxel, repeats: int, command: list[str], environment: Mapping[str, str], port: int, chromium: str
) -> PageLatency:
    """Open a generated volume on the page, and click and paint in it.

    Args:
        shape: shape of the volume.
        repeats: number of acts of each kind.
        command: command that starts the server; ``{studies}`` stands for the folder of its images.
        environment: environment variables of the server.
        port: port of the server.
        chromium: path of the browser.

    Raises:
        CausalSamError: the server does not start, or Playwright is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        i, j, k = write_volume(Path(folder) / "large.nrrd", shape)
        command = [part.format(studies=folder) for part in command]
        with running_server(command, environment, port, Path(folder)) as url, _page(chromium) as page:
            time.sleep(WARM_UP_SECONDS)
            opened = []
            for _ in range(OPENED):
                page.load(url)
                opened.append(page.open("large"))
            load = os.getloadavg()[0]
            strokes = [[(i + 2 * n, j, k), (i + 2 * n, j + shape[1] // 8, k)] for n in range(repeats)]
            page.choose("Brush", follow=False)
            kinds = [page.steps("brush", strokes)]
            page.choose("Point", follow=False)
            kinds.append(page.steps("point, one slice", [[(i + 2 * n, j, k)] for n in range(repeats)]))
            page.choose("Point", follow=True)
            across = [[(i, j, k + n % (shape[2] // 8))] for n in range(repeats)]
            kinds.append(page.steps("point, whole structure", across))
    return PageLatency(opened, kinds, load)


def measure_first_mask(environment: Mapping[str, str], port: int, chromium: str) -> FirstMask:
    """Start ``causal-sam serve`` in an empty folder, open the first case on the page, and click into the liver.

    Args:
        environment: environment variables of the server.
        port: port of the server.
        chromium: path of the browser.

    Raises:
        CausalSamError: the server does not start, or Playwright is not installed.
    """
    command = [sys.executable, "-c", "from causal_sam.cli import main; main()", "serve", "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder, _page(chromium) as page:
        begin = time.perf_counter()
        with running_server(command, environment, port, Path(folder)) as url:
            served = time.perf_counter() - begin
            page.load(url)
            listed = time.perf_counter() - begin
            page.open(DEMO_CASE)
            opened = time.perf_counter() - begin
            page.steps("point", [[DEMO_LIVER]])
            return FirstMask(served, listed, opened, time.perf_counter() - begin, os.getloadavg()[0])


def find_chromium() -> str:
    """Return the path of Chromium or Chrome.

    Raises:
        CausalSamError: there is none on the path of programs.
    """
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return found
    raise CausalSamError("There is no Chromium here: install it (Debian: chromium), or name it with --chromium.")


class _Page:
    """The page in a tab of a browser without a window.

    Args:
        tab: the tab.
    """

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self._tools = tab.context.new_cdp_session(tab)
        # Time that the processor worked for the page's thread, whatever else the machine does.
        self._tools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def load(self, url: str) -> None:
        """Open the page, and wait for the list of cases."""
        self.tab.goto(f"{url}/causal-sam/")
        self.tab.locator(".case").first.wait_for()

    def open(self, case: str) -> float:
        """Choose a case in the list, and return the seconds until its image is drawn."""
        self.tab.locator(".case").filter(has_text=case).click()
        return self._new_time("causal-sam open", 0)["duration"] / 1000

    def choose(self, tool: str, *, follow: bool) -> None:
        """Choose a tool."""
        self.tab.get_by_role("button", name=tool, exact=True).click()
        self.tab.get_by_title(f"Work on {LABEL}", exact=True).click()
        self.tab.get_by_role("checkbox", name="Whole structure").set_checked(follow)

    def steps(self, name: str, strokes: list[list[Voxel]]) -> Steps:
        """Draw strokes with the pointer, each when the one before it is done; one voxel is a click."""
        steps = []
        for stroke in strokes:
            before = len(self.tab.evaluate(_TIMES, "causal-sam step"))
            self.tab.evaluate(_MOVE, stroke[0])
            first, *others = [self.tab.evaluate(_POSITION, voxel) for voxel in stroke]
            self.tab.mouse.move(first["x"], first["y"])
            self.tab.mouse.down()
            for place in others:
                self.tab.mouse.move(place["x"], place["y"], steps=8)
            worked = self._seconds_of_processor()
            self.tab.mouse.up()
            found = self._new_time("causal-sam step", before)
            worked = self._seconds_of_processor() - worked
            model, answered, drawn = (found[key] / 1000 for key in ("model", "answered", "duration"))
            steps.append(Step(model, answered, drawn, worked))
        return Steps(name, steps, os.getloadavg()[0])

    def _new_time(self, name: str, count: int) -> dict[str, Any]:
        """Wait until the timeline has more than ``count`` entries of a name, and return the last one."""
        self.tab.wait_for_function(_COUNT, arg=[name, count])
        return self.tab.evaluate(_TIMES, name)[-1]

    def _seconds_of_processor(self) -> float:
        metrics = self._tools.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


@contextmanager
def _page(chromium: str) -> Iterator[_Page]:
    """Open a browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise CausalSamError("Playwright drives the browser, and is not installed: pip install playwright.") from error
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_OPTIONS))
        tab = browser.new_page(viewport={"width": SCREEN[0], "height": SCREEN[1]})
        tab.set_default_timeout(WAIT_MS)
        yield _Page(tab)
        browser.close()
