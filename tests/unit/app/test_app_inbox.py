"""The inbox finds masks by name in cases that nobody has labelled, and keeps them as they were at first."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from untrained_labels import write_untrained_bundle

from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.automatic_masks import AutomaticMasks
from serving.conf import AppConf
from serving.data.folder_store import FolderStore
from serving.data.images import ImageFinder
from serving.inbox import NOTHING_KNOWN, Inbox
from serving.models import PredictorPool
from strategies.studies import Studies

SHAPE, AFFINE = (40, 36, 9), np.diag([-2.0, -2.0, 4.0, 1.0])
SECONDS = 120
LABELS = ("liver", "spleen", "left kidney")
MakeInbox = Callable[..., Inbox]


def ct(seed: int) -> np.ndarray:
    array = np.full(SHAPE, -1000.0)
    array[5:35, 5:31] = np.random.default_rng(seed).normal(40, 10, (30, 26, 9))
    return array.astype(np.int16)


def save(path: Path, array: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeInbox:
    """An inbox of two images, whose labels are those of an adapter bundle or, without one, none."""
    monkeypatch.setattr("serving.inbox.NICENESS", 0)  # the tests wait for it
    folder = tmp_path / "studies"
    folder.mkdir()
    for seed in range(2):
        save(folder / f"ct{seed}.nii.gz", ct(seed))

    def inbox(bundle: int | None = 0, context_mb: int = 0) -> Inbox:
        bundle_path = tmp_path / "bundle.safetensors"
        if bundle is not None:
            write_untrained_bundle(bundle_path, bundle)
        store = FolderStore(str(folder), auto_reload=False)
        studies = Studies(store, ImageFinder(store, str(folder)).find)
        conf = AppConf.from_conf({"adapter_bundle": str(bundle_path), "device": "cpu", "context_mb": context_mb})
        pool = PredictorPool(conf, AdapterStore(tmp_path / "adapters"))
        return Inbox(studies, pool, LABELS, AutomaticMasks(tmp_path / "automatic"), "auto", 10**9)

    return inbox


def finish(inbox: Inbox) -> str:
    end = time.monotonic() + SECONDS
    while inbox.progress.is_running and time.monotonic() < end:
        time.sleep(0.02)
    return inbox.progress.message


def test_masks_are_found_once_for_each_model_and_image(make: MakeInbox, tmp_path: Path) -> None:
    inbox = make()
    assert inbox.cases() == ([], ["ct0", "ct1"])
    inbox.start()
    assert finish(inbox) == "Found the masks of 2 cases."
    found, waiting = inbox.cases()
    assert [case.image_id for case in found] == ["ct0", "ct1"]
    assert waiting == []
    case = found[0]
    assert set(case.certainty) | set(case.missing) == {"liver", "spleen"}  # nothing knows the kidney
    masks = inbox.masks.masks("ct0", case.model)
    assert masks.keys() == case.certainty.keys() == case.volume_ml.keys()
    voxel_ml = abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    for name, mask in masks.items():
        assert mask.shape == SHAPE
        assert case.volume_ml[name] == pytest.approx(mask.count * voxel_ml, abs=0.001)
    # An accepted label takes a case out of the inbox; an image that was replaced waits again.
    save(tmp_path / "label.nii.gz", np.ones(SHAPE, np.uint8))
    made = {"label_info": [{"name": "liver", "idx": 1}]}
    inbox.studies._datastore.save_label("ct1", str(tmp_path / "label.nii.gz"), "final", made)
    save(tmp_path / "studies" / "ct0.nii.gz", ct(7))
    assert make(None).cases() == ([], ["ct0"])


def test_another_model_begins_anew(make: MakeInbox) -> None:
    first = make(0)
    first.start()
    finish(first)
    assert make(1).cases() == ([], ["ct0", "ct1"])
    assert len(make(0).cases()[0]) == 2


def test_the_search_says_if_nothing_is_known_or_an_image_cannot_be_read(make: MakeInbox, tmp_path: Path) -> None:
    inbox = make(None)
    inbox.start()
    assert finish(inbox) == NOTHING_KNOWN
    (tmp_path / "studies" / "broken.nii.gz").write_bytes(b"no image")
    inbox = make()
    inbox.start()
    assert finish(inbox) == "Found the masks of 2 cases. 1 cannot be segmented."


def test_the_search_can_be_stopped(make: MakeInbox) -> None:
    inbox = make()
    with inbox._predictors.inference_slots.hold():  # somebody works, so the search waits
        inbox.start()
        inbox._stopping.set()
    assert finish(inbox).startswith("Stopped after 0 of ")
    inbox.stop()
    assert len(inbox.cases()[1]) == 2
