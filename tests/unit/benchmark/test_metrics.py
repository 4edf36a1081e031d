"""Measures against closed forms, brute force and the library that others use."""

from __future__ import annotations

import numpy as np
import pytest
from monai.metrics import compute_hausdorff_distance
from scipy import ndimage

from causal_sam.benchmark.metrics import hd95, surface_dice
from causal_sam.imaging.overlap import dice


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
    """MONAI takes the larger of two percentiles, one for each direction: the same where all distances are equal."""
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


def test_surface_dice_of_shifted_cubes():
    """Faces that moved along the shift are wrong, those that slide along themselves are not."""
    a, b = np.zeros((2, 20, 20, 20), bool)
    a[4:14, 4:14, 4:14] = True
    b[7:17, 4:14, 4:14] = True
    spacing = (2.0, 1.0, 1.0)
    # Each cube has 10 layers along the shift: two whole ends, and rings between them. In 7 layers the rings of both
    # lie on each other, one of them the rim of an end; what sticks out and the middles of the ends are too far.
    ring, end = 36, 100
    total = 2 * (8 * ring + 2 * end)
    near = 2 * 7 * ring
    assert surface_dice(a, b, spacing, 0.5) == pytest.approx(near / total)
    assert surface_dice(a, b, spacing, 6.0) == 1
    assert surface_dice(a, a, spacing, 0.0) == 1


@pytest.mark.parametrize("shape", [(40, 30), (30, 24, 12)])
def test_surface_dice_agrees_with_distances_between_all_border_voxels(shape):
    rng = np.random.default_rng(0)
    spacing = np.array([0.7, 1.3, 3.0][: len(shape)])
    for tolerance in (0.5, 1.5):
        masks = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, *[2] * len(shape))) > 0
        edges = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing for mask in masks]
        between = np.linalg.norm(edges[0][:, None] - edges[1][None], axis=-1)
        near = np.concatenate([between.min(0), between.min(1)]) <= tolerance
        assert surface_dice(*masks, spacing, tolerance) == pytest.approx(near.mean(), abs=1e-6)


def test_surface_dice_of_empty_masks():
    empty, full = np.zeros((4, 4)), np.ones((4, 4))
    assert surface_dice(empty, empty, (1, 1), 1) == 1
    assert surface_dice(empty, full, (1, 1), 1) == 0
    assert surface_dice(full, empty, (1, 1), 100) == 0
