"""Malformed and hostile requests over every route of the running server: each gets one sentence, nothing is changed."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

from causal_sam.cli.files import app_folder

from .server import REQUEST_SECONDS, Server

pytestmark = pytest.mark.integration

# In a path or query, as they are sent.
BAD_IDENTIFIERS = (
    *("..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%2Fetc%2Fpasswd", "a%00b", "a%0d%0aX-A:1", "%ff%fe", "%ed%a0%80"),
    *("%252e%252e%252fx", "x" * 5000, ".hidden", "a%5c..%5cb", "C:x", "%20a", "%e2%80%aea"),
)
BAD_VALUES = {
    "integer": ("x", "1e400", "9" * 5000, "%00", "[]"),
    "boolean": ("maybe", "2", "%ff", "[]"),
    "string": ("%00", "%ff%fe", "a%0ab"),
}
BAD_JSON = (
    *(b"{", b"[1]", b'"text"', b"7", b'{"a": NaN}', b'{"a": 1e999}', b'{"\\ud800": 1}', b"[" * 100_000, b"9" * 5000),
    *(
        b'{"a": 18446744073709551616}',
        b"\xff\xfe",
        b'{"a": "' + b"x" * 200_000 + b'"}',
        b"\0",
        b"{}{}",
    ),
)
IDENTIFIERS = {"image", "case", "id", "label", "tag", "session_id", "model", "method", "strategy"}
GOOD = {
    "image": "ct",
    "case": "ct",
    "number": "1",
    "id": "nobody",
    "label": "nobody",
    "tag": "final",
    "session_id": "none",
    "model": "causal_sam",
}
JSON_FIELDS = ("params", "info", "wsi")
FORM = "application/x-www-form-urlencoded"
BOUNDARY = b"boundary-of-parts"
HIDDEN = (
    *(("GET", path) for path in ("/", "/docs", "/openapi.json", "/favicon.ico", "/ohif/", "/static/ohif/index.html")),
    *(("GET", "/proxy/dicom/qido/studies"), ("POST", "/proxy/dicom/stow/studies"), ("POST", "/reload")),
)


class Raw:
    """Sends requests as they are; libraries would put them in order."""

    def __init__(self, server: Server) -> None:
        self.address = urlsplit(server.url).netloc
        self.count = 0

    def send(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=REQUEST_SECONDS)
        try:
            given = {"host": self.address, **(headers or {})}
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            if body or method in ("POST", "PUT"):
                given.setdefault("content-length", str(len(body)))
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            self.count += 1
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def refused(self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
        """Send a request that must be refused in one sentence, and return its status."""
        status, answered, content = self.send(method, target, body, headers)
        case = (method, target[:80], body[:60], headers, status, content[:300])
        assert 400 <= status < 500, case
        if method != "HEAD":
            sentence = json.loads(content)["detail"]
            assert sentence.endswith("."), case
            assert sentence.isprintable(), case
            assert len(sentence) < 1000, case
            assert "Traceback" not in sentence, case
        assert not any(name.startswith("access-control") for name in answered), case
        return status


@pytest.fixture(scope="module")
def raw(server: Server) -> Raw:
    return Raw(server)


@dataclass(frozen=True)
class Operation:
    """What the server offers at a path by a method.

    Attributes:
        method: of HTTP.
        path: with names of its variable parts in braces.
        variables: names in the path.
        query: name of each field of the query -> its kind.
        contents: media types of the body.
    """

    method: str
    path: str
    variables: tuple[str, ...]
    query: dict[str, str]
    contents: frozenset[str]

    def target(self, **replaced: str) -> str:
        """Address with good values but for those that are replaced, which go in as they are."""
        values = {**{name: GOOD.get(name, "none") for name in self.variables}, **replaced}
        fields = {**{name: GOOD[name] for name in self.query if name in GOOD}, **replaced}
        query = "&".join(f"{name}={fields[name]}" for name in fields if name in self.query)
        return self.path.format(**values) + (f"?{query}" if query else "?")


@pytest.fixture(scope="module")
def operations(server: Server) -> list[Operation]:
    """All that the server describes."""
    schema = requests.get(f"{server.url}/openapi.json", timeout=REQUEST_SECONDS).json()
    return [
        Operation(
            method.upper(),
            path,
            tuple(each["name"] for each in what.get("parameters", ()) if each["in"] == "path"),
            {each["name"]: kind_of(each["schema"]) for each in what.get("parameters", ()) if each["in"] == "query"},
            frozenset(what.get("requestBody", {}).get("content", ())),
        )
        for path, item in schema["paths"].items()
        for method, what in item.items()
    ]


def kind_of(schema: dict[str, Any]) -> str:
    kinds = [each.get("type") for each in (schema, *schema.get("anyOf", ()))]
    return next((kind for kind in kinds if kind in BAD_VALUES), "string")


def multipart(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, dict[str, str]]:
    lines = []
    for name, filename, content in parts:
        file = f'; filename="{filename}"' if filename is not None else ""
        head = f'Content-Disposition: form-data; name="{name}"{file}'.encode()
        lines.append(b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n")
    kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
    return b"".join(lines) + b"--" + BOUNDARY + b"--\r\n", kind


@contextmanager
def nothing_changes(server: Server) -> Iterator[None]:
    """Files of the app and of the site are as they were, and others are answered, during and after the block."""
    ended, answers = threading.Event(), []

    def look() -> None:
        while not ended.is_set():
            answers.append(requests.get(f"{server.url}/info/", timeout=REQUEST_SECONDS).status_code)
            ended.wait(0.5)

    before, watcher = snapshot(server), threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    assert answers
    assert set(answers) == {200}
    assert sorted(set(snapshot(server).items()) ^ set(before.items())) == []


def snapshot(server: Server) -> dict[str, tuple[int, int]]:
    """Size and time of each file of the app, and of the studies and the home, which lie side by side.

    Other servers run meanwhile: they share the app's folder, where they write logs alone.
    """
    walked = itertools.chain.from_iterable(os.walk(folder) for folder in (app_folder(), server.studies.parent))
    files = [Path(root, name) for root, _, names in walked for name in names]
    # The server scores studies when nobody asks.
    files = [path for path in files if "scores" not in path.name and not path.is_symlink()]
    kept = (path for path in files if not {"__pycache__", "logs", "causal_sam_journal", ".cache"} & {*path.parts})
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in kept}


def test_identifiers_and_values_that_cannot_be_used(server: Server, raw: Raw, operations: list[Operation]) -> None:
    assert len(operations) > 25
    with nothing_changes(server):
        for each in operations:
            for name in (*each.variables, *each.query):
                is_identifier = name in each.variables or name in IDENTIFIERS
                for value in BAD_IDENTIFIERS if is_identifier else BAD_VALUES[each.query[name]]:
                    raw.refused(each.method, each.target(**{name: value}))
            good = each.target()
            for name in each.query:
                raw.refused(each.method, f"{good}&{name}=a&{name}=b")
            raw.refused(each.method, f"{good}&" + "&".join(f"a{number}" for number in range(1000)))
            raw.refused(each.method, f"{good}&a=" + "b" * 40_000)
            raw.refused(each.method, f"/x/..{good}")
            raw.refused(each.method, good.replace("?", "%00?"))
    assert raw.count > 500


def test_bodies_that_cannot_be_used(server: Server, raw: Raw, operations: list[Operation]) -> None:
    with nothing_changes(server):
        for each in operations:
            if "application/json" in each.contents:
                for kind in ("application/json", "application/json; charset=utf-16", "application/x+json"):
                    for body in (*BAD_JSON, b'{"a": "\xff"}'):
                        raw.refused(each.method, each.target(), body, {"content-type": kind})
                for kind in ("text/plain", FORM, "multipart/form-data", "application/xml"):
                    raw.refused(each.method, each.target(), b'{"a": 1}', {"content-type": kind})
            if FORM in each.contents:
                for text in BAD_JSON:
                    body = "&".join(f"{name}={quote(text)}" for name in JSON_FIELDS).encode()
                    raw.refused(each.method, each.target(), body, {"content-type": FORM})
            if "multipart/form-data" in each.contents:
                refuse_forms(raw, each.method, each.target())
            for kind in ("application/json", "text/plain", "application/octet-stream", "") if each.contents else ():
                assert raw.refused(each.method, each.target(), b" " * (2**21 + 1), {"content-type": kind}) == (
                    403 if each.path.startswith("/model/") or "wsi" in each.path else 413
                )


def refuse_forms(raw: Raw, method: str, target: str) -> None:
    for text in BAD_JSON:
        fields = [(name, None, text) for name in JSON_FIELDS]
        raw.refused(method, target, *multipart(*fields, ("file", "a.nii.gz", b"x"), ("label", "a.nii.gz", b"x")))
    for name in ("..", "a" * 5000, "a." + "b" * 300, "x\u202e.nii"):
        raw.refused(method, target, *multipart(("file", name, b"x"), ("label", name, b"x"), ("files", name, b"x")))
    many = [("params", None, b"{}")] * 1500
    raw.refused(method, target, *multipart(*many))
    raw.refused(method, target, *multipart(*((f"f{number}", "a", b"x") for number in range(1500))))
    body, kind = multipart(("file", "a.nii.gz", b"x" * 100))
    for broken in (body[:-30], body[:20], b"--", b"\r\n" * 1000, body.replace(BOUNDARY, b"other"), b""):
        raw.refused(method, target, broken, kind)
    for boundary in ("", "; boundary=", "; boundary=" + "x" * 500):
        raw.refused(method, target, body, {"content-type": f"multipart/form-data{boundary}"})


def test_methods_hosts_and_origins_that_are_not_for_this_server(
    server: Server, raw: Raw, operations: list[Operation]
) -> None:
    with nothing_changes(server):
        for method, path in sorted({*((each.method, each.target()) for each in operations), *HIDDEN}):
            for headers in (
                *({"host": "evil.org"}, {"host": ""}, {"host": "127.0.0.1.evil.org:80"}, {"host": "a, 127.0.0.1"}),
                *({"origin": "https://evil.org"}, {"origin": "null"}, {"origin": "http://127.0.0.1.evil.org"}),
                {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
            ):
                assert raw.refused(method, path, b"", headers) in (400, 403)
            for other in ("TRACE", "PROPFIND", "PATCH", "MKCOL", "OPTIONS"):
                assert raw.refused(other, path) == 405
            preflight = {"origin": "https://evil.org", "access-control-request-method": "POST"}
            assert raw.refused("OPTIONS", path, b"", preflight) == 403


def test_files_of_the_machine_and_routes_that_are_off(server: Server, raw: Raw) -> None:
    with nothing_changes(server):
        starts = (
            "/ohif/",
            "/static/",
            "/static/ohif/",
            "/proxy/dicom/",
            "/proxy/dicom/qido/",
            "/session/",
            "/model/",
            "/",
        )
        ways = ("../", "%2e%2e/", "..%2f", "%2e%2e%2f", "..%5c", "%252e%252e/", "./../", "%2E./")
        for start, way in itertools.product(starts, ways):
            for file in ("etc/passwd", "etc%2fpasswd"):
                raw.refused("GET", start + 12 * way + file)
        status, _, content = raw.send("GET", "/ohif//etc/passwd")
        assert status in (200, 400, 404)
        assert b"root:" not in content
        assert raw.refused("GET", "/static//etc/passwd") == 404
        for method, target in (
            *(("POST", "/reload"), ("POST", "/infer/wsi_v2/causal_sam"), ("POST", "/infer/wsi/causal_sam")),
            *(("PUT", "/model/causal_sam"), ("DELETE", "/model/causal_sam"), ("PUT", "/session/?uncompress=true")),
        ):
            assert raw.refused(method, target) == 403
        assert raw.refused("GET", "/proxy/dicom/qido/studies") == 404


def test_what_is_no_http(server: Server, raw: Raw) -> None:
    host = raw.address.encode()
    head = b"POST /train/adapters HTTP/1.1\r\nHost: " + host + b"\r\nContent-Type: application/json\r\n"
    for request in (
        b"\0" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /info/ HTTP/1.1\r\n\r\n",
        b"GET /info/ HTTP/1.1\r\nHost: " + host + b"\r\nHost: evil.org\r\n\r\n",
        b"GET /info/ HTTP/1.1\r\nHost: " + host + b"\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET http://evil.org/info/ HTTP/1.1\r\nHost: " + host + b"\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: " + host + b"\r\n\r\n",
        b"GET /info/?\xff\xfe HTTP/1.1\r\nHost: " + host + b"\r\n\r\n",
        head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        head + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        head + b"Content-Length: 1\r\n\r\n{}{}{}",
        head + b"Transfer-Encoding: chunked\r\n\r\nXYZ\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 65536 + b"\r\n") * 40 + b"0\r\n\r\n",
        head + b"Transfer-Encoding: gzip\r\n\r\n",
    ):
        with socket.create_connection(host.decode().split(":"), timeout=REQUEST_SECONDS) as connection:
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(65536)
            except OSError:
                answer = b""
        assert not answer or 400 <= int(answer.split()[1]) < 500, (request[:80], answer[:200])
        assert requests.get(f"{server.url}/info/", timeout=REQUEST_SECONDS).status_code == 200


@pytest.mark.slow
def test_a_folder_that_a_client_names_is_no_module_path(server: Server, tmp_path: Path) -> None:
    """What was possible: a session with a file, and a training whose process imports it."""
    (tmp_path / "sitecustomize.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    options = {"bundle_path": str(tmp_path), "PYTHONPATH": str(tmp_path), "gpus": "7", "env": {"PYTHONPATH": "/tmp"}}
    url = f"{server.url}/train"
    answer = requests.post(f"{url}/adapters", json={**options, "adapters": options}, timeout=REQUEST_SECONDS)
    assert answer.json().get("status") in ("SUBMITTED", "RUNNING"), answer.text
    assert str(tmp_path) not in answer.text
    # Other tests may have accepted labels on this server: that its process has begun is enough.
    while (task := requests.get(f"{url}/", timeout=REQUEST_SECONDS).json())["status"] in ("SUBMITTED", "RUNNING"):
        if task.get("details"):
            requests.delete(f"{url}/", timeout=REQUEST_SECONDS)
        time.sleep(0.5)
    assert task.get("details"), task
    assert not (tmp_path / "ran").exists()


def test_slicer_and_python_need_no_origin_and_own_pages_are_let_in(server: Server) -> None:
    assert server.client().info()["name"] == "Causal-SAM"
    for origin in (server.url, server.url.replace("127.0.0.1", "localhost")):
        answer = requests.get(f"{server.url}/info/", headers={"origin": origin}, timeout=REQUEST_SECONDS)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
