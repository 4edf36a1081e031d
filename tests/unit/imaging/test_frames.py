"""Canonical slices: exact, radiological, and the same for every order of the voxels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causal_sam.errors import InputError
from causal_sam.imaging import SliceFrame, Volume, axis_towards, direction_vector, slice_axis

from .grids import ORIENTATIONS, SHAPE, make_affine, orientations, positions, reorient, spacings, tilts, volumes

# Of a picture: where rows, columns and slices run to.
DISPLAY = {
    "axial": ("posterior", "left", "superior"),
    "coronal": ("inferior", "left", "anterior"),
    "sagittal": ("inferior", "posterior", "left"),
}
axes = st.sampled_from((0, 1, 2))


@pytest.mark.parametrize("plane", DISPLAY)
def test_rows_columns_and_slices_run_as_radiologists_see_them(plane):
    down, right, onward = (direction_vector(direction) for direction in DISPLAY[plane])
    for orientation in ORIENTATIONS:
        volume = reorient(Volume(np.zeros(SHAPE), make_affine((1.0, 2.0, 3.0))), orientation)
        frame = SliceFrame(volume.affine, volume.shape, slice_axis(volume, plane))
        where = positions(volume.affine, volume.shape)
        index = 2
        picture = np.stack([frame.extract(where[..., axis], index) for axis in range(3)], axis=-1)
        assert picture[1, 0] - picture[0, 0] == pytest.approx(down * frame.spacing_rc[0]), orientation
        assert picture[0, 1] - picture[0, 0] == pytest.approx(right * frame.spacing_rc[1]), orientation
        previous, following = frame.neighbours(index)
        corner = [where[frame.to_voxel(n, 0, 0)] for n in (previous, index, following)]
        assert (corner[1] - corner[0]) @ onward > 0, orientation
        assert (corner[2] - corner[1]) @ onward > 0, orientation


@given(orientations, spacings, tilts, axes)
def test_the_order_of_the_voxels_does_not_show(orientation, spacing, tilt, axis):
    volume = Volume(np.arange(np.prod(SHAPE)).reshape(SHAPE), make_affine(spacing, tilt))
    turned = reorient(volume, orientation)
    frame = SliceFrame(volume.affine, SHAPE, axis)
    turned_frame = SliceFrame(turned.affine, turned.shape, int(orientation[axis, 0]))
    assert turned_frame.count == frame.count
    assert turned_frame.spacing_rc == pytest.approx(frame.spacing_rc)
    flipped = orientation[axis, 1] < 0

    def index_there(index: int) -> int:
        return frame.count - 1 - index if flipped else index

    for index in range(frame.count):
        picture = frame.extract(volume.array, index)
        assert picture.shape == frame.shape_rc
        assert np.array_equal(turned_frame.extract(turned.array, index_there(index)), picture)
        assert turned_frame.neighbours(index_there(index)) == tuple(map(index_there, frame.neighbours(index)))


@given(volumes(), axes, st.data())
def test_voxels_and_pixels_name_each_other(volume, axis, data):
    frame = SliceFrame(volume.affine, volume.shape, axis)
    voxel = data.draw(st.tuples(*(st.integers(0, size - 1) for size in volume.shape)))
    index, row, column = frame.to_slice(voxel)
    assert index == voxel[axis]
    assert frame.extract(volume.array, index)[row, column] == volume.array[voxel]
    assert frame.to_voxel(index, row, column) == voxel


@given(volumes(), axes)
def test_slices_put_back_are_the_volume(volume, axis):
    frame = SliceFrame(volume.affine, volume.shape, axis)
    copy = np.full(volume.shape, -1)
    for index in range(frame.count):
        frame.insert(frame.extract(volume.array, index), copy, index)
    assert np.array_equal(copy, volume.array)


def test_a_slice_is_a_view():
    volume = Volume(np.zeros(SHAPE), np.eye(4))
    array = np.zeros(SHAPE)
    SliceFrame(volume.affine, SHAPE, 1).extract(array, 3)[0, 0] = 1
    assert array[:, 3, :].sum() == array.sum() == 1


@given(volumes(), axes)
def test_neighbours_are_adjacent_and_end_with_the_volume(volume, axis):
    frame = SliceFrame(volume.affine, volume.shape, axis)
    for index in range(frame.count):
        for neighbour in frame.neighbours(index):
            assert abs(neighbour - index) == 1 or (neighbour == index and index in (0, frame.count - 1))
        assert {*frame.neighbours(index), index} == {n for n in (index - 1, index, index + 1) if 0 <= n < frame.count}


@pytest.mark.parametrize("index", [-1, 7])
def test_a_slice_that_does_not_exist(index):
    frame = SliceFrame(np.eye(4), SHAPE, 2)
    array = np.zeros(SHAPE)
    with pytest.raises(InputError, match=f"no slice {index}: the slices are 0 to 6"):
        frame.extract(array, index)
    with pytest.raises(InputError, match="no slice"):
        frame.insert(np.ones((6, 5)), array, index)
    assert not array.any()


@pytest.mark.parametrize(("thick", "direction"), enumerate(("right", "anterior", "superior")))
def test_auto_is_the_plane_of_acquisition(thick, direction):
    spacing = [1.0, 1.2, 0.9]
    spacing[thick] = 4.0
    for orientation in ORIENTATIONS:
        volume = reorient(Volume(np.zeros(SHAPE), make_affine(tuple(spacing))), orientation)
        assert slice_axis(volume) == axis_towards(volume.affine, direction)[0], orientation


@given(orientations, tilts)
def test_auto_is_axial_where_no_side_is_thick(orientation, tilt):
    volume = reorient(Volume(np.zeros(SHAPE), make_affine((1.4, 1.0, 1.3), tilt)), orientation)
    assert slice_axis(volume) == slice_axis(volume, "axial") == axis_towards(volume.affine, "superior")[0]


def test_thick_is_one_and_a_half_times_both_others():
    assert slice_axis(Volume(np.zeros(SHAPE), make_affine((1.5, 1.0, 1.0)))) == 0
    assert slice_axis(Volume(np.zeros(SHAPE), make_affine((1.49, 1.0, 1.0)))) == 2
    assert slice_axis(Volume(np.zeros(SHAPE), make_affine((3.0, 2.5, 1.0)))) == 2


@pytest.mark.parametrize("axis", range(3))
def test_auto_is_the_plane_of_a_single_slice(axis):
    shape = list(SHAPE)
    shape[axis] = 1
    volume = Volume(np.zeros(shape), make_affine((1.0, 1.0, 5.0)))
    assert slice_axis(volume) == axis
    frame = SliceFrame(volume.affine, volume.shape, axis)
    assert frame.count == 1
    assert frame.neighbours(0) == (0, 0)


@pytest.mark.parametrize(("plane", "direction"), [("axial", "superior"), ("coronal", "anterior"), ("sagittal", "left")])
def test_named_planes(plane, direction):
    for orientation in ORIENTATIONS:
        volume = reorient(Volume(np.zeros(SHAPE), make_affine((1.0, 1.0, 5.0))), orientation)
        assert slice_axis(volume, plane) == axis_towards(volume.affine, direction)[0], orientation


def test_unknown_plane():
    with pytest.raises(InputError, match="auto, axial, coronal, sagittal, not 'transversal'"):
        slice_axis(Volume(np.zeros(SHAPE), np.eye(4)), "transversal")
