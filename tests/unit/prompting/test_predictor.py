"""The predictor on the real compact network: what is segmented, what is computed, and by how many threads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from prompting_volumes import make_volume

from causal_sam.errors import InputError
from causal_sam.prompting import EmbeddingCache, Predictor
from causal_sam.prompting.slices import VolumeSlices

SECONDS = 60


@pytest.fixture
def predictor(model):
    predictor = Predictor(model, prefetch_slices=0)
    predictor.set_volume(make_volume())
    yield predictor
    predictor.close()


def test_click_segments_its_slice(predictor, model):
    prediction = predictor.predict([(4, 4, 3)])
    assert list(prediction.slices) == [3]
    assert prediction.axis == 2
    answer = prediction.slices[3]
    assert answer.mask.shape == answer.logits.shape == (10, 12)
    assert answer.low_res_logits.shape == (model.mask_size, model.mask_size)
    assert np.array_equal(answer.mask, answer.logits > 0)
    assert len(np.unique(answer.logits)) > 50
    assert prediction.mask.shape == (12, 10, 7)
    assert prediction.mask.dtype == bool
    assert prediction.mask[:, :, 3].sum() == answer.mask.sum()
    assert not np.delete(prediction.mask, 3, axis=2).any()
    assert prediction.predicted_iou == answer.predicted_iou


def test_an_estimate_is_an_overlap_also_where_the_model_overshoots(predictor, model, monkeypatch):
    decode = model.decode
    for raw, said in ((1.026, 1.0), (-0.2, 0.0), (0.5, 0.5)):
        monkeypatch.setattr(
            model, "decode", lambda *a, raw=raw, **k: decode(*a, **k)._replace(iou=torch.full((1, 3), raw))
        )
        assert predictor.predict([(4, 4, 3)]).predicted_iou == said


def test_one_click_takes_the_best_of_three_hypotheses(predictor, model):
    answer = predictor.predict([(4, 4, 3)]).slices[3]
    assert [prompts["multimask"] for prompts in model.decoded] == [True]
    slices = VolumeSlices(make_volume(), "auto", model.image_size)
    with torch.inference_mode():
        decoded = model.decode(
            model.encode(slices.image(3)),
            points=slices.points(((4, 4, 3),))[None],
            point_labels=torch.ones(1, 1),
            multimask=True,
        )
    assert decoded.iou.shape == (1, 3)
    best = int(decoded.iou[0].argmax())
    assert answer.predicted_iou == pytest.approx(float(decoded.iou[0, best].clamp(0, 1)), abs=1e-6)
    np.testing.assert_allclose(answer.low_res_logits, decoded.logits[0, best], atol=1e-5)


@pytest.mark.parametrize(
    "prompts",
    [
        {"foreground": [(4, 4, 3), (5, 4, 3)]},
        {"foreground": [(4, 4, 3)], "background": [(9, 9, 3)]},
        {"foreground": [(4, 4, 3)], "box": (2, 8, 2, 8, 3, 3)},
        {"box": (2, 8, 2, 8, 3, 3)},
    ],
)
def test_further_prompts_take_the_single_answer(predictor, model, prompts):
    predictor.predict(**prompts)
    assert [prompts["multimask"] for prompts in model.decoded] == [False]


def test_previous_mask_is_refined(predictor, model):
    first = predictor.predict([(4, 4, 3)]).slices[3]
    refined = predictor.predict(background=[(9, 9, 3)], previous={3: first.low_res_logits}).slices[3]
    asked = model.decoded[-1]
    assert asked["multimask"] is False
    assert np.array_equal(asked["mask_logits"][0, 0], first.low_res_logits)
    assert asked["point_labels"].tolist() == [[1, 0]]  # the click takes a part away, and implies that the rest is right
    assert not np.array_equal(refined.logits, first.logits)


def test_edited_mask_is_refined(predictor, model):
    mask = np.zeros(predictor.slices.frame.shape_rc, dtype=bool)
    mask[2:7, 3:9] = True
    prompt = predictor.mask_prompt(mask)
    assert prompt.shape == (model.mask_size, model.mask_size)
    # Read back as logits, the prompt is the mask again.
    assert np.array_equal(predictor.slices.logits(torch.from_numpy(prompt)) > 0, mask)
    predictor.predict([(4, 4, 3)], previous={3: prompt})
    assert np.array_equal(model.decoded[-1]["mask_logits"][0, 0], prompt)


def test_box_segments_every_slice_inside(predictor):
    prediction = predictor.predict([(1, 1, 6)], box=(2, 8, 2, 8, 1, 3))
    assert list(prediction.slices) == [1, 2, 3, 6]
    assert prediction.predicted_iou == pytest.approx(np.mean([a.predicted_iou for a in prediction.slices.values()]))


def test_plane_decides_the_slices(predictor):
    predictor.set_volume(make_volume(), "sagittal")
    prediction = predictor.predict([(4, 4, 3)])
    assert prediction.axis == 0
    assert prediction.slices[4].mask.shape == (7, 10)


def test_image_of_one_slice(predictor):
    predictor.set_volume(make_volume((16, 12, 1)))
    assert predictor.predict([(4, 4, 0)]).mask.shape == (16, 12, 1)


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        ({}, "at least one foreground point"),
        ({"foreground": [(12, 0, 0)]}, r"\(12, 0, 0\) is outside the volume: valid are i in 0..11"),
        ({"background": [(1, 1, 1)]}, r"\(1, 1, 1\) is alone on slice k=1"),
        ({"foreground": [(1, 1, 1)], "previous": {1: np.zeros((2, 2))}}, "must be 32x32 finite logits"),
    ],
)
def test_bad_prompts_are_refused_before_anything_is_computed(predictor, model, prompts, sentence):
    with pytest.raises(InputError, match=sentence):
        predictor.predict(**prompts)
    assert model.encoded == []


def test_needs_a_volume(model):
    with pytest.raises(InputError, match="Set a volume"):
        Predictor(model).predict([(0, 0, 0)])


def test_encoder_is_the_same_after_use(predictor, model):
    before = model.encoder_hash()
    predictor.predict([(4, 4, 3)], [(9, 9, 3)], box=(2, 8, 2, 8, 2, 4))
    assert model.encoder_hash() == before
    assert not any(parameter.requires_grad for parameter in model.sam.image_encoder.parameters())


def test_second_click_on_a_slice_encodes_nothing(predictor, model):
    predictor.predict([(4, 4, 3)])
    predictor.predict([(4, 4, 3), (5, 5, 3)])
    predictor.set_volume(make_volume())  # the same content once more
    predictor.predict([(1, 1, 3)])
    assert len(model.encoded) == 1


def test_other_content_plane_or_affine_is_encoded_anew(predictor, model):
    predictor.predict([(4, 4, 3)])
    predictor.set_volume(make_volume(seed=1))
    predictor.predict([(4, 4, 3)])
    predictor.set_volume(make_volume(spacing=(1.0, 2.0, 6.0)))
    predictor.predict([(4, 4, 3)])
    predictor.set_volume(make_volume(), "coronal")
    predictor.predict([(4, 3, 3)])
    assert len(model.encoded) == 4


def test_new_adapter_version_is_encoded_anew(predictor, model, monkeypatch):
    predictor.predict([(4, 4, 3)])
    monkeypatch.setattr(model, "adapter_version", "v0001")
    predictor.predict([(4, 4, 3)])
    assert len(model.encoded) == 2


def test_disk_tier_serves_a_new_predictor(model, tmp_path: Path):
    answers = []
    for _ in range(2):
        cache = EmbeddingCache(2**20 * 64, tmp_path)
        predictor = Predictor(model, cache, prefetch_slices=0)
        predictor.set_volume(make_volume())
        answers.append(predictor.predict([(4, 4, 3)]).slices[3].logits)
        cache.close()
    assert len(model.encoded) == 1
    assert np.array_equal(*answers)


def in_threads(work, count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads)


def test_threads_on_one_slice_encode_it_once(predictor, model):
    start = threading.Barrier(4)
    answers = []

    def work(number: int) -> None:
        start.wait(SECONDS)
        answers.append(predictor.predict([(4, 4, 3)]).slices[3].logits)

    in_threads(work, 4)
    assert len(model.encoded) == 1
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def test_volumes_at_the_same_time_do_not_mix(model):
    volumes = [make_volume(seed=seed) for seed in range(4)]
    base = Predictor(model)
    expected = []
    for volume in volumes:
        base.set_volume(volume)
        expected.append(base.predict([(4, 4, 3)]).slices[3].logits)
    fresh, start, found = Predictor(model), threading.Barrier(4), {}

    def work(number: int) -> None:
        start.wait(SECONDS)
        own = fresh.for_volume(volumes[number])
        found[number] = own.predict([(4, 4, 3)]).slices[3].logits

    in_threads(work, 4)
    assert all(np.array_equal(found[number], expected[number]) for number in range(4))
    assert not np.array_equal(expected[0], expected[1])
    base.close()
    fresh.close()


class Ahead:
    """A predictor that works ahead, and the encodes that a test holds up (by their number, from 1)."""

    def __init__(self, model, hold: int, distance: int = 1) -> None:
        self.reached, self.release = threading.Event(), threading.Event()
        self.predictor = Predictor(model, prefetch_slices=distance)
        self.predictor.set_volume(make_volume())
        self.hold = hold
        model.before_encode = self._before_encode

    def _before_encode(self, number: int) -> None:
        if number == self.hold:
            self.reached.set()
            assert self.release.wait(SECONDS)


def test_neighbours_are_encoded_ahead(model):
    predictor = Predictor(model, prefetch_slices=2)
    predictor.set_volume(make_volume())
    predictor.predict([(4, 4, 5)])
    assert predictor.wait_for_prefetch(SECONDS)
    # Slice 5 and, of its neighbours at distance 1 and 2, those inside the 7 slices.
    assert len(model.encoded) == 4
    for index in (6, 4, 3):
        predictor.predict([(4, 4, index)])
        assert predictor.wait_for_prefetch(SECONDS)
    assert len(predictor.cache) == 6  # 1 to 6
    assert len(model.encoded) == 6


def test_request_waits_for_the_encode_that_runs_ahead(model):
    ahead = Ahead(model, hold=2)
    ahead.predictor.predict([(4, 4, 3)])
    assert ahead.reached.wait(SECONDS)  # slice 4 is being encoded in the background
    answers = []
    request = threading.Thread(target=lambda: answers.append(ahead.predictor.predict([(4, 4, 4)])))
    request.start()
    request.join(0.1)
    assert request.is_alive()
    assert len(model.encoded) == 2
    ahead.release.set()
    request.join(SECONDS)
    assert list(answers[0].slices) == [4]
    assert ahead.predictor.wait_for_prefetch(SECONDS)
    # 3, 4 and 2, then 5: no slice twice.
    assert len(model.encoded) == 4
    assert len(ahead.predictor.cache) == 4


def test_request_on_another_slice_does_not_wait_for_work_ahead(model):
    ahead = Ahead(model, hold=2)
    ahead.predictor.predict([(4, 4, 3)])
    assert ahead.reached.wait(SECONDS)
    assert list(ahead.predictor.predict([(4, 4, 0)]).slices) == [0]
    ahead.release.set()
    ahead.predictor.close()


def test_new_volume_stops_work_ahead(model):
    ahead = Ahead(model, hold=2)
    ahead.predictor.predict([(4, 4, 3)])
    assert ahead.reached.wait(SECONDS)
    ahead.predictor.set_volume(make_volume(seed=1))
    ahead.release.set()
    assert ahead.predictor.wait_for_prefetch(SECONDS)
    assert len(model.encoded) == 2  # slice 3 and the one that had begun; slice 2 was given up
