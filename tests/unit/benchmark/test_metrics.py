"""Measures against closed forms, brute force and the library that others use."""

from __future__ import annotations

import numpy as np
import pytest
from monai.metrics import compute_hausdorff_distance

from causal_sam.benchmark.metrics import dice, hd95, number_of_clicks


def test_dice_of_overlapping_squares():
    a, b = np.zeros((2, 10, 10), bool)
    a[:4, :4] = b[2:6, :4] = True
    assert dice(a, b) == pytest.approx(2 * 8 / 32)
    assert dice(a, a) == 1
    assert dice(a, ~a) == 0


def test_dice_is_one_where_both_are_empty_and_takes_any_numbers():
    assert dice(np.zeros(3), np.zeros(3)) == 1
    assert dice(np.array([7, 0]), np.array([1, 0], np.uint8)) == 1


def test_hd95_of_shifted_squares_is_the_shift_in_millimetre():
    a, b = np.zeros((2, 40, 40), bool)
    a[5:25, 5:25] = True
    b[5:25, 8:28] = True
    assert hd95(a, b, (1.0, 0.5)) == pytest.approx(1.5)
    assert hd95(a, a, (1.0, 1.0)) == 0


def test_hd95_agrees_with_brute_force():
    rng = np.random.default_rng(0)
    spacing = np.array([1.0, 2.5])
    for _ in range(5):
        masks = rng.random((2, 12, 9)) > 0.4
        edges = []
        for mask in masks:
            padded = np.pad(mask, 1)
            inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
            edges.append(np.argwhere(mask & ~inner) * spacing)
        between = np.linalg.norm(edges[0][:, None] - edges[1][None], axis=-1)
        expected = np.percentile(np.concatenate([between.min(0), between.min(1)]), 95)
        assert hd95(masks[0], masks[1], spacing) == pytest.approx(expected)


def test_largest_distance_agrees_with_monai():
    """MONAI takes the percentile of each direction apart, which makes no difference where all distances are equal."""
    a, b = np.zeros((2, 1, 1, 30, 30, 10), np.float32)
    a[..., 5:15, 5:15, 3:6] = 1
    b[..., 5:15, 5:15, 4:7] = 1
    (expected,) = compute_hausdorff_distance(a, b, percentile=95, spacing=(1.0, 1.0, 4.0), include_background=True)[0]
    assert hd95(a[0, 0], b[0, 0], (1.0, 1.0, 4.0)) == pytest.approx(float(expected))


def test_hd95_of_empty_masks():
    empty, full = np.zeros((4, 4)), np.ones((4, 4))
    assert hd95(empty, empty, (1, 1)) == 0
    assert hd95(empty, full, (1, 1)) == np.inf
    assert hd95(full, empty, (1, 1)) == np.inf


def test_number_of_clicks():
    assert number_of_clicks([0.9, 0.8], 0.85) == 1
    assert number_of_clicks([0.5, 0.86, 0.84], 0.85) == 2
    assert number_of_clicks([0.5, 0.6, 0.7], 0.85) == 3
