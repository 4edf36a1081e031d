"""Comparison of plans by their effect on label maps."""

from __future__ import annotations

import pytest

from causal_sam.benchmark.note_effects import has_same_effect, is_justified, judge
from causal_sam.notes import Intervention, Plan

LABELS = ("liver", "spleen")


def act(action: str, label: str = "liver", **fields) -> Intervention:
    return Intervention(label=label, action=action, **fields)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (act("remove"), act("keep_largest")),
        (act("exclude", near="spleen"), act("shrink", near="spleen")),
        (act("exclude", near="effusion"), act("exclude", near="pleural effusion")),
        (act("shrink", extent_mm=5, strength="slight"), act("shrink", extent_mm=5)),
    ],
)
def test_different_words_for_the_same_effect_agree(one, other):
    assert has_same_effect(LABELS, [one], [other])
    assert judge(LABELS, [one], Plan(interventions=(other,))) == "right"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (act("expand"), act("restyle")),
        (act("expand", direction="superior"), act("expand", direction="anterior")),
        (act("shrink", extent_mm=2), act("shrink", extent_mm=4)),
        (act("shrink", slices=(40, 47)), act("shrink", slices=(43, 47))),
        (act("exclude", near="spleen"), act("exclude", near="fat")),
    ],
)
def test_different_effects_disagree(one, other):
    assert not has_same_effect(LABELS, [one], [other])
    assert judge(LABELS, [one], Plan(interventions=(other,))) == "wrong"


def test_a_small_act_is_not_lost_beside_a_large_one():
    large = act("shrink", strength="strong")
    small = act("remove", direction="superior", near="spleen")
    assert not has_same_effect(LABELS, [large], [large, act("fill")])
    assert judge(LABELS, [large, small], Plan(interventions=(large, small))) == "right"


def test_kept_labels_count():
    grow, keep = act("expand"), act("keep", "spleen")
    assert judge(LABELS, [grow, keep], Plan(interventions=(grow,))) == "wrong"
    assert judge(LABELS, [grow, keep], Plan(interventions=(keep, grow))) == "right"


@pytest.mark.parametrize(
    "found",
    [act("expand", "spleen"), act("expand", direction="inferior"), act("expand", "spleen", direction="superior")],
)
def test_a_protected_or_wrong_label_or_side_is_unsafe(found):
    expected = [act("expand", direction="superior"), act("keep", "spleen")]
    assert judge(LABELS, expected, Plan(interventions=(found,))) == "unsafe"


def test_questions():
    ask = Plan(question='What does "blue" mean?')
    assert judge(LABELS, None, ask) == "right"
    assert judge(LABELS, [act("expand")], ask) == "question"
    assert judge(LABELS, None, Plan(interventions=(act("expand"),))) == "wrong"
    assert is_justified(ask.question, "the liver is blue", LABELS)
    assert is_justified("Which one, liver or spleen?", "it is too small", LABELS)
    assert not is_justified("What is to be corrected?", "it is too small", LABELS)
