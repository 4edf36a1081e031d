"""Requests that a context answers, which is scripted here: clicks in 3D, names on day one, images that are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from fastapi import FastAPI
from monailabel.interfaces.tasks.infer_v2 import InferType
from numpy.typing import NDArray
from scripted_context import scripted_contexts

from causal_sam.correction.journal import Journal
from causal_sam.errors import InputError
from causal_sam.imaging import read_volume
from causal_sam.imaging.overlap import dice
from causal_sam.site.adapter_store import AdapterStore
from infers.base import CLIENT_KEY, IMAGE_ID_KEY, Resources
from infers.organs import OrgansInferTask
from infers.prompts import PromptableInferTask
from serving import models
from serving.conf import AppConf
from serving.data.folder_store import FolderStore
from serving.data.images import ImageFinder, VolumeCache
from serving.data.label_set import LabelSet
from serving.data.saved_labels import SavedLabels
from serving.models import PredictorPool
from serving.opened_images import OpenedImages, prepare_opened
from serving.sessions.click_log import ClickLog
from serving.sessions.histories import HistoryStore

SHAPE = (64, 56, 8)
X, Y, Z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
LIVER = ((X - 22) / 14) ** 2 + ((Y - 28) / 12) ** 2 + ((Z - 4) / 3.5) ** 2 < 1
SPLEEN = ((X - 50) / 9) ** 2 + ((Y - 28) / 9) ** 2 + ((Z - 4) / 3) ** 2 < 1
SECONDS = 60


class App:
    """The tasks on one image, with a context that knows the liver by clicks and both organs by name."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[dict] = []
        self.contexts: Any = None

        def answer(asked: dict) -> tuple[NDArray[np.bool_], float]:
            self.asked.append(asked)
            return LIVER, 0.9

        def contexts(encoder, max_bytes, slot):
            self.contexts = scripted_contexts(encoder, answer, {"liver": LIVER, "spleen": SPLEEN})
            return self.contexts

        monkeypatch.setattr(models, "shipped_contexts", contexts)
        array = np.random.default_rng(0).normal(20, 8, SHAPE) + 110 * (LIVER | SPLEEN)
        nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), np.diag([-2.0, -2, 5, 1])), folder / "image.nii.gz")
        self.image, store = folder / "image.nii.gz", FolderStore(str(folder), auto_reload=False)
        self.resources = Resources(
            labels=LabelSet(("liver", "spleen", "kidney")),
            plane="axial",
            extent="volume",
            volumes=VolumeCache(2**24),
            predictors=PredictorPool(AppConf.from_conf({"prefetch_slices": 0}), AdapterStore(folder / "adapters")),
            saved=SavedLabels(store),
            histories=HistoryStore(folder.parent / "sessions", 2**26),
            click_log=ClickLog(folder / "journal"),
            journal=Journal(folder / "journal"),
        )
        self.opened = OpenedImages(
            ImageFinder(store, str(folder)), self.resources.volumes, self.resources.predictors, "axial"
        )
        self.clicks = PromptableInferTask(InferType.DEEPGROW, self.resources)
        self.organs = OrgansInferTask(self.resources)

    def post(self, task: Any, request: dict[str, Any]) -> tuple[NDArray, dict[str, Any]]:
        sent = request | {"image": str(self.image), IMAGE_ID_KEY: "image", CLIENT_KEY: "client"}
        path, answer = task(sent | {"result_extension": ".nii"})
        mask = read_volume(Path(path)).array
        Path(path).unlink()
        return mask, answer


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    (tmp_path / "studies").mkdir()
    return App(tmp_path / "studies", monkeypatch)


def test_a_click_is_answered_in_3d_by_the_context_which_learns_the_label(app: App) -> None:
    mask, answer = app.post(app.clicks, {"label": "liver", "foreground": [[22, 28, 4]], "background": []})
    assert dice(mask > 0, LIVER) > 0.85
    assert answer["labels"]["liver"]["updated_slices"] == [4]
    assert len(answer["labels"]["liver"]["followed_slices"]) >= 4
    assert [asked["name"] for asked in app.asked] == ["liver"]
    app.post(app.clicks, {"foreground": [[50, 28, 4]], "background": []})  # as OHIF sends it
    assert app.asked[-1]["name"] is None
    app.post(app.clicks, {"label": "liver", "foreground": [[22, 28, 4], [23, 28, 3]], "extent": "slice"})
    assert len(app.asked) == 2  # a slice alone needs no context


def test_names_are_found_on_day_one_and_the_answer_says_how_sure_it_is(app: App) -> None:
    mask, answer = app.post(app.organs, {})
    assert dice(mask == 1, LIVER) > 0.85
    assert dice(mask == 2, SPLEEN) > 0.85
    assert answer["by_context"] == ["liver", "spleen"]
    assert answer["version"] is None
    assert answer["labels"]["spleen"]["predicted_iou"] == 0.9
    assert "(90 % sure)" in answer["message"]
    assert "never learned, so left out: kidney" in answer["message"]
    with pytest.raises(InputError, match="not learned any label"):
        app.post(app.organs, {"organs": "kidney"})
    mask, _ = app.post(app.clicks, {"label": "spleen", "foreground": [], "background": [], "reset": True})
    assert dice(mask > 0, SPLEEN) < 0.1  # reset empties it
    mask, _ = app.post(app.clicks, {"label": "spleen", "foreground": [], "background": []})
    assert dice(mask > 0, SPLEEN) > 0.85


def test_an_image_that_a_client_opens_is_prepared_in_the_background(app: App) -> None:
    server = FastAPI()
    prepare_opened(server, "image")  # before the server has started
    server.state.opened_images = app.opened
    prepare_opened(server, "no such image")
    prepare_opened(server, "image")
    assert app.opened.wait(SECONDS)
    assert app.contexts.wait(SECONDS)
    volume = app.resources.volumes.get(next(iter(app.resources.volumes._volumes)))
    predictor = app.resources.predictors.for_volume(volume, "axial")
    assert predictor.context._masker.context.prepared == 1
