"""What reaches the processes of trainings, batches and scorings, and how many there may be."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.endpoints import batch_infer, info, scoring, train
from monailabel.utils.async_tasks import task as async_task
from monailabel.utils.async_tasks import utils

from causal_sam.errors import InputError
from causal_sam.site.adapter_store import AdapterStore
from serving.conf import AppConf
from serving.requests import background_tasks, routes
from serving.requests.errors import install_error_handlers
from serving.requests.options import chosen_options
from trainers.adapters import OPTIONS, AdaptersTrainTask

LIMIT = 3
PATHS = ("/train/", "/train/adapters", "/batch/infer/organs", "/scoring/", "/scoring/dice")
# Keys that MONAI Label, torch or Python would act on.
HOSTILE = {
    **{"bundle_path": "/tmp", "gpus": "0;rm", "PYTHONPATH": "/tmp", "env": {"A": "b"}, "method": "other", "model": "x"},
    **{
        "local_rank": 7,
        "config": "/etc/passwd",
        "run_id": "../x",
        "device_ids": [1],
        "multi_gpu": True,
        "note": "words",
    },
    **{"script": "os.system", "module": "os", "MASTER_ADDR": "evil.org", "image": "/etc/passwd", "save_label": False},
}


class App:
    """Stands for the app: it only notes what its tasks are asked for."""

    max_queued_trainings = LIMIT

    def __init__(self) -> None:
        self._trainers = {"adapters": AdaptersTrainTask(AppConf(device="cpu"), AdapterStore(Path("versions")))}
        config = {"organs": "", "plane": ["auto", "axial"], "frame": 0}
        self._infers = {
            "organs": SimpleNamespace(config=lambda: config, runs_in_batches=True),
            "clicks": SimpleNamespace(config=dict),
        }
        self._scoring_methods = {"dice": SimpleNamespace(options={"y": "", "y_pred": ""}), "effort": SimpleNamespace()}
        self.asked: list[dict[str, Any]] = []
        self.may_end = threading.Event()
        self.began = threading.Semaphore(0)

    def info(self) -> dict[str, Any]:
        return {}

    def bundle_path(self, model: str) -> None:
        return None

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        self.began.release()
        assert self.may_end.wait(60)
        return {"done": request}

    batch_infer = scoring = train


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    app = App()
    for module in (background_tasks, async_task):
        monkeypatch.setattr(module, "app_instance", lambda: app)
    monkeypatch.setattr(utils, "background_tasks", tasks := {})
    monkeypatch.setattr(background_tasks, "background_tasks", tasks)
    monkeypatch.setattr(background_tasks, "_in_requests", type(background_tasks._in_requests)())
    return app


@pytest.fixture
def started(app: App, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Requests for which a process would have been started."""
    requests: list[dict[str, Any]] = []

    def run(request: dict[str, Any], method: str) -> dict[str, Any]:
        requests.append(request)
        record = {"id": str(len(requests)), "status": "SUBMITTED", "request": request}
        background_tasks.background_tasks.setdefault(method, []).append(record)
        return record

    monkeypatch.setattr(async_task, "run_background_task", run)
    return requests


@pytest.fixture
def client(app: App) -> Iterator[TestClient]:
    server = FastAPI()
    for module in (batch_infer, info, scoring, train):
        server.include_router(module.router)
    install_error_handlers(server)
    mine = {
        key: each for key, each in routes.REPLACEMENTS.items() if key[1].startswith(("/train", "/batch", "/scoring"))
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "REPLACEMENTS", mine)
        routes.install_routes(server)
    with TestClient(server) as client:
        yield client


def test_nothing_but_the_tasks_own_options_reaches_a_process(client: TestClient, started: list[dict[str, Any]]) -> None:
    chosen = {
        "/train/": {"minutes": "30", "lad": "false"},
        "/train/adapters": {"minutes": 30, "labels": ["liver"]},
        "/batch/infer/organs": {"organs": "liver", "plane": "axial", "max_batch_size": 2, "label_tag": "original"},
        "/scoring/": {"y": "final"},
        "/scoring/dice": {"y_pred": "original"},
    }
    offered = {*OPTIONS, "organs", "plane", "frame", "logging", "label_tag", "max_batch_size", "y", "y_pred"}
    for path, options in chosen.items():
        background_tasks.background_tasks.clear()
        nested = {"adapters": HOSTILE, "dice": HOSTILE} if path.endswith("/") else {}
        answer = client.post(path, json={**HOSTILE, **nested, **options})
        assert answer.status_code == 200, answer.text
    assert len(started) == 6
    for request in started:
        assert request.keys() <= offered | {"model", "method", "images"}
        text = json.dumps(request)
        assert not any(word in text for word in ("/tmp", "rm", "passwd", "os.", "evil", "words")), text
    assert started[0] == {"model": "adapters", "minutes": 30.0, "lad": False}
    assert started[1]["labels"] == ["liver"]
    assert started[2] == {"model": "organs", "images": "all", **chosen["/batch/infer/organs"]}
    assert [request["method"] for request in started[3:]] == ["dice", "effort", "dice"]
    assert "y" not in started[4]


def test_a_process_has_nothing_of_the_client_in_its_environment(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MONAI Label starts a real process, in place of Python a script that prints its arguments and environment.

    The script waits in the end, since MONAI Label reads no further line once the process has ended.
    """
    script = tmp_path / "python"
    script.write_text('#!/bin/sh\necho "$@"\nenv\nsleep 1\n')
    script.chmod(0o700)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setattr(utils.sys, "executable", str(script))
    monkeypatch.setattr(utils, "background_processes", {})
    monkeypatch.setattr(async_task, "run_background_task", partial(utils.run_background_task, debug=True))
    lines: list[str] = []
    monkeypatch.setattr(utils, "deque", lambda maxlen: lines)
    folder = tmp_path / "session"
    folder.mkdir()
    answer = client.post("/train/adapters", json={"bundle_path": str(folder), "gpus": "9", "minutes": 3})
    assert answer.status_code == 200
    assert any('"minutes":3.0' in line for line in lines)
    assert any(line.startswith("PYTHONPATH=") for line in lines)
    assert not any(str(folder) in line or line.startswith("CUDA_VISIBLE_DEVICES=9") for line in lines)


def test_values_are_of_the_options_kind(client: TestClient, started: list[dict[str, Any]]) -> None:
    wrong = {
        "/train/adapters": {
            "minutes": ("soon", "nan", "1e999", True, [], {}, 1e300),
            "max_epochs": (1.5, "x"),
            "lad": ("maybe", 2, []),
            "labels": (1, {}, [1], "a\0", "x" * 5000),
        },
        "/batch/infer/organs": {
            "plane": ("oblique", ["axial"], {}),
            "label_tag": ("../x", "/tmp/x", 1, "final"),
            "frame": ("a",),
            "max_batch_size": (1.5, -1, 10**7, True),
            "logging": ("LOUD", 3),
            "images": (["../x"], [1], ["x"] * 60_000),
            "organs": (7,),
        },
        "/scoring/dice": {"y": ("../../x", 1), "y_pred": ("/etc",)},
    }
    for path, options in wrong.items():
        for key, values in options.items():
            for value in values:
                answer = client.post(
                    path, content=json.dumps({key: value}), headers={"content-type": "application/json"}
                )
                assert answer.status_code == 422, (path, key, value)
                assert answer.json()["detail"].endswith(".")
    for path, status in (("/train/x", 404), ("/batch/infer/x", 404), ("/scoring/x", 404), ("/batch/infer/clicks", 422)):
        assert client.post(path, json={}).status_code == status
    assert client.post("/batch/infer/organs?images=some", json={}).status_code == 422
    assert client.post("/train/", json={"adapters": "all"}).status_code == 422
    assert started == []


def test_what_no_training_could_use_is_refused_before_one_is_started(
    client: TestClient, started: list[dict[str, Any]]
) -> None:
    wrong = {
        "minutes": (-5, 0, 1e9),
        "max_epochs": (-1, 10**9),
        "processes": (-1, 100_000),
        **dict.fromkeys(("learning_rate", "adapter_rate"), (0, -1, 5)),
        **dict.fromkeys(("replay", "validation", "tolerance", "min_dice", "min_label_dice"), (-1, 1, 2)),
    }
    assert wrong.keys() == {key for key, value in OPTIONS.items() if type(value) in (int, float)}
    for key, values in wrong.items():
        for value in values:
            for path, options in (
                ("/train/adapters", {key: value}),
                ("/train/", {key: str(value)}),
                ("/train/", {"adapters": {key: value}}),
            ):
                for query in ("", "?run_sync=true", "?enqueue=true"):
                    answer = client.post(path + query, json=options)
                    assert answer.status_code == 422, (path, query, key, value)
                    detail = answer.json()["detail"]
                    assert detail.endswith(".")
                    assert key.removeprefix("max_") in detail
    assert started == []


def test_only_so_many_run_or_wait(client: TestClient, started: list[dict[str, Any]]) -> None:
    for path in ("/train/adapters", "/batch/infer/organs", "/scoring/dice"):
        assert client.post(path, json={}).status_code == 200
        refused = client.post(path, json={})
        assert refused.status_code == 429
        assert refused.json()["detail"].endswith(".")
    statuses = [client.post("/train/adapters", params={"enqueue": True}, json={}).status_code for _ in range(LIMIT)]
    assert statuses == [200] * (LIMIT - 1) + [429]
    for record in background_tasks.background_tasks["train"]:
        record["status"] = "DONE"
    assert client.post("/train/adapters", json={}).status_code == 200


def test_finished_tasks_are_forgotten_in_the_end(client: TestClient, started: list[dict[str, Any]]) -> None:
    done = [{"id": str(number), "status": "DONE"} for number in range(500)]
    background_tasks.background_tasks["train"] = done
    assert client.post("/train/adapters", json={}).status_code == 200
    assert len(done) <= background_tasks.MAX_HISTORY + 1


def test_others_are_answered_while_a_task_runs_in_the_server(client: TestClient, app: App, monkeypatch) -> None:
    monkeypatch.setattr(info, "app_info", lambda: {"answers": True})
    for path in PATHS:
        app.may_end.clear()
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(client.post, path, params={"run_sync": True}, json={})
            assert app.began.acquire(timeout=60)
            assert client.get("/info/").json() == {"answers": True}
            assert not asked.done()
            app.may_end.set()
            assert asked.result().status_code == 200
        while app.began.acquire(blocking=False):
            pass


def test_options_are_those_that_were_offered() -> None:
    offered = {"a": 1, "b": 1.5, "c": True, "d": "", "e": ["x", "y"]}
    assert chosen_options(None, offered) == {}
    assert chosen_options({"a": None, "b": "", "z": 1}, offered) == {}
    assert chosen_options({"a": "3", "b": "2", "c": "on", "d": "t", "e": "y"}, offered) == {
        **{"a": 3, "b": 2.0, "c": True, "d": "t", "e": "y"}
    }
    with pytest.raises(InputError, match="e must be one of x, y"):
        chosen_options({"e": "z"}, offered)
    assert chosen_options({"f": "3"}, {"f": range(4)}) == {"f": 3}
    with pytest.raises(InputError, match=r"f must be a whole number from 0 to 3, not 4\."):
        chosen_options({"f": 4}, {"f": range(4)})
