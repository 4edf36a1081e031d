"""A note typed into the options of an unmodified OHIF: what goes to the server, and what the viewer then shows."""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("playwright.sync_api", reason="the end-to-end tests need the package playwright")

from .ohif import Viewer
from .studies import Study
from .test_ohif import inmost, largest_slice

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]  # the first test starts all servers

MODEL = "causal_sam_note"
NOTE = "remove the stray part of the left kidney"


@pytest.fixture
def kidneys(ct_viewer: Viewer, ct: Study) -> Iterator[np.ndarray]:
    """A mask of the left kidney that holds the right one too, made by clicks in OHIF; the note's task is chosen there.

    As the server has it: what other tests left on display hides parts of it there.
    """
    ct_viewer.points.open()
    ct_viewer.points.choose_model("causal_sam_multilabel")
    ct_viewer.points.choose_label("left kidney")
    for name in ("left kidney", "right kidney"):
        ct_viewer.click(inmost(ct.organs[name], largest_slice(ct.organs[name])))
    clicked = ct_viewer.points.run()
    assert clicked.status == 200, clicked.detail
    ct_viewer.automatic.open()
    ct_viewer.automatic.choose_model(MODEL)
    yield clicked.mask
    ct_viewer.set_options(MODEL, note="", undo=False)


def largest_part(mask: np.ndarray) -> np.ndarray:
    """Return the largest of the separate parts of a boolean mask (I, J, K)."""
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert count > 1, "the clicks gave one part alone"
    return parts == 1 + np.bincount(parts.ravel())[1:].argmax()


def test_a_note_corrects_what_is_shown_and_undo_takes_it_back(
    ct_viewer: Viewer, kidneys: np.ndarray, ct: Study
) -> None:
    """Typed, run, corrected; not twice; undone exactly; and a note that says nothing leaves all as it is."""
    viewer, largest = ct_viewer, largest_part(kidneys)

    viewer.set_options(MODEL, note=NOTE)
    corrected = viewer.automatic.run()

    assert corrected.params["note"] == NOTE
    assert corrected.status == 200, corrected.detail
    np.testing.assert_array_equal(corrected.mask, largest)
    np.testing.assert_array_equal(viewer.segmentation().mask("left kidney"), largest)
    assert (largest & ct.organs["left kidney"]).any() != (largest & ct.organs["right kidney"]).any()

    again = viewer.automatic.run()
    assert again.params["note"] == NOTE  # it still stands in the options
    np.testing.assert_array_equal(again.mask, largest)

    viewer.set_options(MODEL, undo=True)
    viewer.automatic.run()
    before = viewer.segmentation()
    np.testing.assert_array_equal(before.mask("left kidney"), kidneys)

    viewer.set_options(MODEL, note="something is not right", undo=False)
    refused = viewer.automatic.run()
    assert refused.status == 422
    assert "?" in refused.detail or "Say what is wrong" in refused.detail
    np.testing.assert_array_equal(viewer.segmentation().voxels, before.voxels)


def test_slices_have_the_numbers_that_the_viewer_shows(ct_viewer: Viewer, kidneys: np.ndarray) -> None:
    """A part removed on one slice, by the number on screen, is gone on that slice and on no other."""
    viewer, k = ct_viewer, largest_slice(kidneys & ~largest_part(kidneys))
    viewer.show_slice(k)
    number, count = viewer.slice_number()
    assert count == kidneys.shape[2]

    viewer.set_options(MODEL, note=f"left kidney: remove the stray part in slice {number}")
    viewer.automatic.run()

    changed = (viewer.segmentation().mask("left kidney") != kidneys).any(axis=(0, 1))
    assert np.flatnonzero(changed).tolist() == [k]
