"""Background clicks alone: near the border of a mask the rest is right, in its middle all of it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from prompting_volumes import make_volume

from causal_sam.prompting import Predictor
from causal_sam.prompting.implied import with_implied_foreground
from causal_sam.prompting.prompts import Prompts
from causal_sam.prompting.slices import VolumeSlices

INDEX = 3


@pytest.fixture
def slices() -> VolumeSlices:
    return VolumeSlices(make_volume(), "auto", 64)


def block(slices: VolumeSlices) -> np.ndarray:
    """A mask of 8x8 voxels of a slice of 10x12."""
    mask = np.zeros(slices.frame.shape_rc, bool)
    mask[1:9, 2:10] = True
    return mask


def background(slices: VolumeSlices, *places: tuple[int, int]) -> Prompts:
    return Prompts((), tuple(slices.frame.to_voxel(INDEX, row, column) for row, column in places), None)


def test_a_click_near_the_border_leaves_the_rest(slices: VolumeSlices) -> None:
    prompts = background(slices, (1, 2), (2, 8))
    found = with_implied_foreground(slices, INDEX, prompts, block(slices))
    assert found.background == prompts.background
    (implied,) = found.foreground
    index, row, column = slices.frame.to_slice(implied)
    assert index == INDEX
    assert 3 <= row <= 6
    assert 3 <= column <= 8
    assert min(np.hypot(row - r, column - c) for r, c in ((1, 2), (2, 8))) >= 2


def test_a_click_outside_of_the_mask_leaves_all_of_it(slices: VolumeSlices) -> None:
    assert len(with_implied_foreground(slices, INDEX, background(slices, (9, 11)), block(slices)).foreground) == 1


@pytest.mark.parametrize("mask", ["block", "nothing"])
def test_a_click_in_the_middle_says_that_all_is_wrong(slices: VolumeSlices, mask: str) -> None:
    prompts = background(slices, (4, 5))
    masks = {"block": block(slices), "nothing": np.zeros(slices.frame.shape_rc, bool)}
    assert with_implied_foreground(slices, INDEX, prompts, masks[mask]) == prompts


def test_the_model_is_told_what_is_implied(model) -> None:
    predictor = Predictor(model, prefetch_slices=0, zoom=False)
    predictor.set_volume(make_volume())
    slices = predictor.slices
    previous = {INDEX: predictor.mask_prompt(block(slices))}
    edge, middle = (slices.frame.to_voxel(INDEX, *place) for place in ((1, 2), (4, 5)))
    predictor.predict(background=[edge], previous=previous)
    predictor.predict(background=[middle], previous=previous)
    predictor.predict(foreground=[middle], background=[edge], previous=previous)
    assert [asked["point_labels"].tolist() for asked in model.decoded] == [[[1, 0]], [[0]], [[1, 0]]]
