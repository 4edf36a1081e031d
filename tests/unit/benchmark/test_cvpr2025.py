"""The scores of the CVPR 2025 challenge, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from causal_sam.benchmark.interactive.cvpr2025 import case_scores, structure_scores
from causal_sam.benchmark.interactive.tables import click_table
from causal_sam.benchmark.interactive.targets import Target
from causal_sam.benchmark.interactive.trials import Step, Trial


def trial(structure: str, dice: list[float], nsd: list[float], seconds: float = 1.0) -> Trial:
    steps = (Step(n, d, 0.0, s, None, seconds) for n, (d, s) in enumerate(zip(dice, nsd, strict=True)))
    return Trial("m", Target("g", "c", structure, None, np.ones((2, 2, 2), bool)), 0, tuple(steps))


GOOD = trial("a", [0.5, 0.6, 0.7, 0.8, 0.9, 1.0], [0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
BAD = trial("b", [0.0, 0.1, 0.1, 0.1, 0.1, 0.2], [0.0, 0.3, 0.3, 0.3, 0.3, 0.3], seconds=16.0)


def test_area_is_over_the_clicks_and_surface_counts_from_a_dice_on():
    good, bad = structure_scores([GOOD, BAD]).to_dict("records")
    assert good["DSC_AUC"] == pytest.approx(0.6 / 2 + 0.7 + 0.8 + 0.9 + 1.0 / 2)
    assert good["NSD_AUC"] == pytest.approx(2.8)
    assert (good["DSC_final"], good["NSD_final"], good["over_time"]) == (1.0, 0.9, False)
    assert (bad["NSD_AUC"], bad["NSD_final"], bad["seconds"], bad["over_time"]) == (0.0, 0.0, 96.0, True)


def test_case_is_the_mean_of_its_structures_at_each_click():
    (case,) = case_scores(click_table([GOOD, BAD])).to_dict("records")
    assert case["DSC_final"] == pytest.approx(0.6)
    assert case["NSD_final"] == pytest.approx(0.6)
    assert case["DSC_AUC"] == pytest.approx((3.2 + 0.1 / 2 + 0.1 * 3 + 0.2 / 2) / 2)
