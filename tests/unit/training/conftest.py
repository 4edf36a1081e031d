"""The script under test, as a module, and rendered bodies that cost nothing."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from causal_sam.phantom.bodies import BodySample
from causal_sam.training import body_volumes


@pytest.fixture(scope="module")
def script(request: pytest.FixtureRequest) -> ModuleType:
    """The file that the test module names as ``SCRIPT``."""
    path = request.module.SCRIPT
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def two_organs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all rendered bodies be the same one, with two cuboids."""
    labels = torch.ones(12, 48, 64, dtype=torch.int16)
    labels[2:10, 10:34, 8:30] = 2
    labels[2:10, 10:34, 30:52] = 3
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.05, labels.shape)).float()
    images = (0.1 + 0.3 * (labels > 1) + 0.02 * (labels == 3) + noise).clamp(0, 1)[None]

    class Bodies:
        def __init__(self, folders: list, styles: int) -> None:
            pass

        def sample(self, rng: np.random.Generator) -> BodySample:
            return BodySample(
                images=images,
                wide=images,
                labels=labels,
                structures={"liver": (2,), "spleen": (3,)},
                absent=(),
                unnamed=(),
                spacing=(5.0, 4.0, 4.0),
                plane="axial",
                styles=("MR",),
            )

    monkeypatch.setattr(body_volumes, "BodySampler", Bodies)
