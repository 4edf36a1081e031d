"""Drive the browser page as a person does: real pointer and key events; places on it are voxels of the image file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import Browser, BrowserContext, Locator, expect
from playwright.sync_api import Page as Tab

from causal_sam.imaging import PackedMask

ANSWER_MS = 240_000
SHOW_MS = 60_000
expect.set_options(timeout=SHOW_MS)  # a busy machine without a graphics card draws slowly
AXE = Path(__file__).resolve().parents[2] / "apps/causal_sam/page/node_modules/axe-core/axe.min.js"
_IS_SHOWN = "() => Boolean(window.causalSam?.grid)"
# `toFile` is its own inverse but for the order of the axes, which the studies of these tests do not swap.
_POSITION = "(voxel) => window.causalSam.positionOf(window.causalSam.grid.toFile(voxel))"
_MOVE = "(voxel) => window.causalSam.moveTo(window.causalSam.grid.toFile(voxel))"

Voxel = tuple[int, int, int]


class CausalSamPage:
    """The page of one user.

    Attributes:
        tab: the browser's.
        foreign: addresses on other hosts that the page asked for.
        errors: messages of the exceptions that the page's scripts did not catch.
    """

    def __init__(self, browser: Browser, url: str, user: str) -> None:
        self.url, self.user = url, user
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self._context: BrowserContext = browser.new_context(viewport={"width": 1280, "height": 800})
        self._context.add_init_script(f"localStorage.setItem('causal-sam-user', '{user}')")
        self._context.on("request", self._look)
        self.tab: Tab = self._context.new_page()
        self.tab.set_default_timeout(ANSWER_MS)
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))

    def _look(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.foreign.append(request.url)

    def close(self) -> None:
        self._context.close()

    def open(self, case: str) -> None:
        """Open the page at its first address, and a case by its entry in the list."""
        self.tab.goto(self.url)
        self.case(case).click()
        self.wait_until_shown()

    def reload(self) -> None:
        self.tab.reload()
        self.wait_until_shown()

    def wait_until_shown(self) -> None:
        self.tab.wait_for_function(_IS_SHOWN, timeout=ANSWER_MS)
        self.wait()

    def case(self, name: str) -> Locator:
        """Entry of a case in the list."""
        return self.tab.locator(f'.case[title="{name}"]')

    def button(self, name: str) -> Locator:
        return self.tab.get_by_role("button", name=name, exact=True)

    def wait(self) -> str:
        """Wait until nothing is being done, and return what the page says."""
        # A request shows its button Cancel with the next picture.
        self.tab.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn, 50)))")
        expect(self.tab.locator("footer button:not(.undo)")).to_have_count(0, timeout=ANSWER_MS)
        return self.tab.locator("footer").get_by_role("status").inner_text()

    def press(self, keys: str) -> str:
        self.tab.keyboard.press(keys)
        return self.wait()

    def choose(self, tool: str, label: str, *, follow: bool = False) -> None:
        """Choose a tool and the label to work on."""
        self.button(tool).click()
        self.tab.get_by_title(f"Work on {label}", exact=True).click()
        self.tab.get_by_role("checkbox", name="Whole structure").set_checked(follow)

    def show(self, voxel: Voxel) -> None:
        """Move the crosshair to a voxel, so that the views show its slices."""
        self.tab.evaluate(_MOVE, voxel)

    def drag(self, *voxels: Voxel, button: Any = "left") -> str:
        """Press the pointer on the first voxel, move it over the others and release it; one voxel is a click."""
        self.show(voxels[0])
        places = [self.tab.evaluate(_POSITION, voxel) for voxel in voxels]
        mouse = self.tab.mouse
        mouse.move(places[0]["x"], places[0]["y"])
        mouse.down(button=button)
        for place in places[1:]:
            mouse.move(place["x"], place["y"], steps=4)
        mouse.up(button=button)
        return self.wait()

    def masks(self, case: str) -> dict[str, Any]:
        """Masks (I, J, K) of this user on the server, those without voxels left out."""
        session = requests.get(
            f"{self.url}api/cases/{case}/session", params={"client_id": self.user}, timeout=60
        ).json()
        unpacked = {each["name"]: PackedMask.from_json(each["mask"]).unpack() for each in session["labels"]}
        return {name: mask for name, mask in unpacked.items() if mask.any()}

    def shown(self, case: str) -> dict[str, int]:
        """Number of voxels that the page itself shows of each label of this user."""
        counts = self.tab.evaluate(
            """(names) => {
              const { labels } = window.causalSam
              const counts = new Array(256).fill(0)
              for (const value of labels.bitmap) counts[value]++
              return names.map((name) => counts[labels.valueOf(name)])
            }""",
            list(names := self.masks(case)),
        )
        return dict(zip(names, counts, strict=True))

    def serious_problems(self) -> list[str]:
        """Return the serious and critical problems of accessibility that axe-core finds on the page as it is now."""
        self.tab.add_script_tag(path=AXE)
        found: Sequence[Any] = self.tab.evaluate("async () => (await axe.run()).violations")
        return [
            f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in ("serious", "critical")
        ]

    def picture(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.tab.screenshot(path=path)
