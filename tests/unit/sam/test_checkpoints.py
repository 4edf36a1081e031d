"""Fetching and opening weights, against a real HTTP server on this machine."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save_file
from torch import nn

from causal_sam.errors import CheckpointError
from causal_sam.sam import checkpoints
from causal_sam.sam.checkpoints import (
    CheckpointFile,
    checkpoint_dir,
    fetch_checkpoint,
    fit_state_dict,
    load_state_dict,
)

CONTENT = bytes(range(256)) * 20_000  # 5 MB: several chunks


class FileServer(ThreadingHTTPServer):
    """Serves one file, well or badly.

    Attributes:
        content: of the file.
        cut_after: bytes after which every answer is cut, or None.
        ranges: whether Range is understood.
        status: answered instead of the file if it is an error.
        requests: the Range header of every request, in order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.cut_after: int | None = None
        self.ranges = True
        self.status = 200
        self.requests: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.pth"


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append(asked)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            total = len(self.server.content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        self.wfile.write(body if self.server.cut_after is None else body[: self.server.cut_after])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def file_at(url: str, content: bytes = CONTENT) -> CheckpointFile:
    return CheckpointFile(url, "weights.pth", len(content), hashlib.sha256(content).hexdigest())


def test_downloads_once_and_verifies(server, tmp_path):
    path = fetch_checkpoint(file_at(server.url), tmp_path / "new")
    assert path.read_bytes() == CONTENT
    assert not path.with_name("weights.pth.part").exists()
    assert fetch_checkpoint(file_at(server.url), tmp_path / "new", download=False) == path
    assert server.requests == [None]


def test_progress_shows_name_and_size(server, tmp_path):
    out = StringIO()
    with Progress(*Progress.get_default_columns(), console=Console(file=out)) as bar:
        fetch_checkpoint(file_at(server.url), tmp_path, bar)
        assert bar.tasks[0].total == len(CONTENT)
        assert bar.tasks[0].finished
    assert "weights.pth" in out.getvalue()


def test_goes_on_after_each_cut(server, tmp_path):
    server.cut_after = len(CONTENT) // 2
    assert fetch_checkpoint(file_at(server.url), tmp_path).read_bytes() == CONTENT
    assert server.requests[0] is None
    resumed_at = int(server.requests[1].removeprefix("bytes=").rstrip("-"))
    assert server.cut_after - checkpoints.CHUNK_BYTES < resumed_at <= server.cut_after


def test_a_later_call_resumes_the_partial_file(server, tmp_path):
    part = tmp_path / "weights.pth.part"
    part.write_bytes(CONTENT[:1_234_567])
    assert fetch_checkpoint(file_at(server.url), tmp_path).read_bytes() == CONTENT
    assert server.requests == ["bytes=1234567-"]


def test_a_complete_partial_file_needs_no_network(server, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT)
    assert fetch_checkpoint(file_at(server.url), tmp_path).read_bytes() == CONTENT
    assert server.requests == []


def test_server_without_range_starts_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "weights.pth.part").write_bytes(b"x" * 1000)
    assert fetch_checkpoint(file_at(server.url), tmp_path).read_bytes() == CONTENT


def test_partial_file_that_is_too_long_is_dropped(server, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT + b"x")
    assert fetch_checkpoint(file_at(server.url), tmp_path).read_bytes() == CONTENT
    assert server.requests == [None]


def test_cut_connection_that_brings_nothing_keeps_what_is_there(server, tmp_path):
    part = tmp_path / "weights.pth.part"
    part.write_bytes(CONTENT[:1000])
    server.cut_after = 0
    with pytest.raises(CheckpointError, match=r"connection was cut.*--checkpoint"):
        fetch_checkpoint(file_at(server.url), tmp_path)
    assert part.read_bytes() == CONTENT[:1000]
    server.cut_after = None
    assert fetch_checkpoint(file_at(server.url), tmp_path).read_bytes() == CONTENT


def test_wrong_hash_removes_the_partial_file(server, tmp_path):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(CheckpointError, match="wrong SHA-256") as caught:
        fetch_checkpoint(file_at(server.url), tmp_path)
    assert server.url in str(caught.value)
    assert [path.suffix for path in tmp_path.iterdir()] in ([], [".lock"])


def test_wrong_size_is_refused_before_the_download(server, tmp_path):
    server.content = b"<html>please sign in</html>"
    with pytest.raises(CheckpointError, match="sign-in page"):
        fetch_checkpoint(file_at(server.url), tmp_path)
    assert not (tmp_path / "weights.pth").exists()


def test_http_error_is_named(server, tmp_path):
    server.status = 404
    with pytest.raises(CheckpointError, match="the server answered 404"):
        fetch_checkpoint(file_at(server.url), tmp_path)


def test_offline_says_what_to_do(server, tmp_path):
    checkpoint = file_at(server.url)
    server.shutdown()
    server.server_close()
    with pytest.raises(CheckpointError) as caught:
        fetch_checkpoint(checkpoint, tmp_path)
    for part in (checkpoint.url, "5.1 MB", str(tmp_path / "weights.pth"), "--checkpoint", "cannot be reached"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_download_can_be_forbidden(server, tmp_path):
    with pytest.raises(CheckpointError, match="--checkpoint"):
        fetch_checkpoint(file_at(server.url), tmp_path, download=False)
    assert server.requests == []


def test_wrong_file_put_there_by_hand_is_refused_and_kept(server, tmp_path):
    target = tmp_path / "weights.pth"
    target.write_bytes(b"x" * len(CONTENT))
    with pytest.raises(CheckpointError, match="is not the published"):
        fetch_checkpoint(file_at(server.url), tmp_path)
    assert target.read_bytes() == b"x" * len(CONTENT)
    assert server.requests == []


def test_verified_file_needs_no_writable_folder(server, tmp_path):
    (tmp_path / "weights.pth").write_bytes(CONTENT)
    (tmp_path / "weights.pth.lock").mkdir()  # no lock can be taken here
    assert fetch_checkpoint(file_at(server.url), tmp_path) == tmp_path / "weights.pth"


def test_full_disk_is_said_before_the_download(server, tmp_path):
    huge = CheckpointFile(server.url, "weights.pth", 10**18, "0" * 64)
    with pytest.raises(CheckpointError, match="free some space"):
        fetch_checkpoint(huge, tmp_path)
    assert server.requests == []


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="CAUSAL_SAM_CACHE"):
        fetch_checkpoint(file_at(server.url), tmp_path / "file" / "sub")


def test_threads_that_fetch_at_once_download_once(server, tmp_path):
    start = threading.Barrier(4)
    paths = []

    def fetch() -> None:
        start.wait()
        paths.append(fetch_checkpoint(file_at(server.url), tmp_path))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [tmp_path / "weights.pth"] * 4
    assert server.requests == [None]


def test_processes_that_fetch_at_once_download_once(server, tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fetch_checkpoint, args=(file_at(server.url), tmp_path)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    assert server.requests == [None]


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(checkpoints.CACHE_VARIABLE, str(tmp_path))
    assert checkpoint_dir() == tmp_path / "checkpoints"
    monkeypatch.delenv(checkpoints.CACHE_VARIABLE)
    assert checkpoint_dir().name == "checkpoints"
    assert "causal-sam" in str(checkpoint_dir())


class Payload:
    """Makes a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickled_code_is_refused_and_not_run(tmp_path):
    torch.save({"weight": torch.ones(2), "payload": Payload(tmp_path / "ran")}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        load_state_dict(tmp_path / "bad.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Payload(tmp_path / "ran"), protocol=2))
    with pytest.raises(CheckpointError):
        load_state_dict(tmp_path / "raw.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "empty.pth", "empty.safetensors"])
def test_damaged_file_is_one_sentence(tmp_path, name):
    whole = tmp_path / f"whole{Path(name).suffix}"
    weights = {"weight": torch.randn(100)}
    save_file(weights, whole) if whole.suffix == ".safetensors" else torch.save(weights, whole)
    content = whole.read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2] if name.startswith("cut") else b"")
    with pytest.raises(CheckpointError) as caught:
        load_state_dict(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_other_content(tmp_path):
    with pytest.raises(CheckpointError, match="There is no checkpoint file"):
        load_state_dict(tmp_path / "none.pth")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="state dictionary"):
        load_state_dict(tmp_path / "list.pth")
    torch.save({"model": {"weight": torch.ones(1)}}, tmp_path / "nested.pth")
    with pytest.raises(CheckpointError, match="state dictionary"):
        load_state_dict(tmp_path / "nested.pth")


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"weight": torch.ones(2, 3)}, "'bias' is missing"),
        ({"weight": torch.ones(3, 3), "bias": torch.ones(2)}, r"'weight' is \(3, 3\) instead of \(2, 3\)"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2), "extra": torch.ones(1)}, "'extra' is not part"),
    ],
)
def test_misfit_is_named_and_changes_nothing(weights, sentence):
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    with pytest.raises(CheckpointError, match=f"mine.pth is not a checkpoint of vit_b: {sentence}"):
        fit_state_dict(module, weights, "vit_b", Path("mine.pth"))
    assert torch.equal(module.weight, before)
