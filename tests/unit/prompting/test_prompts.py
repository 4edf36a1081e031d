"""Prompts: what is accepted, and the sentence that says why something is not."""

from __future__ import annotations

import numpy as np
import pytest

from causal_sam.errors import InputError
from causal_sam.prompting.prompts import Prompts, checked_previous

SHAPE = (10, 20, 5)


def test_accepts_points_and_box_up_to_the_border():
    prompts = Prompts.checked(SHAPE, [(0, 0, 0), [9, 19, 4]], [np.array([1.0, 2.0, 3.0])], (0, 9, 0, 19, 4, 4))
    assert prompts == Prompts(((0, 0, 0), (9, 19, 4)), ((1, 2, 3),), (0, 9, 0, 19, 4, 4))


def test_positions_between_voxels_mean_the_nearest():
    assert Prompts.checked(SHAPE, [(8.6, -0.4, 0.5)]).foreground == ((9, 0, 1),)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "Give at least one foreground point or a box"),
        ({"foreground": [(10, 0, 0)]}, r"Foreground point \(10, 0, 0\) is outside.*i in 0..9, j in 0..19, k in 0..4"),
        ({"foreground": [(0, 0, 0)], "background": [(0, -1, 0)]}, r"Background point \(0, -1, 0\) is outside"),
        ({"foreground": [(0, float("nan"), 0)]}, "not finite"),
        ({"foreground": [(0, float("inf"), 0)]}, "not finite"),
        ({"foreground": [(1, 2)]}, r"must be 3 numbers \(i, j, k\)"),
        ({"foreground": ["123"]}, r"must be 3 numbers \(i, j, k\)"),
        ({"foreground": [("a", 1, 2)]}, r"must be 3 numbers \(i, j, k\)"),
        ({"foreground": [5]}, r"must be 3 numbers \(i, j, k\)"),
        ({"box": (0, 1, 2)}, "Box .* must be 6 numbers"),
        ({"box": (0, 10, 0, 5, 0, 1)}, "not inside the volume: valid are i in 0..9"),
        ({"box": (-1, 5, 0, 5, 0, 1)}, "not inside the volume"),
        ({"box": (0, 5, 6, 5, 0, 1)}, "j0 must not exceed j1"),
        ({"box": (0, 5, 0, float("nan"), 0, 1)}, "not finite"),
    ],
)
def test_refusals_are_one_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        Prompts.checked(SHAPE, **arguments)
    assert "\n" not in str(caught.value)


def test_slices_of_points_and_box():
    prompts = Prompts.checked(SHAPE, [(1, 1, 4)], [(1, 1, 1)], (0, 3, 0, 3, 0, 2))
    assert prompts.slices(2, {}) == prompts.indices(2) == [0, 1, 2, 4]
    assert prompts.on_slice(2, 1) == Prompts((), ((1, 1, 1),), (0, 3, 0, 3, 1, 1))
    assert prompts.on_slice(2, 4) == Prompts(((1, 1, 4),), (), None)


def test_background_alone_needs_a_mask_to_correct():
    prompts = Prompts.checked(SHAPE, [(1, 1, 4)], [(1, 2, 3)])
    with pytest.raises(InputError, match=r"Background point \(1, 2, 3\) is alone on slice k=3"):
        prompts.slices(2, {})
    assert prompts.slices(2, {3: object()}) == [3, 4]


@pytest.mark.parametrize(
    ("previous", "sentence"),
    [
        ({5: np.zeros((8, 8))}, "slice 5, but the volume has slices 0..4"),
        ({-1: np.zeros((8, 8))}, "slice -1"),
        ({0: np.zeros((8, 4))}, "must be 8x8 finite logits, not 8x4"),
        ({0: np.full((8, 8), np.nan)}, "must be 8x8 finite logits"),
    ],
)
def test_previous_masks_are_checked(previous, sentence):
    with pytest.raises(InputError, match=sentence):
        checked_previous(previous, 5, 8)
    assert checked_previous(None, 5, 8) == {}
