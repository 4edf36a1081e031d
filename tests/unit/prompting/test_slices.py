"""Scaling of slices into the model's input and of logits back, in numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prompting_volumes import make_volume
from torch.nn import functional as F

from causal_sam.imaging import Volume
from causal_sam.prompting.slices import VolumeSlices


def axial(shape=(8, 8, 3), spacing=(1.0, 1.0, 1.0), size=256) -> VolumeSlices:
    return VolumeSlices(make_volume(shape, spacing), "axial", size)


@pytest.mark.parametrize(
    ("shape", "spacing", "height", "width"),
    [
        ((8, 8, 3), (1.0, 1.0, 5.0), 256, 256),
        ((8, 4, 3), (1.0, 1.0, 5.0), 128, 256),
        ((8, 4, 3), (1.0, 2.0, 5.0), 256, 256),
        ((4, 8, 3), (0.5, 1.0, 1.0), 256, 64),
        ((1000, 1, 3), (1.0, 1.0, 1.0), 1, 256),
    ],
)
def test_pixels_are_square_in_mm_and_the_longer_side_fills_the_input(shape, spacing, height, width):
    slices = axial(shape, spacing)
    assert (slices.height, slices.width) == (height, width)
    assert slices.image(1).shape == (1, 3, height, width)


def test_channels_are_previous_this_and_next_in_canonical_order():
    array = np.broadcast_to(np.array([-100.0, 0.0, 100.0, 200.0], dtype=np.float32), (4, 4, 4)).copy()
    upward = Volume(array=array, affine=np.eye(4), modality="CT", tags={}, source=None)
    downward = Volume(array=array, affine=np.diag([1.0, 1.0, -1.0, 1.0]), modality="CT", tags={}, source=None)

    def means(volume: Volume, index: int) -> list[float]:
        return VolumeSlices(volume, "axial", 16).image(index).mean(dim=(0, 2, 3)).tolist()

    assert means(upward, 2)[0] < means(upward, 2)[1] < means(upward, 2)[2]
    assert means(downward, 2) == means(upward, 2)[::-1]
    assert means(upward, 0)[0] == means(upward, 0)[1] < means(upward, 0)[2]
    assert means(upward, 3)[1] == means(upward, 3)[2]


def test_image_is_within_zero_and_one_also_with_nan_and_infinity():
    volume = make_volume()
    array = volume.array.copy()
    array[0, 0, :], array[1, 1, :], array[2, 2, :] = np.nan, np.inf, -np.inf
    image = VolumeSlices(
        Volume(array=array, affine=volume.affine, modality="CT", tags={}, source=None), "auto", 64
    ).image(3)
    assert torch.isfinite(image).all()
    assert image.min() >= 0
    assert image.max() <= 1


def test_point_is_at_the_centre_of_its_voxel():
    # 8 voxels on 256 pixels: 32 pixels each, the middle of the first is between pixels 15 and 16. Columns run from
    # the patient's right and rows from anterior; in this file i runs towards right and j towards anterior.
    assert axial().points(((0, 0, 1), (7, 0, 1), (2, 7, 1))).tolist() == [[239.5, 239.5], [15.5, 239.5], [175.5, 15.5]]


def test_box_covers_its_voxels_whole():
    slices = axial()
    _, row, column = slices.frame.to_slice((2, 3, 1))
    box = slices.box((2, 2, 3, 3, 1, 1)).tolist()
    assert box == [column * 32, row * 32, column * 32 + 31, row * 32 + 31]
    assert slices.box((0, 7, 0, 7, 0, 2)).tolist() == [0, 0, 255, 255]


def test_box_thinner_than_a_pixel_is_its_middle():
    slices = axial((1024, 1024, 1), size=256)
    x0, y0, x1, y1 = slices.box((8, 9, 8, 9, 0, 0)).tolist()
    assert x0 == x1
    assert y0 == y1


def test_logits_of_equal_grids_come_back_exactly():
    slices = axial((64, 64, 3), size=128)
    low_res = torch.randn(64, 64)
    np.testing.assert_allclose(slices.logits(low_res), low_res.numpy(), atol=1e-5)


def test_logits_agree_with_upscaling_and_cropping():
    """The reference interpolates in two steps; on a ramp, which bilinear interpolation keeps, both are exact."""
    slices = axial((40, 20, 3), size=256)
    ramp = torch.arange(128.0)[None, :] + 3 * torch.arange(128.0)[:, None]
    frame = F.interpolate(ramp[None, None], (256, 256), mode="bilinear", align_corners=False)
    crop = frame[..., : slices.height, : slices.width]
    expected = F.interpolate(crop, (20, 40), mode="bilinear", align_corners=False)[0, 0].numpy()
    np.testing.assert_allclose(slices.logits(ramp)[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-3)


def test_padding_does_not_reach_the_slice():
    slices = axial((40, 20, 3), size=256)
    low_res = torch.full((128, 128), 5.0)
    low_res[64:] = -100.0  # height is 128 of 256 pixels: the padding begins at row 64 of the mask grid
    np.testing.assert_allclose(slices.logits(low_res)[:-1], 5.0, rtol=1e-6)


def test_single_slice_volume():
    slices = VolumeSlices(make_volume((16, 12, 1)), "auto", 64)
    assert slices.axis == 2
    image = slices.image(0)
    assert torch.equal(image[:, 0], image[:, 1])
    assert torch.equal(image[:, 2], image[:, 1])
