"""The parts of the app on a folder of images, with a context that is scripted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monailabel.interfaces.tasks.infer_v2 import InferType
from numpy.typing import NDArray
from scripted_context import scripted_contexts

from causal_sam.correction.journal import Journal
from causal_sam.imaging import read_volume
from causal_sam.prompting.slots import no_queue
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.automatic_masks import AutomaticMasks
from infers.base import CLIENT_KEY, IMAGE_ID_KEY, Resources
from infers.organs import OrgansInferTask
from infers.prompts import PromptableInferTask
from serving import inbox, models
from serving.conf import AppConf
from serving.data.folder_store import FolderStore
from serving.data.images import ImageFinder, VolumeCache
from serving.data.label_set import LabelSet
from serving.data.saved_labels import SavedLabels
from serving.models import PredictorPool
from serving.opened_images import OpenedImages
from serving.sessions.click_log import ClickLog
from serving.sessions.histories import HistoryStore

SHAPE = (64, 56, 8)
X, Y, Z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
LIVER = ((X - 22) / 14) ** 2 + ((Y - 28) / 12) ** 2 + ((Z - 4) / 3.5) ** 2 < 1
SPLEEN = ((X - 50) / 9) ** 2 + ((Y - 28) / 9) ** 2 + ((Z - 4) / 3) ** 2 < 1


def write_image(path: Path) -> None:
    array = np.random.default_rng(0).normal(20, 8, SHAPE) + 110 * (LIVER | SPLEEN)
    # The position tells contexts apart that are kept by content.
    affine = np.diag([-2.0, -2, 5, 1])
    affine[0, 3] = len(path.name)
    nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), affine), path)


class App:
    """The tasks on one image, with a context that knows the liver by clicks and both organs by name."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[dict] = []
        self.contexts: Any = None

        def answer(asked: dict) -> tuple[NDArray[np.bool_], float]:
            self.asked.append(asked)
            return LIVER, 0.9

        def contexts(encoder, max_bytes, slot=no_queue):
            self.contexts = scripted_contexts(encoder, answer, {"liver": LIVER, "spleen": SPLEEN})
            return self.contexts

        monkeypatch.setattr(models, "shipped_contexts", contexts)
        monkeypatch.setattr(inbox, "shipped_contexts", contexts)
        write_image(folder / "image.nii.gz")
        self.image, self.store = folder / "image.nii.gz", FolderStore(str(folder), auto_reload=False)
        self.finder = ImageFinder(self.store, str(folder))
        self.resources = Resources(
            labels=LabelSet(("liver", "spleen", "kidney")),
            plane="axial",
            extent="volume",
            volumes=VolumeCache(2**24),
            predictors=PredictorPool(AppConf.from_conf({"prefetch_slices": 0}), AdapterStore(folder / "adapters")),
            saved=SavedLabels(self.store),
            histories=HistoryStore(folder.parent / "sessions", 2**26),
            click_log=ClickLog(folder / "journal"),
            journal=Journal(folder / "journal"),
            automatic=AutomaticMasks(folder / "journal" / "automatic"),
        )
        volumes, predictors = self.resources.volumes, self.resources.predictors
        self.opened = OpenedImages(self.finder, volumes, predictors, "axial")
        self.clicks = PromptableInferTask(InferType.DEEPGROW, self.resources)
        self.organs = OrgansInferTask(self.resources)

    def post(self, task: Any, request: dict[str, Any]) -> tuple[NDArray, dict[str, Any]]:
        sent = request | {"image": str(self.image), IMAGE_ID_KEY: "image", CLIENT_KEY: "client"}
        path, answer = task(sent | {"result_extension": ".nii"})
        mask = read_volume(Path(path)).array
        Path(path).unlink()
        return mask, answer
