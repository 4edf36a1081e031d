"""What cannot be done is said in one sentence, and the server goes on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import requests
from processes import free_port

from .server import PYTHON_FORM, Server, command, environment

pytestmark = pytest.mark.integration

GOOD = {"label": "liver", "foreground": [[30, 40, 5]], "background": []}

BAD = {
    "unknown image": ({"image": "nobody"}, GOOD, 404, "nobody"),
    "no image": ({"image": ""}, GOOD, 422, "image=<id>"),
    "file of the machine": ({"image": "/etc/passwd"}, GOOD, 422, "path separator"),
    "file that is not there": ({"image": "/etc/nothing"}, GOOD, 422, "path separator"),
    "way out of the studies": ({"image": "../secret.nii.gz"}, GOOD, 422, "path separator"),
    "link out of the studies": ({"image": "more/leads_out.nii.gz"}, GOOD, 422, "path separator"),
    "unknown model": ({"model": "nothing"}, GOOD, 404, "causal_sam"),
    "click outside": ({}, {**GOOD, "foreground": [[30, 40, 500]]}, 422, "k in 0..9"),
    "click before the first voxel": ({}, {**GOOD, "foreground": [[-1, 40, 5]]}, 422, "i in 0..95"),
    "click with two numbers": ({}, {**GOOD, "foreground": [[30, 40]]}, 422, "3 numbers"),
    "clicks that are words": ({}, {**GOOD, "foreground": "here"}, 422, "list of points"),
    "click that is not finite": ({}, '{"foreground": [[NaN, 1, 1]]}', 422, "finite"),
    # The name of a label that no model knows is no prompt.
    "no clicks": ({}, {"label": "pseudocyst", "foreground": [], "background": []}, 422, "at least one"),
    "nothing at all": ({}, {}, 422, "at least one"),
    "no clicks on the slice": ({}, {**GOOD, "label": "pseudocyst", "slice": 2}, 422, "slice 2"),
    "empty lists": (
        {"model": "causal_sam_multilabel"},
        {"liver": [], "spleen": [], "background": []},
        422,
        "at least one",
    ),
    "box outside": ({}, {**GOOD, "roi": [200, 300, 0, 5, 0, 5]}, 422, "outside"),
    "box of four numbers": ({}, {**GOOD, "roi": [1, 2, 3, 4]}, 422, "6 numbers"),
    "box of no label": (
        {"model": "causal_sam_multilabel"},
        {"liver": [[30, 40, 5]], "spleen": [[70, 40, 5]], "roi": [1, 9, 1, 9, 1, 2]},
        422,
        "label",
    ),
    "background as the label": ({}, {**GOOD, "label": "background"}, 422, "background"),
    "unknown plane": ({}, {**GOOD, "plane": "oblique"}, 422, "sagittal"),
    "unknown extension": ({}, {**GOOD, "result_extension": ".xyz"}, 422, ".nrrd"),
    "unknown type": ({}, {**GOOD, "result_dtype": "complex64"}, 422, "uint8"),
    "params that are not JSON": ({}, "{foreground", 422, "JSON"),
    "params that are a list": ({}, "[1]", 422, "JSON object"),
    "result as an accepted label": ({}, {**GOOD, "save_label": True, "label_tag": "final"}, 422, "accepted"),
    "result outside of the studies": ({}, {**GOOD, "save_label": True, "label_tag": "../x"}, 422, "label tag"),
    "unknown output": ({"output": "video"}, GOOD, 422, "output"),
    "DICOM from a folder": ({"output": "dicom_seg"}, GOOD, 422, "DICOMweb"),
    "unknown session": ({"query": {"session_id": "abc"}}, GOOD, 404, "abc"),
    "image without a number": ({"image": "all_nan"}, GOOD, 422, "finite"),
    "image of vectors in time": ({"image": "vectors_in_time"}, GOOD, 422, "one number for each voxel"),
    "frame that is not there": ({"image": "cine"}, {**GOOD, "frame": "3"}, 422, "frame must be in 0..2, not 3"),
    "frame of an image without": ({}, {**GOOD, "frame": 1}, 422, "ct.nii.gz has one frame"),
    "frame that is a word": ({"image": "cine"}, {**GOOD, "frame": "last"}, 422, "whole number"),
    "broken image": ({"image": "broken"}, GOOD, 422, "broken.nii.gz"),
}


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.replace(" ", "-"))
def test_bad_requests_get_one_sentence_and_the_next_request_is_fine(server: Server, case: str) -> None:
    where, params, status, word = BAD[case]
    response = server.post(params, **where)
    assert response.status_code == status, response.text
    detail = response.json()["detail"]
    assert word in detail
    assert detail.endswith(".")
    assert "\n" not in detail
    assert "Traceback" not in detail
    assert server.post(GOOD).status_code == 200


def test_a_request_that_fails_leaves_the_working_mask_as_it_was(server: Server) -> None:
    before = server.slicer(GOOD, client_id="fails")[0]
    half = {"liver": [[30, 40, 5], [31, 41, 5]], "spleen": [[0, 0, 99]], "label": "liver"}
    assert server.post({**half, "client_id": "fails"}, model="causal_sam_multilabel").status_code == 422
    after, params = server.slicer(GOOD, client_id="fails")
    assert params["labels"]["liver"]["updated_slices"] == []
    assert (before == after).all()


def test_parameters_cannot_replace_the_image_of_the_address(server: Server) -> None:
    response = server.post({**GOOD, "image": "/etc/passwd", "model": "nothing"})
    assert response.status_code == 200


def test_an_upload_does_not_open_the_way_to_other_files(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret.nii.gz"
    secret.write_bytes((server.studies / "ct.nii.gz").read_bytes())
    files = {"file": ("image.nii.gz", b"no image at all")}
    response = server.post({**GOOD, "image": str(secret)}, files=files, image="")
    assert response.status_code == 422


def test_errors_of_other_endpoints_are_sentences_too(server: Server) -> None:
    files = {"params": (None, "{}"), "label": ("label.nii.gz", b"x")}
    response = requests.put(f"{server.url}/datastore/label", params={"image": "nobody"}, files=files, timeout=30)
    assert response.status_code == 404
    assert "nobody" in response.json()["detail"]


def test_the_log_has_each_refusal_once_and_no_stack_trace(server: Server) -> None:
    name = "an-image-that-only-this-test-asks-for"
    before = server.log.read_text()
    assert name in server.post(GOOD, image=name).json()["detail"]
    log = server.log.read_text()[len(before) :]
    assert log.count("POST /infer/{model} answered 404 (NotFoundError in ") == 1
    assert name not in log
    assert "Traceback" not in before + log


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("plane", "oblique", "plane must be one of auto, axial, coronal, sagittal, not 'oblique'."),
        pytest.param("checkpoint", "weights.safetensors", "weights.safetensors", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_used_stops_the_start_with_one_sentence(
    key: str, value: str, sentence: str, studies: Path, tmp_path: Path
) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    run = subprocess.run(
        command(studies, free_port(), {key: value}, PYTHON_FORM),
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    said = run.stdout + run.stderr
    assert run.returncode != 0
    assert sentence in said
    assert "Traceback" not in said
