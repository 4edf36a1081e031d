"""The simulated annotator clicks where a person would."""

from __future__ import annotations

import numpy as np
import pytest

from causal_sam.simulation.annotator import (
    Click,
    challenge_click,
    deepest_point,
    next_click,
    next_click_in_volume,
    random_point,
)


def rectangle(rows: slice, columns: slice, shape=(30, 40)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[rows, columns] = 1
    return mask


def test_deepest_point_is_the_centre():
    assert deepest_point(rectangle(slice(5, 14), slice(10, 19))) == (9, 14)


def test_image_edge_counts_as_border():
    row, column = deepest_point(np.ones((9, 9), np.uint8))
    assert (row, column) == (4, 4)


def test_jittered_points_stay_inside_and_vary():
    region = rectangle(slice(5, 14), slice(10, 19))
    rng = np.random.default_rng(0)
    points = {deepest_point(region, rng) for _ in range(50)}
    assert len(points) > 5
    assert all(region[point] for point in points)


def test_first_click_is_inside():
    truth = rectangle(slice(5, 14), slice(10, 19))
    assert next_click(truth, np.zeros_like(truth)) == Click(9, 14, True)


@pytest.mark.parametrize(
    ("truth", "mask", "expected"),
    [
        (rectangle(slice(5, 14), slice(1, 30)), rectangle(slice(5, 14), slice(1, 10)), True),
        (rectangle(slice(5, 14), slice(1, 10)), rectangle(slice(5, 14), slice(1, 30)), False),
    ],
    ids=["missing part is clicked inside", "excess is clicked outside"],
)
def test_largest_error_is_corrected(truth, mask, expected):
    click = next_click(truth, mask)
    assert click.foreground is expected
    assert bool(truth[click.row, click.column]) is expected
    assert bool(mask[click.row, click.column]) is not expected


def test_nothing_wrong_no_click():
    truth = rectangle(slice(5, 14), slice(10, 19))
    assert next_click(truth, truth) is None


def test_a_click_without_effect_is_followed_by_one_beside_it():
    truth = rectangle(slice(5, 14), slice(10, 19))
    nothing = np.zeros_like(truth)
    row, column, is_inside = next_click(truth, nothing, clicked=[(9, 14)])
    assert is_inside
    assert truth[row, column]
    assert (row, column) != (9, 14)
    voxel, _ = next_click_in_volume(truth[..., None], nothing[..., None], (1, 1, 1), clicked=[(9, 14, 0)])
    assert voxel != (9, 14, 0)
    assert truth[voxel[:2]]
    assert next_click(truth, truth, clicked=[(9, 14)]) is None


def test_random_points_are_all_over_the_region():
    region = np.zeros((4, 5, 6), bool)
    region[1:3, 2:4, 3:5] = True
    rng = np.random.default_rng(0)
    points = [random_point(region, rng) for _ in range(200)]
    assert set(points) == set(map(tuple, np.argwhere(region).tolist()))


def test_challenge_takes_missing_and_superfluous_voxels_as_one_error():
    truth, mask = np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool)
    truth[1:4, 1:4, 1:4] = True  # 27 missing voxels, which touch 8 superfluous ones at a corner
    mask[4:6, 4:6, 4:6] = True
    mask[0:9, 7:9, 0:2] = True  # 36 superfluous ones, more than of each kind there, but not than of both
    assert next_click_in_volume(truth, mask, (1, 1, 1))[1] is False
    mask[7:9, 7:9, 0:2] = False
    assert challenge_click(truth, mask) == ((2, 2, 2), True)
    assert challenge_click(np.zeros_like(truth), mask) == ((0, 7, 0), False)
    assert challenge_click(truth, truth) is None
