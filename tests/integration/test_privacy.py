"""What a client writes is in its answer and in the journal alone: not in logs, process lists or records of tasks."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pytest
import requests

from .images import Phantom
from .server import REQUEST_SECONDS, Server, running_server

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MARK = "Zweifelhofer"
NOTE = f"liver: remove the stray part, {MARK} says"
APP_LOG = Path(__file__).parents[2] / "apps" / "causal_sam" / "logs" / "app.log"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Iterator[Server]:
    """A server of its own, whose image has a label with a stray part."""
    studies = tmp_path_factory.mktemp("private")
    studies.chmod(0o2750)
    nibabel.save(nibabel.Nifti1Image(phantom.array, phantom.affine), studies / "ct.nii.gz")
    with running_server(studies, tmp_path_factory.mktemp("server"), {"labels": "liver,spleen"}) as started:
        yield started


def label_file(phantom: Phantom) -> bytes:
    label = phantom.organs["liver"].astype(np.uint8)
    label[2:5, 2:5, 5] = 1
    return nibabel.Nifti1Image(label, phantom.affine).to_bytes()


def save(site: Server, phantom: Phantom, params: object, **query: str) -> requests.Response:
    return requests.put(
        f"{site.url}/datastore/label",
        params={"image": "ct", "tag": "final", **query},
        files={"label": (query.pop("name", "label.nii"), label_file(phantom)), "params": (None, json.dumps(params))},
        timeout=REQUEST_SECONDS,
    )


def command_lines() -> list[str]:
    """Of all processes that could be the server's."""
    found = []
    for process in psutil.process_iter():
        try:
            found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_what_clients_write_is_in_no_log_process_or_record(site: Server, phantom: Phantom) -> None:
    begin = APP_LOG.stat().st_size if APP_LOG.exists() else 0
    seen: list[str] = []

    def look() -> None:
        tasks = [
            requests.get(f"{site.url}/{path}", params={"all": "true"}, timeout=REQUEST_SECONDS).text
            for path in ("train/", "batch/infer", "scoring/", "logs/")
        ]
        seen.extend([*command_lines(), *tasks])

    def note(*expected: int, **params: object) -> str:
        answer = site.post(params, model="causal_sam_note")
        assert answer.status_code in expected, answer.text
        return answer.text

    assert save(site, phantom, {"label_info": [{"name": "liver", "idx": 1}], "comment": MARK}).status_code == 200
    note(200, note=NOTE, preview=True)
    note(200, note=NOTE)
    assert MARK in note(200, note=NOTE, undo=True)
    note(200, note=NOTE, repeat=True)
    note(200, undo=True)
    note(200, 422, note=f"the {MARK} is too large")
    note(422, note=f"liver leaks into the {MARK}, spleen leaks into the {MARK}")
    note(422, note=f"{MARK}?")
    note(422, note={MARK: 1})
    note(422, note=NOTE, frame=MARK)
    note(422, note=NOTE, plane=MARK)
    click = {"foreground": [[30, 40, 5]]}
    for params in (
        {**click, "label": MARK},
        {**click, "label": MARK * 16},
        {**click, "label": f"{MARK}\n"},
        {**click, "client_id": MARK},
        {**click, MARK: MARK},
        {"foreground": MARK},
        {"foreground": [[MARK, 1, 2]]},
        {**click, "roi": MARK},
        {**click, "lasso": [[MARK]]},
        {**click, "slice": MARK},
        {**click, "result_dtype": MARK},
        {**click, "result_extension": MARK},
        {**click, "reset": MARK},
    ):
        site.post(params)
    site.post({"organs": MARK}, model="causal_sam_organs")
    site.post({"selected_label_name": MARK}, model="causal_sam_scribbles", files={"label": (f"{MARK}.nii", b"x")})
    site.post(f'{{"note": "{MARK}', model="causal_sam_note")
    site.post(click, image=MARK)
    site.post(click, model=MARK)
    site.post(click, image="", files={"file": (f"{MARK}.nii.gz", b"x")})
    site.post(click, query={"session_id": MARK})
    site.post(click, query={MARK: MARK})
    site.post({**click, "save_label": True, "label_tag": f"../{MARK}"})
    assert site.post(click, model="causal_sam", headers={"Referer": MARK, "User-Agent": MARK}).status_code == 200
    save(site, phantom, {"label_info": [{"name": MARK, "idx": 1}]}, tag="draft")
    save(site, phantom, {"label_info": [{"name": MARK * 20, "idx": 1}]})
    save(site, phantom, {"label_info": MARK}, image=MARK)
    save(site, phantom, [MARK])
    send = dict(timeout=REQUEST_SECONDS)
    for method, path, body in (
        ("post", "batch/infer/causal_sam_note", {"note": NOTE}),
        ("post", "batch/infer/causal_sam_organs", {"organs": "liver", "note": NOTE, MARK: MARK, "label_tag": "auto"}),
        ("post", f"batch/infer/{MARK}", {}),
        ("post", "train/adapters", {"labels": MARK, "max_epochs": MARK, MARK: MARK}),
        ("post", f"train/{MARK}", {}),
        ("post", "scoring/dice", {"y": f"../{MARK}", "y_pred": MARK}),
        ("post", f"scoring/{MARK}", {}),
        ("post", "activelearning/style_aware", {"client_id": MARK, MARK: MARK}),
        ("post", f"activelearning/{MARK}", {}),
        ("get", f"{MARK}/{MARK}", None),
        ("delete", f"session/{MARK}", None),
        ("get", f"datastore/label?label=ct&tag={MARK}", None),
        ("get", f"datastore/image?image={MARK}", None),
        (MARK.upper(), "info/", None),
    ):
        answer = requests.request(method.upper(), f"{site.url}/{path}", json=body, **send)
        if "causal_sam_note" in path:
            assert answer.status_code == 422
            assert "batch" in answer.json()["detail"]
        look()
    requests.put(f"{site.url}/session/", files=[("files", (f"{MARK}.nrrd", b"x"))], **send)
    answer = requests.put(f"{site.url}/session/", files=[("files", (f"{MARK}.nii", b"x"))], **send)
    assert MARK not in answer.text
    requests.put(f"{site.url}/datastore/image?image=new", files={"file": (f"{MARK}.nii", b"x")}, **send)
    requests.put(f"{site.url}/datastore/label/info?label=ct&tag=final", data={"info": json.dumps({MARK: MARK})}, **send)
    requests.post(f"{site.url}/train/adapters", json={"max_epochs": 1, "name": MARK, "note": MARK}, **send)
    time.sleep(1)
    look()
    for path in ("train/", "batch/infer", "scoring/"):
        requests.delete(f"{site.url}/{path}", **send)
    look()
    with APP_LOG.open("rb") as log:
        log.seek(begin if begin <= APP_LOG.stat().st_size else 0)
        seen += [log.read().decode(errors="replace"), site.log.read_text(errors="replace")]
    for text in seen:
        place = text.lower().find(MARK.lower())
        assert place < 0, text[max(0, place - 300) : place + 100]
    assert "POST /infer/{model} answered 422 (InputError in " in seen[-1]


def test_files_have_the_rights_of_the_studies_folder(site: Server, phantom: Phantom) -> None:
    before = os.umask(0)
    try:
        assert save(site, phantom, {"label_info": [{"name": "liver", "idx": 1}]}, tag="rights").status_code == 200
        site.post({"note": NOTE}, model="causal_sam_note")
        answer = requests.put(
            f"{site.url}/datastore/image?image=added",
            files={"file": ("added.nii.gz", (site.studies / "ct.nii.gz").read_bytes())},
            timeout=REQUEST_SECONDS,
        )
        assert answer.status_code == 200, answer.text
    finally:
        os.umask(before)
    private = [path for path in site.studies.rglob("*") if path.parent.name == "causal_sam_journal"]
    assert private
    for path in site.studies.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.name != "ct.nii.gz":
            assert not mode & (0o177 if path in private and path.suffix == ".jsonl" else 0o027), (path, oct(mode))
    saved = [*(site.studies / "labels" / "rights").iterdir(), site.studies / "added.nii.gz"]
    assert len(saved) == 2
    for path in saved:
        assert stat.S_IMODE(path.stat().st_mode) & 0o660 == 0o640
    assert not stat.S_IMODE(APP_LOG.stat().st_mode) & 0o027
