"""Whatever a stranger sends, the server answers with one sentence, stays up, and writes nowhere but in its folders."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import malformed
import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from malformed import Attempt, contradictory_requests, malformed_requests

from causal_sam.cli.files import app_folder

from .server import Server, running_server

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ANSWER_SECONDS = 120
SENDERS = 3
TASKS = ("/train", "/batch", "/scoring", "/causal-sam/api/training")  # start processes
LABELS = {"labels": "liver,spleen,right kidney"}
GOOD = {"label": "liver", "foreground": [[12, 10, 3]], "background": [], "client_id": "after"}


@dataclass(frozen=True)
class Answer:
    """What came back to an attempt: the status (0 for none) and the body; ``time`` is when it was sent and answered."""

    attempt: Attempt
    status: int
    body: bytes
    time: tuple[float, float]

    def __str__(self) -> str:
        sent = self.attempt
        return f"{self.status} {self.body[:200]!r} to #{sent.number} {sent.method} {sent.target[:120]} ({sent.about})"


@dataclass(frozen=True)
class Sandbox:
    """A server that has its home and its temporary folder in a folder of the test, and what lies around it.

    Attributes:
        root: of all.
        outside: a folder with files beside the studies.
        mark: in the name of what requests try to write.
    """

    root: Path
    outside: Path
    mark: str

    @property
    def studies(self) -> Path:
        """Images and labels."""
        return self.root / "studies"

    @contextmanager
    def server(self) -> Iterator[Server]:
        """Run the server in it."""
        home, temporary = self.root / "home", self.root / "tmp"
        variables = {"HOME": str(home), "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(home / ".cache")}
        with running_server(self.studies, self.root / "started", LABELS, variables=variables) as server:
            yield server

    def strange_files(self) -> list[str]:
        """Files where no request may write: with the mark in their name, or new or changed beside the studies."""
        allowed = [self.studies, self.root / "started" / "sessions"]
        found = subprocess.run(
            ["find", "/", "-xdev", "-not", "-path", "/proc/*", "-name", f"*{self.mark}*", "-print"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.splitlines()
        return [path for path in found if not any(Path(path).is_relative_to(each) for each in allowed)]


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    for name in ("studies", "outside", "home", "tmp", "started"):
        (tmp_path / name).mkdir()
    box = Sandbox(tmp_path, tmp_path / "outside", f"csam{os.getpid()}mark")
    for name in ("ct", "mr"):
        (box.studies / f"{name}.nii.gz").write_bytes(malformed.nifti())
    (box.outside / "kept.raw").write_bytes(bytes(5000))
    (box.outside / "meta.info").write_text(json.dumps({"image": "/nowhere", "path": str(box.outside)}))
    return box


def contents(folder: Path) -> dict[str, str]:
    """Hashes of all files below a folder, by their paths."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def send(url: str, attempt: Attempt) -> Answer:
    """Send an attempt as it is: no library may put its path or headers right."""
    parts, begin = urlsplit(url), time.monotonic()
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=ANSWER_SECONDS)
    try:
        has_host = "Host" in attempt.headers
        connection.putrequest(attempt.method, attempt.target, skip_host=has_host, skip_accept_encoding=True)
        for name, value in attempt.headers.items():
            connection.putheader(name, value.encode("latin-1"))
        connection.putheader("Content-Length", str(len(attempt.body)))
        connection.endheaders()
        with suppress(BrokenPipeError, ConnectionResetError):  # a body that is too large is refused on the way
            connection.send(attempt.body)
        response = connection.getresponse()
        return Answer(attempt, response.status, response.read(), (begin, time.monotonic()))
    except (OSError, http.client.HTTPException) as error:
        return Answer(attempt, 0, repr(error).encode(), (begin, time.monotonic()))
    finally:
        connection.close()


def objection(answer: Answer) -> str | None:
    """What is wrong with an answer, if anything is."""
    if answer.status == 0 or answer.status >= 500:
        return str(answer)
    if answer.status < 400 or answer.attempt.method == "HEAD":
        return None
    try:
        detail = json.loads(answer.body)["detail"]
        is_sentence = isinstance(detail, str) and detail.endswith((".", "?")) and "\n" not in detail
        if is_sentence and 10 < len(detail) < 1000 and "Traceback" not in detail:
            return None
    except (ValueError, KeyError, TypeError):
        pass
    return f"no sentence: {answer}"


@contextmanager
def asking_for_info(server: Server) -> Iterator[list[tuple[float, float]]]:
    """Ask for ``/info/`` ten times a second during the block; yields the list that seconds and times go to."""
    seconds: list[tuple[float, float]] = []
    done = threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            while not done.wait(0.1):
                begin = time.monotonic()
                try:
                    answered = session.get(f"{server.url}/info/", timeout=ANSWER_SECONDS).status_code == 200
                except requests.RequestException:
                    answered = False
                seconds.append((time.monotonic() - begin if answered else float("inf"), begin))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seconds
    finally:
        done.set()
        thread.join()


def stop_tasks(server: Server) -> None:
    """End what some requests may have started, since a few of them are not malformed enough."""
    for path in ("train", "batch/infer", "scoring"):
        requests.delete(f"{server.url}/{path}{'' if '/' in path else '/'}", timeout=ANSWER_SECONDS)


def report(answers: Sequence[Answer], seconds: Sequence[tuple[float, float]]) -> str:
    """A summary for the log."""
    ordered = sorted(seconds)
    slowest, begin = ordered[-1]
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(Counter(a.status for a in answers).items()))
    meanwhile = [a for a in answers if a.time[0] < begin + slowest and a.time[1] > begin]
    return (
        f"{len(answers)} requests; answers {statuses}; /info/ asked {len(ordered)} times: "
        f"median {ordered[len(ordered) // 2][0]:.3f} s, 99 % {ordered[int(len(ordered) * 0.99)][0]:.3f} s, "
        f"slowest {slowest:.3f} s beside\n" + "\n".join(map(str, meanwhile[:8]))
    )


def check_all(sandbox: Sandbox, attack: Callable[[Server], list[Answer]]) -> None:
    """Attack a new server, look at what it answers and leaves, and start it again."""
    beside = contents(sandbox.outside)
    with sandbox.server() as server:
        assert server.post(GOOD).status_code == 200
        app = {path: digest for path, digest in contents(app_folder()).items() if not _is_scratch(path)}
        temporary = files_in(sandbox.root / "tmp")
        with asking_for_info(server) as seconds:
            answers = attack(server)
        stop_tasks(server)
        summary = report(answers, seconds)
        print(summary)
        wrong = [problem for answer in answers if (problem := objection(answer))]
        assert not wrong, f"{len(wrong)} bad answers; {summary}\n" + "\n".join(wrong[:60])
        assert psutil.pid_exists(server.pid)
        assert server.post(GOOD).status_code == 200
        assert max(seconds)[0] < float("inf")
        assert {p: d for p, d in contents(app_folder()).items() if not _is_scratch(p)} == app
        assert left_behind(sandbox.root / "tmp", temporary) == set()
        assert "Traceback" not in server.log.read_text()
    assert sandbox.strange_files() == []
    assert contents(sandbox.outside) == beside
    with sandbox.server() as server:
        assert {"ct", "mr"} <= requests.get(f"{server.url}/datastore/?output=all", timeout=60).json()["objects"].keys()
        assert server.post(GOOD).status_code == 200


def send_seeded(server: Server, attempts: Sequence[Attempt], senders: int = SENDERS) -> list[Answer]:
    """Send attempts, a few at a time."""

    def attempt(each: Attempt) -> Answer:
        answer = send(server.url, each)
        if answer.status == 200 and each.target.startswith(TASKS):
            stop_tasks(server)
        return answer

    with ThreadPoolExecutor(senders) as pool:
        return list(pool.map(attempt, attempts))


def send_generated(server: Server, examples: int) -> list[Answer]:
    """Send what schemathesis makes of the description of the routes: ``examples`` good and as many bad ones of each."""
    answers: list[Answer] = []

    def attempt(case: schemathesis.Case) -> None:
        begin = time.monotonic()
        try:
            got = case.call(timeout=ANSWER_SECONDS)
        except (requests.RequestException, UnicodeError, ValueError) as error:
            if not isinstance(error, requests.ConnectionError | requests.Timeout):
                return  # no HTTP library can send it
            status, body = 0, repr(error).encode()
        else:
            status, body = got.status_code, got.content
        if status == 200 and case.path.startswith(TASKS):
            stop_tasks(server)
        sent = Attempt(len(answers), case.method, case.formatted_path, {}, b"", case.as_curl_command()[:300])
        answers.append(Answer(sent, status, body, (begin, time.monotonic())))

    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in schemathesis.GenerationMode:
            chosen = settings(
                max_examples=examples,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            with suppress(Unsatisfiable):  # nothing bad can be made for a route without parameters
                chosen(given(operation.as_strategy(mode))(attempt))()
    return answers


def files_in(folder: Path) -> set[str]:
    """Paths of all files below a folder."""
    return {str(path) for path in folder.rglob("*") if path.is_file()}


def left_behind(folder: Path, before: set[str]) -> set[str]:
    """Files that are new in a folder, once the answers are sent and what they were made of may be removed."""
    deadline = time.monotonic() + 20
    while (left := files_in(folder) - before) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


def _is_scratch(path: str) -> bool:
    """Whether MONAI Label or Python keeps something there: the log, compiled modules."""
    return "/logs/" in path or "__pycache__" in path


@pytest.mark.timeout(1800)
def test_a_thousand_malformed_requests_do_no_harm(sandbox: Sandbox) -> None:
    attempts = list(malformed_requests(1, 1000, sandbox.mark, str(sandbox.outside)))
    check_all(sandbox, lambda server: send_seeded(server, attempts))


@pytest.mark.timeout(1800)
def test_requests_made_from_the_description_of_the_routes_do_no_harm(sandbox: Sandbox) -> None:
    check_all(sandbox, lambda server: send_generated(server, examples=12))


@pytest.mark.timeout(1800)
def test_requests_that_take_away_what_others_use_do_no_harm(sandbox: Sandbox) -> None:
    attempts = list(contradictory_requests(2, 400))
    check_all(sandbox, lambda server: send_seeded(server, attempts, senders=8))
