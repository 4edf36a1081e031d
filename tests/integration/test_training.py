"""Labels are accepted, learned and used, as viewers ask for it; a training that is stopped or killed does no harm."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
import pytest
import requests
from accepted_studies import NAME, draw
from monailabel.client.client import MONAILabelClientException

from causal_sam.imaging.overlap import dice
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.paths import LOCK, STORE_FOLDER, TRAINING, is_running

from .server import REQUEST_SECONDS, Server, running_server

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

MODEL = "causal_sam_organs"
CASES = 5
# What the dialogs of the viewers hold: what the user changed comes as text.
OPTIONS = {
    "minutes": 0.05,
    "max_epochs": "8",
    "learning_rate": 0.003,
    "adapter_rate": 0.001,
    "labels": "",
    "replay": 0.5,
    "validation": "0",
    "tolerance": 0.02,
    "min_dice": 0,
    "min_label_dice": "0",
    "lad": False,
    "processes": 0,
}
LONG = {**OPTIONS, "minutes": "30", "max_epochs": 0}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    for number in range(CASES):
        nibabel.save(draw(number)[0], folder / f"case{number}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def server(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(studies, tmp_path_factory.mktemp("server"), {"labels": NAME}) as started:
        yield started


def accept(server: Server, number: int, folder: Path) -> None:
    """Submit a label as Slicer's plug-in does."""
    path = folder / f"label{number}.nii.gz"
    nibabel.save(draw(number)[1], path)
    with path.open("rb") as file:
        response = requests.put(
            f"{server.url}/datastore/label",
            params={"image": f"case{number}", "tag": "final"},
            data={"params": json.dumps({"label_info": [{"name": NAME, "idx": 1}], "client_id": "user-xyz"})},
            files={"label": (path.name, file)},
            timeout=REQUEST_SECONDS,
        )
    assert response.status_code == 200, response.text


def wait_for(server: Server, reached: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Ask for the state of the training until it is as it should; return what ``/info/`` said meanwhile of it."""
    seen = []
    while True:
        seen.append(server.info()["train_stats"]["adapters"])
        if reached(seen[-1]):
            return seen
        task = requests.get(f"{server.url}/train/", timeout=REQUEST_SECONDS).json()
        if task["status"] in ("DONE", "ERROR"):
            raise AssertionError(f"It ended: {list(task['details'])}")
        time.sleep(0.2)


def ended(server: Server) -> dict[str, Any]:
    """The training that was started last, once it has ended."""
    while (task := server.client().train_status())["status"] not in ("DONE", "ERROR", "STOPPED"):
        time.sleep(0.2)
    return task


def in_use(server: Server, image: str = "case0") -> int | None:
    return server.post({}, model=MODEL, image=image).json().get("version")


def test_nothing_was_taught_yet(server: Server) -> None:
    info = server.info()
    assert info["trainers"]["adapters"]["config"].keys() == OPTIONS.keys()
    stats = info["train_stats"]["adapters"]
    assert (stats["version"], stats["total_time"]) == (None, "0:00:00")
    answer = server.post({}, model=MODEL, image="case0")
    assert answer.status_code == 422
    assert "save labels with the tag final, then press Update Model" in answer.json()["detail"]


def test_update_model_in_ohif_learns_and_the_answer_changes_without_a_restart(
    server: Server, studies: Path, tmp_path: Path
) -> None:
    for number in (0, 1):
        accept(server, number, tmp_path)
    # OHIF's button: all trainers, each with its options; what it did not change is not text.
    body = {"adapters": OPTIONS}
    assert requests.post(f"{server.url}/train/", json=body, timeout=REQUEST_SECONDS).status_code == 200
    while requests.get(f"{server.url}/train/", params={"check_if_running": True}, timeout=60).status_code != 200:
        time.sleep(0.1)  # MONAI Label starts it a moment after it has answered
    seen = wait_for(server, lambda stats: stats["version"] == 1)
    assert any("total_time" not in stats and 0 < stats["epoch"] < 100 for stats in seen)
    task = ended(server)
    assert task["status"] == "DONE"
    assert task["details"][-1].startswith("v0001 was trained on 2 cases and published: Dice ")
    stats = server.info()["train_stats"]["adapters"]
    assert (stats["epoch"], stats["total_epochs"], stats["phase"]) == (100, 100, "published")
    assert stats["best_metric"] > 0.7
    assert stats["total_time"] != "0:00:00"
    assert stats["message"] == task["details"][-1]

    mask = server.ohif({"organs": ""}, model=MODEL, image="case4")
    assert dice(mask == 1, draw(4)[1].get_fdata() > 0) > 0.7
    assert in_use(server, "case4") == 1
    note = server.post({"note": "block: smooth the boundary"}, model="causal_sam_note", image="case4")
    assert note.json()["version"] == 1
    journal = (studies / "causal_sam_journal" / "notes.jsonl").read_text().splitlines()
    assert json.loads(journal[-1])["versions"]["adapters"] == 1
    assert (studies / STORE_FOLDER / "training" / "reports" / "v0001" / "loss.png").is_file()


def test_slicers_training_says_that_nothing_is_new(server: Server) -> None:
    stale = {"name": "train_01", "pretrained": True, "train_batch_size": "1", "dataset": "Dataset", "multi_gpu": True}
    server.client("user-xyz").train_start("adapters", {**OPTIONS, **stale})
    task = ended(server)
    assert task["status"] == "DONE"
    assert task["details"][-1] == "No label was accepted since v0001 that can be learned from: it stays in use."


def test_what_cannot_be_used_is_said_before_a_training_starts(server: Server) -> None:
    for wrong, sentence in (
        ({"minutes": "soon"}, "minutes must be a number"),
        ({"minutes": -5, "max_epochs": 0}, "An update needs minutes above 0"),
        ({"replay": "7"}, "replay must be"),
        ({"processes": 100_000}, "processes must be 0 to"),
    ):
        with pytest.raises(MONAILabelClientException, match=rf"422.*{sentence}"):
            server.client("user-xyz").train_start("adapters", {**OPTIONS, **wrong})


def test_what_cannot_be_carried_out_is_the_last_line(server: Server, studies: Path) -> None:
    with (studies / STORE_FOLDER / TRAINING / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server.client("user-xyz").train_start("adapters", dict(OPTIONS))
        task = ended(server)
    assert task["status"] == "ERROR"
    assert task["details"][-1].startswith("Another update of this adapter store runs")
    assert not any("Traceback" in line for line in task["details"])


def test_in_the_server_itself_it_answers_when_it_is_done(server: Server) -> None:
    url, sync = f"{server.url}/train/adapters", {"run_sync": True}
    answer = requests.post(url, params=sync, json=OPTIONS, timeout=REQUEST_SECONDS)
    assert answer.status_code == 200
    assert answer.json()["status"] == "nothing"
    answer = requests.post(url, params=sync, json={**OPTIONS, "replay": 7}, timeout=REQUEST_SECONDS)
    assert (answer.status_code, "replay must be" in answer.json()["detail"]) == (422, True)


def test_a_training_that_is_stopped_leaves_the_next_one_its_way(server: Server, tmp_path: Path) -> None:
    accept(server, 2, tmp_path)
    server.client().train_start("adapters", dict(LONG))
    wait_for(server, lambda stats: stats["phase"] == "training")
    assert server.client().train_stop()["status"] == "STOPPED"
    assert in_use(server) == 1
    stats = wait_for(server, lambda stats: "total_time" in stats)[-1]
    assert (stats["phase"], stats["version"]) == ("stopped", 1)
    server.client().train_start("adapters", {**OPTIONS, "max_epochs": "1"})
    task = ended(server)
    assert task["status"] == "DONE"
    assert "was trained on 3 cases" in task["details"][-1]
    published = "published: Dice" in task["details"][-1]
    assert in_use(server) == (2 if published else 1)


def test_a_server_that_is_killed_takes_its_training_along_and_the_version_in_use_stays(
    server: Server, studies: Path, tmp_path: Path
) -> None:
    accept(server, 3, tmp_path)
    before = in_use(server)
    server.client().train_start("adapters", dict(LONG))
    wait_for(server, lambda stats: stats["phase"] == "training")
    port = server.url.rpartition(":")[2]
    (process,) = (child for child in psutil.Process().children() if port in child.cmdline())
    process.kill()
    while is_running(studies / STORE_FOLDER):
        time.sleep(0.2)
    assert AdapterStore(studies / STORE_FOLDER).current() == before
    (tmp_path / "again").mkdir()
    with running_server(studies, tmp_path / "again", {"labels": NAME}) as again:
        assert again.info()["train_stats"]["adapters"]["phase"] == "stopped"
        assert in_use(again) == before


def test_the_images_are_as_they_were(studies: Path) -> None:
    for number in range(CASES):
        kept = nibabel.load(studies / f"case{number}.nii.gz").get_fdata()
        np.testing.assert_array_equal(kept, draw(number)[0].get_fdata())
