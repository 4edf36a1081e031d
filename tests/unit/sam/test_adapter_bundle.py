"""Adapter bundles come back as they were, those of earlier releases too, and only for the model that they belong to."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from causal_sam.errors import CheckpointError
from causal_sam.sam.adapter_bundle import (
    AdapterBundle,
    BundleMetadata,
    FilmPart,
    LabelPart,
    fitting_film,
    shipped_film,
)
from causal_sam.sam.adapters import AdapterConfig, adapter_weights, add_adapters, has_adapters
from causal_sam.sam.causal_sam import CausalSam, weights_hash
from causal_sam.sam.compact import build_compact
from causal_sam.sam.film import Film, film_channels
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.sam.loading import load_model

SIZE, TEXT = 64, 12


def compact(seed: int = 0) -> CausalSam:
    torch.manual_seed(seed)
    return CausalSam(build_compact(SIZE), "compact").eval()


@pytest.fixture(scope="module")
def model() -> CausalSam:
    return compact()


@pytest.fixture(scope="module")
def bundle(model: CausalSam) -> AdapterBundle:
    """Labels with adapters, and a film."""
    torch.manual_seed(1)
    trained, config = compact(), AdapterConfig(rank=2)
    for weight in add_adapters(trained, config):
        torch.nn.init.normal_(weight, std=0.02)
    prompt = new_label_prompt(model, TEXT)
    metadata = BundleMetadata(
        names=("liver", "spleen"),
        text_encoder="some",
        text_fingerprint="1f",
        encoder_hash=model.encoder_hash(),
        text_dim=TEXT,
        embed_dim=prompt.embed_dim,
        slices={"liver": 3, "spleen": 2},
        skip_channels=prompt.skip_channels,
        adapters=config,
        decoder_hash=model.decoder_hash(),
    )
    labels = LabelPart.from_training(prompt, metadata, trained)
    return AdapterBundle(labels, FilmPart.from_training(Film(TEXT, film_channels(model)), model, "1f"))


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_same(read: AdapterBundle, expected: AdapterBundle) -> None:
    for part in ("labels", "film"):
        one, other = getattr(read, part), getattr(expected, part)
        assert (one is None) == (other is None)
        assert one is None or one.metadata == other.metadata
    if expected.labels is not None:
        assert same(read.labels.prompt, expected.labels.prompt)
        assert same(read.labels.adapters, expected.labels.adapters)
    assert expected.film is None or same(read.film.weights, expected.film.weights)


def write_by_hand(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    save_file(dict(weights), path, metadata={"causal_sam": json.dumps(metadata)})


def test_bundles_come_back_as_they_were(model: CausalSam, bundle: AdapterBundle, tmp_path: Path) -> None:
    path = tmp_path / "bundle.safetensors"
    for written in (bundle, replace(bundle, film=None), replace(bundle, labels=None)):
        written.write(path)
        assert_same(AdapterBundle.read(path), written)
    assert [file.name for file in tmp_path.iterdir()] == ["bundle.safetensors"]
    bundle.write(path)
    read = AdapterBundle.read(path)
    prompt, adapted = read.labels.load(model)
    assert not prompt.training
    assert same(prompt.state_dict(), bundle.labels.prompt)
    assert same(adapter_weights(adapted), bundle.labels.adapters)
    film = read.film.load(model, "1f")
    assert not film.training
    assert same(film.state_dict(), bundle.film.weights)
    _, plain = replace(read.labels, metadata=replace(read.labels.metadata, adapters=None)).load(model)
    assert plain is model


def test_files_of_earlier_releases_are_read(
    bundle: AdapterBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Labels, with or without a film, are written as before; a film of its own was a file without prefixes."""
    path, labels, film = tmp_path / "old.safetensors", bundle.labels, bundle.film
    labels = replace(labels, metadata=replace(labels.metadata, decoder_hash=""))
    about_labels = {
        "names": ["liver", "spleen"],
        "text_encoder": "some",
        "text_fingerprint": "1f",
        "encoder_hash": labels.metadata.encoder_hash,
        "text_dim": TEXT,
        "embed_dim": 128,
        "slices": {"liver": 3, "spleen": 2},
        "skip_channels": [17, 32],
        "adapters": {"rank": 2, "alpha": 16.0, "dropout": 0.0},
    }
    about_film = {
        "text_dim": TEXT,
        "channels": [128, 48, 24],
        "text_fingerprint": "1f",
        "decoder_hash": film.metadata.decoder_hash,
    }
    label_weights = labels.prompt | {f"adapters/{name}": weight for name, weight in labels.adapters.items()}
    film_weights = {f"film/{name}": weight for name, weight in film.weights.items()}
    write_by_hand(path, label_weights, about_labels)
    assert_same(AdapterBundle.read(path), AdapterBundle(labels))
    write_by_hand(path, label_weights | film_weights, {**about_labels, "film": about_film})
    assert_same(AdapterBundle.read(path), AdapterBundle(labels, film))
    # The first releases wrote neither skips nor adapters.
    oldest = {name: about_labels[name] for name in list(about_labels)[:7]}
    write_by_hand(path, labels.prompt, oldest)
    assert AdapterBundle.read(path).labels.metadata == replace(labels.metadata, skip_channels=(), adapters=None)
    assert not caplog.records
    write_by_hand(path, film.weights, about_film)
    assert_same(AdapterBundle.read(path), AdapterBundle(film=film))
    (record,) = caplog.records
    assert record.getMessage() == f"{path} is a film alone, as earlier releases wrote it: adapter bundles replace it."


def test_more_labels_are_added(bundle: AdapterBundle) -> None:
    more = bundle.labels.metadata.with_more({"spleen": 4, "aorta": 1})
    assert more.names == ("liver", "spleen", "aorta")
    assert more.slices == {"liver": 3, "spleen": 6, "aorta": 1}


def test_what_is_no_bundle_is_refused(bundle: AdapterBundle, tmp_path: Path) -> None:
    path = tmp_path / "bundle.safetensors"
    with pytest.raises(CheckpointError, match=f"There is no adapter bundle {path}"):
        AdapterBundle.read(path)
    bundle.write(path)
    contents = [b"nothing of the kind", path.read_bytes()[:100], path.read_bytes()[:-4]]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"bundle\.safetensors is not an adapter bundle, or is damaged"):
            AdapterBundle.read(path)
    for metadata in ({"names": ["liver"]}, {"film": {"channels": [1]}}, {"film": None, "other": 1}):
        write_by_hand(path, {"x": torch.zeros(1)}, metadata)
        with pytest.raises(CheckpointError, match="is damaged"):
            AdapterBundle.read(path)
    save_file({"x": torch.zeros(1)}, path)  # weights that say nothing about themselves
    with pytest.raises(CheckpointError, match="is damaged"):
        AdapterBundle.read(path)


def test_a_bundle_belongs_to_its_model_and_its_text_encoder(model: CausalSam, bundle: AdapterBundle) -> None:
    other = compact(seed=9)
    with pytest.raises(CheckpointError, match="trained with other weights"):
        bundle.labels.load(other)
    with pytest.raises(CheckpointError, match="another mask decoder"):
        bundle.film.load(other, "1f")
    with pytest.raises(CheckpointError, match="another text encoder"):
        bundle.film.load(model, "other")
    for damaged in (replace(bundle.labels, prompt={}), replace(bundle.labels, adapters={})):
        with pytest.raises(CheckpointError):
            damaged.load(model)
    with pytest.raises(CheckpointError, match="is damaged"):
        replace(bundle.film, weights={}).load(model, "1f")


def test_after_an_upgrade_a_film_is_left_out_and_adapters_stay_with_a_warning(
    model: CausalSam, bundle: AdapterBundle, caplog: pytest.LogCaptureFixture
) -> None:
    assert fitting_film(bundle, model) is bundle.film
    assert fitting_film(AdapterBundle(bundle.labels), model) is None
    bundle.labels.load(model)
    assert not caplog.records
    upgraded = copy.deepcopy(model)
    with torch.no_grad():
        upgraded.sam.mask_decoder.mask_tokens.weight += 1
    assert upgraded.encoder_hash() == model.encoder_hash()
    assert fitting_film(bundle, upgraded) is None
    # It can be trained further with the new decoder.
    assert same(bundle.film.for_any_decoder("1f").state_dict(), bundle.film.weights)
    with pytest.raises(CheckpointError, match="another text encoder"):
        bundle.film.for_any_decoder("other")
    _, adapted = bundle.labels.load(upgraded)
    assert has_adapters(adapted)
    assert adapted.decoder_hash() == upgraded.decoder_hash() != model.decoder_hash()
    assert ["another mask decoder" in record.getMessage() for record in caplog.records] == [True, True]


def test_the_shipped_film_fits_the_shipped_decoder_alone() -> None:
    shipped = load_model("compact", device="cpu")
    assert shipped_film(shipped).metadata.decoder_hash == weights_hash(shipped.sam.mask_decoder.state_dict())
    assert shipped_film(compact()) is None
    assert shipped_film(CausalSam(build_compact(SIZE), "vit_b")) is None
