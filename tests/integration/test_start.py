"""The plain way to start the server, with a configuration file."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import requests

from .server import running_server

pytestmark = pytest.mark.integration


def test_monailabel_starts_the_app_from_another_folder_with_a_configuration_file(studies: Path, tmp_path: Path) -> None:
    own = tmp_path / "studies"
    own.mkdir()
    shutil.copy(studies / "ct.nii.gz", own / "ct.nii.gz")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "labels.json").write_text(json.dumps(["tumor", "edema"]))
    conf = tmp_path / "conf" / "server.yaml"
    conf.write_text("labels: labels.json\nplane: coronal\nprefetch_slices: 0\ncache_dir: embeddings\n")
    pairs = {"config": str(conf), "plane": "sagittal"}  # the command line wins
    # Its command starts the "python" of the activated environment.
    activated = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    variables = {"OMP_WAIT_POLICY": "", "PATH": activated}
    with running_server(own, tmp_path, pairs, start=("monailabel",), variables=variables) as server:
        # MONAI Label has imported torch by the time it loads the app, which therefore starts the process once more.
        assert b"OMP_WAIT_POLICY=PASSIVE" in Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
        task = server.info()["models"]["causal_sam"]
        assert task["labels"] == {"tumor": 1, "edema": 2}
        assert task["config"]["plane"][0] == "sagittal"
        answer = server.post({"label": "tumor", "foreground": [[30, 40, 5]]}).json()
        assert answer["axis"] == 0
    assert list((tmp_path / "conf" / "embeddings").iterdir())


@pytest.mark.slow
def test_studies_that_cannot_be_written_are_served_and_no_label_is_accepted(studies: Path, tmp_path: Path) -> None:
    own = tmp_path / "studies"
    own.mkdir()
    shutil.copy(studies / "ct.nii.gz", own / "ct.nii.gz")
    # As the operator says it; a folder that the account may not write is the same to the server, see the unit tests.
    read_only = {"MONAI_LABEL_DATASTORE_READ_ONLY": "true"}
    with running_server(own, tmp_path, {"labels": "liver"}, variables=read_only) as server:
        assert server.post({"label": "liver", "foreground": [[30, 40, 5]]}).status_code == 200
        with (own / "ct.nii.gz").open("rb") as file:
            url = f"{server.url}/datastore/label?image=ct"
            response = requests.put(url, files={"label": ("l.nii.gz", file)}, timeout=60)
        assert response.status_code == 403
        assert "cannot be written" in response.json()["detail"]
    assert [path.name for path in own.iterdir()] == ["ct.nii.gz"]
