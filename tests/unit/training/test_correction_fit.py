"""The fit of the weights by which clicks correct masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from causal_sam.phantom.bodies import BodySample
from causal_sam.training import correction_fit
from causal_sam.training.correction_fit import Samples, collect_samples, fit, write_weights
from causal_sam.volume.corrections import FEATURES, CorrectionModel, Evidence


def separable(sign: float, seed: int) -> Samples:
    """Samples whose cells are inside where ``sign`` times the answer is positive."""
    rng = np.random.default_rng(seed)
    samples = Samples()
    for count in (50, 400):
        features = rng.normal(size=(count, len(FEATURES))).astype(np.float32)
        samples.features.append(features)
        samples.inside.append(sign * features[:, FEATURES.index("answer")] > 0)
    return samples


def test_fitted_weights_decide_as_the_samples_do(tmp_path):
    path = tmp_path / "corrections.json"
    write_weights(path, fit((separable(1, 0), separable(-1, 1))))
    model = CorrectionModel.load(path)
    features = torch.zeros(len(FEATURES), 1, 1, 2)
    features[FEATURES.index("answer"), 0, 0] = torch.tensor([-4.0, 4.0])
    every, none = torch.ones(1, 1, 2, dtype=torch.bool), torch.zeros(1, 1, 2, dtype=torch.bool)
    evidence = Evidence(features, every, none, torch.zeros(1, 1, 2))
    assert (model.logits(evidence, is_foreground=False) > 0).tolist() == [[[False, True]]]
    assert (model.logits(evidence, is_foreground=True) > 0).tolist() == [[[True, False]]]


@pytest.mark.slow
def test_clicks_on_a_body_give_samples(monkeypatch):
    rng = np.random.default_rng(0)
    labels = torch.ones(12, 48, 64, dtype=torch.int16)
    labels[2:10, 10:34, 8:30] = 2
    labels[2:10, 10:34, 30:52] = 3
    noise = torch.from_numpy(rng.normal(0, 0.05, labels.shape)).float()
    images = (0.1 + 0.3 * (labels > 1) + 0.02 * (labels == 3) + noise).clamp(0, 1)[None]

    class Bodies:
        def __init__(self, folders, styles):
            pass

        def sample(self, rng):
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

    monkeypatch.setattr(correction_fit, "BodySampler", Bodies)
    lines: list[str] = []
    samples = collect_samples([], 1, rng, lines.append)
    assert len(lines) == 1
    assert any(own.features for own in samples)
    for own in samples:
        for features, inside in zip(own.features, own.inside, strict=True):
            assert features.shape == (len(inside), len(FEATURES))
            assert np.isfinite(features).all()
