"""Measures of style: each follows what is varied, and says nothing of what is not."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from causal_sam.phantom.studies import STYLES, render_study
from causal_sam.style import Acquisition, StyledSlices
from causal_sam.style.augmentations import STYLE_AUGMENTATIONS
from causal_sam.style.measures import measure
from causal_sam.style.slices import sample_slices


def disks(
    noise: float = 0.0, blur: float = 0.0, bias: float = 0.0, modality: str = "MR", seed: int = 0
) -> StyledSlices:
    """Organs of 300 to 900 in a body of 500, in air of 0; of CT in Hounsfield units."""
    rng = np.random.default_rng(0)
    image = np.zeros((160, 160), np.float32)
    cv2.ellipse(image, (80, 80), (68, 56), 0, 0, 360, 500, -1)
    for centre, radius, level in (((55, 75), 16, 900), ((100, 70), 14, 300), ((90, 105), 11, 700)):
        cv2.circle(image, centre, radius, level, -1)
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    field = np.exp(bias * np.sqrt(3) * (0.8 * x + 0.6 * y))
    stack = np.repeat((image * field)[None], 3, axis=0) + rng.normal(0, noise * 500, (3, 160, 160))
    acquisition, background = Acquisition(modality), 0.0
    if modality == "CT":
        stack, background = stack * 0.4 - 150, -1000.0
        stack[:, image == 0] = -1000
    return StyledSlices(stack.astype(np.float32), (4.0, 1.5, 1.5), acquisition, background)


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("blur", [0.0, 1.5])
def test_noise_is_found_whatever_the_content(noise: float, blur: float) -> None:
    assert measure(disks(noise, blur)).noise == pytest.approx(noise, rel=0.25)


def test_noise_of_ct_is_in_hounsfield_units() -> None:
    assert measure(disks(0.06, modality="CT")).noise_hu == pytest.approx(0.06 * 500 * 0.4, rel=0.25)
    assert measure(disks(0.06)).noise_hu is None


def test_blur_is_that_of_the_edges() -> None:
    found = [measure(disks(0.01, blur)).blur for blur in (0.8, 1.2, 2.0, 3.0)]
    assert found == pytest.approx([0.8, 1.2, 2.0, 3.0], rel=0.25)
    assert measure(disks(0.01, 2.0)).blur_mm == pytest.approx(3.0, rel=0.25)


def test_the_bias_field_is_found_and_only_that() -> None:
    found = [measure(disks(0.02, 0.8, bias)).bias_field for bias in (0.0, 0.15, 0.3)]
    assert found[0] < 0.05 < 0.1 < found[1] < found[2]


def test_scale_of_mr_and_the_way_the_picture_lies_do_not_count() -> None:
    given = disks(0.05, 0.8, 0.2)
    wanted = measure(given)
    for other in (replace(given, array=3 * given.array), replace(given, array=given.array[:, ::-1].copy())):
        found = measure(other)
        assert found.noise == pytest.approx(wanted.noise, rel=0.02)
        assert found.blur == pytest.approx(wanted.blur, rel=0.05)
        assert found.bias_field == pytest.approx(wanted.bias_field, rel=0.05)
        assert found.contrast == pytest.approx(wanted.contrast, rel=0.02)


def test_contrast_is_how_far_tissues_lie_apart() -> None:
    given = disks(0.01)
    flat = replace(given, array=np.where(given.array > 100, 500 + 0.2 * (given.array - 500), given.array))
    assert measure(flat).contrast < 0.5 * measure(given).contrast


@pytest.mark.parametrize("name", list(STYLES))
def test_clean_scans_show_no_artefact(name: str) -> None:
    volume, _ = render_study(STYLES[name], 0)
    assert [a.evidence for a in measure(sample_slices(volume)).artefacts if a.is_visible] == []


def test_strong_streaks_are_seen() -> None:
    volume, _ = render_study(STYLES["ct-portal-venous"], 0)
    slices = sample_slices(volume)
    kind = STYLE_AUGMENTATIONS["streaks"]
    rng = np.random.default_rng(1)
    streaky = kind.draw(slices, rng).apply(slices, rng)
    assert [a.name for a in measure(streaky).artefacts if a.is_visible] == ["streaks"]


def test_ghosts_in_the_air_are_seen() -> None:
    given = disks(0.02)
    ghost = given.array + 0.15 * (np.roll(given.array, 40, axis=1) + np.roll(given.array, -40, axis=1))
    assert measure(given).artefacts[0].score < 0.3
    found = measure(replace(given, array=ghost.astype(np.float32))).artefacts[0]
    assert found.name == "ghosts"
    assert found.is_visible
    assert "%" in found.evidence


@pytest.mark.parametrize("axis", [1, 2])
def test_a_body_folded_over_is_seen_and_one_that_is_cut_off_is_not(axis: int) -> None:
    given = sample_slices(render_study(STYLES["mr-t2"], 0)[0])
    array = np.moveaxis(given.array, axis, 0)
    inside = np.flatnonzero((array > 100).mean(axis=(1, 2)) > 0.05)
    cut = int(inside[0] + 0.15 * np.ptp(inside))
    kept = array[cut:-cut].copy()
    cut_off = replace(given, array=np.moveaxis(kept, 0, axis).copy())
    kept[:cut] += array[-cut:]
    kept[-cut:] += array[:cut]
    folded = replace(given, array=np.moveaxis(kept, 0, axis).copy())
    seen = [[a.name for a in measure(slices).artefacts if a.is_visible] for slices in (given, cut_off, folded)]
    assert ["wrap-around" in names for names in seen] == [False, False, True]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 40, 20)])
@pytest.mark.parametrize("value", [0.0, 7.0])
@pytest.mark.parametrize("modality", ["CT", "MR", ""])
def test_images_without_content_have_measures_too(shape: tuple[int, int, int], value: float, modality: str) -> None:
    found = measure(StyledSlices(np.full(shape, value, np.float32), (1.0, 1.0, 1.0), Acquisition(modality), 0.0))
    assert np.isfinite([found.noise, found.contrast, *found.brightness]).all()
