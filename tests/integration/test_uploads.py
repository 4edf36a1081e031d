"""Sessions and uploads over HTTP: they work for MONAI Label's client, and what is refused leaves nothing behind."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nibabel
import numpy as np
import pytest
import requests

from .images import Phantom
from .server import REQUEST_SECONDS, Server, running_server

pytestmark = pytest.mark.integration

SEND = {"timeout": REQUEST_SECONDS}
CLICK = {"label": "liver", "foreground": [[30, 40, 5]], "background": [], "extent": "slice"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Iterator[Server]:
    """A server of its own, whose temporary folder nobody else uses, with few sessions and archives switched on."""
    studies = tmp_path_factory.mktemp("uploads")
    nibabel.save(nibabel.Nifti1Image(phantom.array, phantom.affine), studies / "ct.nii.gz")
    conf = {"labels": "liver,spleen", "max_sessions": "3", "session_mb": "4", "unsafe_routes": "unpack"}
    with running_server(studies, tmp_path_factory.mktemp("server"), conf) as started:
        yield started


def create(site: Server, name: str, content: bytes, **query: Any) -> requests.Response:
    return requests.put(f"{site.url}/session/", params=query, files=[("files", (name, content))], **SEND)


def nrrd(data_file: str) -> bytes:
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 8 8 8\nencoding: raw\n"
    return f"{header}data file: {data_file}\n\n".encode()


def huge_nifti() -> bytes:
    content = bytearray(nibabel.Nifti1Image(np.zeros((1, 1, 1), np.uint8), np.eye(4)).to_bytes())
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    return gzip.compress(bytes(content))


def test_monai_labels_client_works_in_a_session(site: Server, phantom: Phantom) -> None:
    client = site.client()
    session = client.create_session(str(site.studies / "ct.nii.gz"))["session_id"]
    try:
        assert client.get_session(session)["name"] == session
        sent = {**CLICK, "result_extension": ".nrrd"}
        path, answer = client.infer("causal_sam", "", sent, session_id=session)
        Path(path).unlink()
        assert answer["labels"]["liver"]["volume_ml"] > 0
        image = requests.get(f"{site.url}/session/{session}", params={"image": "true"}, **SEND)
        assert image.content == (site.studies / "ct.nii.gz").read_bytes()
        assert str(site.log.parent) not in requests.get(f"{site.url}/session/{session}", **SEND).text
    finally:
        client.remove_session(session)
    assert site.post(CLICK, image="", query={"session_id": session}).status_code == 404
    assert not [name for name in site.left_behind() if name.startswith("sessions/")]


def test_an_uploaded_image_is_segmented_and_not_kept(site: Server) -> None:
    before = site.left_behind()
    files = {"file": ("../Some Patient.nii.gz", (site.studies / "ct.nii.gz").read_bytes())}
    assert site.post(CLICK, image="", files={"file": ("Patient.nii.gz", files["file"][1])}).status_code == 200
    assert site.post(CLICK, image="", files={"file": ("x.nii", files["file"][1])}).status_code in (200, 422)
    assert not site.left_behind() - before


def test_ids_that_are_no_sessions_reach_nothing(site: Server, tmp_path: Path) -> None:
    victim = site.log.parent / "sessions" / "victim"
    victim.mkdir(parents=True)
    (victim / "meta.info").write_text(json.dumps({"name": "x", "image": "/etc/passwd", "path": str(victim)}))
    other = tmp_path / "folder"
    other.mkdir()
    (other / "meta.info").write_text(json.dumps({"image": "/gone"}))
    for session in ("victim", str(other), "../sessions/victim", "x/..", "%2e%2e", "x" * 5000, "\u0000", "/"):
        for answer in (
            site.post(CLICK, image="", query={"session_id": session}),
            requests.get(f"{site.url}/session/{quote(session, safe='')}", params={"image": "true"}, **SEND),
            requests.delete(f"{site.url}/session/{quote(session, safe='')}", **SEND),
        ):
            assert 400 <= answer.status_code < 500, (session, answer.text)
            assert "root:" not in answer.text
    assert (victim / "meta.info").is_file()
    assert (other / "meta.info").is_file()
    (victim / "meta.info").unlink()
    victim.rmdir()


def test_a_label_map_of_this_machine_is_not_read_as_scribbles(site: Server) -> None:
    path = str(site.studies / "ct.nii.gz")
    for params in ({"label": path}, {"causal_sam_label_file": path}, {"label_file": path}):
        answer = site.post({**params, "selected_label_name": "liver"}, model="causal_sam_scribbles")
        assert answer.status_code == 422
        assert "upload the label map" in answer.json()["detail"]


def test_refused_uploads_leave_nothing_behind(site: Server, phantom: Phantom) -> None:
    """Fifty requests of each kind; the temporary folder and the sessions are as before."""
    site.post(CLICK)  # the first request makes what stays
    before = site.left_behind()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        absolute = tarfile.TarInfo("/tmp/causal-sam-escaped")
        absolute.size = 4
        archive.addfile(absolute, io.BytesIO(b"evil"))
    bomb = gzip.compress(bytes(2**26))
    contents = [
        ("a.nii.gz", b"no image"),
        ("a.nii.gz", b""),
        ("a.nii.gz", huge_nifti()),
        ("a.nrrd", nrrd("/etc/passwd")),
        ("a.nrrd", nrrd("../../ct.nii.gz")),
        ("a.nhdr", nrrd("session.json")),
        ("a.mhd", b"NDims = 3\nDimSize = 8 8 8\nElementType = MET_UCHAR\nElementDataFile = /etc/passwd\n"),
        ("a" * 190 + ".dcm", b"no image"),
        ("a.b.c.d.unknown", b"no image"),
        ("a.bin", b"short"),
    ]
    for name, content in contents:
        for _ in range(5):
            upload = (name, content)
            for answer in (
                site.post(CLICK, image="", files={"file": upload}),
                site.post({"selected_label_name": "liver"}, model="causal_sam_scribbles", files={"label": upload}),
            ):
                assert 400 <= answer.status_code < 500, (name, content[:20], answer.text)
                assert "root" not in answer.text
    for name, content, query in (
        ("a.nrrd", nrrd("/etc/passwd"), {}),
        ("a.nii", b"", {}),
        ("a.nii", bytes(5 * 2**20), {}),
        ("a.tar", tar.getvalue(), {"uncompress": "true"}),
        ("a.tar.gz", bomb, {"uncompress": "true"}),
        ("a.zip", b"no archive", {"uncompress": "true"}),
    ):
        for _ in range(8):
            answer = create(site, name, content, **query)
            assert 400 <= answer.status_code < 500, (name, answer.text)
    assert not Path("/tmp/causal-sam-escaped").exists()
    assert not site.left_behind() - before


def test_there_is_a_limit_of_sessions(site: Server) -> None:
    made = []
    try:
        for _ in range(3):
            answer = create(site, "a.nii.gz", b"something")
            assert answer.status_code == 200
            made.append(answer.json()["session_id"])
        refused = create(site, "a.nii.gz", b"something")
        assert refused.status_code == 429
        assert "3 sessions" in refused.json()["detail"]
        assert site.post(CLICK, image="", query={"session_id": made[0]}).status_code == 422
    finally:
        for session in made:
            assert requests.delete(f"{site.url}/session/{session}", **SEND).status_code == 200
