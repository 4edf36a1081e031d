"""The next study of an archive: its series are fetched and looked at in the background, whoever else wants them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import requests
from integration.server import Server, read_nifti

from causal_sam.site.scores import FILE, Scores

from . import servers
from .series import GEOMETRIES, SHAPE, Series, write_geometry

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]  # the first test starts the servers

SECONDS = 120
NAMES = ("axial", "axial-backwards", "axial-mirrored")


@pytest.fixture(scope="module")
def all_series(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Series]:
    folder = tmp_path_factory.mktemp("series")
    written = [write_geometry(folder / name, GEOMETRIES[name]) for name in NAMES]
    return {series.uid: series for series in written}


@pytest.fixture(scope="module")
def server(all_series: dict[str, Series], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The MONAI Label server on an Orthanc that holds the series."""
    folder = tmp_path_factory.mktemp("monailabel")
    with servers.orthanc(tmp_path_factory.mktemp("orthanc")) as archive:
        for series in all_series.values():
            servers.upload(archive, series.folder)
        with servers.monai_label(f"{archive}/dicom-web", folder) as url:
            yield Server(url, folder, folder / "monailabel.log")


def next_study(server: Server) -> dict:
    """Ask as OHIF does, which says nothing about itself."""
    response = requests.post(f"{server.url}/activelearning/style_aware", json={}, timeout=SECONDS)
    assert response.status_code == 200, response.text
    return response.json()


def scores(server: Server) -> dict[str, dict]:
    files = list(Path(server.studies, "dicom").glob(f"*/{FILE}"))
    return {name: asdict(score) for name, score in Scores(files[0]).all().items()} if files else {}


def test_whoever_wants_a_series_gets_all_of_it_while_it_is_fetched(
    server: Server, all_series: dict[str, Series]
) -> None:
    for uid in all_series:
        response = requests.get(f"{server.url}/datastore/image", params={"image": uid}, timeout=SECONDS)
        assert sorted(read_nifti(response.content).shape) == sorted(SHAPE)
    deadline = time.monotonic() + SECONDS
    while scores(server).keys() != all_series.keys():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert {score["failure"] for score in scores(server).values()} == {None}


def test_ohif_gets_the_next_study_as_soon_as_a_label_was_accepted(
    server: Server, all_series: dict[str, Series]
) -> None:
    left = set(all_series)
    for _ in NAMES:
        answer = next_study(server)
        assert answer["id"] == answer["SeriesInstanceUID"]
        assert answer["StudyInstanceUID"] == str(all_series[answer["id"]].images[0].StudyInstanceUID)
        left.remove(answer["id"])
        label_map = np.zeros(SHAPE, np.uint8)
        label_map[4:9, 4:9, 2:4] = 1
        response = requests.put(
            f"{server.url}/datastore/label",
            params={"image": answer["id"]},
            files={"params": (None, "{}"), "label": ("label.bin", label_map.tobytes(order="F"))},
            timeout=SECONDS,
        )
        assert response.status_code == 200, response.text
    assert not left
    assert next_study(server) == {}
