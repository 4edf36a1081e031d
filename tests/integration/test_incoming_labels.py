"""Labels as clients send them over HTTP: aligned and used later, or refused in a sentence with nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import requests
from unit.app.test_app_incoming_labels import part_of, write_segmentation

from causal_sam.imaging import Volume, read_volume

from .server import REQUEST_SECONDS, Server, read_nifti

pytestmark = pytest.mark.integration

IMAGE = "turned_SAL"
NAMED = {"label_info": [{"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2}]}


def put(server: Server, name: str, content: bytes, params: object = NAMED, image: str = IMAGE) -> requests.Response:
    """Save a label as any HTTP client can."""
    files = {"label": (name, content), "params": (None, params if isinstance(params, str) else json.dumps(params))}
    query = {"image": image, "tag": "final"}
    return requests.put(f"{server.url}/datastore/label", params=query, files=files, timeout=REQUEST_SECONDS)


def stored(server: Server) -> bytes:
    """The accepted label."""
    query = {"label": IMAGE, "tag": "final"}
    response = requests.get(f"{server.url}/datastore/label", params=query, timeout=REQUEST_SECONDS)
    assert response.status_code == 200, response.text
    return response.content


def nifti(array: np.ndarray, affine: np.ndarray) -> bytes:
    return nibabel.Nifti1Image(array, affine).to_bytes()


@pytest.fixture(scope="module")
def image(server: Server) -> Volume:
    return read_volume(server.studies / f"{IMAGE}.nii.gz")


@pytest.fixture(scope="module")
def label(image: Volume) -> np.ndarray:
    label = np.zeros(image.shape, np.uint8)
    label[2:6, 20:40, 20:50] = 1
    label[4:9, 50:60, 10:30] = 2
    return label


def test_a_label_of_every_kind_is_stored_on_the_grid_of_its_image(
    server: Server, image: Volume, label: np.ndarray, tmp_path: Path
) -> None:
    whole = nibabel.Nifti1Image(label, image.affine)
    start, stop = (2, 10, 5), (10, 70, 55)
    part = part_of(Volume(label, image.affine), start, stop)
    segments = [{"Name": "liver", "LabelValue": 1, "Layer": 0}, {"Name": "spleen", "LabelValue": 2, "Layer": 0}]
    crop = write_segmentation(tmp_path / "crop.seg.nrrd", part.array, segments, part.affine)
    turned = [
        whole.as_reoriented(np.array(list(zip(axes, signs, strict=True)), float))
        for axes, signs in (((0, 1, 2), (-1, -1, 1)), ((2, 0, 1), (1, -1, 1)), ((1, 0, 2), (1, 1, -1)))
    ]
    sent = [
        ("label.nii", nifti(label * np.float32(0.996), image.affine), NAMED),
        ("label.bin", label.tobytes(order="F"), NAMED),
        ("Segmentation.seg.nrrd", crop.read_bytes(), {}),
        *(("label.nii", each.to_bytes(), NAMED) for each in turned),
    ]
    for name, content, params in sent:
        response = put(server, name, content, params)
        assert response.status_code == 200, (name, response.text)
        found = read_nifti(stored(server))
        np.testing.assert_array_equal(np.asarray(found.dataobj), label, err_msg=name)
        np.testing.assert_allclose(found.affine, image.affine, atol=1e-4)
        query = {"label": IMAGE, "tag": "final"}
        info = requests.get(f"{server.url}/datastore/label/info", params=query, timeout=REQUEST_SECONDS).json()
        assert [(entry["name"], entry["idx"]) for entry in info["label_info"]] == [("liver", 1), ("spleen", 2)]
        # What was stored is what a client goes on with.
        answer, params = server.slicer(
            {"right kidney": [[1, 5, 5]], "background": [], "label": "right kidney"},
            model="causal_sam_multilabel",
            image=IMAGE,
            client_id=f"{name}{len(content)}",
        )
        kept = (label == 2) & (answer != params["label_names"]["right kidney"])
        np.testing.assert_array_equal(answer == params["label_names"]["spleen"], kept, err_msg=name)


def test_what_is_no_label_is_refused_and_the_accepted_one_stays(
    server: Server, image: Volume, label: np.ndarray
) -> None:
    assert put(server, "label.nii", nifti(label, image.affine)).status_code == 200
    accepted = stored(server)
    shifted = image.affine.copy()
    shifted[:3, 3] += 0.4 * shifted[:3, 0]
    negative = label.astype(np.int16) - 1
    refused = [
        ("label.nii.gz", b"junk!", NAMED),
        ("label.nii.gz", b"", NAMED),
        ("label.nii", nifti(label, image.affine)[:-100], NAMED),
        ("label", b"junk", NAMED),
        ("label.exe", b"MZ", NAMED),
        ("label.seg.nrrd", b"NRRD0005\n\n", {}),
        ("label.bin", label.tobytes()[:-1], NAMED),
        ("label.bin", b"", NAMED),
        ("label.nii", nifti(negative, image.affine), NAMED),
        ("label.nii", nifti(label.astype(np.int32) * 70_000, image.affine), NAMED),
        ("label.nii", nifti(label * np.float32(0.5), image.affine), NAMED),
        ("label.nii", nifti(np.where(label > 1, np.nan, 0).astype(np.float32), image.affine), NAMED),
        ("label.nii", nifti(np.stack([label, label], axis=-1), image.affine), NAMED),
        ("label.nii", nifti(label, shifted), NAMED),
        ("label.nii", nifti(np.ones((5, 5, 5), np.uint8), np.eye(4)), NAMED),
        ("label.nii", nifti(np.zeros_like(label), image.affine), NAMED),
        ("label.nii", nifti(label, image.affine), {"label_info": [{"name": n, "idx": 1} for n in "ab"]}),
        ("label.nii", nifti(label, image.affine), {"label_info": [{"name": "x" * 5000, "idx": 1}]}),
        ("label.nii", nifti(label, image.affine), '{"label_info": [{"name": "\\ud800", "idx": 1}]}'),
        ("label.nii", nifti(label, image.affine), "[]"),
    ]
    for name, content, params in refused:
        response = put(server, name, content, params)
        assert 400 <= response.status_code < 500, (name, params, response.status_code, response.text)
        assert str(response.json()["detail"]).endswith("."), (name, params, response.text)
        assert stored(server) == accepted, (name, params)
    response = put(server, "label.nii", nifti(label, image.affine), image="no-such-image")
    assert response.status_code == 404, response.text
