"""Drive the OHIF viewer and its MONAI Label panel as a person does: real mouse events, real replies.

What the page does not show in its document (the slice on display, the segmentation's voxels) is read from the services
that OHIF itself publishes on `window`. Voxels are (i, j, k) indices of the displayed volume; for a series of axial
slices, k counts from inferior to superior.
"""

import base64
import io
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, Response, expect

Voxel = tuple[int, int, int]

LOAD_MS = 120_000  # software rendering on a machine that is busy with other work
ANSWER_MS = 120_000
NOTICE_MS = 15_000  # the viewer shows a notice for up to 6 s

_SLICE_NUMBER = re.compile(r"\((\d+)/(\d+)\)")  # as in "I: 21 (21/48)"

# The axial viewport and the volume that it shows, for the expressions below.
_AXIAL = """
  const view = window.services?.cornerstoneViewportService?.getCornerstoneViewport('mpr-axial');
  const volume = view?.getVolumeId?.() && window.cornerstone.cache.getVolume(view.getVolumeId());
"""
_VOLUME_IS_LOADED = f"() => {{ {_AXIAL} return Boolean(volume?.loadStatus?.loaded); }}"
_SHOWN_SLICE = f"() => {{ {_AXIAL} return Math.round(volume.imageData.worldToIndex(view.getCamera().focalPoint)[2]); }}"
_CANVAS_WIDTH = f"() => {{ {_AXIAL} return view?.getCanvas()?.clientWidth; }}"
_CENTRE = f"""() => {{
  {_AXIAL}
  const frame = view.element.getBoundingClientRect();
  return [frame.x + frame.width / 2, frame.y + frame.height / 2];
}}"""
_TO_SCREEN = f"""(voxels) => {{
  {_AXIAL}
  const frame = view.element.getBoundingClientRect();
  return voxels.map((voxel) => {{
    const [x, y] = view.worldToCanvas(volume.imageData.indexToWorld(voxel));
    return [frame.x + x, frame.y + y];
  }});
}}"""
_NUMBER_OF_POINTS = """() => window.cornerstoneTools.annotation.state.getAllAnnotations()
  .filter(({ metadata }) => metadata.toolName === 'ProbeMONAILabel').length"""
_DRAWN_TWICE = "() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
_SEGMENTATION_EXISTS = "() => Boolean(window.services.segmentationService.getLabelmapVolume('1'))"
_LOADED_IS_SHOWN = """() => {
  const loaded = window.services.segmentationService.getSegmentations().at(-1);
  return loaded && Boolean(window.services.segmentationService.getLabelmapVolume(loaded.segmentationId));
}"""
_SEGMENTATION = """() => {
  const shown = window.services.segmentationService.getSegmentations().at(-1);
  const volume = window.services.segmentationService.getLabelmapVolume(shown.segmentationId);
  const voxels = volume.voxelManager.getCompleteScalarDataArray();
  let bytes = '';
  for (let start = 0; start < voxels.length; start += 32768) {
    bytes += String.fromCharCode(...voxels.subarray(start, start + 32768));
  }
  const segments = Object.values(shown.segments);
  return {
    shape: volume.dimensions,
    voxels: btoa(bytes),
    segments: Object.fromEntries(segments.map((segment) => [segment.label, segment.segmentIndex])),
  };
}"""


@dataclass(frozen=True)
class Inference:
    """One inference as it went over the wire: the request's `params` and the reply."""

    params: dict[str, Any]
    response: Response

    @property
    def status(self) -> int:
        """HTTP status of the reply."""
        return self.response.status

    @property
    def detail(self) -> str:
        """The sentence with which the server refused."""
        return self.response.json()["detail"]

    @property
    def mask(self) -> np.ndarray:
        """Boolean mask (I, J, K) decoded from the reply's NRRD."""
        content = io.BytesIO(self.response.body())
        header = nrrd.read_header(content)
        return nrrd.read_data(header, content, index_order="F") != 0


@dataclass(frozen=True)
class Segmentation:
    """The viewer's segmentation: a label map (I, J, K) and the value that each label has in it."""

    voxels: np.ndarray
    segments: dict[str, int]

    def mask(self, label: str) -> np.ndarray:
        """Voxels of `label`, as a boolean array."""
        return self.voxels == self.segments[label]

    def others(self, label: str) -> np.ndarray:
        """Voxels of all labels but `label`, as a boolean array."""
        return (self.voxels != 0) & ~self.mask(label)


class PointPrompts:
    """The "Point Prompts" tab of the MONAI Label panel."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._tab: Locator = page.locator(".monaiLabelPanel .tab", has=page.get_by_text("Point Prompts", exact=True))

    def open(self) -> None:
        """Unfold the tab, which makes the mouse place points."""
        self._tab.locator(".tab-label").click()
        self._run_button.wait_for()

    def choose_model(self, name: str) -> None:
        """Select the model `name`."""
        self._tab.locator("select.selectBox").select_option(name)

    def labels(self) -> list[str]:
        """Names of the labels that the tab offers, "background" included."""
        return [name.strip() for name in self._tab.locator("tr.clickable-row").all_inner_texts()]

    def choose_label(self, name: str) -> None:
        """Select the row `name`: the points clicked from now on belong to it."""
        self._tab.locator("tr.clickable-row").filter(has_text=re.compile(rf"^\s*{re.escape(name)}\s*$")).click()

    def clear(self) -> None:
        """Forget the points of all labels."""
        self._tab.get_by_text("Clear All Points", exact=True).click()

    def run(self) -> Inference:
        """Press "Run" and return once the viewer has dealt with the reply: mask on display, or failure reported."""
        success, failure = (
            "Running Inference for Point Prompts - Successful",
            "Failed to Run Inference for Point Prompts",
        )
        return _run(self._page, self._run_button, success, failure)

    @property
    def _run_button(self) -> Locator:
        return self._tab.get_by_role("button", name="Run", exact=True)


class AutoSegmentation:
    """The "Auto-Segmentation" tab of the MONAI Label panel."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._tab: Locator = page.locator(
            ".monaiLabelPanel .tab", has=page.get_by_text("Auto-Segmentation", exact=True)
        )

    def open(self) -> None:
        """Unfold the tab; the mouse places no points any more."""
        self._tab.locator(".tab-label").click()
        self._run_button.wait_for()

    def choose_model(self, name: str) -> None:
        """Select the model `name`."""
        self._tab.locator("select.selectBox").select_option(name)

    def run(self) -> Inference:
        """Press "Run" and return once the viewer has dealt with the reply: masks on display, or failure reported."""
        return _run(self._page, self._run_button, "Running Segmentation - Successful", "Failed to Run Segmentation")

    @property
    def _run_button(self) -> Locator:
        return self._tab.get_by_role("button", name="Run", exact=True)


def _run(page: Page, button: Locator, succeeded: str, failed: str) -> Inference:
    success, failure = page.get_by_text(succeeded), page.get_by_text(failed)
    expect(success.or_(failure)).to_have_count(0, timeout=NOTICE_MS)  # what an earlier run left has faded
    with page.expect_response(lambda reply: "/infer/" in reply.url, timeout=ANSWER_MS) as reply:
        button.click()
    response = reply.value
    (success if response.ok else failure).wait_for()
    params = re.search(r'name="params"\r\n\r\n(.*)\r\n', response.request.post_data or "")
    assert params, f"no params in the request {response.request.post_data!r}"
    return Inference(json.loads(params.group(1)), response)


class Viewer:
    """The viewer with one study open in its MONAI Label mode: its axial plane and the panel."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.points = PointPrompts(page)
        self.automatic = AutoSegmentation(page)

    def open(self, server: str, study_uid: str) -> None:
        """Open a study from the MONAI Label server at the URL `server`; return when its axial plane fills the view.

        Of the three planes that are shown first, a double click leaves the axial one, at several pixels a voxel.
        """
        self.page.goto(f"{server}/ohif/monai-label?StudyInstanceUIDs={study_uid}", timeout=LOAD_MS)
        self.page.wait_for_function(_VOLUME_IS_LOADED, timeout=LOAD_MS)
        self.page.get_by_role("button", name="Confirm and Hide").click()
        before = self.page.evaluate(_CANVAS_WIDTH)
        self.page.mouse.dblclick(*self.page.evaluate(_CENTRE))
        self.page.wait_for_function(f"(before) => ({_CANVAS_WIDTH})() > 2 * before", arg=before)

    def load_segmentation(self, server: str, study_uid: str) -> None:
        """Open a study and load its DICOM SEG; return when it is shown."""
        self.page.goto(f"{server}/ohif/monai-label?StudyInstanceUIDs={study_uid}", timeout=LOAD_MS)
        self.page.wait_for_function(_VOLUME_IS_LOADED, timeout=LOAD_MS)
        self.page.get_by_role("button", name="Confirm and Hide").click()
        self.page.locator('[data-cy="study-browser-thumbnail-no-image"]').dblclick()
        self.page.get_by_text("LOAD", exact=True).first.click(timeout=LOAD_MS)
        self.page.wait_for_function(_LOADED_IS_SHOWN, timeout=LOAD_MS)

    def connect(self, server: str) -> None:
        """Enter the MONAI Label server's URL in the panel and connect; return when its models are offered.

        Left alone, the panel asks port 8000 of the page's host, whichever port the page itself came from.
        """
        self.page.locator("#monailabelServerURL").fill(f"{server}/")
        self.page.locator(".monaiLabelPanel .settingsTable button").click()
        self.page.get_by_text("Point Prompts", exact=True).wait_for()
        self.page.wait_for_function(_SEGMENTATION_EXISTS)

    def set_options(self, model: str, **values: str | bool) -> None:
        """Set options of `model` in the dialog of the panel, as text or ticks, and confirm."""
        self.page.locator(".monaiLabelPanel").get_by_text("Options / Configurations").click()
        self.page.locator("select[name=selectName]").select_option(model)
        for name, value in values.items():
            self._set_option(self.page.locator(f"#infer{model}{name}"), value)
        self.page.get_by_role("button", name="Confirm", exact=True).click()
        expect(self.page.locator(".optionsForm")).to_have_count(0)

    def _set_option(self, field: Locator, value: str | bool) -> None:
        """Fill or tick a field, again if the dialog has replaced it meanwhile: what was typed into the old one is lost.

        While it changes to a model, it replaces its fields once more, on a busy machine a while after they appeared.
        """

        def is_set() -> bool:
            field.set_checked(value) if isinstance(value, bool) else field.fill(value)
            self.page.evaluate(_DRAWN_TWICE)
            return (field.is_checked() if isinstance(value, bool) else field.input_value()) == value

        self.page.evaluate(_DRAWN_TWICE)
        self.wait_until(is_set)

    def slice_number(self) -> tuple[int, int]:
        """Number of the slice on display as the viewport shows it to people, and how many there are."""
        shown = self.page.get_by_text(_SLICE_NUMBER).first.inner_text()
        number, count = _SLICE_NUMBER.search(shown).groups()
        return int(number), int(count)

    def shown_slice(self) -> int:
        """Index k of the slice that the axial viewport shows."""
        return self.page.evaluate(_SHOWN_SLICE)

    def show_slice(self, k: int) -> None:
        """Move the viewport's slider to slice `k`; it counts from superior to inferior."""
        slider = self.page.locator("input.imageSlider")
        slider.fill(str(int(slider.get_attribute("max") or 0) - k))
        self.page.wait_for_function(f"(k) => ({_SHOWN_SLICE})() === k", arg=k)

    def click(self, voxel: Voxel) -> None:
        """Click on `voxel` in the axial viewport; return when the point is set.

        That is a moment later: the viewer first waits whether a second click makes it a double click.
        """
        self.show_slice(voxel[2])
        before = self.page.evaluate(_NUMBER_OF_POINTS)
        self.page.mouse.click(*self.to_screen([voxel])[0].round())  # a mouse event has whole pixels, cut off
        self.page.wait_for_function(f"(before) => ({_NUMBER_OF_POINTS})() > before", arg=before)

    def to_screen(self, voxels: Sequence[Voxel] | np.ndarray) -> np.ndarray:
        """Return the page coordinates (N, 2) as (x, y) of voxels (N, 3) of the slice on display."""
        return np.array(self.page.evaluate(_TO_SCREEN, np.asarray(voxels).tolist()))

    def colourfulness(self, voxels: np.ndarray) -> np.ndarray:
        """Return max - min of red, green, blue (0 for grey) where the page shows `voxels` (N, 3) of the shown slice."""
        pixels = np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")).astype(int)
        x, y = self.to_screen(voxels).round().astype(int).T
        return np.ptp(pixels[y, x], axis=-1)

    def segmentation(self) -> Segmentation:
        """Return what the viewer holds as its segmentation, or the one that was loaded."""
        state = self.page.evaluate(_SEGMENTATION)
        voxels = np.frombuffer(base64.b64decode(state["voxels"]), dtype=np.uint8)
        return Segmentation(voxels.reshape(state["shape"], order="F"), state["segments"])

    def wait_until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Let the page draw until `condition` holds.

        Raises:
            TimeoutError: It did not hold within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the viewer did not show what was expected within {seconds:.0f} s")
            self.page.wait_for_timeout(100)

    def screenshot(self, path: Path) -> None:
        """Write a picture of the page to `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)
