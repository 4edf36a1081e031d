"""The prompt of a label's name: shapes, files, and that it stays small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from causal_sam.errors import CheckpointError
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.compact import build_compact
from causal_sam.sam.embedding import Embedding
from causal_sam.sam.label_prompt import (
    BundleMetadata,
    LabelPrompt,
    load_label_prompt,
    new_label_prompt,
    save_label_prompt,
    trainable_share,
)

SIZE, TEXT = 64, 12


@pytest.fixture(scope="module")
def model() -> CausalSam:
    torch.manual_seed(0)
    return CausalSam(build_compact(SIZE), "compact").eval()


@pytest.fixture
def prompt() -> LabelPrompt:
    torch.manual_seed(1)
    return LabelPrompt(TEXT, 128).eval()


def taught(model: CausalSam) -> BundleMetadata:
    return BundleMetadata(("liver", "spleen"), "some", "1f", model.encoder_hash(), TEXT, 128, {"liver": 3, "spleen": 2})


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


def test_drafts_are_drawn_with_the_skips_where_there_are_any(model, tmp_path: Path):
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
    path = tmp_path / "labels.safetensors"
    said = replace(taught(model), skip_channels=prompt.skip_channels)
    save_label_prompt(path, prompt, said, model)
    again, read, _ = load_label_prompt(path, model)
    assert read == said
    assert again.skip_channels == prompt.skip_channels == model.sam.image_encoder.skip_channels


def test_files_come_back_as_they_were(model, prompt, tmp_path: Path):
    path = tmp_path / "labels.safetensors"
    save_label_prompt(path, prompt, taught(model), model)
    again, said, same = load_label_prompt(path, model)
    assert same is model
    assert said == taught(model)
    assert all(
        torch.equal(a, b) for a, b in zip(prompt.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert [p.name for p in tmp_path.iterdir()] == ["labels.safetensors"]


def test_more_labels_are_added_to_those_taught(model):
    more = taught(model).with_more({"spleen": 4, "aorta": 1})
    assert more.names == ("liver", "spleen", "aorta")
    assert more.slices == {"liver": 3, "spleen": 6, "aorta": 1}


def test_what_cannot_be_used_is_said(model, prompt, tmp_path: Path):
    path = tmp_path / "labels.safetensors"
    with pytest.raises(CheckpointError, match="no file"):
        load_label_prompt(path, model)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="does not hold taught labels"):
        load_label_prompt(path, model)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="does not hold taught labels"):
        load_label_prompt(path, model)
    save_label_prompt(path, prompt, replace(taught(model), encoder_hash="other"), model)
    with pytest.raises(CheckpointError, match="taught to other weights"):
        load_label_prompt(path, model)
