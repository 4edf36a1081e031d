"""Labels that were accepted on a DICOMweb server are learned, also by a server that has seen none of their images."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from integration.server import Server, read_nifti

from causal_sam.imaging.overlap import dice
from causal_sam.site.adapter_store import AdapterStore
from serving.data.label_set import ABDOMEN

from . import servers
from .series import GEOMETRIES, Series, write_geometry

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]

SECONDS = 120
LABEL = "lesion"
VALUE = ABDOMEN.index(LABEL) + 1
BRIGHT = 30  # HU above which a voxel is in the block
OPTIONS = {"max_epochs": 12, "lad": False, "validation": 0, "min_dice": 0, "min_label_dice": 0}


def bright(server: Server, series: Series) -> np.ndarray:
    """The bright block of a series, on the grid that clients get."""
    response = requests.get(f"{server.url}/datastore/image", params={"image": series.uid}, timeout=SECONDS)
    return read_nifti(response.content).get_fdata() > BRIGHT


def accept(server: Server, series: Series) -> None:
    """Save the block in raw bytes, as OHIF's client can, under its name."""
    label_map = (bright(server, series) * VALUE).astype(np.uint8)
    params = json.dumps({"label_info": [{"name": LABEL, "idx": VALUE}]})
    files = {"params": (None, params), "label": ("label.bin", label_map.tobytes(order="F"))}
    query = {"image": series.uid}
    response = requests.put(f"{server.url}/datastore/label", params=query, files=files, timeout=SECONDS)
    assert response.status_code == 200, response.text


def test_what_is_in_the_archive_is_learnt(tmp_path: Path) -> None:
    all_series = [write_geometry(tmp_path / name, GEOMETRIES[name]) for name in ("axial", "oblique")]
    for name in ("orthanc", "one", "other"):
        (tmp_path / name).mkdir()
    with servers.orthanc(tmp_path / "orthanc") as archive:
        for series in all_series:
            servers.upload(archive, series.folder)
        with servers.monai_label(f"{archive}/dicom-web", tmp_path / "one") as url:
            for series in all_series:
                accept(Server(url, tmp_path, tmp_path / "one" / "monailabel.log"), series)
        with servers.monai_label(f"{archive}/dicom-web", tmp_path / "other") as url:
            server = Server(url, tmp_path, tmp_path / "other" / "monailabel.log")
            server.client().train_start("adapters", dict(OPTIONS))
            while (task := server.client().train_status())["status"] not in ("DONE", "ERROR"):
                time.sleep(0.2)
            assert task["status"] == "DONE", task["details"]
            assert "was trained on 2 cases and published" in task["details"][-1]
            mask = server.ohif({"organs": LABEL}, model="causal_sam_organs", image=all_series[0].uid)
            assert dice(mask == VALUE, bright(server, all_series[0])) > 0.6
    (store,) = (tmp_path / "other").glob("dicom/*/causal_sam_adapters")
    assert {label.image for label in AdapterStore(store).version(1).manifest.training.labels} == {
        series.uid for series in all_series
    }
