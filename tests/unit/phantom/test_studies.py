"""The demo studies are complete, consistent in all their formats, and anatomically where they say."""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest

from causal_sam.imaging import direction_vector, read_volume
from causal_sam.phantom import studies as studies_module
from causal_sam.phantom.studies import MANIFEST, STYLES, write_demo_studies


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def studies(folder):
    return write_demo_studies(folder)


def test_two_ct_and_two_mr(studies):
    assert [study.modality for study in studies] == ["CT", "CT", "MR", "MR"]
    assert len({study.study_uid for study in studies} | {study.series_uid for study in studies}) == 8


def test_only_images_lie_where_a_data_store_looks(folder, studies):
    visible = {path.name for path in folder.iterdir() if path.is_file() and path.name != MANIFEST}
    assert visible == {f"{name}.nii.gz" for name in STYLES}


def test_nifti_and_dicom_hold_the_same(studies):
    for study in studies:
        nifti, dicom = read_volume(study.image), read_volume(study.dicom)
        assert np.array_equal(nifti.array, dicom.array)
        np.testing.assert_allclose(nifti.affine, dicom.affine, atol=1e-3)
        assert dicom.modality == study.modality
        assert dicom.tags["Manufacturer"] == "Phantom"


def test_truth_is_on_the_grid_and_names_every_organ(studies):
    for study in studies:
        truth = read_volume(study.truth)
        assert truth.shape == read_volume(study.image).shape
        assert json.loads((study.truth.parent / "labels.json").read_text()) == study.labels
        volumes = {name: (truth.array == value).sum() * truth.voxel_ml for name, value in study.labels.items()}
        assert volumes["liver"] > 1000 > volumes["spleen"] > 80
        assert all(volume > 5 for volume in volumes.values())


def test_organs_are_on_their_side_of_the_patient(studies):
    for study in studies:
        truth = read_volume(study.truth)

        def centre(name, study=study, truth=truth):
            index = np.argwhere(truth.array == study.labels[name]).mean(axis=0)
            return truth.affine[:3, :3] @ index + truth.affine[:3, 3]

        left, anterior, superior = map(direction_vector, ("left", "anterior", "superior"))
        assert left @ centre("spleen") > 50 > -50 > left @ centre("liver")
        assert left @ centre("left kidney") > 30 > -30 > left @ centre("right kidney")
        assert left @ centre("aorta") > left @ centre("inferior vena cava")
        assert anterior @ centre("stomach") > anterior @ centre("left kidney")
        assert superior @ centre("liver") > superior @ centre("right kidney")


def test_same_anatomy_in_every_style(studies):
    """Sizes agree within what the different grids allow."""
    volumes = []
    for study in studies:
        truth = read_volume(study.truth)
        volumes.append([(truth.array == value).sum() * truth.voxel_ml for value in study.labels.values()])
    np.testing.assert_allclose(volumes, np.broadcast_to(volumes[0], np.shape(volumes)), rtol=0.15)


def test_second_call_leaves_the_files_alone_and_an_interrupted_set_is_written_again(folder, studies, monkeypatch):
    written = []
    monkeypatch.setattr(studies_module, "_write_study", lambda study, style, seed: written.append(study.name))
    assert write_demo_studies(folder) == studies
    assert written == []
    (folder / MANIFEST).unlink()
    write_demo_studies(folder)
    assert written == list(STYLES)


def test_dicom_is_valid_enough_for_a_viewer(studies):
    for study in studies:
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(study.dicom.iterdir())]
        assert {(h.StudyInstanceUID, h.SeriesInstanceUID) for h in headers} == {(study.study_uid, study.series_uid)}
        assert len({h.SOPInstanceUID for h in headers}) == len(headers)
        heights = [float(h.ImagePositionPatient[2]) for h in headers]
        assert heights == sorted(heights)
