"""Working masks: what is kept for whom, how small, and for how long."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causal_sam.imaging import PackedMask
from causal_sam.prompting.prompts import Prompts
from serving.keyed_locks import KeyedLocks
from serving.requests.clients import SERVER, RequestContext, current_context, identify, in_context
from serving.sessions.working_masks import (
    MAX_UNNAMED,
    LabelState,
    SliceRecord,
    WorkingMasks,
)

SHAPE = (8, 8, 8)


def record(*foreground: tuple[int, int, int], logits: np.ndarray | None = None) -> SliceRecord:
    return SliceRecord(frozenset(foreground), frozenset(), None, logits, 0.5)


def state(mask: np.ndarray | None = None, **slices: SliceRecord) -> LabelState:
    packed = PackedMask.pack(mask) if mask is not None else PackedMask(SHAPE)
    return LabelState(packed, 2, {int(index[1:]): value for index, value in slices.items()})


def clicks(foreground: list[tuple[int, int, int]]) -> Prompts:
    return Prompts(tuple(foreground), (), None)


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


def test_a_box_without_a_name_finds_the_mask_it_made() -> None:
    boxed = SliceRecord(frozenset(), frozenset(), (0, 3, 0, 3, 1, 1), None, 0.5)
    with WorkingMasks(10**6).open("key") as working:
        first = working.unnamed_label(Prompts((), (), (0, 3, 0, 3, 1, 2)))
        working.labels[first] = state(k1=boxed)
        assert working.unnamed_label(Prompts((), (), (0, 3, 0, 3, 1, 2))) == first
        assert working.unnamed_label(Prompts((), (), (0, 4, 0, 3, 1, 2))) != first


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


def test_clicks_without_a_label_find_the_mask_they_made() -> None:
    with WorkingMasks(10**6).open("key") as working:
        liver = working.unnamed_label(clicks([(1, 1, 1)]))
        working.labels[liver] = state(k1=record((1, 1, 1)))
        spleen = working.unnamed_label(clicks([(5, 5, 1)]))
        assert spleen != liver
        working.labels[spleen] = state(k1=record((5, 5, 1)))
        working.labels["liver"] = state(k1=record((7, 7, 1)))
        assert working.unnamed_label(clicks([(1, 1, 1), (2, 2, 2)])) == liver
        assert working.unnamed_label(clicks([(5, 5, 1)])) == spleen
        assert working.unnamed_label(clicks([(7, 7, 1)])) not in (liver, spleen, "liver")


def test_unnamed_masks_do_not_pile_up() -> None:
    with WorkingMasks(10**6).open("key") as working:
        for i in range(3 * MAX_UNNAMED):
            working.labels[working.unnamed_label(clicks([(i, 0, 0)]))] = state(k0=record((i, 0, 0)))
        assert len(working.labels) == MAX_UNNAMED


def test_masks_are_kept_by_key_within_a_number_and_a_size() -> None:
    few = WorkingMasks(10**6, max_count=2)
    for key in "abc":
        with few.open(key) as working:
            working.labels["liver"] = state(k1=record((1, 1, 1)))
    assert len(few) == 2
    with few.open("a") as working:
        assert not working.labels  # used the longest time ago
    with few.open("c") as working:
        assert working.labels
    big = state(k1=record((1, 1, 1), logits=np.zeros((100, 100), np.float16)))
    small = WorkingMasks(30_000)
    for key in "abc":
        with small.open(key) as working:
            working.labels["liver"] = big
    assert len(small) == 1


def test_what_is_empty_is_not_kept() -> None:
    masks = WorkingMasks(10**6)
    with masks.open("a"):
        pass
    assert len(masks) == 0


def test_a_failure_keeps_the_mask() -> None:
    masks = WorkingMasks(10**6)
    with masks.open("a") as working:
        working.labels["liver"] = state()

    def fail() -> None:
        with masks.open("a"):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    with masks.open("a") as working:
        assert list(working.labels) == ["liver"]


def test_one_key_is_worked_on_by_one_thread_while_others_go_on() -> None:
    locks = KeyedLocks()
    inside, counted = [], []

    def work(number: int) -> None:
        with locks.hold("same"):
            inside.append(number)
            with locks.hold(number):  # another key, held by nobody
                counted.append(len(inside))
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert counted == [1] * 200
    assert not locks._locks

    began = threading.Event()
    with locks.hold("a"), ThreadPoolExecutor(1) as pool:

        def other() -> None:
            with locks.hold("b"):
                began.set()

        pool.submit(other).result(timeout=10)
    assert began.is_set()


@given(st.text(), st.text(), st.text(), st.text())
def test_who_asks(session: str, user: str, address: str, client_id: str) -> None:
    name = identify(session, user, address, client_id)
    if session:
        assert name == identify(session, "someone", "elsewhere", "else")
    elif user:
        assert name == identify("", user, "elsewhere", "else")
    else:
        assert address in name or not address
        assert name != identify("", "", address, client_id + "x")


def test_the_asker_is_known_within_the_request_only() -> None:
    assert current_context() is SERVER
    with in_context(RequestContext("address 1")):
        assert current_context().name == "address 1"
    assert current_context() is SERVER
