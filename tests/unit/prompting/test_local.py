"""Clicks on a mask that is mostly right: what of a new mask is taken."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from causal_sam.prompting.local import merged

SHAPE = (60, 60)
rows, columns = np.mgrid[:60, :60]
DISC = (rows - 30) ** 2 + (columns - 30) ** 2 <= 15**2
LEAK = (abs(rows - 30) <= 5) & (columns >= 40) & (columns <= 52)


def test_only_what_is_at_the_click_changes():
    before = DISC | LEAK
    before[5:9, 5:9] = True  # another error, which nobody has clicked on yet
    after = ndimage.binary_erosion(DISC)  # right, but for borders that are a pixel too narrow
    result = merged(before, after, [(30, 49)])
    assert not result[LEAK & ~ndimage.binary_dilation(DISC, iterations=3)].any()
    assert result[5:9, 5:9].all()
    far = columns < 35
    np.testing.assert_array_equal(result[far], before[far])


def test_a_change_of_a_few_pixels_is_taken_near_the_click():
    before = DISC.copy()
    before[30, 44:46] = False
    result = merged(before, DISC, [(30, 45)])
    np.testing.assert_array_equal(result, DISC)


def test_an_answer_that_changes_nothing_at_the_clicks_changes_nothing():
    np.testing.assert_array_equal(merged(DISC, ndimage.binary_dilation(DISC), [(30, 30)]), DISC)


def test_in_a_volume_what_hangs_together_with_the_click_changes_across_slices():
    truth = np.repeat(DISC[..., None], 8, axis=2)
    before = truth.copy()
    before[..., 2:6] |= LEAK[..., None]
    before[5:9, 5:9, 3] = True
    after = truth.copy()
    after[..., 6:] = False  # followed too short a way: not connected with the click
    result = merged(before, after, [(30, 49, 4)], axis=2)
    expected = truth.copy()
    expected[5:9, 5:9, 3] = True
    np.testing.assert_array_equal(result, expected)
