"""A small structure is looked at on a crop, which is large enough, inside the slice, and invisible to the caller."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prompting_volumes import make_volume

from causal_sam.imaging import Volume
from causal_sam.prompting import Predictor
from causal_sam.prompting.slices import Crop, VolumeSlices
from causal_sam.prompting.zoom import MARGIN, Extent, crop_around, is_cut, wider


def slices_of(rows: int, columns: int, row_mm: float = 1.0, column_mm: float = 1.0) -> VolumeSlices:
    volume = Volume(np.zeros((columns, rows, 1), np.float32), np.diag([column_mm, row_mm, 5.0, 1.0]))
    return VolumeSlices(volume, "axial", 256)


def extent_of(top: int, left: int, bottom: int, right: int) -> Extent:
    extent = Extent()
    extent.include(top, left, bottom, right)
    return extent


@given(
    shape=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    spacing=st.tuples(st.floats(0.3, 6.0), st.floats(0.3, 6.0)),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_crop_holds_the_structure_and_lies_inside_the_slice(shape, spacing, corners):
    slices = slices_of(*shape, *spacing)
    (top, bottom), (left, right) = (
        sorted(int(share * (size - 1)) for share in pair)
        for pair, size in zip((corners[:2], corners[2:]), shape, strict=True)
    )
    crop = crop_around(slices, extent_of(top, left, bottom, right), 256)
    if crop is None:
        return
    assert 0 <= crop.top <= top <= bottom < crop.top + crop.rows <= shape[0]
    assert 0 <= crop.left <= left <= right < crop.left + crop.columns <= shape[1]
    part = slices.cropped(crop)
    # Closer than the whole slice, by at least the two levels below which it is not worth it.
    assert max(part.height / part.rows, part.width / part.columns) > max(
        slices.height / slices.rows, slices.width / slices.columns
    )


def test_large_structures_are_seen_on_the_whole_slice():
    slices = slices_of(400, 400)
    assert crop_around(slices, extent_of(100, 100, 299, 299), 256) is None
    assert crop_around(slices, extent_of(190, 190, 209, 209), 256) is not None


def test_crop_has_room_around_the_structure():
    crop = crop_around(slices_of(512, 512), extent_of(250, 250, 269, 269), 256)
    assert crop.rows == crop.columns
    assert MARGIN * 20 <= crop.rows < 2 * MARGIN * 20


def test_coarse_slices_are_not_magnified_without_end():
    crop = crop_around(slices_of(128, 128), extent_of(64, 64, 64, 64), 256)
    assert crop.rows >= 256 / 6


def test_crop_is_square_in_millimetres():
    crop = crop_around(slices_of(100, 400, row_mm=4.0), extent_of(50, 200, 51, 207), 256)
    assert crop.columns == pytest.approx(4 * crop.rows, abs=4)


def test_small_shifts_use_the_same_embedding():
    slices = slices_of(512, 512)
    crops = {crop_around(slices, extent_of(n, 200, n + 20, 220), 256) for n in range(200, 216)}
    assert len(crops) <= 4


def test_wider_ends_at_the_whole_slice():
    slices = slices_of(300, 200)
    crop, sizes = Crop(100, 50, 40, 40), []
    while crop is not None:
        sizes.append((crop.rows, crop.columns))
        crop = wider(slices, crop)
    assert sizes == [(40, 40), (80, 80), (160, 160)]


def test_a_mask_is_cut_only_where_the_slice_goes_on():
    slices = slices_of(20, 20)
    crop = Crop(0, 5, 10, 10)
    mask = np.zeros((10, 10), bool)
    mask[0, 5] = True  # at the slice's own edge
    assert not is_cut(mask, crop, slices)
    mask[5, 0] = True
    assert is_cut(mask, crop, slices)


def test_cropped_slices_show_the_same_voxels_at_the_same_places():
    volume = make_volume((40, 30, 5), (1.0, 1.0, 3.0))
    whole = VolumeSlices(volume, "axial", 64)
    crop = Crop(6, 12, 16, 16)
    part = whole.cropped(crop)
    voxel = whole.frame.to_voxel(2, 10, 20)
    assert part.points((voxel,)).tolist() == [[(20 - 12 + 0.5) * 4 - 0.5, (10 - 6 + 0.5) * 4 - 0.5]]
    shown = torch.nn.functional.avg_pool2d(part.image(2), 4)[0, 1].numpy()
    voxels = whole.window.apply(whole.frame.extract(volume.array, 2)[crop.area].copy())
    assert np.corrcoef(shown.ravel(), voxels.ravel())[0, 1] > 0.95
    assert part.geometry != whole.geometry
    assert (whole.rows, whole.columns) == (30, 40)  # the original is as it was


def test_low_res_is_the_way_back_of_logits():
    slices = slices_of(48, 64)
    y, x = np.mgrid[:48, :64]
    logits = (8 - np.hypot(y - 20, x - 30)).astype(np.float32)
    back = slices.logits(torch.from_numpy(slices.low_res(logits, 128)))
    assert np.abs(back - logits)[4:-4, 4:-4].max() < 1


class SmallDisc:
    """In place of the model's answer: a disc around the first click, so that the size of the structure is known."""

    def __init__(self, predictor: Predictor, radius: float) -> None:
        self.asked: list[tuple[Crop, bool]] = []
        self._decode, self._radius = predictor._decode, radius
        predictor._decode = self

    def __call__(self, slices, index, prompts, mask_logits):
        self.asked.append((slices.crop, mask_logits is not None))
        answer = self._decode(slices, index, prompts, mask_logits)
        _, row, column = slices.frame.to_slice(prompts.foreground[0])
        y, x = np.mgrid[: slices.rows, : slices.columns]
        distance = np.hypot(y + slices.crop.top - row, x + slices.crop.left - column)
        logits = (self._radius - distance).astype(np.float32)
        return type(answer)(logits > 0, logits, slices.low_res(logits, 32), answer.predicted_iou)


@pytest.fixture
def zooming(model):
    predictor = Predictor(model, prefetch_slices=0)
    predictor.set_volume(make_volume((120, 100, 3)))
    yield predictor
    predictor.close()


def test_small_structure_is_decided_on_a_crop(zooming):
    disc = SmallDisc(zooming, 5.5)
    answer = zooming.predict([(60, 50, 1)]).slices[1]
    (whole, _), (crop, with_mask) = disc.asked
    assert whole == Crop(0, 0, 100, 120)
    assert crop.rows < 60
    assert with_mask
    assert answer.mask.shape == answer.logits.shape == (100, 120)
    assert 80 < answer.mask.sum() < 110
    assert np.array_equal(answer.mask, answer.logits > 0)


def test_correction_begins_with_the_whole_slice(zooming):
    disc = SmallDisc(zooming, 5.5)
    first = zooming.predict([(60, 50, 1)]).slices[1]
    disc.asked.clear()
    zooming.predict([(60, 50, 1), (63, 50, 1)], previous={1: first.low_res_logits})
    assert [with_mask for _, with_mask in disc.asked] == [True, True]
    assert [crop.rows < 60 for crop, _ in disc.asked] == [False, True]


def test_large_structure_is_decided_once_on_the_whole_slice(zooming):
    disc = SmallDisc(zooming, 30.5)
    zooming.predict([(60, 50, 1)])
    assert [crop for crop, _ in disc.asked] == [Crop(0, 0, 100, 120)]


def test_structure_that_leaves_its_crop_is_seen_wider(zooming):
    disc = SmallDisc(zooming, 5.5)
    grow = disc.__call__

    def grown(slices, *arguments):
        disc._radius = 5.5 if slices.rows == 100 else 20.5  # small on the whole slice, larger when looked at closely
        return grow(slices, *arguments)

    zooming._decode = grown
    answer = zooming.predict([(60, 50, 1)]).slices[1]
    assert len(disc.asked) == 3
    sizes = [crop.rows for crop, _ in disc.asked[1:]]
    assert sizes == sorted(sizes)
    assert answer.mask.sum() == pytest.approx(np.pi * 20.5**2, rel=0.02)


def test_zoom_can_be_left_out(model):
    predictor = Predictor(model, prefetch_slices=0, zoom=False)
    predictor.set_volume(make_volume((120, 100, 3)))
    disc = SmallDisc(predictor, 5.5)
    predictor.predict([(60, 50, 1)])
    assert len(disc.asked) == 1
    predictor.close()
