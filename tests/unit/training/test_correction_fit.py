"""The fit of the weights by which clicks correct masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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
def test_clicks_on_a_body_give_samples(two_organs):
    lines: list[str] = []
    samples = collect_samples([], 1, np.random.default_rng(0), lines.append)
    assert len(lines) == 1
    assert any(own.features for own in samples)
    for own in samples:
        for features, inside in zip(own.features, own.inside, strict=True):
            assert features.shape == (len(inside), len(FEATURES))
            assert np.isfinite(features).all()
