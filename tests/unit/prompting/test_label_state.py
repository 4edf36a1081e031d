"""States of labels: what records say of prompts, and what an edit forgets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from causal_sam.imaging import PackedMask
from causal_sam.prompting.label_state import LabelState, SliceRecord
from causal_sam.prompting.prompts import Prompts

SHAPE = (8, 8, 8)


def record(*foreground: tuple[int, int, int], logits: np.ndarray | None = None) -> SliceRecord:
    return SliceRecord(frozenset(foreground), frozenset(), None, logits, 0.5)


def state(mask: np.ndarray | None = None, **slices: SliceRecord) -> LabelState:
    packed = PackedMask.pack(mask) if mask is not None else PackedMask(SHAPE)
    return LabelState(packed, 2, {int(index[1:]): value for index, value in slices.items()})


def test_records_compare_prompts_as_sets() -> None:
    one = record((1, 1, 1), (2, 2, 1))
    same, fewer = Prompts(((2, 2, 1), (1, 1, 1)), (), None), Prompts(((1, 1, 1),), (), None)
    assert not one.lacks(same)
    assert not one.exceeds(same)
    assert not one.lacks(fewer)
    assert one.exceeds(fewer)
    assert one.lacks(Prompts(((1, 1, 1), (2, 2, 1)), ((3, 3, 1),), None))
    assert one.lacks(Prompts(((1, 1, 1), (2, 2, 1)), (), (0, 3, 0, 3, 1, 1)))
    boxed = SliceRecord(frozenset(), frozenset(), (0, 3, 0, 3, 1, 1), None, 0.5)
    assert boxed.has_other_box(Prompts((), (), (0, 4, 0, 3, 1, 1)))
    assert not boxed.has_other_box(fewer)
    assert not boxed.exceeds(fewer)


def test_clicks_of_other_labels_are_not_taken_back_with_them() -> None:
    shown = replace(record((1, 1, 1)), others=frozenset({(5, 5, 1)}))
    assert not shown.exceeds(Prompts(((1, 1, 1),), (), None))
    assert not shown.lacks(Prompts(((1, 1, 1),), ((5, 5, 1),), None))


def test_only_a_client_that_still_sends_clicks_takes_others_back() -> None:
    clicked = state(k1=record((1, 1, 1), (2, 2, 1)), k4=record((4, 4, 4)))
    assert clicked.takes_back(Prompts(((4, 4, 4),), ((7, 7, 7),), None))
    for forgotten in ((), ((6, 6, 1),), ((1, 1, 1), (6, 6, 1))):
        assert not clicked.takes_back(Prompts(forgotten, (), None))


def test_an_edited_slice_forgets_its_logits_and_no_other() -> None:
    before = np.zeros(SHAPE, bool)
    before[2, 2, 3:5] = True
    logits = np.zeros((4, 4), np.float16)
    old = state(before, k3=record((2, 2, 3), logits=logits), k4=record((2, 2, 4), logits=logits))
    after = before.copy()
    after[3, 3, 4] = True
    new = old.edited(after)
    assert new.slices[3] is old.slices[3]
    assert new.slices[4].logits is None
    assert new.slices[4].foreground == {(2, 2, 4)}
    np.testing.assert_array_equal(new.mask.unpack(), after)
