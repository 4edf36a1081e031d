"""The region gate of interventions, in every orientation of the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nibabel.affines import from_matvec
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from unit.imaging.grids import ORIENTATIONS, reorient

from causal_sam.correction.region import region_gate
from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.imaging.directions import DIRECTIONS, direction_vector
from causal_sam.notes.schema import Intervention

SHAPE, SPACING = (40, 36, 24), (1.0, 1.5, 2.5)


def ball(centre: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
    """In millimetre, on a grid of `SHAPE` and `SPACING`."""
    grid = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)), indexing="ij"))
    return ((grid - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) <= radius**2


MASK = ball((20, 26, 30), 12)
IMAGE = np.where(MASK, 100.0, 20.0) + np.random.default_rng(0).normal(0, 3, SHAPE)
VOLUME = Volume(IMAGE.astype(np.float32), np.diag([*SPACING, 1.0]), "MR")


def act(action: str, **fields: object) -> Intervention:
    return Intervention(label="liver", action=action, **fields)


def gate(intervention: Intervention, mask=MASK, volume=VOLUME, **others) -> NDArray[np.float32]:
    return region_gate(intervention, volume, mask, others).in_volume(volume.shape)


def test_expansion_may_add_and_shrinking_may_take_away() -> None:
    more, less = gate(act("expand")), gate(act("shrink"))
    assert more.dtype == np.float32
    assert min(more.min(), less.min()) >= 0
    assert max(more.max(), less.max()) == 1
    assert not more[MASK].any()
    assert not less[~MASK].any()
    border = ndimage.binary_dilation(MASK) & ~MASK
    assert (more[border] > 0.9).all()
    both = gate(act("restyle"))
    assert both[MASK].any()
    assert both[~MASK].any()


@pytest.mark.parametrize("action", ["expand", "shrink"])
def test_an_extent_in_millimetre_is_exact_to_half_a_voxel(action: str) -> None:
    intervention = act(action, extent_mm=5.0)
    assert region_gate(intervention, VOLUME, MASK, {}).is_exact
    region = gate(intervention)
    outside = ndimage.distance_transform_edt(~MASK if action == "expand" else MASK, SPACING)
    assert not region[outside > 5 + np.linalg.norm(SPACING) / 2].any()
    assert (region[(outside > 0) & (outside <= 5)] == 1).all()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_border_moves_in_a_direction_of_the_patient_on_oblique_grids_too(direction: str) -> None:
    shift = 6 * direction_vector(direction)
    for angle in (0.0, 30.0):
        turn = Rotation.from_euler("xyz", [angle, angle / 2, angle], degrees=True).as_matrix()
        volume = Volume(VOLUME.array, from_matvec(turn @ np.diag(SPACING)), "MR")
        grown = MASK | (gate(act("expand", direction=direction, extent_mm=6.0), volume=volume) > 0)
        shrunk = MASK & (gate(act("shrink", direction=direction, extent_mm=6.0), volume=volume) == 0)
        heights = np.argwhere(MASK) @ volume.affine[:3, :3].T @ direction_vector(direction)
        for mask, sign in ((grown, 1), (shrunk, -1)):
            moved = np.argwhere(mask) @ volume.affine[:3, :3].T @ direction_vector(direction)
            assert moved.max() - heights.max() == pytest.approx(sign * shift @ direction_vector(direction), abs=2)
            assert moved.min() == pytest.approx(heights.min())


def test_stronger_acts_reach_further() -> None:
    sizes = [(gate(act("expand", strength=strength)) > 0).sum() for strength in ("slight", "moderate", "strong")]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_direction_is_the_patients(direction: str) -> None:
    """Return the same anatomy stored in all 48 ways has the same region, and it lies in the direction."""
    expected = gate(act("expand", direction=direction)).sum()
    for orientation in ORIENTATIONS:
        image = reorient(Volume(np.where(MASK, 100.0, 20.0).astype(np.float32), VOLUME.affine, "MR"), orientation)
        mask = image.array > 50
        region = gate(act("expand", direction=direction), mask, image)
        centres = [image.affine[:3, :3] @ np.argwhere(part).mean(0) for part in (region > 0, mask)]
        moved = (centres[0] - centres[1]) @ direction_vector(direction)
        assert moved > 0.9 * np.linalg.norm(centres[0] - centres[1]) > 0, orientation
        assert region.sum() == pytest.approx(expected, rel=1e-3), orientation


def test_growth_in_a_direction_is_above_the_mask_and_not_beside_it() -> None:
    grown = gate(act("expand", direction="superior", strength="strong")) > 0
    below = np.maximum.accumulate(MASK, axis=2)
    assert (grown & below).any()
    assert (grown & ~below).any()  # the cone opens beyond the end
    assert not grown[~MASK.any(2)][:, : np.flatnonzero(MASK.any((0, 1))).max() + 1].any()


def test_a_mask_that_is_cut_off_grows_beyond_its_end_only() -> None:
    shape, mask = (31, 31, 20), np.zeros((31, 31, 20), bool)
    mask[10:21, 10:21, 2:12] = True
    mask[10:21, 5:10, 2:8] = True  # a step, which is no end
    volume = Volume(np.zeros(shape, np.int16), np.diag([1.0, 1.0, 2.0, 1.0]), "MR")
    grown = region_gate(act("expand", direction="superior", strength="strong"), volume, mask, {}).in_volume(shape) > 0
    assert grown[12:19, 12:19, 12:16].all()
    assert not grown[..., :12].any()
    # Two slices beyond the end it is wider by half of the distance, 4 mm, on each side.
    assert np.flatnonzero(grown[:, 15, 13]).tolist() == list(range(8, 23))


def test_a_direction_keeps_its_half() -> None:
    region = gate(act("shrink", direction="superior"))
    heights = np.broadcast_to(np.arange(SHAPE[2]) * SPACING[2], SHAPE)
    assert not region[heights < 30 - 12 + 0.35 * 24].any()
    assert region[MASK & (heights > 38)].max() == 1


@pytest.mark.parametrize("flipped", [False, True])
def test_axial_slices_are_counted_from_the_head_whatever_the_order_of_the_file(flipped: bool) -> None:
    volume, mask = VOLUME, MASK
    if flipped:
        affine = VOLUME.affine.copy()
        affine[:3, 3] += affine[:3, 2] * (SHAPE[2] - 1)
        affine[:3, 2] *= -1
        volume, mask = Volume(np.flip(VOLUME.array, 2), affine, "MR"), np.flip(MASK, 2)
    region = gate(act("shrink", slices=(11, 13)), mask, volume)
    heights = (volume.affine @ np.stack([*np.indices(SHAPE).reshape(3, -1), np.ones(np.prod(SHAPE))]))[2].reshape(SHAPE)
    numbers = 1 + np.rint((heights.max() - heights) / SPACING[2])
    inside = (numbers >= 11) & (numbers <= 13)
    assert region[inside].any()
    assert set(numbers[region > 0]) == {11, 12, 13}
    with pytest.raises(InputError, match="slices 1 to 24, and the note names 20 to 30"):
        gate(act("shrink", slices=(20, 30)), mask, volume)


@pytest.mark.parametrize(("plane", "towards"), [("sagittal", "left"), ("coronal", "anterior")])
def test_other_slices_are_counted_as_viewers_do(plane: str, towards: str) -> None:
    axis = 0 if plane == "sagittal" else 1
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 4.0  # acquired in this plane
    volume = Volume(IMAGE.astype(np.float32), np.diag([*spacing, 1.0]), "MR")
    first = np.argwhere(MASK)[:, axis].min()
    along = direction_vector(towards)[axis]
    number = first + 1 if along > 0 else SHAPE[axis] - first
    region = gate(act("shrink", slices=(int(number), int(number))), MASK, volume)
    assert np.unique(np.argwhere(region > 0)[:, axis]).tolist() == [first]


def test_a_neighbour_with_a_mask_keeps_what_is_near_it() -> None:
    stomach = ball((36, 26, 30), 6) & ~MASK
    region = gate(act("exclude", near="stomach"), stomach=stomach)
    distance = ndimage.distance_transform_edt(~stomach, SPACING)
    assert not region[~MASK].any()
    assert region[MASK & (distance < 3)].min() > 0.9
    assert distance[region > 0].max() < 12


def test_a_neighbour_without_a_mask_is_what_looks_unlike_the_core() -> None:
    leak = ball((33, 26, 30), 5) & ~MASK
    image = np.where(leak, 60.0, IMAGE).astype(np.float32)
    region = gate(act("exclude", near="stomach"), MASK | leak, Volume(image, VOLUME.affine, "MR"))
    assert region[ndimage.binary_erosion(leak)].mean() > 0.9
    assert region[ndimage.binary_erosion(MASK)].mean() < 0.05


def test_remove_on_slices_takes_the_whole_mask_there() -> None:
    first = int(np.argwhere(MASK)[:, 2].min())
    region = gate(act("remove", slices=(1, SHAPE[2] - first)), MASK, VOLUME)
    assert np.array_equal(region > 0, MASK)


def test_acts_on_parts_have_exactly_these() -> None:
    island = ball((4, 5, 8), 3)
    hole = ball((20, 26, 30), 4)
    mask = (MASK & ~hole) | island
    assert np.array_equal(gate(act("remove"), mask) > 0, island)
    assert np.array_equal(gate(act("keep_largest"), mask) > 0, island)
    assert np.array_equal(gate(act("fill"), mask) > 0, hole)
    assert not gate(act("keep"), mask).any()
    rough = gate(act("smooth"), mask) > 0
    assert ndimage.distance_transform_edt(mask, SPACING)[rough].max() <= 5
    assert ndimage.distance_transform_edt(~mask, SPACING)[rough].max() <= 5


def test_a_tunnel_through_all_slices_is_filled_where_it_is_closed_on_them() -> None:
    tunnel = np.zeros(SHAPE, bool)
    tunnel[18:22, 15:18] = True
    region = gate(act("fill"), MASK & ~tunnel) > 0
    assert region.any()
    assert np.array_equal(region, MASK & tunnel & region)
    assert region[20, 16, 12]


def test_holes_are_filled_whatever_the_order_of_the_mask_in_memory() -> None:
    mask = np.ones(SHAPE, bool)  # the box around it is the image
    mask[20, 16, 12] = False
    region = gate(act("fill"), np.asfortranarray(mask)) > 0
    assert np.array_equal(np.argwhere(region), [[20, 16, 12]])


@pytest.mark.parametrize("action", ["expand", "smooth", "fill"])
def test_nothing_is_near_a_neighbour_out_of_reach(action: str) -> None:
    corner = np.zeros(SHAPE, bool)
    corner[-2:, -2:, -2:] = True
    assert not gate(act(action, near="stomach"), stomach=corner).any()


def test_what_has_no_region_is_said() -> None:
    with pytest.raises(InputError, match="mask of liver is empty"):
        gate(act("expand"), np.zeros(SHAPE, bool))
    with pytest.raises(InputError, match=r"shape \(2, 2, 2\)"):
        gate(act("expand"), np.ones((2, 2, 2), bool))


def test_fat_and_air_are_what_has_their_hounsfield_units() -> None:
    shape = (40, 40, 8)
    mask = np.zeros(shape, bool)
    mask[10:30, 10:30, 2:7] = True
    fat = np.zeros(shape, bool)
    fat[10:30, 10:16, 2:5] = True
    array = np.where(fat, -100, 60) + np.random.default_rng(0).normal(0, 12, shape)
    volume = Volume(array.astype(np.float32), np.diag([2.0, 2.0, 4.0, 1.0]), "CT")
    act = Intervention(label="spleen", action="exclude", near="fat")
    region = region_gate(act, volume, mask, {})
    assert region.is_exact
    found = region.in_volume(shape) > 0
    assert (found & fat).sum() > 0.95 * fat.sum()
    assert (found & ~fat).sum() < 0.01 * fat.sum()
    above = region_gate(act.model_copy(update={"near": "air"}), volume, mask, {})
    assert not above.weight.any()
    # In MR, numbers say nothing of themselves.
    assert not region_gate(act, replace(volume, modality="MR"), mask, {}).is_exact


def test_growth_to_a_slice_reaches_it() -> None:
    lowest = int(np.flatnonzero(MASK.any((0, 1)))[0])
    region = gate(act("expand", direction="inferior", slices=(SHAPE[2] - lowest + 1, SHAPE[2])))
    assert np.flatnonzero(region.any((0, 1))).tolist() == list(range(lowest))
    alone = gate(act("expand", direction="inferior"))
    assert not alone[..., 0].any()
