"""Latency of a click over HTTP as OHIF and Slicer send it, from the request to the decoded mask."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
import SimpleITK

from causal_sam.benchmark.latency import peak_mb
from causal_sam.errors import CausalSamError

START_SECONDS = 180.0
# A server that is told to end finishes what it began.
END_SECONDS = 60.0
REQUEST_SECONDS = 600.0
# A server warms up behind its first answers.
WARM_UP_SECONDS = 5.0
POLL_SECONDS = 0.3
SPACING_MM = (0.8, 0.8, 2.5)
OHIF = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False, "restore_label_idx": False}
SLICER = {"result_extension": ".nrrd", "result_dtype": "uint8"}

# MONAI Label's radiology app has the deepgrow task in question; it is run whole but for its network, in a process of
# its own, since it is made to be imported from its folder. (With MONAI 1.6 it fails on NIfTI files, not on NRRD.)
_DEEPGROW = """
import json, logging, os, sys, time
image, point, dimension, repeats = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
logging.disable(logging.CRITICAL)
sys.path.insert(0, os.path.join(sys.prefix, "monailabel", "sample-apps", "radiology"))
from lib.infers.deepgrow import Deepgrow

class WithoutNetwork(Deepgrow):
    def run_inferer(self, data, convert_to_batch=True, device="cpu"):
        data["pred"] = data["image"][:1]
        return data

size = {2: (256, 256), 3: (128, 192, 192)}[dimension]
task = WithoutNetwork(None, dimension=dimension, spatial_size=size, model_size=size)
seconds = []
for _ in range(1 + repeats):
    request = {"image": image, "foreground": [point], "background": [], "device": "cpu", "result_extension": ".nrrd"}
    begin = time.perf_counter()
    path, _ = task(request | {"result_dtype": "uint8", "result_compress": False})
    seconds.append(time.perf_counter() - begin)
    os.unlink(path)
print(json.dumps(seconds))
"""


@dataclass(frozen=True)
class HttpLatency:
    """Seconds from sending a request to having decoded the mask of its answer.

    Attributes:
        name: name of the request.
        first: seconds of the first request.
        repeated: median seconds of the later requests.
        megabytes: size of an answer in 10^6 bytes.
    """

    name: str
    first: float
    repeated: float
    megabytes: float


def measure_http(
    shape: tuple[int, int, int], repeats: int, command: list[str], environment: Mapping[str, str], port: int
) -> tuple[list[HttpLatency], float]:
    """Start a server on a generated volume and click in it.

    Args:
        shape: shape of the volume.
        repeats: number of clicks after the first one, each next to the previous one.
        command: command that starts the server; ``{studies}`` stands for the folder of its images.
        environment: environment variables of the server.
        port: port of the server.

    Returns:
        The times, and the peak resident memory of the server in 10^6 bytes.

    Raises:
        CausalSamError: the server does not start or answers with an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        voxel = write_volume(Path(folder) / "large.nrrd", shape)
        with running_server([part.format(studies=folder) for part in command], environment, port, Path(folder)) as url:
            time.sleep(WARM_UP_SECONDS)
            found = [
                _clicks(url, "click, OHIF", "image", OHIF | {"extent": "slice"}, voxel, repeats),
                _clicks(url, "click, Slicer", "all", SLICER | {"extent": "slice"}, voxel, repeats),
            ]
            # One structure propagated through the volume, then corrected on one slice after the other.
            whole = OHIF | {"extent": "volume", "label": "followed", "reset": False}
            found.append(_clicks(url, "whole structure, OHIF", "image", whole, voxel, min(repeats, 3), across=True))
        # An earlier, larger child process would hide the server's peak; the command line starts none.
        return found, peak_mb(resource.RUSAGE_CHILDREN)


def measure_deepgrow(shape: tuple[int, int, int], repeats: int, dimension: int) -> HttpLatency:
    """Time MONAI Label's own deepgrow task on such a volume: all its transforms, without the network and without HTTP.

    Args:
        shape: shape of the volume.
        repeats: number of requests after the first one.
        dimension: dimension of the task, 2 or 3.

    Raises:
        CausalSamError: the task fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "large.nrrd"
        voxel = write_volume(image, shape)
        arguments = [str(image), json.dumps(voxel), str(dimension), str(repeats)]
        done = subprocess.run(
            [sys.executable, "-c", _DEEPGROW, *arguments], capture_output=True, text=True, check=False, cwd=folder
        )
        if done.returncode:
            raise CausalSamError(f"MONAI Label's deepgrow task failed: {done.stderr.strip().splitlines()[-1]}")
        seconds = json.loads(done.stdout.splitlines()[-1])
    return HttpLatency(
        f"MONAI Label's deepgrow {dimension}D, no network, no HTTP",
        seconds[0],
        float(np.median(seconds[1:])),
        float(np.prod(shape)) / 1e6,
    )


def write_volume(path: Path, shape: tuple[int, int, int]) -> list[int]:
    """Write a CT-like image with one bright ellipsoid in a body, and return the voxel in its middle."""
    grids = np.ogrid[tuple(slice(-1.0, 1.0, size * 1j) for size in shape)]
    x, y, z = (grid.astype(np.float32) for grid in grids)
    noise = np.random.default_rng(0).normal(0, 12, shape).astype(np.float32)
    body = (x / 0.9) ** 2 + (y / 0.7) ** 2 < 1
    organ = ((x - 0.3) / 0.22) ** 2 + (y / 0.25) ** 2 + (z / 0.4) ** 2 < 1
    array = np.where(body | organ, 20 + 110 * organ + noise, -1000 + noise).astype(np.int16)
    image = SimpleITK.GetImageFromArray(array.T)
    image.SetSpacing(SPACING_MM)
    SimpleITK.WriteImage(image, str(path), useCompression=True)
    return [round(0.65 * shape[0]), shape[1] // 2, shape[2] // 2]


@contextmanager
def running_server(command: list[str], environment: Mapping[str, str], port: int, folder: Path) -> Iterator[str]:
    """Run a server in a folder until the block ends; the block begins when it answers.

    Args:
        command: command that starts it.
        environment: environment variables.
        port: port that it listens on.
        folder: folder that it is started in; its log is kept there.

    Yields:
        Its address.

    Raises:
        CausalSamError: it does not start.
    """
    url, log = f"http://127.0.0.1:{port}", folder / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=folder, env=environment)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                last = (log.read_text().strip().splitlines() or ["it said nothing"])[-1]
                raise CausalSamError(f"The server did not start: {last}")
            time.sleep(POLL_SECONDS)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/info/", timeout=5).ok
    except requests.RequestException:
        return False


def _clicks(
    url: str, name: str, output: str, params: dict[str, Any], voxel: list[int], repeats: int, across: bool = False
) -> HttpLatency:
    i, j, k = voxel
    clicks, seconds, size = [], [], 0
    with requests.Session() as session:
        for number in range(1 + repeats):
            clicks.append([i, j, k + 2 * number] if across else [i + number, j, k])
            begin = time.perf_counter()
            response = session.post(
                f"{url}/infer/causal_sam",
                params={"image": "large", "output": output},
                files={"params": (None, json.dumps(params | {"foreground": clicks, "background": []}))},
                timeout=REQUEST_SECONDS,
            )
            size = len(response.content)
            seconds.append(time.perf_counter() - begin)
            if response.status_code != 200:
                raise CausalSamError(f"The server answered {response.status_code}: {response.text[:200]}")
    return HttpLatency(name, seconds[0], float(np.median(seconds[1:])), size / 1e6)
