"""The prompt of a label's name: shapes, and that it stays small."""

from __future__ import annotations

import pytest
import torch

from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.compact import build_compact
from causal_sam.sam.embedding import Embedding
from causal_sam.sam.label_prompt import LabelPrompt, new_label_prompt, trainable_share

SIZE, TEXT = 64, 12


@pytest.fixture(scope="module")
def model() -> CausalSam:
    torch.manual_seed(0)
    return CausalSam(build_compact(SIZE), "compact").eval()


@pytest.fixture
def prompt() -> LabelPrompt:
    torch.manual_seed(1)
    return LabelPrompt(TEXT, 128).eval()


def ask(model: CausalSam, prompt: LabelPrompt, names: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        embedding = model.encode(torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)))
        return prompt(embedding, model.sam.prompt_encoder.get_dense_pe(), names, model.mask_size)


def test_each_name_gives_a_token_and_a_draft_that_the_decoder_takes(model, prompt):
    names = torch.nn.functional.normalize(torch.randn(3, TEXT, generator=torch.Generator().manual_seed(3)), dim=1)
    tokens, drafts = ask(model, prompt, names)
    assert tokens.shape == (3, 1, 128)
    assert drafts.shape == (1, 3, model.mask_size, model.mask_size)
    with torch.inference_mode():
        embedding = model.encode(torch.rand(1, 3, SIZE, SIZE))
        decoded = model.decode(embedding, tokens=tokens, mask_logits=drafts[0, :, None])
    assert decoded.logits.shape == (3, 1, model.mask_size, model.mask_size)


def test_names_do_not_influence_each_other(model, prompt):
    names = torch.nn.functional.normalize(torch.randn(3, TEXT, generator=torch.Generator().manual_seed(3)), dim=1)
    _, together = ask(model, prompt, names)
    _, alone = ask(model, prompt, names[1:2])
    torch.testing.assert_close(together[:, 1:2], alone)
    assert not torch.allclose(together[0, 0], together[0, 1])


def test_untrained_it_finds_nothing(model, prompt):
    tokens, drafts = ask(model, prompt, torch.zeros(2, TEXT))
    assert not tokens.any()
    assert (drafts.sigmoid() < 0.5).all()


def test_it_is_small_beside_the_model():
    model = CausalSam(build_compact(), "compact")
    assert trainable_share(model, [new_label_prompt(model, 384)]) < 0.06


def test_drafts_are_drawn_with_the_skips_where_there_are_any(model):
    prompt = new_label_prompt(model, TEXT)
    torch.nn.init.normal_(prompt.to_filter.weight, generator=torch.Generator().manual_seed(1))
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        embedding = model.encode(image)
        position = model.sam.prompt_encoder.get_dense_pe()
        names = torch.nn.functional.normalize(torch.ones(1, TEXT), dim=1)
        _, draft = prompt(embedding, position, names, model.mask_size)
        blank = Embedding(embedding.features, tuple(torch.zeros_like(skip) for skip in embedding.skips))
        _, without = prompt(blank, position, names, model.mask_size)
    assert draft.shape == (1, 1, model.mask_size, model.mask_size)
    assert not torch.allclose(draft, without)
    assert prompt.skip_channels == model.sam.image_encoder.skip_channels
