"""Adapters: that they change nothing at first, leave the frozen weights alone, and come back from their file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from causal_sam.errors import CheckpointError, InputError
from causal_sam.sam.adapter_bundle import AdapterBundle, BundleMetadata, LabelPart
from causal_sam.sam.adapters import AdapterConfig, adapted_copy, adapter_weights, add_adapters
from causal_sam.sam.causal_sam import BASE_VERSION, CausalSam
from causal_sam.sam.compact import build_compact
from causal_sam.sam.label_prompt import LabelPrompt
from causal_sam.sam.registry import MODELS

SIZE = 64


def compact() -> CausalSam:
    torch.manual_seed(0)
    return CausalSam(build_compact(SIZE), "compact").eval()


def small_vit() -> CausalSam:
    """ViT-B's layers in ViT-B's places, but few and narrow."""
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=SIZE,
        embed_dim=64,
        depth=2,
        num_heads=2,
        out_chans=256,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=(1,),
        window_size=2,
    )
    prompts = PromptEncoder(256, (SIZE // 16, SIZE // 16), (SIZE, SIZE), 16)
    decoder = MaskDecoder(transformer_dim=256, transformer=TwoWayTransformer(2, 256, 8, 2048))
    return CausalSam(Sam(encoder, prompts, decoder), "vit_b").eval()


@pytest.fixture(params=[compact, small_vit])
def model(request: pytest.FixtureRequest) -> CausalSam:
    return request.param()


def shaken(model: CausalSam) -> dict[str, torch.Tensor]:
    """Adapters that do something."""
    generator = torch.Generator().manual_seed(1)
    return {k: 0.2 * torch.randn(v.shape, generator=generator) for k, v in adapter_weights(model).items()}


def image() -> torch.Tensor:
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def answers(model: CausalSam) -> tuple[torch.Tensor, torch.Tensor]:
    embedding = model.encode(image())
    clicked = model.decode(embedding, points=torch.tensor([[[20.0, 30.0]]]), point_labels=torch.ones(1, 1))
    return embedding.features, clicked.logits


def test_new_adapters_change_nothing(model: CausalSam) -> None:
    before, fingerprint = answers(model), model.encoder_hash()
    add_adapters(model, AdapterConfig())
    for one, other in zip(before, answers(model), strict=True):
        assert torch.equal(one, other)
    assert model.encoder_hash() == fingerprint


def test_only_adapters_train_and_the_encoder_stays_bit_for_bit(model: CausalSam) -> None:
    fingerprint = model.encoder_hash()
    frozen = {k.replace(".base_layer.", "."): v.clone() for k, v in model.state_dict().items()}
    trained = add_adapters(model, AdapterConfig(rank=4))
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in trained}
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for _ in range(2):  # in the first step one half of each adapter is still zero, and hides the other
        optimizer.zero_grad()
        logits = model.decode(model.encode(image()), mask_logits=torch.zeros(1, 1, model.mask_size, model.mask_size))
        logits.logits.square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    assert model.encoder_hash() == fingerprint
    after = {k.replace(".base_layer.", "."): v for k, v in model.state_dict().items() if "lora_" not in k}
    assert after.keys() == frozen.keys()
    assert all(torch.equal(frozen[k], after[k]) for k in frozen)


def test_attention_neck_and_decoder_are_adapted(model: CausalSam) -> None:
    add_adapters(model, AdapterConfig())
    places = {key.split(".lora_")[0] for key in adapter_weights(model)}
    assert {"image_encoder.blocks.0.attn.qkv", "image_encoder.blocks.1.attn.proj"} <= places
    assert any(place.startswith("image_encoder.neck") for place in places)
    assert {
        "mask_decoder.transformer.layers.0.self_attn.q_proj",
        "mask_decoder.transformer.final_attn_token_to_image.out_proj",
    } <= places


@pytest.mark.parametrize("name", ["compact", "vit_b"])
def test_what_trains_is_a_small_share_of_the_real_models(name: str) -> None:
    with torch.device("meta"):
        sam = MODELS[name].build()
    model = CausalSam(sam, name)
    frozen = sum(p.numel() for p in model.parameters())
    added = sum(p.numel() for p in add_adapters(model, AdapterConfig()))
    prompt = sum(p.numel() for p in LabelPrompt(384, sam.prompt_encoder.embed_dim).parameters())
    assert (added + prompt) / (frozen + added + prompt) < 0.07


def test_a_copy_with_adapters_shares_the_frozen_weights(model: CausalSam) -> None:
    before = answers(model)
    trained = compact() if model.name == "compact" else small_vit()
    add_adapters(trained, AdapterConfig())
    weights = shaken(trained)
    adapted = adapted_copy(model, AdapterConfig(), weights)
    for one, other in zip(before, answers(model), strict=True):
        assert torch.equal(one, other)
    assert not torch.allclose(answers(adapted)[0], before[0])
    assert model.adapter_version == BASE_VERSION != adapted.adapter_version
    addresses = {p.data_ptr() for p in model.parameters()}
    own = [name for name, p in adapted.named_parameters() if p.data_ptr() not in addresses]
    assert all("lora_" in name for name in own)
    assert len(own) == len(weights)
    other = adapted_copy(model, AdapterConfig(), {k: v + 1 for k, v in weights.items()})
    assert other.adapter_version != adapted.adapter_version


def test_adapters_are_not_given_twice(model: CausalSam) -> None:
    add_adapters(model, AdapterConfig())
    with pytest.raises(InputError, match="has adapters already"):
        add_adapters(model, AdapterConfig())


def test_adapters_of_another_size_or_model_are_refused(model: CausalSam) -> None:
    trained = compact()
    add_adapters(trained, AdapterConfig(rank=2))
    with pytest.raises(CheckpointError, match="another model than"):
        adapted_copy(model, AdapterConfig(rank=4), shaken(trained))


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}])
def test_sizes_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="Adapters need a rank of at least 1"):
        AdapterConfig(**wrong)


def test_a_file_brings_labels_and_adapters_back(tmp_path: Path) -> None:
    model = compact()
    trained = compact()
    config = AdapterConfig(rank=4)
    add_adapters(trained, config)
    weights = shaken(trained)
    reference = adapted_copy(model, config, weights)
    prompt = LabelPrompt(12, 128)
    said = BundleMetadata(("liver",), "some", "1f", model.encoder_hash(), 12, 128, {"liver": 3}, adapters=config)
    path = tmp_path / "taught.safetensors"
    AdapterBundle(LabelPart.from_training(prompt, said, reference)).write(path)
    labels = AdapterBundle.read(path).labels
    again, adapted = labels.load(model)
    assert labels.metadata == said
    assert isinstance(again, nn.Module)
    assert adapted.adapter_version == reference.adapter_version
    for one, other in zip(answers(reference), answers(adapted), strict=True):
        assert torch.equal(one, other)
