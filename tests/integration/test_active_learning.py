"""The next study and scoring, over HTTP, as 3D Slicer and OHIF ask for them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import requests

from causal_sam.site.scores import FILE, Scores

from .images import Phantom, make_phantom
from .server import REQUEST_SECONDS, Server, from_address, running_server

pytestmark = pytest.mark.integration

SLICER = {"client_id": "user-xyz"}
OHIF: dict[str, Any] = {}
GOOD = ("ct1", "ct2", "ct3", "mr1")


@pytest.fixture(scope="module")
def studies_to_label(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Path:
    """Three CT images that look alike, an MR image, and one that is cut off and comes first by its id."""
    folder = tmp_path_factory.mktemp("unlabelled")
    for seed, name in enumerate(GOOD):
        array = make_phantom(seed=seed).array
        if name.startswith("mr"):
            array = np.where(array > -500, 300 + 2 * array, 0).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(array, phantom.affine), folder / f"{name}.nii.gz")
    (folder / "aaa_broken.nii.gz").write_bytes((folder / "ct1.nii.gz").read_bytes()[:2000])
    return folder


@pytest.fixture(scope="module")
def labelling(studies_to_label: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    conf = {"labels": "liver,spleen", "extent": "slice"}
    with running_server(studies_to_label, tmp_path_factory.mktemp("labelling"), conf) as started:
        yield started


def next_sample(server: Server, body: object = SLICER, strategy: str = "style_aware", sender: Any = requests) -> dict:
    response = sender.post(f"{server.url}/activelearning/{strategy}", json=body, timeout=REQUEST_SECONDS)
    assert response.status_code == 200, response.text
    return response.json()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + REQUEST_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def scored(server: Server) -> dict[str, dict]:
    path = server.studies / FILE
    return {name: asdict(score) for name, score in Scores(path).all().items()} if path.is_file() else {}


def accept(server: Server, image: str, array: np.ndarray, folder: Path) -> None:
    """Submit a label as Slicer does."""
    path = folder / "label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array.astype(np.uint8), make_phantom().affine), path)
    params = {"label_info": [{"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2}]}
    server.client("user-xyz").save_label(image, str(path), tag="final", params=params)


def test_clients_are_offered_the_strategies_and_scorings(labelling: Server) -> None:
    info = labelling.info()
    assert list(info["strategies"]) == ["style_aware", "random", "first"]
    assert set(info["scoring"]) == {"dice", "effort"}


def test_studies_are_looked_at_by_themselves_and_broken_ones_are_not_offered(labelling: Server) -> None:
    wait_until(lambda: len(scored(labelling)) == len(GOOD) + 1)
    scores = scored(labelling)
    assert "not a readable NIfTI file" in scores["aaa_broken"]["failure"]
    assert {name for name in GOOD if "CT image" in scores[name]["style"]} == {"ct1", "ct2", "ct3"}
    assert "aaa_broken is not offered for labelling" in labelling.log.read_text()
    given = [next_sample(labelling, {"client_id": f"reader {n}"})["id"] for n in range(len(GOOD) + 2)]
    assert set(given) == set(GOOD)
    assert set(given[: len(GOOD)]) == set(GOOD)  # one for each, then those again that are being labelled
    # By itself MONAI Label would also start two processes with each of them, which score what there is.
    assert requests.get(f"{labelling.url}/scoring/", timeout=REQUEST_SECONDS).status_code == 404


def test_slicer_and_ohif_get_a_study_with_what_they_need(labelling: Server) -> None:
    for body, sender in ((SLICER, requests), (OHIF, from_address("127.0.0.7")), (None, from_address("127.0.0.8"))):
        answer = next_sample(labelling, body, sender=sender)
        assert answer["id"] in GOOD
        assert answer["path"] == str(labelling.studies / f"{answer['id']}.nii.gz")
        assert answer["name"] == f"{answer['id']}.nii.gz"
        assert answer["why"].endswith(".")
    assert labelling.client("user-xyz").next_sample("style_aware", {})["id"] in GOOD
    # OHIF does not say who it is; its address does.
    info = requests.get(f"{labelling.url}/datastore/image/info", params={"image": answer["id"]}, timeout=60).json()
    assert info["strategy"]["style_aware"]["client_id"] == "address 127.0.0.8"


def test_other_strategies_and_unknown_ones(labelling: Server) -> None:
    assert next_sample(labelling, strategy="first")["id"] == "aaa_broken"  # MONAI Label's own, as it is
    assert "id" in next_sample(labelling, strategy="random")
    for path, known in (("activelearning", "style_aware, random, first"), ("scoring", "dice, effort")):
        response = requests.post(f"{labelling.url}/{path}/none", json=SLICER, timeout=REQUEST_SECONDS)
        assert response.status_code == 404
        assert response.json()["detail"].endswith(f"'none'; this server has {known}.")


def test_an_accepted_study_is_not_given_again_and_another_style_comes_first(
    labelling: Server, phantom: Phantom, tmp_path: Path
) -> None:
    mine = next_sample(labelling)["id"]
    assert next_sample(labelling)["id"] == mine
    labels = phantom.organs["liver"] + 2 * phantom.organs["spleen"]
    accept(labelling, mine, labels, tmp_path)
    following = next_sample(labelling)["id"]
    assert following != mine
    for image in sorted({*GOOD} - {mine}):
        accept(labelling, image, labels, tmp_path)
    assert next_sample(labelling) == {}  # but for the broken one, which stays without a label


def score(server: Server, method: str, **query: Any) -> Any:
    response = requests.post(f"{server.url}/scoring/{method}", params=query, json={}, timeout=REQUEST_SECONDS)
    assert response.status_code == 200, response.text
    return response.json()


def test_scoring_says_what_was_accepted_and_what_it_cost(labelling: Server, phantom: Phantom, tmp_path: Path) -> None:
    clicks = {"label": "liver", "foreground": [[30, 40, 5]], "background": []}
    drawn, _ = labelling.slicer(clicks, image="ct1")
    more = {**clicks, "foreground": [[30, 40, 5], [28, 40, 5]], "background": [[72, 42, 5]]}
    labelling.slicer(more, image="ct1")
    response = labelling.post({**clicks, **SLICER, "save_label": True, "label_tag": "original"}, image="ct1")
    assert response.status_code == 200, response.text
    accept(labelling, "ct1", drawn > 0, tmp_path)
    dice = score(labelling, "dice", run_sync=True)
    saved = np.asarray(nibabel.load(labelling.studies / "labels" / "original" / "ct1.nii.gz").dataobj) > 0
    overlap = 2 * np.count_nonzero(saved & (drawn > 0)) / (np.count_nonzero(saved) + np.count_nonzero(drawn))
    assert dice["images"] == {"ct1": {"liver": pytest.approx(overlap, abs=1e-4)}}

    effort = score(labelling, "effort", run_sync=True)
    assert (effort["images"]["ct1"]["clicks"], effort["images"]["ct1"]["notes"]) == (3, 0)
    assert effort["images"]["ct1"]["seconds"] >= 0
    assert effort["cases"] == len(GOOD)
    assert effort["clicks"] == pytest.approx(3 / len(GOOD))
    lines = (labelling.studies / "causal_sam_journal" / "clicks.jsonl").read_text().split("\n")
    assert all(entry["image"] == "ct1" and "30" not in entry for line in lines if line for entry in [json.loads(line)])


@pytest.mark.slow
def test_scoring_in_a_process_of_its_own_looks_at_no_studies_and_changes_no_labels(labelling: Server) -> None:
    """MONAI Label starts one for each scoring."""
    result = labelling.studies / "causal_sam_journal" / "dice.json"
    before = result.stat().st_mtime_ns
    store = (labelling.studies / "datastore_v2.json").read_bytes()
    assert score(labelling, "dice")["status"] in ("SUBMITTED", "RUNNING")
    url = f"{labelling.url}/scoring/"
    wait_until(lambda: requests.get(url, timeout=60).json()["status"] not in ("SUBMITTED", "RUNNING"))
    task = requests.get(url, timeout=60).json()
    assert task["status"] == "DONE", task
    assert '"ct1": {"liver"' in json.dumps(task["details"]).replace('\\"', '"')
    assert result.stat().st_mtime_ns > before
    assert (labelling.studies / "datastore_v2.json").read_bytes() == store
