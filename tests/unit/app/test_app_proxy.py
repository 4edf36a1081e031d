"""The way to the archive: what goes through, what does not, and what is said of an archive that fails."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.config import settings
from monailabel.endpoints import info
from monailabel.endpoints import proxy as monailabel_proxy
from processes import free_port

from serving.requests import proxy, routes
from serving.requests.access import AccessPolicy
from serving.requests.bodies import MIB, BodyLimits
from serving.requests.border import BorderRules, install_border
from serving.requests.errors import install_error_handlers

PASSWORD = "only-for-the-archive"
JSON = "application/dicom+json"


class Archive(BaseHTTPRequestHandler):
    """Answers as a test has said, and notes what it was asked."""

    status: ClassVar[int] = 200
    headers_sent: ClassVar[dict[str, str]] = {}
    body: ClassVar[bytes] = b"[]"
    may_answer: ClassVar[threading.Event] = threading.Event()
    began: ClassVar[threading.Semaphore] = threading.Semaphore(0)
    asked: ClassVar[list[tuple[str, str, dict[str, str], bytes]]] = []

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length", 0))
        named = {name.lower(): value for name, value in self.headers.items()}
        self.asked.append((self.command, self.path, named, self.rfile.read(length)))
        self.began.release()
        self.may_answer.wait(60)
        self.send_response(self.status)
        for name, value in {"Content-Length": str(len(self.body)), **self.headers_sent}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Archive]]:
    class Mine(Archive):
        may_answer, began, asked = threading.Event(), threading.Semaphore(0), []

    Mine.may_answer.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", f"http://127.0.0.1:{server.server_port}/dicom-web/")
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_USERNAME", "server")
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_PASSWORD", PASSWORD)
    yield Mine
    Mine.may_answer.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(monailabel_proxy.router)
    app.include_router(info.router)
    monkeypatch.setattr(info, "app_info", lambda: {"answers": True})
    ours = {key: each for key, each in routes.REPLACEMENTS.items() if key[1].startswith("/proxy")}
    monkeypatch.setattr(routes, "REPLACEMENTS", ours)
    install_error_handlers(app)
    routes.install_routes(app)
    install_border(app, BorderRules(AccessPolicy(), BodyLimits(4 * MIB)))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def test_searches_and_retrievals_go_through_whole(client: TestClient, archive: type[Archive]) -> None:
    archive.body, archive.headers_sent = (
        gzip.compress(b'[{"00100020": {}}]'),
        {
            **{"Content-Type": JSON, "Content-Encoding": "gzip", "Set-Cookie": "a=b", "Server": "x"},
            **{"Access-Control-Allow-Origin": "*", "Location": "http://evil.org"},
        },
    )
    paths = {
        "qido/studies?PatientName=A%2A&a=1&a=2&00080061=CT,MR": "studies?PatientName=A%2A&a=1&a=2&00080061=CT%2CMR",
        "qido/studies/1.2/series": "studies/1.2/series",
        "wado/studies/1.2/series/3.4/metadata": "studies/1.2/series/3.4/metadata",
        "studies/1.2/series/3.4/instances/5.6/frames/1,2": "studies/1.2/series/3.4/instances/5.6/frames/1,2",
        "wado/studies/1/instances/5/bulk/7fe00010/1/a": "studies/1/instances/5/bulk/7fe00010/1/a",
    }
    for path, expected in paths.items():
        answer = client.get(
            f"/proxy/dicom/{path}", headers={"accept": JSON, "cookie": "secret=1", "authorization": "Bearer x"}
        )
        assert answer.status_code == 200, answer.text
        assert answer.json() == [{"00100020": {}}]
        assert answer.headers["content-type"] == JSON
        assert "sandbox" in answer.headers["content-security-policy"]
        assert not {"set-cookie", "location", "access-control-allow-origin"} & answer.headers.keys()
        method, asked, headers, _ = archive.asked[-1]
        assert (method, asked) == ("GET", f"/dicom-web/{expected}")
        assert headers["accept"] == JSON
        assert "cookie" not in headers
        assert headers["authorization"].startswith("Basic ")


def test_prefixes_of_the_archive_are_used(client: TestClient, archive: type[Archive], monkeypatch) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_QIDO_PREFIX", "qido")
    monkeypatch.setattr(settings, "MONAI_LABEL_WADO_PREFIX", "wado")
    for path, expected in {
        "qido/studies": "qido/studies",
        "qido/studies/1/metadata": "wado/studies/1/metadata",
        "wado/studies/1": "wado/studies/1",
        "studies": "studies",
    }.items():
        assert client.get(f"/proxy/dicom/{path}").status_code == 200
        assert archive.asked[-1][1] == f"/dicom-web/{expected}"


def test_storing_goes_through_whole(client: TestClient, archive: type[Archive]) -> None:
    kind = 'multipart/related; type="application/dicom"; boundary=x'
    body = b"--x\r\n\r\n" + bytes(2 * MIB) + b"\r\n--x--"
    for path in ("stow/studies", "studies", "wado/studies/1.2.3"):
        answer = client.post(f"/proxy/dicom/{path}", content=body, headers={"content-type": kind})
        assert answer.status_code == 200, answer.text
        method, _, headers, received = archive.asked[-1]
        assert (method, received) == ("POST", body)
        assert headers["content-type"] == kind
    assert client.post("/proxy/dicom/stow/studies", content=bytes(5 * MIB)).status_code == 413
    assert len(archive.asked) == 3


def test_nothing_but_dicomweb_is_reached(client: TestClient, archive: type[Archive]) -> None:
    gets = (
        *("%2e%2e/system", "qido/%2e%2e/%2e%2e/instances", "studies/%2e%2e/%2e%2e/system", "studies/..%2f..%2fsystem"),
        *("studies/%252e%252e/x", "studies/..;/x", "system", "", "/", "qido/", "qido", "http://evil.org/"),
        *("//evil.org/studies", "studies//x", "studies/.hidden", "studies/a b", "studies/a%0d%0ab", "studies/a%3fb"),
        *("studies/a%23b", "studies@evil.org", "tools/reset", "studiesx", "../studies", "studies/1/%5c..%5c"),
        *("studies/-", "patients/1", "qido/system", "studies/a%25"),
    )
    for path in gets:
        answer = client.get(f"/proxy/dicom/{path}")
        assert answer.status_code in (400, 404), path
        assert answer.json()["detail"].endswith("."), path
    for path in ("instances", "studies/1/series", "tools/reset", "qido/series", "studies/1/x"):
        assert client.post(f"/proxy/dicom/{path}", content=b"x").status_code == 404, path
    for method in ("PUT", "DELETE", "PATCH"):
        assert client.request(method, "/proxy/dicom/studies/1").status_code == 405
    assert archive.asked == []


def test_what_the_archive_refuses_is_told_without_its_words(client: TestClient, archive: type[Archive]) -> None:
    archive.body, archive.headers_sent = (
        b"<script>alert(1)</script>",
        {"Content-Type": "text/html", "WWW-Authenticate": "Basic"},
    )
    for given, status in {
        **{400: 400, 404: 404, 406: 406, 409: 409, 429: 429},
        **{
            401: 502,
            403: 502,
            407: 502,
            500: 502,
            503: 502,
            504: 502,
            501: 502,
            301: 502,
            302: 502,
            307: 502,
            308: 502,
        },
    }.items():
        archive.status = given
        archive.headers_sent = archive.headers_sent | (
            {"Location": "http://127.0.0.1:1/studies"} if given < 400 else {}
        )
        answer = client.get("/proxy/dicom/qido/studies")
        assert answer.status_code == status, given
        sentence = answer.json()["detail"]
        assert sentence.startswith("The server that holds the images")
        assert sentence.endswith(".")
        assert "script" not in answer.text
        assert "www-authenticate" not in answer.headers
    assert all(path == "/dicom-web/studies" for _, path, _, _ in archive.asked)


def test_an_archive_that_is_gone_or_silent_is_said(client: TestClient, archive: type[Archive], monkeypatch) -> None:
    monkeypatch.setattr(proxy, "QUERY_SECONDS", 0.2)
    archive.may_answer.clear()
    answer = client.get("/proxy/dicom/qido/studies")
    assert answer.status_code == 504
    assert answer.json()["detail"].endswith(".")
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", f"http://127.0.0.1:{free_port()}/dicom-web")
    answer = client.get("/proxy/dicom/qido/studies")
    assert answer.status_code == 502
    assert PASSWORD not in answer.text
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", "/data/studies")
    assert client.get("/proxy/dicom/qido/studies").status_code == 404


def test_a_slow_archive_holds_nobody_else(client: TestClient, archive: type[Archive]) -> None:
    archive.may_answer.clear()
    many = proxy.MAX_REQUESTS_AT_ONCE + 8
    with ThreadPoolExecutor(many) as pool:
        asked = [pool.submit(client.get, "/proxy/dicom/wado/studies/1/metadata") for _ in range(many)]
        for _ in range(proxy.MAX_REQUESTS_AT_ONCE):
            assert archive.began.acquire(timeout=60)
        assert client.get("/info/").json() == {"answers": True}
        assert not any(answer.done() for answer in asked)
        archive.may_answer.set()
        assert {answer.result().status_code for answer in asked} == {200}
