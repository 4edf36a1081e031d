"""Words of anatomy become patient directions by the side of the label."""

from __future__ import annotations

import pytest

from causal_sam.errors import InputError
from causal_sam.notes import direction_of, side_of
from causal_sam.notes.laterality import OPPOSITES

PAIRS = ["kidney", "lung", "adrenal gland", "femoral head", "hippocampus", "psoas", "parotid gland"]


@pytest.mark.parametrize("structure", PAIRS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_lateral_of_a_pair_is_its_side_and_medial_the_other(structure, side):
    label = f"{side} {structure}"
    assert direction_of("lateral", label) == side
    assert direction_of("outer", label) == side
    assert direction_of("medial", label) == OPPOSITES[side]


@pytest.mark.parametrize(
    ("label", "side"),
    [
        *(("liver", "right"), ("hepar", "right"), ("gallbladder", "right"), ("spleen", "left"), ("stomach", "left")),
        *(("prostate", None), ("kidney", None), ("tumor", None), ("both kidneys", None), ("frobnicator", None)),
    ],
)
def test_sides_of_single_organs(label, side):
    assert side_of(label) == side


@pytest.mark.parametrize("word", ["lateral", "medial"])
def test_without_a_side_lateral_is_refused_unless_it_is_given(word):
    with pytest.raises(InputError, match=f"The tumor has no {word} side"):
        direction_of(word, "tumor")
    assert {direction_of(word, "tumor", side) for side in ("left", "right")} == {"left", "right"}


@pytest.mark.parametrize(
    ("word", "label", "direction"),
    [
        ("cranial", "uterus", "superior"),
        ("caudally", "uterus", "inferior"),
        ("ventral", "uterus", "anterior"),
        ("dorsal", "uterus", "posterior"),
        ("tail", "pancreas", "left"),
        ("head", "pancreas", "right"),
        ("head", "right hippocampus", "anterior"),
        ("tail", "right hippocampus", "posterior"),
        ("head", "femur", "superior"),
        ("dome", "liver", "superior"),
        ("apex", "right lung", "superior"),
        ("apex", "prostate", "inferior"),
        ("base", "right lung", "inferior"),
        ("base", "prostate", "superior"),
        ("hilum", "left kidney", "right"),
        ("hilum", "right lung", "left"),
        ("fundus", "gallbladder", "inferior"),
        ("fundus", "stomach", "superior"),
        ("tail", "liver", None),
        ("pole", "left kidney", None),
    ],
)
def test_directions_and_parts(word, label, direction):
    assert direction_of(word, label) == direction


def test_other_words_are_refused():
    with pytest.raises(InputError, match="'purple' is no direction"):
        direction_of("purple", "liver")
