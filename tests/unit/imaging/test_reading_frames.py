"""Files of several frames: each is read voxel by voxel, and its mask lies where the file itself puts it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from PIL import Image

from causal_sam.errors import InputError
from causal_sam.imaging import MASK_EXTENSIONS, Volume, read_volume, write_mask

from .grids import SHAPE, make_affine, positions, to_itk, volumes

FRAMES = 3
# NIfTI keeps its affine in single precision; the tests' patients are 640 mm tall.
PRECISION_MM = 2e-3


def frames_of(volume: Volume) -> list[np.ndarray]:
    """Arrays in which no two voxels of any frames have the same value."""
    return [volume.array + frame * volume.array.size for frame in range(FRAMES)]


def write_nibabel(path: Path, volume: Volume, *, vectors: bool) -> None:
    array = np.stack(frames_of(volume), axis=-1)
    nibabel.save(nibabel.Nifti1Image(array[..., None, :] if vectors else array, volume.affine), path)


def write_itk(path: Path, volume: Volume, *, vectors: bool) -> None:
    images = [to_itk(Volume(array, volume.affine)) for array in frames_of(volume)]
    sitk.WriteImage(sitk.Compose(images) if vectors else sitk.JoinSeries(images, 5.0, 0.5), str(path))


def write_pynrrd(path: Path, volume: Volume, *, vectors: bool) -> None:
    """With the axis of the frames in front, as Slicer writes vectors, or at the end."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    place = 0 if vectors else 3
    header = {
        "space": "left-posterior-superior",
        "space origin": lps[:3, 3],
        "space directions": np.insert(lps[:3, :3].T, place, np.nan, axis=0),
        "kinds": np.insert(np.array(["domain"] * 3, object), place, "vector" if vectors else "list").tolist(),
    }
    nrrd.write(str(path), np.stack(frames_of(volume), axis=place), header, index_order="F")


WRITERS = {
    "nibabel.nii.gz": write_nibabel,
    "nibabel.nii": write_nibabel,
    "itk.nii.gz": write_itk,
    "itk.nrrd": write_itk,
    "itk.mha": write_itk,
    "pynrrd.nrrd": write_pynrrd,
}


@pytest.mark.parametrize("vectors", [False, True], ids=["fourth axis", "vectors"])
@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=20)
@given(volume=volumes())
def test_every_frame_is_read_on_the_grid_of_the_file(name, vectors, volume):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        WRITERS[name](path, volume, vectors=vectors)
        for frame, array in enumerate(frames_of(volume)):
            again = read_volume(path, frame)
            assert (again.frame, again.frames) == (frame, FRAMES)
            assert again.array.base is None or again.array.base.size <= array.size  # keeps no other frame in memory
            assert np.array_equal(again.array, array)
            np.testing.assert_allclose(again.affine, volume.affine, atol=PRECISION_MM)


@pytest.mark.parametrize("extension", MASK_EXTENSIONS)
@pytest.mark.parametrize("name", ["nibabel.nii.gz", "itk.nrrd", "itk.mha", "pynrrd.nrrd"])
@settings(max_examples=10)
@given(volume=volumes())
def test_the_mask_of_a_frame_is_3d_and_lies_where_itk_puts_the_frame(name, extension, volume):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        WRITERS[name](path, volume, vectors=False)
        frame = read_volume(path, 2)
        mask = (frame.array % 5).astype(np.uint8)
        written = sitk.ReadImage(str(write_mask(mask, frame, Path(folder) / f"mask{extension}")))
        assert written.GetDimension() == 3
        assert np.array_equal(sitk.GetArrayFromImage(written).T, mask)
        image = sitk.ReadImage(str(path))
        for voxel in [(0, 0, 0), tuple(size - 1 for size in volume.shape)]:
            index = (*voxel, 2)[: image.GetDimension()]
            place = image.TransformIndexToPhysicalPoint(index)[:3]
            np.testing.assert_allclose(written.TransformIndexToPhysicalPoint(voxel), place, atol=2 * PRECISION_MM)
            np.testing.assert_allclose(positions(frame.affine, frame.shape)[voxel] * (-1, -1, 1), place, atol=2e-3)


def stack(dtype: type = np.int16) -> np.ndarray:
    return np.arange(np.prod(SHAPE) * FRAMES, dtype=dtype).reshape(*SHAPE, FRAMES)


def test_the_first_frame_is_read_by_default(tmp_path):
    nibabel.save(nibabel.Nifti1Image(stack(), np.eye(4)), tmp_path / "a.nii")
    assert np.array_equal(read_volume(tmp_path / "a.nii").array, stack()[..., 0])
    assert read_volume(tmp_path / "a.nii").frame == 0


def test_frames_of_integers_with_a_slope(tmp_path):
    image = nibabel.Nifti1Image(stack(), np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    nibabel.save(image, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz", 1)
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, stack()[..., 1] * 0.5 - 1024)
    assert volume.modality == "CT"


def test_flat_frames(tmp_path):
    nibabel.save(nibabel.Nifti1Image(stack()[:, :, :1], make_affine((1.0, 2.0, 3.0))), tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii", 2)
    assert np.array_equal(volume.array, stack()[:, :, :1, 2])
    sitk.WriteImage(sitk.GetImageFromArray(stack()[:, :, 0], isVector=True), str(tmp_path / "b.mha"))
    assert np.array_equal(read_volume(tmp_path / "b.mha", 2).array[:, :, 0].T, stack()[:, :, 0, 2])


@pytest.mark.parametrize("extension", ["nii", "nii.gz", "nrrd", "mha"])
@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("frame", [-1, 3])
def test_a_frame_that_is_not_there(extension, vectors, frame, tmp_path):
    path = tmp_path / f"a.{extension}"
    write_itk(path, Volume(stack()[..., 0], make_affine((1.0, 2.0, 3.0))), vectors=vectors)
    with pytest.raises(InputError) as error:
        read_volume(path, frame)
    assert str(error.value) == f"{path.name} has 3 frames: frame must be in 0..2, not {frame}."


@pytest.mark.parametrize("extension", ["nii", "nrrd", "mha", "png"])
def test_an_image_of_one_frame_has_no_other(extension, tmp_path):
    path = tmp_path / f"a.{extension}"
    flat = stack(np.uint8)[:, :, 0, 0]
    sitk.WriteImage(sitk.GetImageFromArray(flat if extension == "png" else stack()[..., 0]), str(path))
    with pytest.raises(InputError, match=r"^a\.\w+ has one frame: frame must be 0, not 1\.$"):
        read_volume(path, 1)


@pytest.mark.parametrize("extension", ["nii", "nii.gz"])
def test_a_frame_that_was_cut_off(extension, tmp_path):
    path = tmp_path / f"a.{extension}"
    array = np.random.default_rng(0).integers(0, 255, (20, 20, 20, 4), np.uint8)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="is not a readable NIfTI file"):
        read_volume(path, 3)


def test_nrrd_with_an_axis_that_itk_does_not_know(tmp_path):
    header = {
        "space": "left-posterior-superior",
        "space origin": np.zeros(3),
        "space directions": np.vstack([np.eye(3), np.full(3, np.nan)]),
        "kinds": ["domain"] * 3 + ["time"],
    }
    nrrd.write(str(tmp_path / "a.nrrd"), stack(), header, index_order="F")
    with pytest.raises(InputError, match=r"a\.nrrd has an axis outside of space .* its kind must be list\.$"):
        read_volume(tmp_path / "a.nrrd")


def test_pages_of_a_picture(tmp_path):
    pages = [Image.fromarray(np.full((4, 6), n, np.uint8)) for n in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    for frame in range(3):
        volume = read_volume(tmp_path / "a.tif", frame)
        assert (volume.frame, volume.frames, volume.shape) == (frame, 3, (6, 4, 1))
        assert (volume.array == frame).all()
    with pytest.raises(InputError, match=r"3 frames: frame must be in 0\.\.2, not 3"):
        read_volume(tmp_path / "a.tif", 3)
