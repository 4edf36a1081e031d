"""Colours become the brightness that a person sees, and what is grey stays what it is."""

from __future__ import annotations

import nibabel
import nrrd
import numpy as np
import pytest
from PIL import Image

from causal_sam.imaging import read_volume
from causal_sam.imaging.colour import luminance


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_grey_keeps_its_value(dtype):
    grey = np.arange(256, dtype=dtype) * (257 if dtype == np.uint16 else 1)
    for bands in (3, 4):
        colours = np.repeat(grey[:, None], bands, axis=1)
        colours[:, 3:] = 9
        assert luminance(colours).dtype == dtype
        np.testing.assert_allclose(luminance(colours), grey, rtol=1e-6 if dtype == np.float32 else 0)


def test_a_picture_in_colour_is_what_it_looks_like_in_grey(colours, tmp_path):
    Image.fromarray(colours).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    assert volume.shape == (6, 4, 1)
    assert volume.array.dtype == np.uint8
    grey = np.asarray(Image.fromarray(colours).convert("L")).astype(int)
    assert np.abs(volume.array[:, :, 0].T - grey).max() <= 1


@pytest.mark.parametrize(
    ("mode", "extension"),
    [("RGBA", "png"), ("LA", "png"), ("P", "png"), ("RGBA", "tif"), ("LA", "tif"), ("CMYK", "tif"), ("CMYK", "jpg")],
)
def test_pictures_of_every_mode_have_one_number_for_each_pixel(mode, extension, tmp_path):
    rows = np.full((4, 6), 100, np.uint8)
    picture = Image.fromarray(rows).convert("RGB").convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6)))
    picture.save(tmp_path / f"a.{extension}")
    volume = read_volume(tmp_path / f"a.{extension}")
    assert volume.shape == (6, 4, 1)
    assert np.abs(volume.array.astype(int) - 100).max() <= 2


def test_black_and_white(tmp_path):
    Image.fromarray(np.eye(5, dtype=bool)).save(tmp_path / "a.png")
    assert np.array_equal(read_volume(tmp_path / "a.png").array[:, :, 0], np.eye(5))


def test_nifti_in_colour(colours, tmp_path):
    array = np.ascontiguousarray(colours).view([("R", "u1"), ("G", "u1"), ("B", "u1")])
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert np.array_equal(volume.array[:, :, 0], luminance(colours))
    assert np.array_equal(volume.affine, affine)


@pytest.mark.parametrize("kind", ["RGB-color", "vector"])
def test_only_what_is_called_a_colour_is_one(kind, colours, tmp_path):
    """Three numbers may as well be three sequences: then the user chooses."""
    header = {"kinds": [kind, "domain", "domain"], "spacings": [np.nan, 1.0, 1.0]}
    nrrd.write(str(tmp_path / "a.nrrd"), np.moveaxis(colours, -1, 0), header, index_order="F")
    volume = read_volume(tmp_path / "a.nrrd")
    assert volume.frames == (1 if kind == "RGB-color" else 3)
    assert np.array_equal(volume.array[:, :, 0], luminance(colours) if kind == "RGB-color" else colours[..., 0])
