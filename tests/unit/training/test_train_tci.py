"""The training of the modulation learns from samples that make sense, stops, resumes and leaves what loads."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import default_collate
from training_script import TORCHRUN, run_script

from causal_sam.sam import load_model
from causal_sam.sam.adapter_bundle import AdapterBundle
from causal_sam.sam.compact import build_compact
from causal_sam.sam.registry import COMPACT_BUNDLE
from causal_sam.text import load_lexicon, load_text_encoder
from causal_sam.training.losses import edit_loss
from causal_sam.training.simulated_corrections import FoundCorrections, SliceCorrections, VolumeCorrections
from causal_sam.training.tci import CorrectionObjective

NAMES = sorted(load_lexicon().structures)


def test_samples_of_volumes_are_slices_as_the_corrector_has_them():
    drawn = list(islice(VolumeCorrections(96, 1), 60))
    beyond = [sample for sample in drawn if (sample.region[sample.wrong > 0] > 0).all()]
    for sample in drawn:
        assert sample.image.shape == (3, 96, 96)
        assert 0 <= sample.image.min() <= sample.image.max() <= 1
        assert sample.wrong.any()
        assert sample.region.any()
        np.testing.assert_array_equal(sample.truth[sample.region == 0], sample.wrong[sample.region == 0])
    grown = [sample for sample in drawn if sample.sentence.startswith("expand")]
    assert len(grown) > 20
    # Beyond the end of a mask the neighbour's stands in for it, and the truth there may be smaller.
    assert any(sample.sentence.startswith("expand") for sample in beyond)
    assert any((sample.wrong > sample.truth).any() for sample in grown)
    again = list(islice(VolumeCorrections(96, 1), 3))
    for one, other in zip(drawn, again, strict=False):
        np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.slow
def test_errors_that_the_product_makes_are_samples(two_organs):
    drawn = list(islice(FoundCorrections([], 96, 1, NAMES), 12))
    for sample in drawn:
        assert sample.wrong.any()
        assert any(name in sample.sentence for name in ("liver", "spleen"))
        np.testing.assert_array_equal(sample.truth[sample.region == 0], sample.wrong[sample.region == 0])
        if sample.sentence.startswith(("shrink", "exclude")):
            assert not (sample.truth > sample.wrong).any()
    assert any((sample.truth != sample.wrong).any() for sample in drawn)


def test_samples_are_wrong_where_they_may_be_put_right():
    drawn = list(islice(SliceCorrections(96, 1, NAMES, twofold=0), 30))
    covered = []
    for sample in drawn:
        wrong = sample.wrong != sample.truth
        assert wrong.any()
        assert 0 <= sample.region.min() <= sample.region.max() <= 1
        assert any(name in sample.sentence for name in NAMES)
        assert sample.strength in (0.5, 1.0, 1.5)
        covered.append((sample.region[wrong] > 0).mean())
    assert np.mean(covered) > 0.7
    assert len({sample.sentence.split()[0] for sample in drawn}) >= 3


def test_only_the_region_counts():
    truth = torch.zeros(1, 1, 16, 16)
    truth[..., 4:12, 4:12] = 1
    before, region = truth.clone(), torch.zeros_like(truth)
    before[..., :8, :], region[..., :8, :] = 0, 1
    right = 20 * (truth - 0.5)
    elsewhere = right.clone()
    elsewhere[:, :, 8:] *= -1
    assert edit_loss(right, truth, before, region) < 0.01
    torch.testing.assert_close(edit_loss(elsewhere, truth, before, region), edit_loss(right, truth, before, region))
    assert edit_loss(-right, truth, before, region) > 1


def test_loss_falls_on_one_batch():
    model, encoder = load_model("compact", image_size=64, device="cpu"), load_text_encoder()
    objective = CorrectionObjective(model, encoder, 3e-3)
    batch = default_collate(list(islice(SliceCorrections(64, 1, NAMES, twofold=0.5), 4)))
    optimizer = torch.optim.AdamW(objective.film.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = objective(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def launched(out: Path, minutes: float, *before: str) -> list[dict]:
    return run_script("train_tci.py", "tci.yaml", out, *before, minutes=minutes, image_size=64, batch=2, validation=2)


@pytest.mark.slow
def test_two_processes_train_one_generator_stop_and_resume(tmp_path):
    first = launched(tmp_path, 0.001, *TORCHRUN)
    again = launched(tmp_path, first[-1]["minutes"] + 0.01, *TORCHRUN)
    assert again[: len(first)] == first
    assert again[-1]["step"] > first[-1]["step"]
    assert 0 <= again[-1]["dice other text"] <= 1
    model = load_model("compact", device="cpu")
    AdapterBundle.read(tmp_path / "film.safetensors").film.load(model, load_text_encoder().fingerprint)


@pytest.mark.slow
def test_a_run_may_begin_with_the_film_of_another_decoder(tmp_path):
    torch.manual_seed(0)
    other = {name: value.contiguous() for name, value in build_compact().state_dict().items()}
    save_file(other, tmp_path / "other.safetensors")
    out, weights = tmp_path / "run", tmp_path / "other.safetensors"
    values = {"image_size": 64, "batch": 2, "validation": 2, "minutes": 0.001}
    run_script("train_tci.py", "tci.yaml", out, init=COMPACT_BUNDLE, checkpoint=weights, **values)
    film, before = (AdapterBundle.read(path).film for path in (out / "film.safetensors", COMPACT_BUNDLE))
    assert film.fits(load_model("compact", weights, device="cpu"))
    name = "to_levels.weight"
    assert 0 < (film.weights[name] - before.weights[name]).abs().max() < 0.01
