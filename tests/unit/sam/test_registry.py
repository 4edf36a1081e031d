"""Models by name, and the exact round trip of the official layout."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from causal_sam.errors import CheckpointError, InputError
from causal_sam.phantom.samples import samples
from causal_sam.sam import MODELS, CausalSam, CheckpointFile, load_model
from causal_sam.sam.compact import build_compact


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A ViT-B checkpoint in Meta's layout with random weights, and its content."""
    torch.manual_seed(0)
    weights = MODELS["vit_b"].build().state_dict()
    # Zeros are what these are initialised with, and would hide a tensor that is not loaded.
    weights = {
        key: torch.randn_like(value) if value.is_floating_point() and not value.any() else value
        for key, value in weights.items()
    }
    path = tmp_path_factory.mktemp("vit_b") / "sam_vit_b_01ec64.pth"
    torch.save(weights, path)
    return path, weights


@pytest.fixture(scope="module")
def vit_b(official) -> CausalSam:
    return load_model("vit_b", official[0], device="cpu")


def test_names():
    assert list(MODELS) == ["compact", "vit_b", "vit_l", "vit_h", "medsam"]
    assert all(spec.name == name for name, spec in MODELS.items())


def test_published_files_are_fully_described():
    files = [spec.checkpoint for spec in MODELS.values() if isinstance(spec.checkpoint, CheckpointFile)]
    assert len(files) == 4
    for file in files:
        assert file.url.startswith("https://")
        assert file.url.endswith(f"/{file.filename}")
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert len({file.sha256 for file in files}) == 4


def test_official_layout_round_trips_exactly(official, vit_b):
    _, weights = official
    loaded = vit_b.sam.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


def test_compact_takes_images_of_another_size():
    model = load_model("compact", image_size=96)
    assert model.image_size == 96
    assert model.encode(torch.rand(1, 3, 96, 96)).features.shape[-2:] == (12, 12)


@pytest.mark.parametrize(("name", "size"), [("vit_b", 512), ("compact", 100), ("compact", 32)])
def test_other_sizes_are_refused(name, size):
    with pytest.raises(InputError, match=f"not {size}"):
        load_model(name, image_size=size, download=False)


def test_the_shipped_embedding_tells_places_and_structures_apart():
    """A decoder that reads the skips beside the embedding can learn to do without it: then it says nothing any more."""
    model = load_model("compact", image_size=128)
    drawn = list(islice(samples(128, 1, 0), 12))
    with torch.inference_mode():
        features = model.encode(torch.from_numpy(np.stack([sample.image for sample in drawn]))).features
    variance = features.var((0, 2, 3))
    assert (variance > 0.01 * variance.mean()).sum() > 0.9 * len(variance)
    by_place = features.mean(0).var((1, 2)).sum()
    assert by_place < 0.5 * variance.sum()  # more than half of it is what the image shows
    # Places in one structure have more similar embeddings than places in different ones.
    alike, different = [], []
    for place, sample in zip(features.movedim(1, -1).flatten(1, 2), drawn, strict=True):
        cosine = torch.corrcoef(place)
        numbers = torch.from_numpy(sample.regions[4::8, 4::8].ravel().astype(np.int64))
        same = numbers[:, None] == numbers
        alike.append(cosine[same & ~torch.eye(len(numbers), dtype=torch.bool)].mean())
        different.append(cosine[~same].mean())
    assert np.mean(alike) > np.mean(different) + 0.2


def test_ready_for_inference_with_frozen_encoder(vit_b):
    assert isinstance(vit_b, CausalSam)
    assert not vit_b.training
    assert (vit_b.name, vit_b.image_size, vit_b.mask_size) == ("vit_b", 1024, 256)
    assert not any(parameter.requires_grad for parameter in vit_b.sam.image_encoder.parameters())


def test_published_size_is_that_of_the_layout(official):
    """The file holds little beside the weights, so the recorded size must be close to theirs."""
    _, weights = official
    size = sum(tensor.nbytes for tensor in weights.values())
    for name in ("vit_b", "medsam"):
        assert size < MODELS[name].checkpoint.size < size * 1.001


def test_medsam_has_the_layout_of_vit_b(official, vit_b):
    medsam = load_model("medsam", official[0], device="cpu")
    assert medsam.name == "medsam"
    assert medsam.encoder_hash() == vit_b.encoder_hash()


def test_another_models_checkpoint_is_refused(official):
    with pytest.raises(CheckpointError, match="is not a checkpoint of compact"):
        load_model("compact", official[0], device="cpu")


def test_compact_loads_its_safetensors(tmp_path):
    torch.manual_seed(1)
    weights = {key: value.contiguous() for key, value in build_compact().state_dict().items()}
    save_file(weights, tmp_path / "compact.safetensors")
    model = load_model("compact", tmp_path / "compact.safetensors", device="cpu")
    assert model.image_size == 256
    assert all(torch.equal(value, weights[key]) for key, value in model.sam.state_dict().items())


def test_unknown_name_lists_the_known():
    with pytest.raises(InputError, match=r"'vit_x'.*compact, vit_b, vit_l, vit_h, medsam"):
        load_model("vit_x")


def test_missing_checkpoint_says_where_to_get_it(tmp_path):
    with pytest.raises(CheckpointError, match=r"https://dl\.fbaipublicfiles\.com.*sam_vit_h_4b8939\.pth.*2\.56 GB"):
        load_model("vit_h", cache_dir=tmp_path, download=False)
    with pytest.raises(CheckpointError, match=r"zenodo\.org"):
        load_model("medsam", cache_dir=tmp_path, download=False)
