"""Strokes as Slicer's scribbles panel sends them, and closed curves."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from causal_sam.imaging.overlap import dice

from .images import Phantom
from .server import Server

pytestmark = pytest.mark.integration

MODEL = "causal_sam_scribbles"
# Slicer numbers all segments as they are in the scene, the strokes among them.
INFO = [
    {"name": "liver", "id": 1},
    {"name": "spleen", "id": 2},
    {"name": "background_scribbles", "id": 3},
    {"name": "foreground_scribbles", "id": 4},
]


def write_slicer(array: np.ndarray, image: Path, path: Path) -> Path:
    """Save a label map as Slicer does, as NRRD on the grid of its image."""
    reference = SimpleITK.ReadImage(str(image))
    labels = SimpleITK.GetImageFromArray(array.T.astype(np.int16))
    labels.CopyInformation(reference)
    SimpleITK.WriteImage(labels, str(path), useCompression=True)
    return path


def scribble(server: Server, tmp_path: Path, array: np.ndarray, client: str, **params) -> tuple[np.ndarray, dict]:
    path = write_slicer(array, server.studies / "ct.nii.gz", tmp_path / "scribbles.nrrd")
    sent = {"roi": [], "label_info": INFO, "selected_label_name": "liver", "extent": "slice", **params}
    sent |= {"result_extension": ".nrrd", "result_dtype": "uint8"}
    result, answer = server.client(client).infer(MODEL, "ct", sent, label_in=str(path))
    mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(result))).T
    Path(result).unlink()
    return mask, answer


def strokes(phantom: Phantom, k: int = 5) -> np.ndarray:
    """A stroke through the liver and one beside it."""
    i, j, _ = phantom.centres["liver"]
    painted = np.zeros(phantom.array.shape, np.int16)
    painted[i - 8 : i + 9, j - 1 : j + 2, k] = 4
    painted[i + 24 : i + 27, j - 15 : j + 16, k] = 3
    return painted


def test_slicer_finds_the_task(server: Server) -> None:
    task = server.info()["models"][MODEL]
    assert task["type"] == "scribbles"
    assert task["labels"] == {"liver": 1, "spleen": 2, "right kidney": 3}


def test_strokes_give_the_structure_and_are_kept_to_the_voxel(server: Server, phantom: Phantom, tmp_path) -> None:
    painted = strokes(phantom)
    mask, answer = scribble(server, tmp_path, painted, "strokes")
    assert answer["label_names"] == {"liver": 1}
    assert answer["labels"]["liver"]["updated_slices"] == [5]
    assert set(np.unique(mask)) == {0, 1}
    assert mask[painted == 4].all()
    assert not mask[painted == 3].any()
    assert not mask[..., [0, 1, 2, 3, 4, 6, 7, 8, 9]].any()
    assert dice(mask[..., 5] > 0, phantom.organs["liver"][..., 5]) > 0.7


def test_strokes_are_followed_through_the_volume_inside_the_region(server: Server, phantom: Phantom, tmp_path) -> None:
    mask, _ = scribble(server, tmp_path, strokes(phantom), "followed", extent="volume", roi=[0, 60, 0, 79, 3, 7])
    assert np.flatnonzero(mask.any(axis=(0, 1))).tolist() == [3, 4, 5, 6, 7]
    assert not mask[61:].any()


def test_strokes_correct_the_label_that_comes_with_them(server: Server, phantom: Phantom, tmp_path) -> None:
    painted = phantom.organs["liver"].astype(np.int16)
    painted[..., :3] = 0  # brushed away by the user
    before = painted == 1
    i, j, _ = phantom.centres["liver"]
    painted[i + 5 : i + 12, j, 5] = 3  # a part that is none
    mask, _ = scribble(server, tmp_path, painted, "correct")
    others = [k for k in range(10) if k != 5]
    np.testing.assert_array_equal(mask[..., others] > 0, before[..., others])
    assert not mask[painted == 3].any()
    # The clicks of the same client go on from there.
    clicked, _ = server.slicer(
        {"label": "liver", "foreground": [[i, j, 8]], "background": [], "extent": "slice"}, client_id="correct"
    )
    np.testing.assert_array_equal(clicked[..., :8], mask[..., :8])


def test_strokes_again_and_longer_ones_change_no_other_label(server: Server, phantom: Phantom, tmp_path) -> None:
    i, j, k = phantom.centres["spleen"]
    spleen, _ = server.slicer({"label": "spleen", "foreground": [[i, j, k]], "extent": "slice"}, client_id="again")
    painted = strokes(phantom)
    first, _ = scribble(server, tmp_path, painted, "again")
    same, _ = scribble(server, tmp_path, painted, "again")
    np.testing.assert_array_equal(same, first)
    i, j, _ = phantom.centres["liver"]
    painted[i - 12 : i + 13, j - 1 : j + 2, 5] = 4
    longer, _ = scribble(server, tmp_path, painted, "again")
    assert longer[painted == 4].all()
    lists = {"liver": [], "spleen": [[*phantom.centres["spleen"]]], "right kidney": [], "label": "spleen"}
    both, _ = server.slicer({**lists, "extent": "slice"}, model="causal_sam_multilabel", client_id="again")
    np.testing.assert_array_equal(both == 1, longer > 0)
    np.testing.assert_array_equal(both == 2, (spleen > 0) & (longer == 0))


def test_a_label_map_without_the_label_takes_nothing_from_it(server: Server, phantom: Phantom, tmp_path) -> None:
    """Slicer that was started again has the segment, but not what was segmented."""
    before, _ = scribble(server, tmp_path, strokes(phantom), "empty-map")
    after, _ = scribble(server, tmp_path, strokes(phantom, k=7), "empty-map")
    np.testing.assert_array_equal(after[..., 5], before[..., 5])
    with pytest.raises(Exception, match="selected_label_name") as raised:
        scribble(server, tmp_path, strokes(phantom), "empty-map", selected_label_name=None)
    assert "422" in str(raised.value)


def test_values_without_names_are_those_of_monai_label(server: Server, phantom: Phantom, tmp_path) -> None:
    painted = strokes(phantom)
    renumbered = np.where(painted == 4, 5, np.where(painted == 3, 4, 0))  # three labels, then outside, then inside
    one, _ = scribble(server, tmp_path, painted, "named")
    other, _ = scribble(server, tmp_path, renumbered, "numbered", label_info=None)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"painted": 0}, "Nothing was scribbled"),
        ({"selected_label_name": "background_scribbles"}, "must be the name of a structure"),
        ({"roi": [1, 2]}, "6 numbers"),
    ],
)
def test_what_cannot_be_used_is_said(server: Server, phantom: Phantom, tmp_path, change: dict, sentence: str) -> None:
    painted = strokes(phantom) * change.pop("painted", 1)
    with pytest.raises(Exception, match=sentence) as raised:
        scribble(server, tmp_path, painted, "wrong", **change)
    assert "422" in str(raised.value)


def test_strokes_on_another_grid_or_none_are_refused(server: Server, phantom: Phantom, tmp_path) -> None:
    small = tmp_path / "small.nii.gz"
    nibabel.save(nibabel.Nifti1Image(strokes(phantom)[:50].astype(np.uint8), np.diag([-4.0, -2.0, 5.0, 1.0])), small)
    params = {"selected_label_name": "liver", "label_info": INFO}
    response = server.post(params, model=MODEL, files={"label": ("s.nii.gz", small.read_bytes())})
    assert response.status_code == 422
    assert "not on the grid of its image" in response.json()["detail"]
    response = server.post(params, model=MODEL)
    assert response.status_code == 422
    assert "upload the label map" in response.json()["detail"]


def test_a_closed_curve_gives_what_is_inside_it(server: Server, phantom: Phantom) -> None:
    i, j, k = phantom.centres["liver"]
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    lasso = [[round(i + 19 * np.cos(a)), round(j + 21 * np.sin(a)), k] for a in angles]
    params = {"label": "liver", "lasso": lasso, "extent": "slice"}
    mask, answer = server.slicer(params, client_id="lasso")
    assert answer["labels"]["liver"]["updated_slices"] == [k]
    assert dice(mask[..., k] > 0, phantom.organs["liver"][..., k]) > 0.85
    again, answer = server.slicer(params, client_id="lasso")
    assert answer["labels"]["liver"]["updated_slices"] == []
    np.testing.assert_array_equal(mask, again)
    # A click refines what the curve gave.
    _, answer = server.slicer({**params, "background": [lasso[0]]}, client_id="lasso")
    assert answer["labels"]["liver"]["updated_slices"] == [k]


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"lasso": [[1, 2, 3], [4, 5, 3]]}, "at least three points"),
        ({"lasso": [[1, 2, 3], [4, 5, 3], [4, 9, 4]]}, "one slice, but its points have k from 3 to 4"),
        ({"lasso": [[1, 2, 3], [4, 5, 3], [4, 900, 3]]}, "outside the volume"),
        ({"lasso": "round"}, "must be a list of points"),
        ({"lasso": [[1, 2, 3], [9, 5, 3], [4, 9, 3]], "roi": [0, 5, 0, 5, 3, 3]}, "either a roi or a lasso"),
    ],
)
def test_what_is_no_closed_curve_is_said(server: Server, params: dict, sentence: str) -> None:
    response = server.post({"label": "liver", **params})
    assert response.status_code == 422
    assert sentence in response.json()["detail"]
