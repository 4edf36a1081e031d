"""Brains from label maps: which value is what, and that a style is what it says."""

from __future__ import annotations

import numpy as np
import pytest

from causal_sam.errors import InputError
from causal_sam.phantom import brain

AFFINE = np.diag([-1.0, -1.0, 5.0, 1.0])


def values() -> np.ndarray:
    """Cortex around white matter with a ventricle and a thalamus, in a skull of some other number."""
    image = np.zeros((48, 48, 4), np.int32)
    image[2:46, 2:46] = 511
    image[6:42, 6:42] = 3
    image[10:38, 10:38] = 2
    image[14:22, 14:22] = 4
    image[26:34, 26:34] = 49
    return image


def test_left_and_right_are_one_structure_and_the_rest_is_outside() -> None:
    found = brain.structure_map(np.array([[0, 2, 41, 3, 42, 10, 49, 511, 999]]))
    names = list(brain.STRUCTURES)
    assert found[0, 1] == found[0, 2] == names.index("cerebral white matter") + 1
    assert found[0, 5] == found[0, 6] == names.index("thalamus") + 1
    assert found[0, 0] == 0
    assert (found[0, 7:] == brain.EXTRACEREBRAL).all()


def test_other_label_maps_are_refused() -> None:
    with pytest.raises(InputError, match="no label map of a brain"):
        brain.structure_map(np.array([[0, 1, 5]]))


@pytest.mark.parametrize("name", list(brain.STYLES))
def test_brightness_follows_the_style(name: str) -> None:
    style = brain.STYLES[name]
    volume, structures = brain.render_brain(values(), AFFINE, style, 0)
    assert volume.modality == "MR"
    assert volume.tags["MagneticFieldStrength"] == style.tags["MagneticFieldStrength"]
    assert structures.keys() == set(brain.SEGMENTED)
    shown = ("cerebral white matter", "lateral ventricle", "thalamus")
    found = [float(np.median(volume.array[structures[s]])) for s in shown]
    assert found == pytest.approx([style.levels[s] for s in shown], rel=0.6, abs=60)
    order = np.argsort([style.levels["lateral ventricle"], style.levels["cerebral white matter"]])
    assert (np.argsort([found[1], found[0]]) == order).all()


def test_a_seed_gives_the_same_scan() -> None:
    first, again, other = (brain.render_brain(values(), AFFINE, brain.STYLES["T2 3 T"], s)[0].array for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
