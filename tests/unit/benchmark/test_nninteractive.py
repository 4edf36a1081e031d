"""The wiring of nnInteractive with a stand-in for its package; the real one has not been run with these tests."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from causal_sam.benchmark.baselines import BASELINE_NAMES, CLASSICAL_NAMES, load_baseline
from causal_sam.benchmark.interactive.methods import BaselineMethod
from causal_sam.benchmark.interactive.options import Prompt
from causal_sam.errors import InputError
from causal_sam.imaging import Volume

MODULE = "nnInteractive.inference.inference_session"


class Session:
    """Marks what it is told in the target buffer."""

    def __init__(self, **options):
        self.calls = []

    def initialize_from_trained_model_folder(self, folder):
        self.calls.append(folder)

    def set_image(self, image):
        assert (image.ndim, image.dtype) == (4, np.float32)
        self.calls.append("image")

    def set_target_buffer(self, buffer):
        self.buffer = buffer

    def add_point_interaction(self, coordinates, *, include_interaction):
        self.buffer[coordinates] = int(include_interaction)

    def add_bbox_interaction(self, box, *, include_interaction):
        self.buffer[tuple(slice(*ends) for ends in box)] = 1


@pytest.fixture
def installed(monkeypatch, tmp_path):
    module = ModuleType(MODULE)
    module.nnInteractiveInferenceSession = Session
    monkeypatch.setitem(sys.modules, "nnInteractive", ModuleType("nnInteractive"))
    monkeypatch.setitem(sys.modules, "nnInteractive.inference", ModuleType("nnInteractive.inference"))
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setenv("NNINTERACTIVE_MODEL_DIR", str(tmp_path))
    return tmp_path / "models" / "nnInteractive_v1.0"


def test_prompts_reach_the_session(installed):
    installed.mkdir(parents=True)
    method = BaselineMethod(load_baseline("nninteractive"))
    assert method.prompts == {Prompt.CLICK, Prompt.BOX}
    volume = Volume(np.ones((6, 5, 4), np.int16), np.eye(4), "MR")
    interaction = method.on_volume(volume, "liver")
    mask = interaction.click((1, 2, 3), inside=True)
    assert np.argwhere(mask).tolist() == [[1, 2, 3]]
    assert not interaction.click((1, 2, 3), inside=False).any()
    assert mask.any()
    assert interaction.box((1, 2, 0, 3, 2, 2)).sum() == 8
    assert not method.on_volume(volume).click((0, 0, 0), inside=False).any()


def test_missing_weights_are_said(installed):
    with pytest.raises(InputError, match=r"has no weights in .*not for commercial use"):
        load_baseline("nninteractive")


def test_missing_package_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(InputError, match=r"is not installed.*pip install nnInteractive"):
        load_baseline("nninteractive")
    assert set(BASELINE_NAMES) - set(CLASSICAL_NAMES) == {"nninteractive"}
