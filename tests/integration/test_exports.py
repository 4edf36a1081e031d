"""Answers for other programs: exports of a session, and OHIF's pages with their companion."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import requests

from causal_sam.imaging import PackedMask, read_volume

from .server import REQUEST_SECONDS, Server, read_nifti, read_nrrd

pytestmark = pytest.mark.integration

CLIENT = {"client_id": "exporter"}


def ask(server: Server, method: str, path: str, *, status: int = 200, **options: Any) -> requests.Response:
    params = CLIENT | options.pop("params", {})
    address = f"{server.url}/causal-sam/api/cases/ct/{path}"
    answer = requests.request(method, address, params=params, timeout=REQUEST_SECONDS, **options)
    assert answer.status_code == status, answer.text
    return answer


def test_the_masks_of_a_session_are_exported(server: Server, studies: Path) -> None:
    image = read_volume(studies / "ct.nii.gz")
    assert "nothing to store" in ask(server, "GET", "export", params={"format": "csv"}, status=422).json()["detail"]
    masks = {"spleen": np.zeros(image.shape, bool), "Läsion": np.zeros(image.shape, bool)}
    masks["spleen"][2:5, 3:6, 1:3] = masks["Läsion"][8:9, 8:12, 2:3] = True
    for label, mask in masks.items():
        painted = {"kind": "brush", "label": label, "painted": PackedMask.pack(mask).as_json()}
        ask(server, "POST", "prompts", json=painted)

    answer = ask(server, "GET", "export", params={"format": "nifti"})
    assert "ct-nifti.nii.gz" in answer.headers["content-disposition"]
    label_map = np.asanyarray(read_nifti(answer.content).dataobj)
    table = pd.read_csv(io.BytesIO(ask(server, "GET", "export", params={"format": "csv"}).content)).set_index("label")
    slicer = read_nrrd(ask(server, "GET", "export", params={"format": "nrrd"}).content)
    np.testing.assert_array_equal(slicer, label_map)
    for label, mask in masks.items():
        np.testing.assert_array_equal(label_map == table.loc[label, "value"], mask)
        assert table.loc[label, "volume_ml"] == pytest.approx(mask.sum() * image.voxel_ml, abs=0.001)

    refused = ask(server, "GET", "export", params={"format": "rtstruct"}, status=422).json()["detail"]
    assert refused == "The format rtstruct needs an image that is a DICOM series; nifti, nrrd, csv do not."
    assert "malformed" in ask(server, "GET", "export", params={"format": "docx"}, status=422).json()["detail"]


def test_pages_of_ohif_have_the_companion(server: Server) -> None:
    for path in ("", "index.html", "monai-label"):
        page = requests.get(f"{server.url}/ohif/{path}", timeout=REQUEST_SECONDS).text
        assert page.index('src="/causal-sam/companion/companion.js"') < page.index("app.bundle")
    script = requests.get(f"{server.url}/causal-sam/companion/companion.js", timeout=REQUEST_SECONDS)
    assert script.status_code == 200
    assert "javascript" in script.headers["content-type"]


def test_the_sentence_of_an_answer_is_in_a_header(server: Server) -> None:
    params = {"foreground": [[12, 10, 3]], "label": "liver", "client_id": "exporter"}
    sentence = unquote(server.post(params, output="image").headers["Causal-SAM-Message"])
    assert sentence.startswith("liver: ")
    assert " ml on " in sentence
