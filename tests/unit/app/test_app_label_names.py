"""Which label a client means by a name that it states, in clicks, locks and scribbles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from scripted_app import LIVER, SHAPE, App

from infers.scribbles import ScribblesInferTask
from serving.data.label_set import LabelSet
from serving.requests.clicks import LABEL_FILE_KEY

INSIDE, STROKE = [22, 28, 4], np.s_[16:28, 28, 4]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    folder = tmp_path / "studies"
    folder.mkdir()
    return App(folder, monkeypatch)


def write(app: App, array: np.ndarray, path: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, nibabel.load(app.image).affine), path)
    return path


def scribble(app: App, label: str, folder: Path) -> dict[str, Any]:
    painted = np.zeros(SHAPE, np.uint8)
    painted[STROKE] = 2
    info = [{"name": label, "id": 1}, {"name": "foreground_scribbles", "id": 2}]
    request = {LABEL_FILE_KEY: write(app, painted, folder / "strokes.nii.gz"), "label_info": info}
    _, answer = app.post(ScribblesInferTask(app.resources), {**request, "selected_label_name": label})
    return answer


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("lesions", "lesion"),
        ("Left_Kidney", "left kidney"),
        ("LK", "left kidney"),
        ("metastasis", "metastasis"),  # of a kind that has others
        ("cyst", "cyst"),
        ("left kidny", "left kidny"),  # whoever means the kidney sees a new label
        ("kidney", "kidney"),  # on which side?
        ("heart", "heart"),
    ],
)
def test_a_stated_name_is_a_label_of_the_server_only_if_it_is_the_same_structure(text: str, label: str) -> None:
    labels = LabelSet(["lesion", "left kidney"])
    assert labels.known_as(text) == label
    assert labels.known_as(text, {text}) == text


def test_scribbles_and_points_are_for_the_same_label(app: App, tmp_path: Path) -> None:
    _, clicked = app.post(app.clicks, {"label": "Liver", "foreground": [INSIDE]})
    assert clicked["label_names"] == scribble(app, "Liver", tmp_path)["label_names"] == {"liver": 1}


def test_a_label_that_was_saved_under_another_spelling_is_corrected(app: App, tmp_path: Path) -> None:
    saved = {"label_info": [{"name": "Liver", "idx": 1}]}
    app.store.save_label("image", str(write(app, LIVER.astype(np.uint8), tmp_path / "a.nii.gz")), "final", saved)
    _, clicked = app.post(app.clicks, {"label": "Liver", "foreground": [INSIDE], "locked": []})
    assert clicked["label_names"] == scribble(app, "Liver", tmp_path)["label_names"] == {"Liver": 1}
    _, refused = app.post(app.clicks, {"label": "spleen", "foreground": [INSIDE], "locked": ["Liver"]})
    assert "nothing of Liver was taken, which is locked" in refused["message"]
