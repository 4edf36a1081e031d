"""Intensity windows: Hounsfield units for CT, percentiles for the rest, and never a NaN for the model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from causal_sam.imaging import IntensityWindow, Volume, intensity_window

from .grids import ORIENTATIONS, reorient

LARGEST = float(np.float32(1e30))  # differences of larger numbers do not fit into float32
numbers = st.one_of(st.floats(-LARGEST, LARGEST, width=32), st.sampled_from([np.nan, np.inf, -np.inf]))
images = hnp.arrays(np.float32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=4), elements=numbers).filter(
    lambda array: np.isfinite(array).any()
)


def brain(rng: np.random.Generator, background: float = 0.0) -> np.ndarray:
    """Tissue around 500 in a third of the voxels; the rest is the background of a skull-stripped image."""
    array = np.full((20, 20, 20), background, np.float32)
    array[:, :, :7] = rng.normal(500, 50, (20, 20, 7))
    return array


def test_ct_is_windowed_in_hounsfield_units():
    volume = Volume(np.array([[[-1000, -160, 40, 240, 3000]]], np.int16), np.eye(4), "CT")
    assert intensity_window(volume) == IntensityWindow(-160, 240)
    assert intensity_window(volume).apply(volume.array).ravel().tolist() == [0, 0, 0.5, 1, 1]


def test_percentiles_of_the_rest():
    array = np.arange(1001, dtype=np.float32).reshape(7, 11, 13)
    window = intensity_window(Volume(array, np.eye(4), "MR"))
    assert (window.low, window.high) == pytest.approx((5, 995))


@pytest.mark.parametrize("background", [0.0, -30.0])
def test_constant_background_is_no_tissue(background):
    array = brain(np.random.default_rng(0), background)
    window = intensity_window(Volume(array, np.eye(4), "MR"))
    tissue = array[array != background]
    assert (window.low, window.high) == pytest.approx(tuple(np.percentile(tissue, (0.5, 99.5))))


def test_not_finite_voxels_do_not_count():
    array = brain(np.random.default_rng(0))
    expected = intensity_window(Volume(array, np.eye(4), "MR"))
    array[0, 0, -3:] = np.nan, np.inf, -np.inf
    assert intensity_window(Volume(array, np.eye(4), "MR")) == expected


@given(images, st.sampled_from(["CT", "MR", ""]))
def test_every_image_becomes_numbers_in_the_unit_interval(array, modality):
    with np.errstate(all="raise", under="ignore"):
        window = intensity_window(Volume(array, np.eye(4), modality))
        assert np.isfinite([window.low, window.high]).all()
        assert window.low < window.high
        shown = window.apply(array)
    assert shown.dtype == np.float32
    assert shown.shape == array.shape
    assert ((shown >= 0) & (shown <= 1)).all()
    assert (shown[np.isnan(array) | (array == -np.inf)] == 0).all()
    assert (shown[array == np.inf] == 1).all()


@pytest.mark.parametrize("value", [0, 7, -500.5, 1e-30, 1e20, -1e30])
def test_constant_images_are_black(value):
    volume = Volume(np.full((3, 4, 5), value, np.float32), np.eye(4))
    window = intensity_window(volume)
    assert window.low < window.high
    assert (window.apply(volume.array) == 0).all()


def test_one_bright_voxel_in_a_constant_image_is_seen():
    array = np.zeros((10, 10, 10), np.int16)
    array[5, 5, 5] = 100
    assert intensity_window(Volume(array, np.eye(4))).apply(array)[5, 5, 5] == 1


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
def test_the_order_of_the_voxels_does_not_matter(orientation):
    volume = Volume(brain(np.random.default_rng(1)), np.eye(4), "MR")
    assert intensity_window(reorient(volume, orientation)) == intensity_window(volume)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_all_voxel_types_are_shown_alike(dtype):
    array = np.arange(200).reshape(10, 5, 4)
    shown = intensity_window(Volume(array.astype(dtype), np.eye(4))).apply(array.astype(dtype))
    assert np.array_equal(shown, intensity_window(Volume(array, np.eye(4))).apply(array))
