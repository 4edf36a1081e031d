"""Patient directions hold in all orientations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from causal_sam.errors import InputError
from causal_sam.imaging import DIRECTIONS, Volume, axis_towards, direction_vector

from .grids import ORIENTATIONS, SHAPE, make_affine, orientations, reorient, spacings, tilts

OPPOSITES = [("left", "right"), ("anterior", "posterior"), ("superior", "inferior")]


def test_vectors_are_ras():
    assert direction_vector("right").tolist() == [1, 0, 0]
    assert direction_vector("anterior").tolist() == [0, 1, 0]
    assert direction_vector("superior").tolist() == [0, 0, 1]
    for one, other in OPPOSITES:
        assert (direction_vector(one) == -direction_vector(other)).all()
    assert sorted(DIRECTIONS) == sorted(name for pair in OPPOSITES for name in pair)


def test_a_vector_may_be_changed_by_its_owner():
    direction_vector("left")[0] = 5
    assert direction_vector("left").tolist() == [-1, 0, 0]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_step_along_the_axis_goes_that_way(orientation):
    affine = reorient(Volume(np.zeros(SHAPE), make_affine((1.0, 2.0, 3.0))), orientation).affine
    for direction in DIRECTIONS:
        axis, sign = axis_towards(affine, direction)
        step = sign * affine[:3, axis]
        assert step / np.linalg.norm(step) == pytest.approx(direction_vector(direction))


@given(orientations, spacings, tilts)
def test_oblique_axes_go_roughly_that_way_and_each_serves_one_pair(orientation, spacing, tilt):
    affine = reorient(Volume(np.zeros(SHAPE), make_affine(spacing, tilt)), orientation).affine
    for direction in DIRECTIONS:
        axis, sign = axis_towards(affine, direction)
        step = sign * affine[:3, axis] / np.linalg.norm(affine[:3, axis])
        assert step @ direction_vector(direction) > np.cos(np.radians(35.5))
    assert sorted(axis_towards(affine, d)[0] for d in ("left", "anterior", "superior")) == [0, 1, 2]
    for one, other in OPPOSITES:
        axis, sign = axis_towards(affine, one)
        assert axis_towards(affine, other) == (axis, -sign)


@pytest.mark.parametrize("function", [direction_vector, lambda word: axis_towards(np.eye(4), word)])
def test_unknown_direction(function):
    with pytest.raises(InputError, match=r"superior.*not 'cranial'"):
        function("cranial")
