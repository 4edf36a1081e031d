"""Label names to a label map: which names count, who gets a voxel, and what is removed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from causal_sam.errors import CheckpointError, InputError
from causal_sam.imaging import Volume
from causal_sam.prompting import LabelPrompter, Predictor
from causal_sam.prompting.named import _drop_small_parts
from causal_sam.sam.adapter_bundle import BundleMetadata
from causal_sam.sam.causal_sam import CausalSam, Decoded
from causal_sam.sam.compact import build_compact
from causal_sam.sam.label_prompt import LabelPrompt

SIZE, TEXT = 64, 8
SHAPE = (20, 24, 5)


class Words:
    """A text encoder that gives each text a direction of its own."""

    name, fingerprint, dimension = "words", "1f", TEXT

    def encode(self, texts: list[str]) -> Tensor:
        generators = [torch.Generator().manual_seed(sum(map(ord, text))) for text in texts]
        return torch.nn.functional.normalize(torch.stack([torch.randn(TEXT, generator=g) for g in generators]), dim=1)


@pytest.fixture(scope="module")
def model() -> CausalSam:
    torch.manual_seed(0)
    return CausalSam(build_compact(SIZE), "compact").eval()


@pytest.fixture
def labels(model: CausalSam) -> Callable[..., LabelPrompter]:
    def make(*names: str, fingerprint: str = "1f") -> LabelPrompter:
        torch.manual_seed(1)
        said = BundleMetadata(names, "words", fingerprint, "any", TEXT, 128, {})
        return LabelPrompter(LabelPrompt(TEXT, 128).eval(), said, Words(), model)

    return make


@pytest.fixture
def predictor(model: CausalSam) -> Predictor:
    array = np.random.default_rng(0).normal(0, 50, SHAPE).astype(np.float32)
    return Predictor(model, prefetch_slices=0).for_volume(Volume(array, np.diag([-2.0, -2.0, 4.0, 1.0])), "axial")


def answers(monkeypatch: pytest.MonkeyPatch, model: CausalSam, masks: list[NDArray[np.bool_]]) -> None:
    """Let the model find everything likely, and answer each name with a mask of its own, the later the surer."""

    def prompts(self, embedding, names):
        size = model.mask_size
        return torch.zeros(len(names), 1, 128), torch.ones(len(names), 1, size, size)

    def decode(embedding, *, tokens, mask_logits):
        logits = torch.full((len(tokens), 1, model.mask_size, model.mask_size), -5.0)
        for n, mask in enumerate(masks):
            logits[n, 0][torch.from_numpy(mask)] = 2.0 + n
        return Decoded(logits, torch.full((len(tokens), 1), 0.5 + 0.1 * len(tokens)))

    monkeypatch.setattr(LabelPrompter, "prompts", prompts)
    monkeypatch.setattr(model, "decode", decode)


def half(size: int, first: int, last: int) -> NDArray[np.bool_]:
    mask = np.zeros((size, size), bool)
    mask[first:last] = True
    return mask


def test_all_names_of_a_structure_are_one(labels) -> None:
    taught = labels("left kidney", "widget")
    assert taught.find("LK") == taught.find("renal, left") == "left kidney"
    assert taught.find("Widget") == "widget"
    assert taught.find("right kidney") is None
    torch.testing.assert_close(taught.vectors(["LK"]), taught.vectors(["Kidney (left)"]))


def test_what_was_taught_with_another_text_encoder_is_refused(labels) -> None:
    with pytest.raises(CheckpointError, match="trained with the text encoder words"):
        labels("liver", fingerprint="other")


def test_names_never_taught_are_refused(predictor: Predictor, labels) -> None:
    with pytest.raises(InputError, match="spleen was never learned; learned are liver"):
        predictor.predict_named(["liver", "spleen"], labels("liver"))
    with pytest.raises(InputError, match="1 to 254 labels"):
        predictor.predict_named([], labels("liver"))


def test_the_more_probable_label_has_the_voxel(monkeypatch, model: CausalSam, predictor: Predictor, labels) -> None:
    size = model.mask_size
    answers(monkeypatch, model, [half(size, 0, 20), half(size, 10, size)])
    done: list[int] = []
    found = predictor.predict_named(["liver", "spleen"], labels("liver", "spleen"), done.append)
    assert done == list(range(SHAPE[2]))
    assert found.label_map.shape == SHAPE
    assert found.label_map.dtype == np.uint8
    # Rows run to posterior, which is how the voxels are stored here.
    assert (found.label_map[:, :4] == 1).all()
    assert (found.label_map[:, 11:] == 2).all()
    assert found.predicted_iou == pytest.approx({"liver": 0.7, "spleen": 0.7})


def test_fine_drafts_are_the_answer_and_the_decoder_estimates_its_iou(monkeypatch, model, predictor, labels) -> None:
    answers(monkeypatch, model, [half(model.mask_size, 0, 20)])
    taught = labels("liver")

    def prompts(self, embedding, names):
        draft = torch.full((1, 1, model.mask_size, model.mask_size), -5.0)
        draft[..., 10:, :] = 5.0
        return torch.zeros(1, 1, 128), draft

    monkeypatch.setattr(LabelPrompter, "prompts", prompts)
    monkeypatch.setattr(LabelPrompter, "outputs_masks", True)
    found = predictor.predict_named(["liver"], taught)
    assert not found.label_map[:, :4].any()
    assert (found.label_map[:, 11:] == 1).all()
    assert found.predicted_iou == pytest.approx({"liver": 0.6})


def test_the_decoder_is_not_asked_for_what_is_nowhere_likely(monkeypatch, model, predictor: Predictor, labels) -> None:
    answers(monkeypatch, model, [half(model.mask_size, 0, 20)])

    def prompts(self, embedding, names):
        drafts = torch.full((len(names), 1, model.mask_size, model.mask_size), -5.0)
        drafts[1, 0, 3, 3] = 1
        return torch.zeros(len(names), 1, 128), drafts

    monkeypatch.setattr(LabelPrompter, "prompts", prompts)
    found = predictor.predict_named(["liver", "spleen"], labels("liver", "spleen"))
    assert set(np.unique(found.label_map)) == {0, 2}
    assert list(found.predicted_iou) == ["spleen"]


def test_an_estimate_is_an_overlap_also_where_the_model_overshoots(monkeypatch, model, predictor, labels) -> None:
    answers(monkeypatch, model, [half(model.mask_size, 0, 20)])
    decode = model.decode
    for raw, said in ((1.026, 1.0), (-0.2, 0.0)):
        monkeypatch.setattr(
            model, "decode", lambda *a, raw=raw, **k: decode(*a, **k)._replace(iou=torch.full((1, 1), raw))
        )
        assert predictor.predict_named(["liver"], labels("liver")).predicted_iou == {"liver": said}


def test_parts_far_smaller_than_the_largest_are_removed() -> None:
    label_map = np.zeros((12, 12, 4), np.uint8)
    label_map[:8, :8] = 1  # 256 voxels
    label_map[10, 10, 0] = 1
    label_map[10:, :2, :] = 1  # 16 voxels, more than a twentieth
    label_map[11, 11, 3] = 2
    expected = label_map.copy()
    expected[10, 10, 0] = 0
    for value in (1, 2, 3):
        _drop_small_parts(label_map, value)
    np.testing.assert_array_equal(label_map, expected)
