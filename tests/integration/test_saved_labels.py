"""A label that is saved, after brush edits say, is what later clicks refine."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import requests

from .images import Phantom
from .server import Server

pytestmark = pytest.mark.integration

LIVER = {"label": "liver", "foreground": [[30, 40, 5]], "background": []}


def save(server: Server, image: str, array: np.ndarray, params: dict, folder: Path, client_id: str = "saver") -> None:
    """Save a label as Slicer's plug-in does."""
    affine = nibabel.load(server.studies / f"{image}.nii.gz").affine
    path = folder / "label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array.astype(np.uint8), affine), path)
    server.client(client_id).save_label(image, str(path), params=params)


def test_a_saved_label_replaces_the_working_mask(server: Server, phantom: Phantom, tmp_path: Path) -> None:
    shape = phantom.array.shape
    ask = {"image": "fresh3", "client_id": "brush"}
    clicked, _ = server.slicer(LIVER, **ask)
    spleen, _ = server.slicer({**LIVER, "label": "spleen", "foreground": [[72, 42, 5]]}, **ask)

    # The user paints: liver differs on slice 5, and is new on slice 8. Slicer numbers the segments that it exports.
    painted = np.zeros(shape, bool)
    painted[20:40, 30:50, 5] = True
    painted[22:38, 32:48, 8] = True
    info = {"label_info": [{"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2}], "model": "causal_sam"}
    save(server, "fresh3", np.where(painted, 1, np.where(spleen, 2, 0)), info, tmp_path)

    same, params = server.slicer(LIVER, **ask)
    assert params["labels"]["liver"]["updated_slices"] == []
    np.testing.assert_array_equal(same > 0, painted)

    # A label that was saved as it was keeps what it was decided from.
    kept, params = server.slicer({**LIVER, "label": "spleen", "foreground": [[72, 42, 5]]}, **ask)
    assert params["labels"]["spleen"]["updated_slices"] == []
    np.testing.assert_array_equal(kept > 0, (spleen > 0) & ~painted)

    # New clicks correct the painted slice, the other stays; the mask was an input, so it matters.
    corrected, params = server.slicer({**LIVER, "background": [[38, 48, 5]]}, **ask)
    assert params["labels"]["liver"]["updated_slices"] == [5]
    np.testing.assert_array_equal(corrected[..., 8] > 0, painted[..., 8])

    # Reset starts from nothing, also from no saved label.
    again, _ = server.slicer({**LIVER, "reset": True}, **ask)
    np.testing.assert_array_equal(again, clicked)

    # A client that comes later starts from what is saved.
    later, _ = server.slicer({**LIVER, "foreground": [[30, 40, 2]]}, image="fresh3", client_id="later")
    np.testing.assert_array_equal(later[..., 8] > 0, painted[..., 8])


def test_a_result_that_the_server_saved_itself_keeps_its_clicks(server: Server) -> None:
    asked = {**LIVER, "client_id": "self"}
    first = server.post({**asked, "save_label": True}, image="fresh4")
    assert first.status_code == 200
    saved = requests.get(f"{server.url}/datastore/?output=all", timeout=30).json()["objects"]["fresh4"]["labels"]
    assert saved["original"]["info"]["params"]["label_names"] == {"liver": 1}
    again = server.post(asked, image="fresh4").json()
    assert again["labels"]["liver"]["updated_slices"] == []


def test_a_label_on_another_grid_is_refused(server: Server, phantom: Phantom, tmp_path: Path) -> None:
    path = tmp_path / "label.nii.gz"
    affine = nibabel.load(server.studies / "turned_RAS.nii.gz").affine
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 5, 5), np.uint8), affine @ np.diag([1.2, 1, 1, 1])), path)
    with path.open("rb") as file:
        sent = {"label": file, "params": (None, json.dumps({"label_info": [{"name": "liver", "idx": 1}]}))}
        response = requests.put(f"{server.url}/datastore/label?image=turned_RAS", files=sent, timeout=60)
    assert response.status_code == 422
    assert "is not on the grid of its image" in response.json()["detail"]
    response = server.post(LIVER, image="turned_RAS")
    assert response.status_code == 200
    assert set(response.json()["slices"]) <= {5}
