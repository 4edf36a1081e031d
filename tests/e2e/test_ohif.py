"""A clinician's clicks in OHIF: what goes to the server, what comes back, and what the viewer then shows."""

import numpy as np
import pytest
import requests
from scipy import ndimage

pytest.importorskip("playwright.sync_api", reason="the end-to-end tests need the package playwright")

from causal_sam.imaging.overlap import dice

from .ohif import Inference, Viewer, Voxel
from .studies import Study

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]  # the first test starts all servers

# Dice with the true organ, on the clicked slice, that one click in its middle must reach.
MINIMUM_DICE = 0.6

# Difference between the highest and the lowest of red, green and blue from which a pixel counts as coloured.
COLOUR = 15


def depth(region: np.ndarray, k: int) -> np.ndarray:
    """Return the distance (I, J), in voxels, of each voxel of slice `k` from the outside of `region` (I, J, K)."""
    return ndimage.distance_transform_edt(np.pad(region[:, :, k], 1))[1:-1, 1:-1]


def inmost(region: np.ndarray, k: int) -> Voxel:
    """Return the voxel of slice `k` that lies deepest inside `region` (I, J, K)."""
    i, j = np.unravel_index(depth(region, k).argmax(), region.shape[:2])
    return int(i), int(j), k


def largest_slice(organ: np.ndarray) -> int:
    """Return the index of the slice in which `organ` (I, J, K) has the largest area."""
    return int(organ.sum(axis=(0, 1)).argmax())


def segment_with_one_click(viewer: Viewer, study: Study, label: str) -> tuple[Voxel, Inference]:
    """Click in the middle of the organ `label` and run; return the clicked voxel and what it gave."""
    viewer.points.choose_label(label)
    voxel = inmost(study.organs[label], largest_slice(study.organs[label]))
    viewer.click(voxel)
    return voxel, viewer.points.run()


def on_slice(region: np.ndarray, k: int) -> np.ndarray:
    """Return the voxels (N, 3) of `region` (I, J, K) that lie on slice `k`."""
    return np.column_stack([np.argwhere(region[:, :, k]), np.full(region[:, :, k].sum(), k)])


def assert_segments(mask: np.ndarray, voxel: Voxel, organ: np.ndarray) -> None:
    """Assert that `mask` answers a click on `voxel` of `organ`: on the volume's grid, there, and that organ."""
    assert mask.shape == organ.shape
    assert mask[voxel]
    assert dice(mask[:, :, voxel[2]], organ[:, :, voxel[2]]) >= MINIMUM_DICE
    assert mask.sum() < 2 * organ.sum(), "the mask is not confined to the organ"


def assert_shown(viewer: Viewer, label: str, mask: np.ndarray) -> None:
    """Assert that the viewer shows just `mask` as `label`, save where another label was before."""
    segmentation = viewer.segmentation()
    np.testing.assert_array_equal(segmentation.mask(label), mask & ~segmentation.others(label))


def test_click_on_an_organ_shows_its_mask(ct_viewer: Viewer, ct: Study) -> None:
    """One click: the literal request, a mask of the organ in the reply, and that very mask on display, in colour."""
    assert {"background", "left kidney", "spleen"} <= set(ct_viewer.points.labels())
    k = largest_slice(ct.organs["left kidney"])
    ct_viewer.show_slice(k)
    grey = ct_viewer.colourfulness(on_slice(ct.organs["left kidney"], k)).mean()

    voxel, inference = segment_with_one_click(ct_viewer, ct, "left kidney")

    assert inference.status == 200
    assert inference.params["foreground"] == [list(voxel)]
    assert inference.params["background"] == []
    assert_segments(inference.mask, voxel, ct.organs["left kidney"])
    assert_shown(ct_viewer, "left kidney", inference.mask)
    ct_viewer.wait_until(lambda: ct_viewer.colourfulness(on_slice(inference.mask, k)).mean() > grey + COLOUR)
    assert ct_viewer.colourfulness(on_slice(~ndimage.binary_dilation(inference.mask), k)).mean() < COLOUR


def test_second_click_corrects_the_mask(ct_viewer: Viewer, ct: Study) -> None:
    """A click in the middle of what one click got wrong, of either kind, brings the mask nearer to the organ."""
    stomach = ct.organs["stomach"]  # its wall and what it holds look unlike, so one click is not enough
    first, inference = segment_with_one_click(ct_viewer, ct, "stomach")
    k = first[2]
    missing, extra = stomach & ~inference.mask, inference.mask & ~stomach
    is_missing = depth(missing, k).max() >= depth(extra, k).max()
    second = inmost(missing if is_missing else extra, k)
    ct_viewer.points.choose_label("stomach" if is_missing else "background")
    ct_viewer.click(second)
    ct_viewer.points.choose_label("stomach")

    corrected = ct_viewer.points.run()

    assert corrected.params["foreground"] == [list(first), *([list(second)] if is_missing else [])]
    assert corrected.params["background"] == ([] if is_missing else [list(second)])
    assert corrected.mask[second] == is_missing
    assert dice(corrected.mask[:, :, k], stomach[:, :, k]) > dice(inference.mask[:, :, k], stomach[:, :, k])
    assert_shown(ct_viewer, "stomach", corrected.mask)


def test_background_click_gives_the_neighbour_back(ct_viewer: Viewer, ct: Study) -> None:
    """Clicked as one structure, kidney and spleen are both in the mask; with a background click the spleen is not."""
    k = int(np.minimum(*(ct.organs[name].sum(axis=(0, 1)) for name in ("left kidney", "spleen"))).argmax())
    kidney, spleen = inmost(ct.organs["left kidney"], k), inmost(ct.organs["spleen"], k)
    ct_viewer.points.choose_label("left kidney")
    ct_viewer.click(kidney)
    ct_viewer.click(spleen)
    both = ct_viewer.points.run()
    ct_viewer.points.clear()
    ct_viewer.click(kidney)
    ct_viewer.points.choose_label("background")
    ct_viewer.click(spleen)
    ct_viewer.points.choose_label("left kidney")

    kidney_alone = ct_viewer.points.run()

    assert both.mask[kidney]
    assert both.mask[spleen]
    assert kidney_alone.params["foreground"] == [list(kidney)]
    assert kidney_alone.params["background"] == [list(spleen)]
    assert_segments(kidney_alone.mask, kidney, ct.organs["left kidney"])
    assert not kidney_alone.mask[spleen]
    assert_shown(ct_viewer, "left kidney", kidney_alone.mask)


def test_click_on_another_slice_adds_that_slice(ct_viewer: Viewer, ct: Study) -> None:
    """A second foreground click two slices on extends the mask; the first slice stays as it was."""
    first, _ = segment_with_one_click(ct_viewer, ct, "right kidney")
    k = first[2] + 2
    second = inmost(ct.organs["right kidney"], k)
    ct_viewer.click(second)

    both = ct_viewer.points.run()

    assert both.params["foreground"] == [list(first), list(second)]
    assert_segments(both.mask, first, ct.organs["right kidney"])
    assert_segments(both.mask, second, ct.organs["right kidney"])
    assert_shown(ct_viewer, "right kidney", both.mask)


def test_labels_stay_apart(ct_viewer: Viewer, ct: Study) -> None:
    """Segmenting a second organ sends the clicks of that one alone and leaves the first one on display."""
    segment_with_one_click(ct_viewer, ct, "left kidney")
    left = ct_viewer.segmentation().mask("left kidney")

    voxel, inference = segment_with_one_click(ct_viewer, ct, "right kidney")

    assert inference.params["foreground"] == [list(voxel)]
    assert left.any()
    np.testing.assert_array_equal(ct_viewer.segmentation().mask("left kidney"), left)
    assert_shown(ct_viewer, "right kidney", inference.mask)


def test_run_without_points_fails_and_keeps_the_mask(ct_viewer: Viewer, ct: Study, server: str) -> None:
    """No points: the server says what is missing, the viewer reports the failure, and the mask stays on display."""
    segment_with_one_click(ct_viewer, ct, "right kidney")
    before = ct_viewer.segmentation()
    ct_viewer.points.clear()

    refused = ct_viewer.points.run()

    assert before.mask("right kidney").any()
    assert refused.status == 422
    assert "foreground" in refused.detail
    np.testing.assert_array_equal(ct_viewer.segmentation().voxels, before.voxels)
    assert requests.get(f"{server}/info/", timeout=30).status_code == 200


def test_mr_series_is_listed_and_segmented(mr_viewer: Viewer, mr: Study, server: str) -> None:
    """The server lists the MR series beside the CT one, and a click in the MR gives the organ."""
    assert requests.get(f"{server}/info/", timeout=30).json()["datastore"]["total"] == 2

    voxel, inference = segment_with_one_click(mr_viewer, mr, "aorta")

    assert inference.status == 200
    assert_segments(inference.mask, voxel, mr.organs["aorta"])
    assert_shown(mr_viewer, "aorta", inference.mask)
