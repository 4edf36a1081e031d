"""Times are measured on the real model in a process of its own; what makes it fast does not change its answers."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from causal_sam.benchmark.latency import precision_error
from causal_sam.benchmark.note_latency import NOTES
from causal_sam.cli import app
from causal_sam.sam import load_model
from causal_sam.sam.loading import has_bfloat16_units


@pytest.mark.slow
def test_command_reports_all_figures(tmp_path):
    path = tmp_path / "latency.json"
    command = ["benchmark", "latency", "--reference", "none", "--repeats", "1", "--threads", "1", "--json", str(path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    (compact,) = report["latency"]
    assert compact["model"] == "compact"
    assert compact["weights"] == "own"
    assert compact["threads"] == 1
    assert compact["weight_mb"] <= 25
    assert compact["first_click"] > compact["decode"] > 0
    assert compact["volume"] > compact["encode"] > 0
    assert not compact["volume_estimated"]
    assert compact["peak_mb"] >= compact["peak_before_mb"] > 100
    assert report["error_against_float32"]["compact"]["clicks"] == 20
    for title in ("encode a slice", "next click, in all", "peak memory"):
        assert title in result.output


@pytest.mark.slow
def test_notes_are_timed_beside_clicks(tmp_path):
    path = tmp_path / "notes.json"
    command = ["benchmark", "latency", "--notes", "--size", "128x128x40", "--repeats", "1", "--json", str(path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    times = {each["name"]: each for each in report["acts"]}
    assert report["encoded"] > 0 < report["prepared"]
    assert report["peak_mb"] > report["peak_before_mb"]
    assert "click: segments the organ" in times
    assert times.keys() >= {f"note: {name}" for name in NOTES}
    for name in ("too small", "too large", "a pole is missing"):
        assert times[f"note: {name}"]["dice_after"] > times[f"note: {name}"]["dice_before"]


def test_notes_need_voxels_in_pairs():
    result = CliRunner().invoke(app, ["benchmark", "latency", "--notes", "--size", "65x64x32"])
    assert result.exit_code == 2
    assert "even numbers of rows and columns" in result.output


def test_unknown_model_is_refused():
    result = CliRunner().invoke(app, ["benchmark", "latency", "--model", "vit_x"])
    assert result.exit_code == 2
    assert "no model 'vit_x'" in result.output


def test_fast_model_answers_like_the_plain_one():
    model = load_model("compact", device="cpu")
    model.encodes_in_bfloat16 = False
    error = precision_error(model, 5)
    assert error.largest_logit < 1e-2
    assert error.mean_dice > 0.999
    assert error.smallest_dice > 0.99  # in a small mask, one pixel whose logit is nearly 0


def test_bfloat16_is_near_enough_and_gives_float32_embeddings():
    model = load_model("compact", device="cpu")
    model.encodes_in_bfloat16 = True
    embedding = model.encode(torch.rand(1, 3, 64, 64))
    assert embedding.features.dtype == torch.float32
    assert {skip.dtype for skip in embedding.skips} == {torch.float32}
    error = precision_error(model, 5)
    assert error.largest_logit > 0  # it is another calculation
    assert error.mean_dice > 0.97


def test_bfloat16_only_where_the_processor_has_it():
    assert load_model("compact", device="cpu").encodes_in_bfloat16 == has_bfloat16_units()
