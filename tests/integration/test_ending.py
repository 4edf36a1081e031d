"""The processes of trainings, batches and scorings end with the server, however that ends."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import requests
from shared_store import make_images

from serving.task_process import NICENESS

from .server import REQUEST_SECONDS, Server, running_server

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

TASKS = {"train": "train/adapters", "batch_infer": "batch/infer/causal_sam_organs", "scoring": "scoring/dice"}
# Each Python of a task waits for a thread that does not end: what ends is ended by somebody.
ENDLESS = """
import sys, threading, time
if "monailabel.interfaces.utils.app" in sys.orig_argv:
    threading.Thread(target=time.sleep, args=(3600,)).start()
"""
SECONDS = 60


def processes(server: Server) -> dict[str, psutil.Process]:
    """The processes of tasks by their kind."""
    found = {}
    for child in psutil.Process(server.pid).children():
        command = child.cmdline()
        if "monailabel.interfaces.utils.app" in command:
            found[command[command.index("-r") - 1]] = child
    return found


def has_begun(process: psutil.Process) -> bool:
    """The app of a task's process is made: it stands back, which it does as it begins."""
    return process.nice() >= min(psutil.Process().nice() + NICENESS, 19)


@pytest.mark.parametrize(
    ("how", "when", "kinds"),
    [
        (signal.SIGKILL, "begun", set(TASKS)),
        (signal.SIGKILL, "starting", set(TASKS)),
        (signal.SIGTERM, "begun", {"train"}),
        (signal.SIGINT, "begun", {"batch_infer"}),
    ],
)
def test_no_process_is_left_when_the_server_ends(
    how: signal.Signals, when: str, kinds: set[str], tmp_path: Path
) -> None:
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(ENDLESS)
    path = os.pathsep.join([str(tmp_path / "python"), os.environ.get("PYTHONPATH", "")])
    studies = make_images(tmp_path / "studies")
    with running_server(studies, tmp_path, {"labels": "liver"}, variables={"PYTHONPATH": path}) as server:
        waiting = [f"{TASKS['train']}?enqueue=true"] if "train" in kinds else []  # for its turn
        for route in [*(TASKS[kind] for kind in kinds), *waiting]:
            answer = requests.post(f"{server.url}/{route}", json={}, timeout=REQUEST_SECONDS)
            assert answer.status_code == 200, answer.text
        deadline = time.monotonic() + 300
        while (found := processes(server)).keys() != kinds or (
            when == "begun" and not all(map(has_begun, found.values()))
        ):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        main = psutil.Process(server.pid)
        before = [main, *main.children(recursive=True)]
        main.send_signal(how)
        gone, alive = psutil.wait_procs(before, timeout=SECONDS)
        left = [each for each in psutil.process_iter() if each not in gone and str(studies) in _environment(each)]
        for process in {*alive, *left}:
            process.kill()
        assert alive == []
        assert left == []


def _environment(process: psutil.Process) -> str:
    try:
        return str(process.environ())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
