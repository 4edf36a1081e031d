"""Which slices new prompts decide again, and from what; with the real network and random weights."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from causal_sam.errors import InputError
from causal_sam.imaging import PackedMask, Volume
from causal_sam.prompting import EmbeddingCache, Prediction, Predictor
from causal_sam.prompting.label_state import LabelState
from causal_sam.prompting.local_edit import SURE_MM, propagate_edit
from causal_sam.prompting.prompts import Prompts
from causal_sam.prompting.refinement import Refinement, Refiner
from causal_sam.sam import CausalSam, load_model
from causal_sam.sam.compact import build_compact

SHAPE = (24, 20, 6)
A, B, C = (5, 5, 2), (8, 8, 2), (15, 10, 2)
ELSEWHERE = (6, 6, 4)


class RecordingPredictor(Predictor):
    """The real predictor; keeps what it was asked."""

    calls: list[tuple]

    def predict(self, foreground=(), background=(), box=None, previous=None) -> Prediction:
        self.calls.append((tuple(foreground), tuple(background), box, previous))
        return super().predict(foreground, background, box, previous)


@pytest.fixture(scope="module")
def model() -> CausalSam:
    torch.manual_seed(0)
    return CausalSam(build_compact(), "compact").eval()


@pytest.fixture
def predictor(model: CausalSam) -> RecordingPredictor:
    rng = np.random.default_rng(0)
    predictor = RecordingPredictor(model, EmbeddingCache(10**8), prefetch_slices=0)
    predictor.calls = []
    predictor.set_volume(Volume(rng.normal(0, 50, SHAPE).astype(np.float32), np.diag([1.0, 1, 4, 1]), "CT"))
    return predictor


def refine(state: LabelState, given: Prompts, predictor: Predictor, **options) -> Refinement:
    return Refiner(predictor).refine(state, given, **options)


def prompts(*foreground, background=(), box=None) -> Prompts:
    return Prompts(tuple(foreground), tuple(background), box)


EMPTY = LabelState(PackedMask(SHAPE))
EMPTY_64 = LabelState(PackedMask((64, 56, 16)))


def test_first_clicks_have_nothing_before_them(predictor: RecordingPredictor) -> None:
    result = refine(EMPTY, prompts(A, ELSEWHERE), predictor)
    assert result.decided == (2, 4)
    assert predictor.calls == [((A,), (), None, None), ((ELSEWHERE,), (), None, None)]
    direct = predictor.predict([A, ELSEWHERE])
    np.testing.assert_array_equal(result.mask, direct.mask)
    np.testing.assert_array_equal(result.state.mask.unpack(), result.mask)
    assert EMPTY.slices == {}


def test_the_same_clicks_compute_nothing(predictor: RecordingPredictor) -> None:
    first = refine(EMPTY, prompts(A, B), predictor)
    predictor.calls.clear()
    second = refine(first.state, prompts(B, A), predictor)
    assert predictor.calls == []
    assert second.state is first.state
    np.testing.assert_array_equal(first.mask, second.mask)


def test_more_clicks_get_the_logits_of_the_mask_before(predictor: RecordingPredictor) -> None:
    first = refine(EMPTY, prompts(A), predictor)
    predictor.calls.clear()
    second = refine(first.state, prompts(A, background=[C]), predictor)
    (foreground, background, _, previous), *others = predictor.calls
    assert (foreground, background, others) == ((A,), (C,), [])
    np.testing.assert_array_equal(previous[2], first.state.slices[2].logits.astype(np.float32))
    assert second.decided == (2,)


def test_clicks_on_a_drawn_mask_leave_what_is_away_from_them(predictor: RecordingPredictor) -> None:
    drawn = np.zeros(SHAPE, bool)
    drawn[4:12, 4:12, 2] = True
    drawn[16:22, 14:18, 2] = True
    one = refine(LabelState(PackedMask.pack(drawn)), prompts(C), predictor)
    answer = predictor.predict([C], previous={2: predictor.mask_prompt(predictor.slices.frame.extract(drawn, 2))})
    changed = one.mask[..., 2] ^ drawn[..., 2]
    whole = answer.mask[..., 2] ^ drawn[..., 2]
    assert one.mask[C]
    assert changed.sum() < whole.sum()
    # What the model, whose weights are random, does not follow is done around the click at least.
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    assert not (changed & ~whole)[np.hypot(rows - C[0], columns - C[1]) > SURE_MM].any()
    assert one.state.slices[2].is_local
    # The next click is on a mask of which not all was decided from clicks.
    assert one.state.slices[2].logits is None
    predictor.calls.clear()
    refine(one.state, prompts(C, B), predictor)
    np.testing.assert_array_equal(
        predictor.calls[0][3][2], predictor.mask_prompt(predictor.slices.frame.extract(one.mask, 2))
    )


def test_all_of_a_drawn_slice_is_decided_anew_if_that_is_wanted(predictor: RecordingPredictor) -> None:
    drawn = np.zeros(SHAPE, bool)
    drawn[4:12, 4:12, 2] = True
    drawn[16:22, 14:18, 2] = True
    state = LabelState(PackedMask.pack(drawn))
    answer = predictor.predict([C], previous={2: predictor.mask_prompt(predictor.slices.frame.extract(drawn, 2))})
    anew = refine(state, prompts(C), predictor, local=False)
    np.testing.assert_array_equal(anew.mask[..., 2], answer.mask[..., 2])
    assert anew.state.slices[2].logits is not None
    # Also where the same click was answered at the click alone before, but only once.
    first = refine(state, prompts(C), predictor)
    predictor.calls.clear()
    again = refine(first.state, prompts(C), predictor, local=False)
    assert again.decided == (2,)
    assert refine(again.state, prompts(C), predictor, local=False).state is again.state
    assert len(predictor.calls) == 1
    # What a note or a brush did since stays.
    edited = first.state.edited(drawn)
    assert refine(edited, prompts(C), predictor, local=False).state is edited


def test_what_is_corrected_on_a_found_mask_is_carried_to_the_slices_beside_it(predictor) -> None:
    found = np.zeros(SHAPE, bool)
    found[4:12, 4:12] = True
    found[16:22, 14:18] = True
    state = LabelState.automatic(found, predictor.slices.axis)
    state = replace(state, followed=state.followed - {4})  # somebody has drawn this one
    result = refine(state, prompts(background=[B]), predictor, follow=True)
    frame = predictor.slices.frame
    alone = refine(state, prompts(background=[B]), predictor)
    before = frame.extract(found, 2)
    np.testing.assert_array_equal(
        result.mask, propagate_edit(alone.mask, before, 2, [frame.to_slice(B)[1:]], frame, kept={4})
    )
    np.testing.assert_array_equal(result.mask[..., 4:], found[..., 4:])
    assert result.followed == (0, 1, 3)
    assert result.state.is_automatic
    assert result.state.followed == {0, 1, 3, 5}
    np.testing.assert_array_equal(result.state.mask.unpack(), result.mask)
    np.testing.assert_array_equal(state.mask.unpack(), found)
    anew = refine(state, prompts(background=[B]), predictor, follow=True, local=False)
    assert not np.array_equal(anew.mask, result.mask)


def test_a_click_taken_back_means_the_clicks_alone(predictor: RecordingPredictor) -> None:
    alone = refine(EMPTY, prompts(A), predictor)
    both = refine(alone.state, prompts(A, B), predictor)
    predictor.calls.clear()
    back = refine(both.state, prompts(A), predictor)
    assert predictor.calls == [((A,), (), None, None)]
    np.testing.assert_array_equal(back.mask, alone.mask)


def test_when_only_background_is_left_the_slice_is_emptied(predictor: RecordingPredictor) -> None:
    first = refine(EMPTY, prompts(A, ELSEWHERE, background=[C]), predictor)
    second = refine(first.state, prompts(ELSEWHERE, background=[C]), predictor)
    assert not second.mask[..., 2].any()
    np.testing.assert_array_equal(second.mask[..., 4], first.mask[..., 4])
    assert set(second.state.slices) == {4}


def test_clicks_that_a_client_may_have_forgotten_are_not_taken_back(predictor: RecordingPredictor) -> None:
    first = refine(EMPTY, prompts(A, ELSEWHERE), predictor)
    for given in (prompts(C), prompts(C, ELSEWHERE), prompts(background=[C])):
        again = refine(first.state, given, predictor)
        lost = first.mask & ~again.mask
        rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
        assert not lost[..., [0, 1, 3, 4, 5]].any()
        assert not lost[..., 2][np.hypot(rows - A[0], columns - A[1]) < SURE_MM].any()


def test_clicks_of_other_labels_only_count_where_the_labels_own_decide(predictor: RecordingPredictor) -> None:
    first = refine(EMPTY, prompts(A, ELSEWHERE), predictor)
    predictor.calls.clear()
    same = refine(first.state, prompts(A, ELSEWHERE), predictor, others=[C])
    assert same.state is first.state
    assert predictor.calls == []
    more = refine(first.state, prompts(A, B, ELSEWHERE), predictor, others=[C])
    assert predictor.calls[0][:2] == ((A, B), (C,))
    gone = refine(more.state, prompts(A, B, ELSEWHERE), predictor)
    assert gone.state is more.state


def test_slices_without_prompts_keep_their_mask(predictor: RecordingPredictor) -> None:
    first = refine(EMPTY, prompts(A), predictor)
    second = refine(first.state, prompts(ELSEWHERE), predictor)
    assert second.decided == (4,)
    np.testing.assert_array_equal(second.mask[..., 2], first.mask[..., 2])
    assert set(second.state.slices) == {2, 4}


def test_an_edited_mask_is_the_prompt_of_new_clicks(predictor: RecordingPredictor) -> None:
    first = refine(EMPTY, prompts(A), predictor)
    painted = np.zeros(SHAPE, bool)
    painted[3:9, 3:9, 2] = True
    edited = first.state.edited(painted)
    np.testing.assert_array_equal(refine(edited, prompts(A), predictor).mask, painted)
    predictor.calls.clear()
    refine(edited, prompts(A, B), predictor)
    (_, _, _, previous), *_ = predictor.calls
    canonical = predictor.slices.frame.extract(painted, 2)
    np.testing.assert_array_equal(previous[2], predictor.mask_prompt(canonical))


def test_background_corrects_only_what_is_there(predictor: RecordingPredictor) -> None:
    painted = np.zeros(SHAPE, bool)
    painted[3:9, 3:9, 2] = True
    edited = EMPTY.edited(painted)
    nothing = refine(edited, prompts(background=[C, (5, 5, 4)]), predictor)
    assert predictor.calls == []
    assert nothing.unused == 2
    np.testing.assert_array_equal(nothing.mask, painted)
    hit = refine(edited, prompts(background=[A]), predictor)
    assert hit.decided == (2,)


def test_a_box_is_decided_slice_by_slice(predictor: RecordingPredictor) -> None:
    result = refine(EMPTY, prompts(box=(2, 9, 2, 9, 1, 3)), predictor)
    assert result.decided == (1, 2, 3)
    assert [call[2] for call in predictor.calls] == [(2, 9, 2, 9, k, k) for k in (1, 2, 3)]
    predictor.calls.clear()
    longer = refine(result.state, prompts(box=(2, 9, 2, 9, 1, 4)), predictor)
    assert longer.decided == (4,)  # the slices before have the very box they had


def test_another_plane_keeps_the_mask_and_forgets_the_records(predictor: RecordingPredictor) -> None:
    first = refine(EMPTY, prompts(A), predictor)
    predictor.set_volume(predictor.slices.volume, "coronal")
    second = refine(first.state, prompts((15, 15, 2)), predictor)
    assert second.state.axis == 1
    assert set(second.state.slices) == {15}
    rest = np.arange(SHAPE[1]) != 15
    np.testing.assert_array_equal(second.mask[:, rest], first.mask[:, rest])


def test_a_mask_prompt_lies_where_the_mask_is(predictor: RecordingPredictor) -> None:
    rows, columns = predictor.slices.rows, predictor.slices.columns
    mask = np.zeros((rows, columns), bool)
    mask[4:12, 6:18] = True
    prompt = predictor.mask_prompt(mask)
    size = predictor.model.mask_size
    assert prompt.shape == (size, size)
    seen = predictor.slices.logits(torch.from_numpy(prompt)) > 0
    np.testing.assert_array_equal(seen, mask)


@pytest.fixture(scope="module")
def trained() -> Predictor:
    return Predictor(load_model("compact", device="cpu"), prefetch_slices=0)


def test_a_click_is_followed_and_a_correction_reaches_only_its_surroundings(trained) -> None:
    i, j, k = np.ogrid[:64, :56, :16]
    truth = ((i - 36) / 15) ** 2 + ((j - 26) / 12) ** 2 + ((k - 8) / 6) ** 2 < 1
    array = np.where(truth, 130, 20) + np.random.default_rng(0).normal(0, 10, truth.shape)
    predictor = trained.for_volume(Volume(array.astype(np.float32), np.diag([1.5, 1.5, 4, 1]), "CT"))
    alone = refine(EMPTY_64, prompts((36, 26, 8)), predictor)
    assert np.flatnonzero(alone.mask.any(axis=(0, 1))).tolist() == [8]
    assert alone.state.followed is None

    # The same click with the structure to be followed: nothing is decided again, the rest is followed.
    whole = refine(alone.state, prompts((36, 26, 8)), predictor, follow=True)
    assert whole.decided == ()
    assert set(whole.followed) == set(whole.state.followed)
    assert len(whole.followed) >= 6
    np.testing.assert_array_equal(whole.mask[..., 8], alone.mask[..., 8])
    again = refine(whole.state, prompts((36, 26, 8)), predictor, follow=True)
    assert again.state is whole.state

    # A second click anchors its slice.
    second = refine(whole.state, prompts((36, 26, 8), (36, 26, 5)), predictor, follow=True)
    assert second.decided == (5,)
    assert 5 not in second.state.followed
    assert not second.state.slices[5].is_local  # the model had drawn it, so it decides all of it
    assert second.state.slices[5].logits is not None
    assert set(second.followed) <= set(range(5)) | {6, 7}
    np.testing.assert_array_equal(second.mask[..., 8:], whole.mask[..., 8:])

    # What was drawn by hand stays as it is.
    drawn = second.mask.copy()
    drawn[..., 10] = False
    drawn[34:38, 24:28, 10] = True
    edited = second.state.edited(drawn)
    assert edited.followed == second.state.followed - {10}
    third = refine(edited, prompts((36, 26, 8), (36, 26, 5), (36, 26, 11)), predictor, follow=True)
    np.testing.assert_array_equal(third.mask[..., 10], drawn[..., 10])
    on_drawn = refine(edited, prompts((36, 26, 8), (36, 26, 5), (36, 26, 10)), predictor, follow=True)
    assert on_drawn.state.slices[10].is_local

    # No foreground click may be a client that has forgotten them: nothing is taken back.
    back = refine(second.state, prompts(background=[(1, 1, 8), (1, 1, 5)]), predictor, follow=True)
    np.testing.assert_array_equal(back.mask, second.mask)


def test_a_mask_that_was_drawn_on_several_slices_does_not_grow_beyond_them(trained) -> None:
    i, j, k = np.ogrid[:64, :56, :16]
    truth = ((i - 36) / 15) ** 2 + ((j - 26) / 12) ** 2 + ((k - 8) / 6) ** 2 < 1
    array = np.where(truth, 130, 20) + np.random.default_rng(0).normal(0, 10, truth.shape)
    predictor = trained.for_volume(Volume(array.astype(np.float32), np.diag([1.5, 1.5, 4, 1]), "CT"))
    drawn = truth & ((k == 5) | (k == 6) | (k == 9) | (k == 10))
    drawn[0:6, 20:30, 9] = True
    corrected = refine(EMPTY_64.edited(drawn), prompts(background=[(3, 25, 9)]), predictor, follow=True)
    assert not corrected.mask[3, 25, 9]
    assert set(np.flatnonzero(corrected.mask.any(axis=(0, 1)))) == {5, 6, 9, 10}
    clicks = [(3, 25, 9)]
    for k in (5, 6, 10, 9):  # nor when all of its slices were clicked
        clicks.append((60, 50, k))
        drawn[60, 50, k] = True
        corrected = refine(
            corrected.state.edited(corrected.mask | drawn), prompts(background=clicks), predictor, follow=True
        )
        assert set(np.flatnonzero(corrected.mask.any(axis=(0, 1)))) == {5, 6, 9, 10}
    # One slice that somebody drew is where a structure begins.
    first = refine(EMPTY_64.edited(truth & (k == 8)), prompts((36, 26, 9)), predictor, follow=True)
    assert set(np.flatnonzero(first.mask.any(axis=(0, 1)))) > {6, 7, 8, 9, 10}


def test_a_box_of_several_slices_is_the_limit(trained) -> None:
    array = np.zeros((64, 56, 16), np.float32)
    array[20:40, 20:40] = 100
    predictor = trained.for_volume(Volume(array, np.diag([1.5, 1.5, 4, 1]), "MR"))
    result = refine(EMPTY_64, prompts(box=(19, 40, 19, 40, 5, 7)), predictor, follow=True)
    assert set(np.flatnonzero(result.mask.any(axis=(0, 1)))) <= {5, 6, 7}
    single = refine(EMPTY_64, prompts(box=(19, 40, 19, 40, 5, 5)), predictor, follow=True)
    assert len(single.followed) >= 5


def test_each_use_of_the_model_takes_a_slot_and_long_work_says_how_far_it_is(trained) -> None:
    array = np.zeros((64, 56, 16), np.float32)
    array[20:40, 20:40] = 100
    predictor = trained.for_volume(Volume(array, np.diag([1.5, 1.5, 4, 1]), "MR"))
    turns, slots = [], []

    @contextmanager
    def slot(on_slice):
        slots.append("taken")
        try:
            yield on_slice
        finally:
            slots.append("given back")

    def check(done: int) -> None:
        turns.append(done)
        if done == 2:
            raise InputError("enough")

    with pytest.raises(InputError, match="enough"):
        Refiner(predictor, slot, check).refine(EMPTY_64, prompts((30, 30, 8)), follow=True)
    assert turns == [0, 1, 2]
    assert slots == ["taken", "given back"] * 2  # for the click, and to follow
