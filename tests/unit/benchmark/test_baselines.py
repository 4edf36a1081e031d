"""The classical methods segment what they can, obey clicks, and carry the setting that was found for them."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from causal_sam.benchmark.baselines import (
    CLASSICAL_NAMES,
    load_baseline,
    make_baseline,
    random_settings,
    tuned_settings,
)
from causal_sam.benchmark.tuning import tune
from causal_sam.cli import app
from causal_sam.errors import InputError
from causal_sam.imaging.overlap import dice

# For a bright disc in a little noise; the tuned ones are for much harder images.
FITTING = {
    "grabcut": {"likely": 0.1, "reach": 0.4, "sigma": 0.0},
    "region-growing": {"multiplier": 3.0, "rounds": 0, "radius": 3, "sigma": 0.0, "eraser": 0.3},
    "threshold-band": {"width": 0.18, "sigma": 0.0, "eraser": 0.3},
}
NONE2, NONE3 = np.zeros((0, 2), np.intp), np.zeros((0, 3), np.intp)


def points(*positions):
    return np.array(positions, np.intp)


@pytest.fixture(scope="module")
def disc():
    y, x = np.mgrid[:64, :64]
    truth = np.hypot(y - 30, x - 34) < 12
    noise = np.random.default_rng(0).normal(0, 0.03, truth.shape)
    return np.clip(0.3 + 0.45 * truth + noise, 0, 1).astype(np.float32), truth


@pytest.mark.parametrize("name", CLASSICAL_NAMES)
def test_bright_disc_from_two_clicks(name, disc):
    image, truth = disc
    mask = make_baseline(name, FITTING.get(name, {})).segment(image, points((30, 34)), points((10, 10)), (1.0, 1.0))
    assert mask.dtype == bool
    assert mask.shape == image.shape
    assert dice(mask, truth) > 0.85


@pytest.mark.parametrize("name", [n for n in CLASSICAL_NAMES if 3 in load_baseline(n).dimensions])
def test_bright_ball_in_three_dimensions(name):
    z, y, x = np.mgrid[:12, :40, :40]
    truth = np.sqrt(((z - 6) * 2) ** 2 + (y - 20) ** 2 + (x - 20) ** 2) < 7
    image = (0.2 + 0.6 * truth).astype(np.float32)
    image += np.random.default_rng(0).normal(0, 0.02, truth.shape).astype(np.float32)
    mask = make_baseline(name, FITTING.get(name, {})).segment(
        image, points((6, 20, 20)), points((6, 2, 2)), (2.0, 1.0, 1.0)
    )
    assert dice(mask, truth) > 0.8


@pytest.mark.parametrize("name", CLASSICAL_NAMES)
def test_clicks_are_obeyed(name, disc):
    image, _ = disc
    inside, outside = points((30, 34), (5, 60)), points((30, 38), (50, 10))
    mask = load_baseline(name).segment(image, inside, outside, (1.0, 1.0))
    assert mask[tuple(inside.T)].all()
    assert not mask[tuple(outside.T)].any()


@pytest.mark.parametrize("name", CLASSICAL_NAMES)
@pytest.mark.parametrize("position", [(0, 0), (15, 31)])
def test_constant_image_and_clicks_at_the_edge(name, position):
    image = np.full((16, 32), 0.5, np.float32)
    baseline = load_baseline(name)
    for background in (NONE2, points((8, 8))):
        first, again = (baseline.segment(image, points(position), background, (1.0, 1.0)) for _ in range(2))
        assert first[position]
        assert np.array_equal(first, again)


@pytest.mark.parametrize("name", [n for n in CLASSICAL_NAMES if 3 in load_baseline(n).dimensions])
def test_one_slice_is_a_volume_too(name):
    image = np.random.default_rng(0).random((10, 10, 1)).astype(np.float32)
    assert load_baseline(name).segment(image, points((5, 5, 0)), NONE3, (1.0, 1.0, 3.0))[5, 5, 0]


@pytest.mark.parametrize("name", CLASSICAL_NAMES)
def test_each_has_a_setting_that_was_found(name):
    found = tuned_settings()[name]
    assert make_baseline(name, found["setting"]) == load_baseline(name)
    assert found["score"] >= found["score_of_default"]
    assert found["samples"] >= 10
    assert found["settings_tried"] >= 5


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match=r"no baseline 'magic'.*random-walker"):
        load_baseline("magic")
    with pytest.raises(InputError, match=r"no parameter gamma.*sigma"):
        make_baseline("geodesic", {"gamma": 1})


def test_random_settings_begin_with_the_default_and_do_not_repeat():
    settings = list(random_settings("grabcut", 30, np.random.default_rng(0)))
    assert make_baseline("grabcut", settings[0]) == make_baseline("grabcut", {})
    assert len(settings) == 30
    assert all(setting not in settings[:n] for n, setting in enumerate(settings))


def test_tuning_takes_the_best_and_is_reproducible():
    told = []
    first = tune("threshold-band", 3, 4, 5, lambda: told.append(1))
    assert len(told) == 4
    assert first == tune("threshold-band", 3, 4, 5)
    assert first["score"] >= first["score_of_default"]
    assert first["settings_tried"] == 4
    make_baseline("threshold-band", first["setting"])


def test_only_classical_baselines_have_settings_to_tune(tmp_path):
    result = CliRunner().invoke(
        app, ["benchmark", "tune", "-o", str(tmp_path / "s.json"), "--baseline", "nninteractive"]
    )
    assert "no classical baseline 'nninteractive'" in result.output
    assert result.exit_code == 2
