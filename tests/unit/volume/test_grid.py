"""Grid of the volume context: cells, voxels and slices correspond, in whatever order a file stores its voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from causal_sam.imaging import Volume
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.volume.context import CoarseMask
from causal_sam.volume.grid import Grid, SliceGeometry

ORIENTATIONS = [((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (-1, 1, -1)), ((1, 2, 0), (1, -1, 1)), ((0, 2, 1), (-1, -1, -1))]


def volume_of(shape=(60, 48, 30), spacing=(2.0, 2.0, 3.0)):
    """Voxel values say where they are; axes to right, anterior, superior."""
    array = np.indices(shape).sum(0).astype(np.float32)
    return Volume(array, np.diag([*spacing, 1.0]))


def reordered(array, affine, order, signs):
    """The same anatomy with swapped and flipped voxel axes."""
    matrix = affine.copy()
    array = array.transpose(order)
    matrix[:3, :3] = affine[:3, list(order)]
    for axis, sign in enumerate(signs):
        if sign < 0:
            matrix[:3, 3] += matrix[:3, axis] * (array.shape[axis] - 1)
            matrix[:3, axis] *= -1
            array = np.flip(array, axis)
    return np.ascontiguousarray(array), matrix


def grid_of(volume, plane="axial"):
    slices = VolumeSlices(volume, plane, 256)
    return Grid.whole(SliceGeometry(slices.frame, slices.height, slices.width))


def ball(shape, centre, radius, spacing):
    distance = sum(
        ((np.arange(n) - c) * mm).reshape([-1 if a == axis else 1 for a in range(3)]) ** 2
        for axis, (n, c, mm) in enumerate(zip(shape, centre, spacing, strict=True))
    )
    return distance < radius**2


def test_slices_are_skipped_until_they_are_about_a_cell_apart():
    thin = grid_of(volume_of((60, 48, 64), (4.0, 4.0, 1.0)))
    assert thin.geometry.cell_mm == pytest.approx((3.0, 3.75, 3.75), rel=2e-3)
    assert len(thin.indices) == 22
    assert set(np.diff(thin.indices)) == {3}
    thick = grid_of(volume_of((60, 48, 10), (2.0, 2.0, 9.0)))
    assert thick.indices == tuple(range(10))


@pytest.mark.parametrize(("count", "indices"), [(1, (0,)), (2, (0, 1)), (3, (0, 2)), (4, (0, 3))])
def test_the_grid_of_a_few_thin_slices_covers_all_of_them(count, indices):
    grid = grid_of(volume_of((60, 48, count), (4.0, 4.0, 1.0)))
    assert grid.indices == indices
    assert all(grid.covers(index) for index in range(count))
    assert grid.holds(grid.positions([(0, 0, index) for index in range(count)])).all()


def test_a_mask_survives_the_way_to_the_grid_and_back():
    volume = volume_of()
    mask = ball(volume.shape, (25, 20, 14), 22, volume.spacing)
    grid = grid_of(volume)
    cells = grid.from_voxels(mask)
    assert tuple(cells.shape) == grid.shape
    back = CoarseMask(grid, (cells - 0.5) * 12, 1.0).mask()
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) > 0.96


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_positions_and_cells_agree(plane):
    volume = volume_of()
    grid = grid_of(volume, plane)
    voxel = (25, 20, 15)
    mask = ball(volume.shape, voxel, 13, volume.spacing)
    cells = grid.from_voxels(mask)
    indices = torch.stack(torch.meshgrid(*(torch.arange(n) for n in cells.shape), indexing="ij")).float()
    centre = (indices * cells).flatten(1).sum(1) / cells.sum()
    assert grid.positions([voxel])[0].numpy() == pytest.approx(centre.numpy(), abs=0.3)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_the_order_of_voxels_does_not_matter(order, signs):
    volume = volume_of()
    mask = ball(volume.shape, (40, 20, 10), 15, volume.spacing)
    array, affine = reordered(volume.array, volume.affine, order, signs)
    other = Volume(array, affine)
    moved, _ = reordered(mask, volume.affine, order, signs)
    first, second = grid_of(volume), grid_of(other)
    assert first.geometry == second.geometry
    assert torch.equal(first.from_voxels(mask), second.from_voxels(moved))


def test_the_finer_grid_covers_the_part():
    volume = volume_of()
    mask = ball(volume.shape, (25, 20, 14), 12, volume.spacing)
    grid = grid_of(volume)
    cells = (grid.from_voxels(mask) > 0.5).nonzero()
    fine = grid.around(cells.amin(0) - 2, cells.amax(0) + 2, grid.indices)
    assert fine.stride == 2
    assert fine.geometry.cell_mm[1] == pytest.approx(grid.geometry.cell_mm[1] / 2)
    back = CoarseMask(fine, (fine.from_voxels(mask) - 0.5) * 12, 1.0).mask()
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) > 0.97
    # The same place has the same distance from the centre of the volume in both grids.
    for each in (grid, fine):
        position, shape, geometry = each.positions([(25, 20, 14)])[0].numpy(), each.shape, each.geometry
        mm = [(position[a] + 0.5 - shape[a] / 2) * geometry.cell_mm[a] + geometry.centre[a] for a in (1, 2)]
        assert mm == pytest.approx([(23.5 - 20) * 2, (29.5 - 25) * 2], abs=1.0)


def test_logits_of_the_grid_on_the_finer_grid():
    volume = volume_of()
    mask = ball(volume.shape, (25, 20, 14), 12, volume.spacing)
    grid = grid_of(volume)
    fine = grid.around(torch.tensor([0, 10, 10]), torch.tensor([9, 40, 40]), grid.indices[3:20])
    logits = grid.resampled((grid.from_voxels(mask) - 0.5) * 12, fine)
    assert tuple(logits.shape) == fine.shape
    direct = fine.from_voxels(mask) > 0.5
    assert ((logits > 0) != direct).float().sum() < 0.2 * direct.float().sum()


def test_a_mask_is_cut_where_the_wider_grid_goes_on():
    grid = grid_of(volume_of())
    fine = grid.around(torch.tensor([0, 0, 8]), torch.tensor([9, 20, 20]), grid.indices[:9])
    mask = torch.zeros(fine.shape, dtype=torch.bool)
    mask[2:5, 4:8, 4:8] = True
    assert not fine.is_cut(mask, grid)
    mask[0, 0] = True  # first slice and first row of the volume: there is nothing beyond
    mask[0, 0, 0] = mask[0, 0, -1] = False
    assert not fine.is_cut(mask, grid)
    mask[-1] = True
    assert fine.is_cut(mask, grid)


def test_a_single_slice_and_outside_slices():
    grid = grid_of(volume_of((40, 30, 1)))
    assert grid.indices == (0,)
    logits = torch.full(grid.shape, 3.0)
    assert (grid.slice_logits(logits, 0, -8.0) > 0).all()
    part = grid_of(volume_of())
    fine = part.around(torch.tensor([0, 8, 8]), torch.tensor([3, 20, 20]), part.indices[4:8])
    assert (fine.slice_logits(torch.full(fine.shape, 3.0), 29, -8.0) == -8.0).all()
