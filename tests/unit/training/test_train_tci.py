"""The training of the modulation learns from lessons that make sense, stops, resumes and leaves what loads."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from causal_sam.sam import load_model
from causal_sam.sam.adapter_bundle import AdapterBundle
from causal_sam.text import load_lexicon, load_text_encoder
from causal_sam.training.simulated_corrections import SliceLessons, VolumeLessons
from causal_sam.training.tci import Lesson, correction_loss, propose

SCRIPT = Path(__file__).parents[3] / "training" / "train_tci.py"
NAMES = sorted(load_lexicon().structures)


def test_lessons_of_volumes_are_slices_as_the_corrector_has_them():
    drawn = list(islice(VolumeLessons(96, 1), 60))
    beyond = [lesson for lesson in drawn if (lesson.region[lesson.wrong > 0] > 0).all()]
    for lesson in drawn:
        assert lesson.image.shape == (3, 96, 96)
        assert 0 <= lesson.image.min() <= lesson.image.max() <= 1
        assert lesson.wrong.any()
        assert lesson.region.any()
        np.testing.assert_array_equal(lesson.truth[lesson.region == 0], lesson.wrong[lesson.region == 0])
    grown = [lesson for lesson in drawn if lesson.sentence.startswith("expand")]
    assert len(grown) > 20
    # Beyond the end of a mask the neighbour's stands in for it, and the truth there may be smaller.
    assert any(lesson.sentence.startswith("expand") for lesson in beyond)
    assert any((lesson.wrong > lesson.truth).any() for lesson in grown)
    again = list(islice(VolumeLessons(96, 1), 3))
    for one, other in zip(drawn, again, strict=False):
        np.testing.assert_array_equal(one.image, other.image)


def test_lessons_are_wrong_where_they_may_be_put_right(script):
    drawn = list(islice(SliceLessons(96, 1, NAMES, twofold=0), 30))
    covered = []
    for lesson in drawn:
        wrong = lesson.wrong != lesson.truth
        assert wrong.any()
        assert 0 <= lesson.region.min() <= lesson.region.max() <= 1
        assert any(name in lesson.sentence for name in NAMES)
        assert lesson.strength in (0.5, 1.0, 1.5)
        covered.append((lesson.region[wrong] > 0).mean())
    assert np.mean(covered) > 0.7
    assert len({lesson.sentence.split()[0] for lesson in drawn}) >= 3


def test_only_the_region_counts(script):
    truth = torch.zeros(1, 32, 32, dtype=torch.uint8)
    truth[:, 8:24, 8:24] = 1
    wrong = truth.clone()
    wrong[:, :16] = 0
    region = torch.zeros(1, 32, 32)
    region[:, :16] = 1
    batch = Lesson(None, wrong, truth, region, [""], torch.ones(1))
    right = 20 * (torch.nn.functional.avg_pool2d(truth[:, None].float(), 2) - 0.5)
    elsewhere = right.clone()
    elsewhere[:, :, 8:] *= -1
    assert correction_loss(right, batch) < 0.01
    torch.testing.assert_close(correction_loss(elsewhere, batch), correction_loss(right, batch))
    assert correction_loss(-right, batch) > 1


def test_loss_falls_on_one_batch(script):
    model = load_model("compact", image_size=64, device="cpu").requires_grad_(False)
    script.make_modulable(model)
    encoder = load_text_encoder()
    film = script.Film(encoder.dimension, script.film_channels(model))
    batch = default_collate(list(islice(SliceLessons(64, 1, NAMES, twofold=0.5), 4)))
    vectors = encoder.encode(batch.sentence)
    optimizer = torch.optim.AdamW(film.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = correction_loss(propose(model, film, batch, vectors), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_run_stops_resumes_and_leaves_what_loads(tmp_path):
    options = ["--image-size", "64", "--batch", "2", "--validation", "2", "--out", tmp_path]

    def run(minutes: float) -> list[dict]:
        command = [sys.executable, SCRIPT, *options, "--minutes", minutes]
        subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=300)
        return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]

    first = run(0.001)
    again = run(first[-1]["minutes"] + 0.01)
    assert again[: len(first)] == first
    assert again[-1]["step"] > first[-1]["step"]
    assert 0 <= again[-1]["dice other text"] <= 1
    model = load_model("compact", device="cpu")
    AdapterBundle.read(tmp_path / "film.safetensors").film.load(model, load_text_encoder().fingerprint)


@pytest.mark.slow
def test_two_processes_train_one_generator(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]
    options = ["--image-size", "64", "--batch", "2", "--validation", "2", "--minutes", "0.001", "--out", tmp_path]
    subprocess.run([*map(str, [*launch, *options])], check=True, capture_output=True, timeout=300)
    assert (tmp_path / "film.safetensors").is_file()
