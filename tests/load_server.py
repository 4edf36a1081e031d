"""Load a server with many clients beside a batch and a training, and compare with the same requests one by one.

python tests/load_server.py 16 2000 0      # 16 clients, 2,000 requests, seed 0
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
import requests
from integration.server import Server, read_nrrd, running_server

SHAPE = (40, 36, 6)
AFFINE = np.diag([-2.0, -2.0, 6.0, 1.0])
# Bright boxes in each image: name -> brightness and place. No organs: those are measured on generated abdomens too.
BLOCKS = {
    "implant": (500, (slice(4, 16), slice(6, 20))),
    "port": (700, (slice(24, 34), slice(6, 16))),
    "screw": (900, (slice(18, 28), slice(22, 32))),
}
NAMES = tuple(BLOCKS)
NOTES = (
    "the implant is too small on the left",
    "expand the port by 2 mm",
    "shrink the screw by 2 mm",
    "remove the port on slices 1 to 2",
    "fill the holes in the implant",
    "the implant and the lung are fine",
)
# Small caches, so that they are full when the clients have warmed up.
CONF = {"labels": ",".join(NAMES), "cache_mb": "96", "volume_mb": "32", "working_mask_mb": "16"}
SHORT = {"minutes": 3, "max_epochs": 6, "lad": False, "validation": 0, "min_dice": 0, "min_label_dice": 0}
LONG = {"minutes": 120, "max_epochs": 0, "lad": False}
REQUEST_SECONDS = 300
WARM_UP = 0.3
"""Requests before the batch and the training begin, as a share of those that come after."""
BATCH_IMAGES = 24
LEARNT = 3
"""Images whose labels are learned before."""


@dataclass(frozen=True)
class Step:
    """One request of a client: its kind, and what it sends."""

    kind: str
    sent: Mapping[str, Any]


@dataclass
class Measured:
    """What a run gave.

    Attributes:
        answers: of each client, by step: a digest of what it got.
        clicks: seconds of each click, while nothing else ran and with a batch and a training behind.
        saved: image -> digest of the voxels and the names that were accepted last.
        found: the same as the server gives them at the end.
        memory: MiB of the server, at the end of the warm-up and at the end.
        batches: that were completed meanwhile.
        seconds: of all.
    """

    answers: dict[int, list[str]] = field(default_factory=dict)
    clicks: dict[str, list[float]] = field(default_factory=lambda: {"alone": [], "with batch and training": []})
    saved: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    found: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    memory: tuple[float, float] = (0.0, 0.0)
    batches: int = 0
    seconds: float = 0.0


# --- the site ------------------------------------------------------------------------------------------------------


def image_of(client: int) -> str:
    """The image that a client works on."""
    return f"client{client:02d}"


def _draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    label_map = np.zeros(SHAPE, np.uint8)
    image = np.random.default_rng(seed).normal(200, 10, SHAPE)
    for value, (brightness, place) in enumerate(BLOCKS.values(), start=1):
        label_map[(*place, slice(1, 5))] = value
        image[label_map == value] += brightness - 200
    return image.astype(np.float32), label_map


def _nifti(array: np.ndarray) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(array, AFFINE)


def make_site(folder: Path, clients: int) -> Path:
    """Make images, accept labels of those that clients work on, and let the server learn them; return the studies."""
    studies = folder / "studies"
    studies.mkdir(parents=True)
    for number in range(clients):
        nibabel.save(_nifti(_draw(number)[0]), studies / f"{image_of(number)}.nii.gz")
        nibabel.save(_nifti(_draw(100 + number)[0]), studies / f"extra{number:02d}.nii.gz")
    for number in range(BATCH_IMAGES):
        nibabel.save(_nifti(_draw(200 + number)[0]), studies / f"batch{number:02d}.nii.gz")
    with running_server(studies, folder, CONF) as server:
        for number in range(LEARNT):
            _save(server, image_of(number), _draw(number)[1], NAMES)
        _start(server, "train/adapters", SHORT)
        while (state := _state(server, "train/"))["status"] not in ("DONE", "ERROR"):
            time.sleep(0.5)
        for number in range(clients):
            for image, seed in ((image_of(number), number), (f"extra{number:02d}", 100 + number)):
                _save(server, image, _draw(seed)[1], NAMES)
        answer = server.post({}, model="causal_sam_organs", image="batch00")
        assert answer.status_code == 200, f"nothing was learned: {state}; {answer.text}"
    return studies


# --- what clients do -----------------------------------------------------------------------------------------------


def steps(client: int, count: int, seed: int) -> list[Step]:
    """The requests of one client, always the same: clicks of several labels, boxes, notes, names, saves and others."""
    rng = random.Random(seed * 1000 + client)
    points: dict[str, dict[str, list[list[int]]]] = {name: {"foreground": [], "background": []} for name in NAMES}
    kinds = ["click"] * 52 + ["labels"] * 12 + ["box"] * 8 + ["note"] * 8 + ["names"] * 3 + ["save"] * 6
    kinds += ["save extra"] * 3 + ["sample"] * 3 + ["info"] * 5

    def voxel() -> list[int]:
        return [rng.randrange(size) for size in SHAPE]

    def step(kind: str) -> Step:
        name = rng.choice(NAMES)
        if kind == "click":
            mine = points[name]
            if len(mine["foreground"]) + len(mine["background"]) > 6 or rng.random() < 0.1:
                mine["foreground"], mine["background"] = [], []
            _, (across, along) = BLOCKS[name]
            inside = [rng.randrange(across.start, across.stop), rng.randrange(along.start, along.stop), 2]
            mine["foreground" if not mine["foreground"] or rng.random() < 0.6 else "background"].append(
                inside if rng.random() < 0.6 else voxel()
            )
            extent = "volume" if rng.random() < 0.3 else "slice"
            return Step(kind, {"label": name, "extent": extent, **{key: list(value) for key, value in mine.items()}})
        if kind == "labels":
            return Step(kind, {each: [voxel()] for each in NAMES} | {"label": name, "extent": "slice"})
        if kind == "box":
            i, j, k = (sorted(rng.sample(range(size), 2)) for size in SHAPE)
            return Step(kind, {"label": name, "roi": [*i, *j, k[0], k[0]], "extent": "slice"})
        if kind == "note":
            return Step(kind, {"note": rng.choice(NOTES), "undo": rng.random() < 0.2, "label": name})
        if kind == "names":
            return Step(kind, {"organs": rng.choice(("", name))})
        if kind.startswith("save"):
            corner = [rng.randrange(size // 2) for size in SHAPE]
            chosen = rng.sample(NAMES, rng.randrange(1, 4))
            return Step(kind, {"corner": corner, "names": chosen})
        return Step(kind, {})

    return [step(rng.choice(kinds)) for _ in range(count)]


_TASKS = {
    "click": "causal_sam",
    "box": "causal_sam",
    "labels": "causal_sam_multilabel",
    "note": "causal_sam_note",
    "names": "causal_sam_organs",
}


class Client:
    """One person at a viewer.

    Args:
        server: of all.
        number: of the client.
        measured: gets what happens.
    """

    def __init__(self, server: Server, number: int, measured: Measured) -> None:
        self.server, self.number, self.measured = server, number, measured
        self.answers = measured.answers.setdefault(number, [])

    def do(self, step: Step, phase: str) -> None:
        """Send one request."""
        who = {"client_id": f"load-{self.number}"}
        if step.kind in _TASKS:
            sent = {**step.sent, **who, "result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
            begin = time.monotonic()
            answer = self.server.post(sent, model=_TASKS[step.kind], image=image_of(self.number), output="image")
            if step.kind == "click":
                self.measured.clicks[phase].append(time.monotonic() - begin)
            self.answers.append(_digest(answer))
        elif step.kind.startswith("save"):
            image = image_of(self.number) if step.kind == "save" else f"extra{self.number:02d}"
            array = np.zeros(SHAPE, np.uint8)
            for value, _ in enumerate(step.sent["names"], start=1):
                i, j, k = step.sent["corner"]
                array[i + 3 * value : i + 3 * value + 3, j : j + 8, k : k + 2] = value
            status = _save(self.server, image, array, step.sent["names"], **who)
            self.measured.saved[image] = (_voxels(array), tuple(step.sent["names"]))
            self.answers.append(str(status))
        elif step.kind == "sample":
            url = f"{self.server.url}/activelearning/random"
            answer = requests.post(url, json=who, timeout=REQUEST_SECONDS)
            self.answers.append(f"{answer.status_code} {bool(answer.json().get('id'))}")
        else:
            answer = requests.get(f"{self.server.url}/info/", timeout=REQUEST_SECONDS)
            self.answers.append(f"{answer.status_code} {answer.json()['name']}")


def _digest(answer: requests.Response) -> str:
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.json()['detail']}"
    return f"200 {_voxels(read_nrrd(answer.content))}"  # of the voxels alone: the header has the time


def _voxels(array: np.ndarray) -> str:
    return hashlib.sha256(np.asarray(array, np.int32).tobytes()).hexdigest()


def _save(server: Server, image: str, array: np.ndarray, names: Sequence[str], **params: Any) -> int:
    info = [{"name": name, "idx": value} for value, name in enumerate(names, start=1)]
    content = _nifti(array).to_bytes()
    response = requests.put(
        f"{server.url}/datastore/label",
        params={"image": image, "tag": "final"},
        data={"params": json.dumps({"label_info": info, **params})},
        files={"label": ("label.nii", content)},
        timeout=REQUEST_SECONDS,
    )
    assert response.status_code == 200, response.text
    return response.status_code


def _found(server: Server, image: str) -> tuple[str, tuple[str, ...]]:
    """Digest of the voxels, and the names, of the accepted label of an image."""
    query = {"label": image, "tag": "final"}
    label = requests.get(f"{server.url}/datastore/label", params=query, timeout=REQUEST_SECONDS)
    info = requests.get(f"{server.url}/datastore/label/info", params=query, timeout=REQUEST_SECONDS)
    if label.status_code != 200:
        return f"{label.status_code} {label.text}", ()
    named = sorted(info.json().get("label_info", ()), key=lambda entry: entry["idx"])
    content = gzip.decompress(label.content) if label.content[:2] == b"\x1f\x8b" else label.content
    return _voxels(np.asarray(nibabel.Nifti1Image.from_bytes(content).dataobj)), tuple(entry["name"] for entry in named)


# --- what runs behind ----------------------------------------------------------------------------------------------


def _start(server: Server, path: str, body: Mapping[str, Any], **query: str) -> None:
    response = requests.post(f"{server.url}/{path}", params=query, json=dict(body), timeout=REQUEST_SECONDS)
    assert response.status_code == 200, response.text


def _state(server: Server, path: str) -> dict[str, Any]:
    return requests.get(f"{server.url}/{path}", timeout=REQUEST_SECONDS).json()


@contextmanager
def _work_behind(server: Server, measured: Measured) -> Iterator[None]:
    """Train all the time, and run one batch after the other, during the block."""
    _start(server, "train/adapters", LONG)
    ended = threading.Event()

    def batches() -> None:
        while not ended.is_set():
            _start(server, "batch/infer/causal_sam_organs", {"save_label": True}, images="unlabeled")
            while not ended.wait(0.5) and (state := _state(server, "batch/infer"))["status"] in (
                "RUNNING",
                "SUBMITTED",
            ):
                pass
            if not ended.is_set():
                assert state["status"] == "DONE", state
                measured.batches += 1

    with ThreadPoolExecutor(1) as pool:
        behind = pool.submit(batches)
        try:
            yield
            state = _state(server, "train/")
            assert state["status"] == "RUNNING", f"the training ended: {state}"
        finally:
            ended.set()
            behind.result()
            for path in ("batch/infer", "train/"):
                requests.delete(f"{server.url}/{path}", timeout=REQUEST_SECONDS)


# --- runs ----------------------------------------------------------------------------------------------------------


def _phases(clients: int, count: int, seed: int) -> dict[int, tuple[list[Step], list[Step]]]:
    """Steps of each client, before and after the work behind begins."""
    each = -(-count // clients)
    before = round(WARM_UP * each)
    all_steps = {client: steps(client, before + each, seed) for client in range(clients)}
    return {client: (mine[:before], mine[before:]) for client, mine in all_steps.items()}


def run_one_by_one(server: Server, clients: int, count: int, seed: int) -> Measured:
    """Send all requests of one client, then those of the next."""
    measured, begin = Measured(), time.monotonic()
    for number, (before, after) in _phases(clients, count, seed).items():
        client = Client(server, number, measured)
        for step in before + after:
            client.do(step, "alone")
    measured.seconds = time.monotonic() - begin
    return measured


def run_together(server: Server, clients: int, count: int, seed: int) -> Measured:
    """Let all clients send their requests at once; from the end of the warm-up on beside a batch and a training."""
    measured, begin = Measured(), time.monotonic()
    phases = _phases(clients, count, seed)
    people = {number: Client(server, number, measured) for number in phases}

    def together(part: int, phase: str) -> None:
        def work(number: int) -> None:
            for step in phases[number][part]:
                people[number].do(step, phase)

        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(work, phases))

    together(0, "alone")
    warm = _memory(server)
    with _work_behind(server, measured):
        together(1, "with batch and training")
    measured.memory = (warm, _memory(server))
    measured.found = {image: _found(server, image) for image in measured.saved}
    measured.seconds = time.monotonic() - begin
    return measured


def _memory(server: Server) -> float:
    return psutil.Process(server.pid).memory_info().rss / 2**20


def compare(alone: Measured, together: Measured) -> list[str]:
    """What was different, or lost."""
    problems = []
    for client, answers in alone.answers.items():
        for number, (one, other) in enumerate(itertools.zip_longest(answers, together.answers[client])):
            if one != other:
                problems.append(f"client {client}, step {number}: {other} instead of {one}")
    for image, saved in together.saved.items():
        if together.found[image] != saved:
            problems.append(f"{image}: saved {saved}, found {together.found[image]}")
    return problems


def load(folder: Path, clients: int, count: int, seed: int, say: Callable[[str], object] = print) -> list[str]:
    """Run the requests one by one and together on equal sites, and say how it went.

    Args:
        folder: for all files.
        clients: how many.
        count: requests of all clients together, without those to warm up.
        seed: of the requests.
        say: gets lines of the report.

    Returns:
        What was wrong or lost: one sentence each.
    """
    site = make_site(folder / "site", clients)
    measured = []
    for name, run in (("one", run_one_by_one), ("together", run_together)):
        studies = folder / name / "studies"
        shutil.copytree(site, studies)
        with running_server(studies, folder / name, CONF) as server:
            measured.append(run(server, clients, count, seed))
        say(f"{name}: {sum(map(len, measured[-1].answers.values()))} requests in {measured[-1].seconds:.0f} s")
    alone, together = measured
    masks = sum(answer.startswith("200 ") and len(answer) > 60 for each in alone.answers.values() for answer in each)
    problems = compare(alone, together)
    say(f"{masks} masks compared, {len(together.saved)} accepted labels looked up, {len(problems)} differences")
    for name, measures in (("one by one", alone), ("together", together)):
        for phase, seconds in measures.clicks.items():
            if seconds:
                p50, p95 = np.percentile(seconds, [50, 95])
                say(f"{len(seconds)} clicks {name}, {phase}: p50 {p50:.2f} s, p95 {p95:.2f} s")
    warm, end = together.memory
    say(f"memory {warm:.0f} MiB after the warm-up, {end:.0f} MiB at the end ({end / warm - 1:+.1%})")
    say(f"{together.batches} batches of {BATCH_IMAGES} images were completed behind")
    return problems


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        wrong = load(Path(scratch), *map(int, sys.argv[1:4]), say=lambda line: print(line, flush=True))
        print("\n".join(wrong[:50]))
        sys.exit(bool(wrong))
