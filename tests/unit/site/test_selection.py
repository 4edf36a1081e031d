"""The next study is chosen by the model's uncertainty and by unfamiliar styles."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from causal_sam.imaging import Volume
from causal_sam.prompting import EmbeddingCache, LabelPrompter
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam.adapter_bundle import BundleMetadata
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.label_prompt import LabelPrompt
from causal_sam.site.selection import (
    ABSENT_UNCERTAINTY,
    MAX_SLICES,
    MAX_STYLE_DISTANCE,
    Candidate,
    disagreement,
    priority,
    rank,
    sample_indices,
    style_distances,
    uncertainty,
)

TEXT = 8


class Words:
    """A text encoder that gives each text a direction of its own."""

    name, fingerprint, dimension = "words", "1f", TEXT

    def encode(self, texts: list[str]) -> Tensor:
        generators = [torch.Generator().manual_seed(sum(map(ord, text))) for text in texts]
        return torch.nn.functional.normalize(torch.stack([torch.randn(TEXT, generator=g) for g in generators]), dim=1)


def labels_of(model: CausalSam, *names: str, bias: float = 0.0) -> LabelPrompter:
    """Labels of a random prompt; the higher ``bias``, the more likely it says they are everywhere."""
    torch.manual_seed(1)
    prompt = LabelPrompt(TEXT, 128).eval()
    torch.nn.init.constant_(prompt.to_filter.bias[-1:], bias)
    return LabelPrompter(prompt, BundleMetadata(names, "words", "1f", "any", TEXT, 128, {}), Words(), model)


@pytest.fixture
def slices(blocks: tuple[Volume, dict[str, np.ndarray]], small_model: CausalSam) -> VolumeSlices:
    return VolumeSlices(blocks[0], "axial", small_model.image_size)


@pytest.fixture
def encoder(small_model: CausalSam) -> SliceEncoder:
    return SliceEncoder(small_model, EmbeddingCache(0))


def unit(*components: float) -> np.ndarray:
    return np.array(components) / np.linalg.norm(components)


def test_uncertainty_is_a_number_and_the_same_each_time(small_model, encoder, slices) -> None:
    labels = labels_of(small_model, "one", "two", bias=2.0)
    value = uncertainty(encoder, slices, labels)
    assert 0 < value < 1
    assert uncertainty(encoder, slices, labels) == value


def test_masks_that_agree_and_are_sure_make_certain(monkeypatch, small_model, encoder, slices) -> None:
    """Let the decoder answer, so that its masks are known."""
    size, labels = small_model.mask_size, labels_of(small_model, "one", bias=2.0)
    half = torch.full((size, size), -5.0)
    half[:, : size // 2] = 5.0
    doubts = {}
    for name, others, iou in (("sure", half, 1.0), ("apart", -half, 1.0), ("doubtful", half, 0.2)):
        answer = type("Decoded", (), {"logits": torch.stack([half, half, others, others])[None]})()
        answer.iou = torch.full((1, 4), iou)
        monkeypatch.setattr(small_model, "decode_all", lambda embedding, answer=answer, **prompts: answer)
        doubts[name] = uncertainty(encoder, slices, labels)
    assert doubts["sure"] == 0
    # Of six pairs four are apart, wholly; the predicted IoU has the other half of the weight.
    assert doubts["apart"] == pytest.approx(4 / 6 / 2, abs=1e-4)
    assert doubts["doubtful"] == pytest.approx(0.8 / 2, abs=1e-4)


def test_labels_that_are_nowhere_count_as_half_uncertain(small_model, encoder, slices) -> None:
    assert uncertainty(encoder, slices, labels_of(small_model, "one", "two", bias=-12.0)) == ABSENT_UNCERTAINTY


def test_without_labels_there_is_no_uncertainty(small_model, encoder, slices) -> None:
    assert uncertainty(encoder, slices, labels_of(small_model)) is None


def test_the_model_is_given_away_between_slices_and_the_work_can_be_ended(small_model, encoder, slices) -> None:
    slot, seen = threading.BoundedSemaphore(1), []

    def check(done: int) -> None:
        assert slot.acquire(blocking=False)  # free, so somebody else could compute now
        slot.release()
        seen.append(done)
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        uncertainty(encoder, slices, labels_of(small_model, "one", bias=2.0), slot=lambda: slot, on_slice=check)
    assert seen == [0, 1, 2, 3]
    assert slot.acquire(blocking=False)


@pytest.mark.parametrize("count", [1, 2, MAX_SLICES, MAX_SLICES + 1, 300])
def test_slices_are_spread_over_the_volume(count: int) -> None:
    chosen = sample_indices(count)
    assert len(set(chosen)) == len(chosen) == min(count, MAX_SLICES)
    assert chosen == sorted(chosen)
    assert chosen[0] <= count // MAX_SLICES
    assert count - 1 - chosen[-1] <= count // MAX_SLICES
    assert 0 <= chosen[0] <= chosen[-1] < count


def test_disagreement_of_masks() -> None:
    one, other = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    assert disagreement(np.stack([one, one])) == 0
    assert disagreement(np.stack([one, other])) == pytest.approx(2 / 3)
    assert disagreement(np.stack([one, ~one])) == 1
    assert disagreement(np.zeros((4, 5), bool)) == 0


def test_style_distance_is_to_the_nearest_and_ends_at_one() -> None:
    east, north, between = unit(1, 0), unit(0, 1), unit(1, 0.5)
    styles = np.stack([east, north])
    assert style_distances(styles, np.array([])).tolist() == [1, 1]
    assert style_distances(styles, np.stack([north])).tolist() == [1, 0]
    to_between = style_distances(styles, np.stack([north, between]))
    np.testing.assert_allclose(to_between, [(1 - between[0]) / MAX_STYLE_DISTANCE, 0], atol=1e-12)


def test_both_parts_matter() -> None:
    assert priority(0.9, 0.5) > priority(0.1, 0.5)
    assert priority(0.5, 0.9) > priority(0.5, 0.1)
    assert priority(0.3, None) == 0.3


def test_the_farthest_comes_first_and_then_what_is_far_from_it_too() -> None:
    """Greedy k-centre: three groups of styles, and one of each comes before a second one of any."""
    styles = {f"{group}{n}": unit(*np.eye(3)[i], 0.01 * n) for i, group in enumerate("abc") for n in (1, 2, 3)}
    labelled, chosen = [unit(1, 0, 0, 0)], []
    while styles:
        first = rank([Candidate(name, style, None) for name, style in styles.items()], labelled)[0].image_id
        chosen.append(first)
        labelled.append(styles.pop(first))
    assert {name[0] for name in chosen[:2]} == {"b", "c"}


def test_order_is_by_priority_and_then_by_id() -> None:
    same = unit(0, 1)
    candidates = [Candidate("z", same, 0.5), Candidate("b", same, 0.2), Candidate("a", same, 0.2)]
    assert [each.image_id for each in rank(candidates, [unit(1, 0)])] == ["z", "a", "b"]
    assert rank(candidates, []) == rank(candidates[::-1], [])


def test_uncertainty_outweighs_a_little_distance_and_style_a_little_uncertainty() -> None:
    labelled = [unit(1, 0)]
    near, far = unit(1, 0.1), unit(0, 1)
    unsure_first = rank([Candidate("near", near, 0.9), Candidate("far", unit(1, 0.3), 0.1)], labelled)
    assert unsure_first[0].image_id == "near"
    style_first = rank([Candidate("near", near, 0.3), Candidate("far", far, 0.2)], labelled)
    assert style_first[0].image_id == "far"


def test_what_is_not_known_counts_as_usual() -> None:
    same = unit(0, 1)
    candidates = [Candidate("low", same, 0.1), Candidate("high", same, 0.7), Candidate("new", same, None)]
    ranked = rank(candidates, [])
    assert [each.image_id for each in ranked] == ["high", "new", "low"]
    assert ranked[1].priority == pytest.approx(priority(1.0, 0.4))


def test_what_is_taught_can_be_told_from_what_was_taught_before(small_model) -> None:
    before = labels_of(small_model, "one", bias=1.0)
    assert before.digest == labels_of(small_model, "one", bias=1.0).digest
    assert before.digest != labels_of(small_model, "one", bias=1.5).digest
    assert before.digest != labels_of(small_model, "one", "two", bias=1.0).digest
