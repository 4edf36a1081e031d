"""Labelled images are found in each layout, and what is wrong with a folder is said."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from causal_sam.data_sets.cases import read_cases
from causal_sam.errors import InputError


def write(path, array, spacing=(1.0, 1.0, 2.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([*spacing, 1.0])), path)


@pytest.fixture
def image():
    return np.arange(60, dtype=np.int16).reshape(5, 4, 3)


@pytest.fixture
def label():
    label = np.zeros((5, 4, 3), np.uint8)
    label[1:3, 1:3, 1], label[4, 3, 2] = 1, 7
    return label


def test_list_of_cases(tmp_path, image, label):
    image = image - np.int16(1000)  # Hounsfield units
    write(tmp_path / "a" / "ct.nii.gz", image)
    write(tmp_path / "a" / "truth.nii.gz", label)
    entry = {"set": "trunk", "case": "01", "image": "a/ct.nii.gz", "label": "a/truth.nii.gz", "modality": "CT"}
    map_only = {"set": "maps", "case": "02", "image": None, "label": "a/truth.nii.gz", "labels": {}}
    (tmp_path / "cases.json").write_text(
        json.dumps([entry | {"sequence": "portal venous", "labels": {"1": "liver", "7": "spleen"}}, map_only])
    )
    (case,) = read_cases(tmp_path)
    assert (case.group, case.name, case.modality, case.sequence) == ("trunk", "01", "CT", "portal venous")
    volume, structures = case.read()
    assert volume.modality == "CT"
    assert np.array_equal(volume.array, image)
    assert {name: int(mask.sum()) for name, mask in structures.items()} == {"liver": 4, "spleen": 1}
    assert np.array_equal(structures["liver"], label == 1)


def test_two_folders(tmp_path, image, label):
    write(tmp_path / "images" / "p1.nii.gz", image)
    write(tmp_path / "labels" / "p1.nii.gz", label)
    write(tmp_path / "images" / "unlabelled.nii.gz", image)
    (case,) = read_cases(tmp_path)
    assert set(case.read()[1]) == {"label 1", "label 7"}


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("p1.nii.gz", {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "edema", "7": "core"}}),
        ("p1_0000.nii.gz", {"channel_names": {"0": "MR"}, "labels": {"background": 0, "edema": 1, "core": 7}}),
    ],
)
def test_decathlon_and_nnunet(tmp_path, image, label, name, description):
    write(tmp_path / "imagesTr" / name, image)
    write(tmp_path / "labelsTr" / "p1.nii.gz", label)
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (case,) = read_cases(tmp_path)
    volume, structures = case.read()
    assert (case.name, volume.modality) == ("p1", "MR")
    assert {name: int(mask.sum()) for name, mask in structures.items()} == {"edema": 4, "core": 1}


@pytest.mark.parametrize("ending", ["_label", "_seg"])
def test_pairs(tmp_path, image, label, ending):
    write(tmp_path / "p1.nii.gz", image)
    write(tmp_path / f"p1{ending}.nii.gz", label)
    assert [case.name for case in read_cases(tmp_path)] == ["p1"]


def test_other_grid_is_refused(tmp_path, image, label):
    write(tmp_path / "p1.nii.gz", image)
    write(tmp_path / "p1_label.nii.gz", label, (1.0, 1.0, 3.0))
    with pytest.raises(InputError, match="not on the grid"):
        read_cases(tmp_path)[0].read()


def test_frames(tmp_path, image, label):
    """As in Decathlon: an image of several sequences, and one label map."""
    write(tmp_path / "p1.nii.gz", np.stack([image, image + 100], axis=-1))
    write(tmp_path / "p1_seg.nii.gz", label)
    (case,) = read_cases(tmp_path)
    volume, structures = case.read()
    assert (volume.frame, volume.frames) == (0, 2)
    assert np.array_equal(volume.array, image)
    assert np.array_equal(structures["label 1"], label == 1)
    write(tmp_path / "p1_seg.nii.gz", np.stack([label, label], axis=-1))
    with pytest.raises(
        InputError, match="has 2 layers, as of segments that overlap: a label map has one number for each voxel"
    ):
        case.read()


def test_wrong_folders(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        read_cases(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no labelled images.*cases\.json"):
        read_cases(tmp_path)
    (tmp_path / "cases.json").write_text('[{"set": "x"}]')
    with pytest.raises(InputError, match=r"cases\.json cannot be used"):
        read_cases(tmp_path)


def test_folders_with_named_labels_have_unions_too(tmp_path, image):
    label = np.zeros((5, 4, 3), np.uint8)
    label[0], label[1], label[2, :2], label[3] = 1, 2, 3, 4
    names = {"1": "left lung upper lobe", "2": "right lung lower lobe", "3": "L1 vertebra", "4": "left ventricle"}
    for folder in ("b", "a"):
        write(tmp_path / folder / "image.nii.gz", image)
        write(tmp_path / folder / "label.nii.gz", label)
        (tmp_path / folder / "labels.json").write_text(json.dumps(names))
    first, _ = read_cases(tmp_path)
    assert (first.group, first.name) == (tmp_path.name, "a")
    _, structures = first.read()
    sizes = {name: int(mask.sum()) for name, mask in structures.items()}
    assert sizes == {
        "left lung upper lobe": 12,
        "right lung lower lobe": 12,
        "L1 vertebra": 6,
        "left ventricle": 12,
        "lungs": 24,
        "vertebrae": 6,
    }
    assert [case.name for case in read_cases(tmp_path / "a")] == ["a"]
    (tmp_path / "a" / "labels.json").write_text("[1]")
    with pytest.raises(InputError, match="must be an object of values and names"):
        read_cases(tmp_path)
