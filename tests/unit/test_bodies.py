"""Samples of anatomies: orientation, names, spacing and repeatability, on a small invented label map."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from causal_sam.errors import InputError
from causal_sam.imaging.frames import SliceFrame
from causal_sam.phantom.bodies import BodySampler
from causal_sam.phantom.bodies.geometry import DISPLAY, PLANES
from causal_sam.phantom.bodies.names import unions
from causal_sam.phantom.bodies.regions import regions
from causal_sam.phantom.bodies.tissues import tissue_of, tissues

NAMES = {1: "liver", 2: "left kidney", 3: "right kidney", 4: "skin", 7: "spleen"}
VOXEL = 4.0


def body(path, orientation: str):
    """Write a trunk of 300x200x300 mm with a liver at the right and kidneys, stored in any orientation."""
    array = np.zeros((75, 50, 75), np.uint8)  # to right, anterior, superior
    array[2:-2, 2:-2] = 4
    array[40:68, 20:42, 40:60] = 1
    array[8:20, 15:35, 40:60] = 7
    array[20:28, 8:18, 25:45] = 2
    array[47:55, 8:18, 20:38] = 3
    image = nib.Nifti1Image(array, np.diag([VOXEL, VOXEL, VOXEL, 1]))
    codes = nib.orientations.axcodes2ornt(orientation)
    path.mkdir(parents=True)
    nib.save(
        image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), codes)),
        path / "labels.nii.gz",
    )
    (path / "labels.json").write_text(json.dumps(NAMES))


@pytest.fixture(scope="module")
def samplers(tmp_path_factory):
    found = []
    for orientation in ("RAS", "LIP"):
        folder = tmp_path_factory.mktemp(orientation)
        body(folder / "trunk", orientation)
        found.append(BodySampler([folder]))
    return found


@pytest.fixture(scope="module")
def samples(samplers):
    rng = np.random.default_rng(3)
    return [samplers[0].sample(rng) for _ in range(24)]


def test_equal_seeds_give_equal_samples_however_a_map_is_stored(samplers):
    first, second = (sampler.sample(np.random.default_rng(5)) for sampler in samplers)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    assert (first.structures, first.styles) == (second.structures, second.styles)


def test_axes_are_those_of_the_display():
    affine = np.diag([1.0, 1, 1, 1])
    for plane in PLANES:
        normal = DISPLAY[plane][0][0]
        frame = SliceFrame(affine, (4, 5, 6), normal)
        # A voxel one step along each displayed axis.
        for own, (patient, sign) in enumerate(DISPLAY[plane]):
            voxel = np.array([1, 1, 1])
            voxel[patient] += sign
            moved = np.subtract(frame.to_slice(voxel), frame.to_slice((1, 1, 1)))
            # Slices of a frame are numbered as the file stores them.
            expected = np.eye(3, dtype=int)[own] * (sign if own == 0 else 1)
            assert moved.tolist() == expected.tolist()


def test_liver_is_at_the_right(samples):
    checked = 0
    for sample in samples:
        places = {
            name: (sample.labels == values[0]).nonzero().float().mean(dim=0)
            for name, values in sample.structures.items()
        }
        if sample.plane != "sagittal" and {"liver", "spleen"} <= places.keys():
            assert places["liver"][2] < places["spleen"][2]
            checked += 1
        if sample.plane == "axial" and {"liver", "left kidney"} <= places.keys():
            assert places["liver"][1] < places["left kidney"][1]
    assert checked > 3


def test_samples_are_what_they_say(samples):
    for sample in samples:
        count, rows, columns = sample.labels.shape
        assert sample.images.shape == sample.wide.shape == (2, count, rows, columns)
        assert sample.images.dtype == sample.wide.dtype == torch.float32
        assert sample.labels.dtype == torch.int16
        assert 10 <= count <= 56
        assert 96 <= max(rows, columns) <= 192
        assert sample.spacing[1] == sample.spacing[2]
        assert 0 <= sample.images.min() < sample.images.max() <= 1
        assert len(sample.styles) == 2
        for values in sample.structures.values():
            assert len(values)
            assert all((sample.labels == value).any() for value in values)
        assert not set(sample.absent) & sample.structures.keys()
        for number, style in enumerate(sample.styles):
            is_ct = style.startswith("A CT image")
            assert is_ct or style.startswith(("An MR image", "A medical image")) or " MR image" in style
            assert torch.equal(sample.images[number], sample.wide[number]) != is_ct
        assert set(sample.unnamed).isdisjoint(value for values in sample.structures.values() for value in values)


def test_left_and_right_are_exchanged_with_their_names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pelvis")
    array = np.zeros((80, 40, 40), np.uint8)
    array[2:-2, 2:-2] = 4
    array[10:30, 10:30, 10:30] = 1
    array[50:70, 10:30, 10:30] = 2
    (folder / "pelvis").mkdir()
    nib.save(nib.Nifti1Image(array, np.diag([4.0, 4, 4, 1])), folder / "pelvis" / "labels.nii.gz")
    names = {1: "left hip bone", 2: "right hip bone", 4: "skin"}
    (folder / "pelvis" / "labels.json").write_text(json.dumps(names))
    sampler = BodySampler([folder], styles=1)
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(20):
        sample = sampler.sample(rng)
        if sample.plane != "sagittal" and {"left hip bone", "right hip bone"} <= sample.structures.keys():
            left, right = (sample.structures[name][0] for name in ("left hip bone", "right hip bone"))
            columns = [(sample.labels == value).nonzero().float()[:, 2].mean() for value in (left, right)]
            # Columns run to the patient's left.
            assert columns[0] > columns[1]
            seen.add((left, right))
    assert len(seen) == 2


def test_unions_of_what_is_there(samples):
    sample = next(own for own in samples if "kidneys" in own.structures)
    parts = {value for name in ("left kidney", "right kidney") for value in sample.structures.get(name, ())}
    assert set(sample.structures["kidneys"]) == parts
    assert "kidneys" not in unions(["left kidney", "liver"])
    assert unions(["midbrain", "pons", "medulla oblongata"]) == {
        "brainstem": frozenset({"midbrain", "pons", "medulla oblongata"})
    }


def test_every_tissue_exists():
    assert {tissue_of(name) for name in ("liver", "left rib 3", "x", "corpus callosum")} <= tissues().keys()
    assert {tissue.core for tissue in tissues().values()} - {None} <= tissues().keys()
    for region in regions().values():
        assert len(region.planes) == len(region.styles) == 3


def test_folder_without_maps_is_refused(tmp_path):
    with pytest.raises(InputError, match="no label map"):
        BodySampler([tmp_path])
