"""Dice on masks whose value is known."""

from __future__ import annotations

import numpy as np
import pytest

from causal_sam.benchmark.metrics import dice


@pytest.mark.parametrize(
    ("mask", "truth", "expected"),
    [([1, 1, 0, 0], [0, 1, 1, 0], 0.5), ([1, 0], [1, 0], 1.0), ([1, 0], [0, 1], 0.0), ([0, 0], [0, 0], 1.0)],
)
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16])
def test_dice(mask, truth, expected, dtype):
    assert dice(np.array(mask, dtype), np.array(truth, dtype)) == expected


def test_values_of_labels_do_not_count():
    assert dice(np.array([0, 7, 7]), np.array([0, 1, 0])) == pytest.approx(2 / 3)
