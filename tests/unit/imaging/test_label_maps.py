"""Label maps beside their image: their values, and the order and part of the grid that they have."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from unit.imaging.grids import ORIENTATIONS, SHAPE, make_affine, reorient, to_itk

from causal_sam.errors import InputError
from causal_sam.imaging import Volume, align_to_grid, as_label_map, read_label_map
from causal_sam.imaging.directions import RAS_LPS

TILTS = (np.eye(3), Rotation.from_euler("xyz", (12, -9, 24), degrees=True).as_matrix())
IMAGES = [Volume(np.zeros(SHAPE, np.int16), make_affine((0.7, 1.3, 4.1), tilt)) for tilt in TILTS]
IMAGE = IMAGES[1]
LABEL = np.random.default_rng(0).integers(0, 4, SHAPE, dtype=np.uint8)
# First voxel and end of parts of the grid: all of it, some in the middle, one slice along each axis, one voxel.
PARTS = (
    ((0, 0, 0), SHAPE),
    ((1, 0, 3), (4, 6, 5)),
    ((2, 0, 0), (3, 6, 7)),
    ((0, 5, 0), (5, 6, 7)),
    ((0, 0, 4), (5, 6, 5)),
    ((4, 5, 6), SHAPE),
)


def part_of(first: tuple[int, ...], end: tuple[int, ...], image: Volume) -> tuple[Volume, NDArray[np.uint8]]:
    """A part of the label as a volume, and the label where nothing but that part is left."""
    part = tuple(map(slice, first, end))
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ first
    expected = np.zeros_like(LABEL)
    expected[part] = LABEL[part]
    return Volume(LABEL[part], affine), expected


def test_every_order_of_the_axes_of_every_part_of_the_grid() -> None:
    for image, orientation, (first, end) in itertools.product(IMAGES, ORIENTATIONS, PARTS):
        part, expected = part_of(first, end, image)
        found = align_to_grid(reorient(part, orientation), image)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == LABEL.dtype


def test_a_grid_that_reaches_beyond_the_image_counts_where_it_is_inside() -> None:
    affine = IMAGE.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ (2, 3, 4)
    label = np.zeros((12, 12, 12), np.uint8)
    label[2:7, 3:9, 4:11] = LABEL
    for orientation in ORIENTATIONS:
        np.testing.assert_array_equal(align_to_grid(reorient(Volume(label, affine), orientation), IMAGE), LABEL)
    label[0, 0, :2] = 1
    with pytest.raises(InputError, match=r"not on the grid of its image: 2 of its voxels lie outside of the image\."):
        align_to_grid(Volume(label, affine), IMAGE)


def test_an_empty_label_may_lie_anywhere_on_the_grid() -> None:
    for steps in itertools.product((-9, 0, 9), repeat=3):
        affine = IMAGE.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ steps
        assert not align_to_grid(Volume(np.zeros((2, 2, 2), np.uint8), affine), IMAGE).any()


def test_the_thickness_of_a_single_slice_does_not_count() -> None:
    image = Volume(np.zeros((5, 6, 1)), IMAGE.affine)
    label = Volume(LABEL[:, :, :1], IMAGE.affine @ np.diag([1.0, 1.0, 0.2, 1.0]))
    np.testing.assert_array_equal(align_to_grid(label, image), LABEL[:, :, :1])


def test_rounded_headers_are_the_same_grid() -> None:
    np.testing.assert_array_equal(align_to_grid(Volume(LABEL, IMAGE.affine.round(4)), IMAGE), LABEL)
    single = IMAGE.affine.astype(np.float32)
    np.testing.assert_array_equal(align_to_grid(Volume(LABEL, single), IMAGE), LABEL)
    # A rounding that is small for one voxel and large over the extent of an image.
    wide, drifting = np.zeros((512, 4, 4), np.uint8), np.diag([1.0005, 1.0, 1.0, 1.0])
    with pytest.raises(InputError, match="lie between those of the image, or are of another size"):
        align_to_grid(Volume(wide, drifting), Volume(wide, np.eye(4)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (np.array([[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "lie between"),
        (np.array([[1, 0, 0, 9], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "lie outside"),
        (np.diag([2.0, 1, 1, 1]), "another size or direction"),
        (np.diag([1.0, 0.4, 1, 1]), "another size or direction"),
        (np.diag([1.0, 1, 1.1, 1]), "lie between those of the image, or are of another size"),
        (np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "another size or direction"),  # sheared
        (np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "lie between"),
        (RAS_LPS, "lie outside"),
    ],
)
def test_other_grids_are_refused(change: NDArray, why: str) -> None:
    with pytest.raises(InputError, match=f"The label is not on the grid of its image: .*{why}"):
        align_to_grid(Volume(LABEL, IMAGE.affine @ change), IMAGE)


def test_numbers_near_whole_ones_are_labels() -> None:
    values = np.array([0.0, 0.004, 0.996, 2.0, -0.003, 65535.0]).reshape(1, 2, 3)
    for dtype in (np.float32, np.float64):
        found = as_label_map(Volume(values.astype(dtype), np.eye(4)), "x")
        assert found.dtype == np.int32
        assert found.ravel().tolist() == [0, 0, 1, 2, 0, 65535]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0, 0.5, 1], "0.5"),
        ([0.0, 1.02], "1.02"),
        ([0, np.nan], "nan"),
        ([0, np.inf], "inf"),
        ([0, -np.inf], "-inf"),
        ([-1, 2], "-1"),
        ([-1.0, 2.0], "-1"),
        ([65536], "65536"),
        (np.array([0, 2**63], np.uint64), "9223372036854775808"),
        ([1e300], "1000"),
    ],
)
def test_other_numbers_are_no_labels(values: list[float], found: str) -> None:
    with pytest.raises(InputError, match=f"spleen.nii is no label map: it holds {found}"):
        as_label_map(Volume(np.reshape(values, (1, 1, -1)), np.eye(4)), "spleen.nii")


def test_a_file_is_read_onto_the_grid(tmp_path: Path) -> None:
    for number, name in enumerate(("a.nii.gz", "a.nrrd", "a.mha", "a.nii")):
        part, expected = part_of(*PARTS[1], IMAGE)
        turned = reorient(Volume(part.array * np.float32(0.999), part.affine), ORIENTATIONS[7 * number + 1])
        sitk.WriteImage(to_itk(turned), tmp_path / name)
        np.testing.assert_array_equal(read_label_map(tmp_path / name, IMAGE), expected)


def test_layers_are_refused(tmp_path: Path) -> None:
    layers = sitk.Compose([to_itk(Volume(LABEL, IMAGE.affine))] * 2)
    sitk.WriteImage(layers, tmp_path / "a.seg.nrrd")
    with pytest.raises(InputError, match=r"a\.seg\.nrrd has 2 layers, as of segments that overlap"):
        read_label_map(tmp_path / "a.seg.nrrd", IMAGE)
