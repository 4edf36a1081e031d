"""Measures of masks, in every orientation of the file."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from causal_sam.correction.measures import measure_mask
from causal_sam.errors import InputError, NotFoundError
from causal_sam.imaging import Volume

SHAPE = (20, 24, 16)
SPACING = (1.0, 2.0, 3.0)
ORIENTATIONS = [
    np.array([*zip(axes, signs, strict=True)], float)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def masks() -> dict[str, np.ndarray]:
    """Return a liver of 6 x 5 x 4 voxels with an island of one, a spleen beside it, and a kidney apart."""
    found = {name: np.zeros(SHAPE, bool) for name in ("liver", "spleen", "kidney", "empty")}
    found["liver"][4:10, 4:9, 4:8] = True
    found["liver"][15, 4, 4] = True
    found["spleen"][10:13, 4:9, 5:7] = True
    found["kidney"][4:10, 11:14, 4:8] = True
    return found


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda each: str(each.astype(int).tolist()))
def test_a_box_measures_the_same_however_the_file_lies(orientation: np.ndarray) -> None:
    affine = np.diag([*SPACING, 1.0]) @ inv_ornt_aff(orientation, SHAPE)
    turned = {name: apply_orientation(mask.view(np.uint8), orientation).view(bool) for name, mask in masks().items()}
    volume = Volume(np.zeros(turned["liver"].shape), affine)
    assert measure_mask("liver", volume, turned) == {
        "volume_ml": round(121 * 6 / 1000, 2),
        "extent_mm": {"left-right": 12.0, "posterior-anterior": 10.0, "inferior-superior": 12.0},
        "components": 2,
        # 5 x 2 faces of 2 x 3 mm
        "contact_mm2": {"spleen": 60.0},
    }
    assert measure_mask("spleen", volume, turned)["contact_mm2"] == {"liver": 60.0}
    assert measure_mask("kidney", volume, turned)["contact_mm2"] == {}


def test_an_oblique_voxel_reaches_as_far_as_its_corners() -> None:
    turn = np.eye(4)
    turn[:2, :2] = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    volume = Volume(np.zeros(SHAPE), turn @ np.diag([2.0, 2.0, 5.0, 1.0]))
    mask = np.zeros(SHAPE, bool)
    mask[3, 4, 5] = True
    found = measure_mask("liver", volume, {"liver": mask})
    diagonal = round(2 * np.sqrt(2), 1)
    assert found["extent_mm"] == {"left-right": diagonal, "posterior-anterior": diagonal, "inferior-superior": 5.0}
    assert found["volume_ml"] == 0.02


def test_parts_that_touch_at_a_corner_are_one() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[3, 4, 5] = mask[4, 5, 6] = True
    volume = Volume(np.zeros(SHAPE), np.eye(4))
    assert measure_mask("liver", volume, {"liver": mask})["components"] == 1


def test_masks_that_overlap_touch_where_one_ends() -> None:
    one, other = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    one[4:8, 4, 4] = True
    other[6:10, 4, 4] = True
    volume = Volume(np.zeros(SHAPE), np.eye(4))
    assert measure_mask("one", volume, {"one": one, "other": other})["contact_mm2"] == {"other": 1.0}


def test_at_the_edge_of_the_image_there_is_no_neighbour() -> None:
    mask = np.ones(SHAPE, bool)
    volume = Volume(np.zeros(SHAPE), np.eye(4))
    found = measure_mask("all", volume, {"all": mask, "none": np.zeros(SHAPE, bool)})
    assert (found["contact_mm2"], found["components"]) == ({}, 1)


def test_an_empty_mask_measures_nothing_and_a_missing_one_is_said() -> None:
    volume = Volume(np.zeros(SHAPE), np.eye(4))
    found = measure_mask("empty", volume, masks())
    assert (found["volume_ml"], found["components"], set(found["extent_mm"].values())) == (0.0, 0, {0.0})
    with pytest.raises(NotFoundError, match="no mask of 'heart'; there are masks of liver, spleen"):
        measure_mask("heart", volume, masks())
    with pytest.raises(InputError, match=r"The mask of odd has shape \(2, 2, 2\)"):
        measure_mask("liver", volume, {**masks(), "odd": np.zeros((2, 2, 2), bool)})
