"""Clicks on a mask that is mostly right: what of a new mask is taken."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from causal_sam.imaging import SliceFrame
from causal_sam.prompting.local_edit import (
    FADE_MM,
    FARTHEST,
    REACH,
    SURE_MM,
    apply_edit_near_clicks,
    progressive_merge,
    propagate_edit,
)

SHAPE = (60, 60)
rows, columns = np.mgrid[:60, :60]
DISC = (rows - 30) ** 2 + (columns - 30) ** 2 <= 15**2
LEAK = (abs(rows - 30) <= 5) & (columns >= 40) & (columns <= 52)


def test_only_what_is_at_the_click_changes():
    before = DISC | LEAK
    before[5:9, 5:9] = True  # another error, which nobody has clicked on yet
    after = ndimage.binary_erosion(DISC)  # right, but for borders that are a pixel too narrow
    result = progressive_merge(before, after, [(30, 49)])
    assert not result[LEAK & ~ndimage.binary_dilation(DISC, iterations=3)].any()
    assert result[5:9, 5:9].all()
    far = columns < 35
    np.testing.assert_array_equal(result[far], before[far])


def test_a_change_of_a_few_pixels_is_taken_near_the_click():
    before = DISC.copy()
    before[30, 44:46] = False
    result = progressive_merge(before, DISC, [(30, 45)])
    np.testing.assert_array_equal(result, DISC)


def test_an_answer_that_changes_nothing_at_the_clicks_changes_nothing():
    np.testing.assert_array_equal(progressive_merge(DISC, ndimage.binary_dilation(DISC), [(30, 30)]), DISC)


def test_in_a_volume_what_hangs_together_with_the_click_changes_across_slices():
    truth = np.repeat(DISC[..., None], 8, axis=2)
    before = truth.copy()
    before[..., 2:6] |= LEAK[..., None]
    before[5:9, 5:9, 3] = True
    after = truth.copy()
    after[..., 6:] = False  # followed too short a way: not connected with the click
    result = progressive_merge(before, after, [(30, 49, 4)], axis=2)
    expected = truth.copy()
    expected[5:9, 5:9, 3] = True
    np.testing.assert_array_equal(result, expected)


TIP = (30, 50)
ONE_MM = (1.0, 1.0)


def test_a_click_changes_what_is_about_as_large_as_it_is_far_from_the_border():
    before = DISC | LEAK
    answer = DISC.copy()
    answer[LEAK] = False  # all of the leak, and of the disc all that is right of its middle
    answer[:, 30:] = False
    result = apply_edit_near_clicks(before, answer, [], [TIP], ONE_MM)
    changed = before & ~result
    depth = ndimage.distance_transform_edt(before)[TIP]
    away = np.hypot(rows - TIP[0], columns - TIP[1])
    assert changed[TIP]
    assert away[changed].max() <= REACH * depth
    assert (changed == before)[away <= REACH * depth].all()
    assert not (result & ~before).any()


def test_a_click_that_the_model_does_not_follow_changes_the_mask_up_to_its_border():
    before = DISC | LEAK
    result = apply_edit_near_clicks(before, before, [], [TIP], ONE_MM)
    away = np.hypot(rows - TIP[0], columns - TIP[1])
    depth = ndimage.distance_transform_edt(before)[TIP]
    np.testing.assert_array_equal(result, before & (away >= depth))
    outside = (30, 13)
    result = apply_edit_near_clicks(DISC, DISC, [outside], [], ONE_MM)
    assert ndimage.label(result)[1] == 1
    assert result[outside]
    assert not (DISC & ~result).any()


def test_where_the_model_does_not_follow_little_is_changed_however_far_the_border_is():
    result = apply_edit_near_clicks(DISC, DISC, [], [(30, 30)], ONE_MM)
    np.testing.assert_array_equal(DISC ^ result, np.hypot(rows - 30, columns - 30) <= SURE_MM)
    halved = (SURE_MM / 6, SURE_MM / 6)
    result = apply_edit_near_clicks(DISC, DISC, [], [(30, 30)], halved)
    np.testing.assert_array_equal(DISC ^ result, np.hypot(rows - 30, columns - 30) <= 6)


def test_all_clicks_hold_also_those_side_by_side_and_those_before():
    before = DISC.copy()
    inside, outside = [(30, 30), (30, 48)], [(30, 32), (30, 50)]
    for answer in (np.zeros_like(DISC), np.ones_like(DISC), before):
        result = apply_edit_near_clicks(before, answer, inside, outside, ONE_MM)
        assert all(result[click] for click in inside)
        assert not any(result[click] for click in outside)


def test_a_mask_that_is_as_all_clicks_say_stays():
    result = apply_edit_near_clicks(DISC, ndimage.binary_erosion(DISC, iterations=5), [(30, 30)], [(5, 5)], ONE_MM)
    np.testing.assert_array_equal(result, DISC)


SPACING = 2.0
COUNT = 30
MIDDLE = 15
FRAME = SliceFrame(np.diag([-1.0, -1.0, SPACING, 1.0]), (60, 60, COUNT), 2)
# Of the leak, on the slice; rows and columns of the frame are not the voxel axes.
CLICK = FRAME.to_slice((30, 49, MIDDLE))[1:]


def cone() -> np.ndarray:
    """A disc whose radius differs from slice to slice."""
    return np.stack([(rows - 30) ** 2 + (columns - 30) ** 2 <= (10 + k / 4) ** 2 for k in range(COUNT)], axis=2)


def decided(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The mask with the truth on the slice in the middle."""
    result = mask.copy()
    FRAME.insert(FRAME.extract(truth, MIDDLE), result, MIDDLE)
    return result


def corrected(mask: np.ndarray, truth: np.ndarray, **options) -> np.ndarray:
    return propagate_edit(decided(mask, truth), FRAME.extract(mask, MIDDLE), MIDDLE, [CLICK], FRAME, **options)


def test_a_leak_goes_on_the_slices_beside_it_and_each_keeps_its_outline():
    truth = cone()
    mask = truth | LEAK[..., None]
    result = corrected(mask, truth)
    np.testing.assert_array_equal(result[..., MIDDLE], truth[..., MIDDLE])
    near = range(MIDDLE - 3, MIDDLE + 4)
    wrong = [(result ^ truth)[..., k].sum() for k in near]
    assert max(wrong) <= 0.1 * LEAK.sum()
    far = columns < 30
    np.testing.assert_array_equal(result[far], mask[far])
    reach = int(FARTHEST * FADE_MM / SPACING)
    np.testing.assert_array_equal(result[..., : MIDDLE - reach], mask[..., : MIDDLE - reach])
    # It fades: the farther, the more of the leak is left.
    left = [(result & ~truth)[..., k].sum() / (mask & ~truth)[..., k].sum() for k in range(MIDDLE, MIDDLE + reach + 1)]
    assert left == sorted(left)
    assert left[-1] > 0.9


def test_what_is_missing_comes_back_on_the_slices_beside_it():
    truth = cone() | LEAK[..., None]
    result = corrected(cone(), truth)
    missing = [int((truth & ~result)[..., k].sum()) for k in range(MIDDLE - 2, MIDDLE + 3)]
    assert max(missing) <= 0.25 * LEAK.sum()


def test_nothing_is_carried_to_held_slices_and_beyond_or_where_the_structure_has_ended():
    truth = cone()
    truth[..., MIDDLE + 2 :] = False
    mask = truth | LEAK[..., None]
    mask[..., MIDDLE + 2] = False
    result = corrected(mask, truth, kept={MIDDLE - 2})
    changed = np.flatnonzero((result ^ mask).any(axis=(0, 1)))
    assert changed.tolist() == [MIDDLE - 1, MIDDLE, MIDDLE + 1]


def test_a_slice_that_is_emptied_or_changes_elsewhere_is_carried_nowhere():
    mask = cone() | LEAK[..., None]
    empty = corrected(mask, np.zeros_like(mask))
    assert np.flatnonzero((empty ^ mask).any(axis=(0, 1))).tolist() == [MIDDLE]
    elsewhere = mask.copy()
    elsewhere[5:9, 5:9] = True
    result = corrected(mask, elsewhere)
    assert np.flatnonzero((result ^ mask).any(axis=(0, 1))).tolist() == [MIDDLE]


def test_the_mask_before_stays():
    mask = cone() | LEAK[..., None]
    given = decided(mask, cone())
    kept = given.copy()
    propagate_edit(given, FRAME.extract(mask, MIDDLE), MIDDLE, [CLICK], FRAME)
    np.testing.assert_array_equal(given, kept)
