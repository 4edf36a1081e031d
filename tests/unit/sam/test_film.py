"""The mask decoder, modulated by text inside a region."""

from __future__ import annotations

import threading

import pytest
import torch
from segment_anything import build_sam_vit_b
from torch import Tensor

from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.compact import build_compact
from causal_sam.sam.embedding import Embedding
from causal_sam.sam.film import Film, film_channels, make_modulable, modulated

TEXT, SIZE = 16, 64


@pytest.fixture(scope="module", params=["compact", "vit_b"])
def model(request: pytest.FixtureRequest) -> CausalSam:
    torch.manual_seed(0)
    if request.param == "compact":
        model = CausalSam(build_compact(SIZE), "compact").eval()
    else:
        model = CausalSam(build_sam_vit_b(), "vit_b").eval()
    make_modulable(model)
    return model


@pytest.fixture(scope="module")
def embedding(model: CausalSam) -> Embedding:
    torch.manual_seed(1)
    if model.name == "compact":
        with torch.inference_mode():
            return model.encode(torch.rand(1, 3, SIZE, SIZE))
    return Embedding(torch.randn(1, 256, 64, 64))  # encoding takes many seconds, and does not matter here


@pytest.fixture
def film(model: CausalSam) -> Film:
    torch.manual_seed(2)
    film = Film(TEXT, film_channels(model))
    for parameter in film.to_levels.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return film


def decode(model: CausalSam, embedding: Embedding) -> Tensor:
    torch.manual_seed(3)
    return model.decode(embedding, mask_logits=torch.randn(1, 1, model.mask_size, model.mask_size)).logits


def sentence(seed: int = 0) -> Tensor:
    vector = torch.randn(1, TEXT, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vector, dim=1)


@torch.inference_mode()
def test_strength_zero_and_no_region_are_the_identity_to_the_bit(
    model: CausalSam, embedding: Embedding, film: Film
) -> None:
    plain = decode(model, embedding)
    everywhere = torch.ones(1, 1, model.mask_size, model.mask_size)
    with modulated(film(sentence(), torch.zeros(1), everywhere)):
        assert torch.equal(decode(model, embedding), plain)
    with modulated(film(sentence(), torch.ones(1), torch.zeros_like(everywhere))):
        assert torch.equal(decode(model, embedding), plain)
    with modulated(Film(TEXT, film_channels(model))(sentence(), torch.ones(1), everywhere)):
        assert torch.equal(decode(model, embedding), plain)  # untrained
    assert torch.equal(decode(model, embedding), plain)


@torch.inference_mode()
def test_the_change_stays_near_the_region_and_depends_on_the_sentence(
    model: CausalSam, embedding: Embedding, film: Film
) -> None:
    plain = decode(model, embedding)
    side = model.mask_size
    region = torch.zeros(1, 1, side, side)
    region[..., : side // 8, : side // 8] = 1
    changes = []
    for seed in (0, 1):
        with modulated(film(sentence(seed), torch.ones(1), region)):
            changes.append((decode(model, embedding) - plain)[0, 0])
    assert changes[0][: side // 8, : side // 8].abs().min() > 0
    # Far away only normalisations, which average over the slice, carry a little of it.
    far = changes[0][3 * side // 4 :, 3 * side // 4 :]
    assert far.abs().mean() < 0.05 * changes[0][: side // 8, : side // 8].abs().mean()
    assert not torch.allclose(changes[0], changes[1])


@torch.inference_mode()
def test_the_formula(model: CausalSam, film: Film) -> None:
    region = torch.rand(2, 1, model.mask_size, model.mask_size)
    strength = torch.tensor([0.5, 2.0])
    modulation = film(torch.cat([sentence(0), sentence(1)]), strength, region)
    for level, channels in enumerate(film_channels(model)):
        features = torch.randn(2, channels, 8, 8)
        r = torch.nn.functional.adaptive_avg_pool2d(region, 8) * strength[:, None, None, None]
        gamma, beta = modulation.gammas[level][..., None, None], modulation.betas[level][..., None, None]
        torch.testing.assert_close(modulation.apply(level, features), features * (1 + r * gamma) + r * beta)


@torch.inference_mode()
def test_threads_do_not_see_each_others_modulation(model: CausalSam, embedding: Embedding, film: Film) -> None:
    plain = decode(model, embedding)
    found: list[Tensor] = []

    def other() -> None:
        with torch.inference_mode():
            mask = torch.randn(1, 1, model.mask_size, model.mask_size, generator=torch.Generator().manual_seed(3))
            found.append(model.decode(embedding, mask_logits=mask).logits)

    mask = torch.randn(1, 1, model.mask_size, model.mask_size, generator=torch.Generator().manual_seed(3))
    plain = model.decode(embedding, mask_logits=mask).logits
    with modulated(film(sentence(), torch.ones(1), torch.ones(1, 1, model.mask_size, model.mask_size))):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert not torch.equal(model.decode(embedding, mask_logits=mask).logits, plain)
    assert torch.equal(found[0], plain)


def test_only_the_generator_learns(model: CausalSam, embedding: Embedding) -> None:
    model.requires_grad_(False)
    film = Film(TEXT, film_channels(model))
    everywhere = torch.ones(1, 1, model.mask_size, model.mask_size)
    with modulated(film(sentence(), torch.ones(1), everywhere)):
        decode(model, Embedding(*(embedding.features.clone(), embedding.skips))).mean().backward()
    assert film.to_levels.weight.grad.abs().max() > 0
