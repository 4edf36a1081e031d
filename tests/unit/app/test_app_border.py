"""What passes the border and what does not, at a small application behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

import anyio
import pytest
from fastapi import FastAPI, Request, UploadFile
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from causal_sam.errors import InputError
from serving.requests import bodies
from serving.requests.access import AccessPolicy, checked_host, checked_origin
from serving.requests.addresses import OFF_BY_DEFAULT
from serving.requests.bodies import MIB, BodyLimits
from serving.requests.border import BorderRules, install_border
from serving.requests.errors import install_error_handlers

HOST, PAGE = "seg.hospital.org", "https://viewer.hospital.org"
UPLOAD_MB = 4


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = FastAPI()
    install_error_handlers(app)
    install_border(app, BorderRules(AccessPolicy([HOST], [PAGE]), BodyLimits(UPLOAD_MB * MIB)))

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "PUT", "DELETE"])
    def anything(path: str) -> dict[str, str]:
        return {"path": path}

    @app.post("/infer/{model}")
    async def upload(model: str, file: UploadFile) -> int:
        return len(await file.read())

    @app.post("/{path:path}")
    async def body(request: Request) -> int:
        return len(await request.body())

    @app.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        yield client


def refusal(answer, status: int | tuple[int, ...]) -> str:
    assert answer.status_code in ((status,) if isinstance(status, int) else status), answer.text
    sentence = answer.json()["detail"]
    assert sentence.endswith("."), sentence
    assert sentence.isprintable(), sentence
    assert not any(name.startswith("access-control") for name in answer.headers), answer.headers
    return sentence


def status_of(app: ASGIApp, path: str, method: str = "GET", incoming: Sequence[Message] = ()) -> int:
    """Status of a request as it is: a client would put its path in order before it is sent."""
    messages = list(incoming) or [{"type": "http.request", "body": b"", "more_body": False}]
    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http"},
        **{"path": unquote(path), "raw_path": path.encode(), "query_string": b"", "root_path": ""},
        "headers": [(b"host", b"127.0.0.1")],
    }
    sent: list[Message] = []

    async def run() -> None:
        async def receive() -> Message:
            return messages.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        await app(scope, receive, send)

    with ThreadPoolExecutor(1) as thread:  # a browser of other tests keeps the event loop of this one
        thread.submit(anyio.run, run).result()
    return sent[0]["status"]


def test_it_answers_to_its_own_names_only(client: TestClient) -> None:
    for host in (
        "127.0.0.1",
        "127.0.0.1:80",
        "127.9.9.9",
        "localhost:8000",
        "LOCALHOST.",
        "[::1]:8000",
        HOST,
        HOST.upper(),
    ):
        assert client.get("/info/", headers={"host": host}).status_code == 200, host
    for host in ("evil.org", "127.0.0.1.evil.org", "localhost.evil.org", "0.0.0.0", "10.0.0.5", "sub." + HOST, "[::]"):
        assert "hosts" in refusal(client.get("/info/", headers={"host": host}), 403), host
    for host in ("", "127.0.0.1/x", "a@127.0.0.1", "127.0.0.1:port", "127.0.0.1, evil.org", "[::1", "127.0.0.1:999999"):
        refusal(client.get("/info/", headers={"host": host}), 400)


def test_pages_of_strangers_get_nothing(client: TestClient) -> None:
    good = ("http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000", PAGE, PAGE + ":443", PAGE.upper())
    for origin in good:
        answer = client.get("/info/", headers={"origin": origin})
        assert answer.status_code == 200, origin
        assert answer.headers["access-control-allow-origin"] == origin
    bad = (
        *(
            "null",
            "https://evil.org",
            "http://evil.org:8000",
            "http://127.0.0.1.evil.org",
            "https://localhost.evil.org",
        ),
        *("file://", "", "127.0.0.1", "http://", "chrome-extension://abc", "https://evil.org@127.0.0.1", "http://a b"),
        *("http://127.0.0.1:8000/x", "http://127.0.0.1:99999", "http://[::1", "http://viewer.hospital.org", HOST),
        # Another port is another server of this machine, whoever runs it.
        *("http://127.0.0.1:3000", "http://localhost", "http://[::1]:1", "http://127.0.0.2:8000", "https://localhost"),
        *(
            "http://other.localhost:8000",
            "https://viewer.hospital.org.evil.org",
            "https://viewer.hospital.org:8443",
            "http://127.0.0.1:8000, null",
        ),
    )
    for origin in bad:
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
            headers = {"origin": origin, "access-control-request-method": "PUT", "content-type": "text/plain"}
            answer = client.request(method, "/datastore/label", headers=headers)
            assert answer.status_code == 403, (method, origin)
            assert not any(name.startswith("access-control") for name in answer.headers)
    twice = [("origin", "http://127.0.0.1:8000"), ("origin", "https://evil.org")]
    refusal(client.get("/info/", headers=twice), 403)


def test_a_page_of_the_same_host_may_also_behind_a_proxy_that_ends_tls(client: TestClient) -> None:
    for host, origin, status in (
        (HOST, f"https://{HOST}", 200),
        (f"{HOST}:443", f"https://{HOST}", 200),
        (f"{HOST}:8000", f"http://{HOST}:8000", 200),
        (HOST, f"https://{HOST}:8443", 403),
        (f"{HOST}:8000", f"https://{HOST}", 403),
    ):
        assert client.post("/x", headers={"host": host, "origin": origin}).status_code == status, (host, origin)


def test_what_browsers_load_without_an_origin_is_for_pages_of_this_server(client: TestClient) -> None:
    def fetched(site: str, mode: str, destination: str, method: str = "GET") -> int:
        headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": destination}
        return client.request(method, "/datastore/image", headers=headers).status_code

    for site in ("same-origin", "none"):
        assert fetched(site, "no-cors", "image") == 200
    for site in ("cross-site", "same-site"):
        assert fetched(site, "navigate", "document") == 200
        for mode, destination in (
            ("no-cors", "image"),
            ("no-cors", "script"),
            ("navigate", "iframe"),
            ("cors", "empty"),
        ):
            assert fetched(site, mode, destination) == 403, (site, mode, destination)
        assert fetched(site, "navigate", "document", "POST") == 403


def test_browsers_are_told_to_keep_answers_from_other_pages(client: TestClient) -> None:
    for answer in (client.get("/info/"), client.get("/info/", headers={"host": "evil.org"}), client.patch("/info/")):
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["x-frame-options"] == "SAMEORIGIN"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_preflights_of_allowed_pages_are_answered(client: TestClient) -> None:
    headers = {"origin": PAGE, "access-control-request-method": "PUT", "access-control-request-headers": "x-a"}
    answer = client.options("/datastore/label", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "PUT" in answer.headers["access-control-allow-methods"]


def test_websockets_of_strangers_are_closed(client: TestClient) -> None:
    with client.websocket_connect("/socket", headers={"host": "127.0.0.1"}):
        pass
    for headers in ({"origin": "https://evil.org"}, {"origin": "null"}, {"host": "evil.org"}):
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect("/socket", headers={"host": "127.0.0.1"} | headers),
        ):
            pass


def test_paths_and_identifiers_that_lead_elsewhere_are_refused(client: TestClient) -> None:
    paths = (
        *("/a/../b", "/a/%2e%2e/b", "/.%2E/b", "/a/./b", "/proxy/dicom/%2e%2e/system", "/proxy/dicom/..;/x/../y"),
        *("/ohif/%2e%2e/%2e%2e/etc/passwd", "/static/..%2fapp.py", "/ohif/a%5cb", "/ohif/%252e%252e/x", "/info/%00"),
        *("//etc/passwd/..", "http://evil/info/", "*", "info"),
        *("/infer/%0d%0aSet-Cookie:x", "/session/..%2f..%2fetc", "/session/.hidden", "/session/" + "a" * 300),
        *("/session/%ed%a0%80x/../y", "/ohif/\x7f", "/session/a%5Cb", "/ohif/..\\x", "/model/C:x"),
    )
    for path in paths:
        assert status_of(client.app, path) in (400, 422), path
    for path in ("/info/", "/", "/ohif/a/b.js", "/proxy/dicom/qido/studies/1.2.3/series", "/session/1-2"):
        assert client.get(path).status_code == 200, path
    for path in ("/causal-sam/api/cases/50%25%20dose/session", "/session/100%25"):
        assert client.get(path).status_code == 200, path  # names that `checked_identifier` lets pass
    for path in ("/session/%25%32e", "/session/%252f", "/session/%2525%32%65"):
        assert status_of(client.app, path) in (400, 422), path
    for key in ("image", "id", "label", "tag", "session_id"):
        for value in (
            "..%2fx",
            "%2ftmp%2fx",
            "%2e%2e",
            "a%00b",
            "%ed%a0%80",
            "%ff",
            "x" * 5000,
            ".a",
            "a%5cb",
            "a%0ab",
        ):
            refusal(client.get(f"/datastore/label?{key}={value}"), (400, 422))
            refusal(client.put(f"/datastore/image?image=good&x=1&{key}2=1&{key}={value}&y"), (400, 422))
        refusal(client.get(f"/datastore/label?{key}=a&{key}=b"), 400)
        assert client.get(f"/datastore/label?{key}=").status_code == 200
        assert client.get(f"/datastore/label?{key}=%E8%82%9D.1").status_code == 200
    assert client.get("/causal-sam/api/cases/ct/uncertainty?name=left%2fright%20ventricle.").status_code == 200
    assert client.get("/proxy/dicom/qido/studies?includefield=a&includefield=b").status_code == 200
    refusal(client.get("/info/?" + "&".join(f"a{number}=1" for number in range(300))), 400)
    refusal(client.get("/info/?a=" + "1" * 20_000), 414)


def test_methods_that_no_client_has_are_refused(client: TestClient) -> None:
    for method in ("TRACE", "CONNECT", "PATCH", "PROPFIND", "MKCOL", "MOVE", "X" * 500):
        refusal(client.request(method, "/info/"), 405)


def test_dangerous_routes_are_off_unless_switched_on(client: TestClient) -> None:
    requests: Mapping[str, tuple[tuple[str, str], ...]] = {
        "reload": (("POST", "/reload"), ("POST", "/reload/")),
        "wsi": (("POST", "/infer/wsi_v2/model"), ("POST", "/infer/wsi/model"), ("POST", "/infer/wsi_v2")),
        "model": (("PUT", "/model/causal_sam"), ("DELETE", "/model/causal_sam")),
        "docs": (("GET", "/docs"), ("HEAD", "/docs"), ("GET", "/docs/")),
        "unpack": (("PUT", "/session/?uncompress=true"), ("PUT", "/session?uncompress=1&expiry=3")),
    }
    assert requests.keys() == OFF_BY_DEFAULT.keys()
    for name, each in requests.items():
        for method, path in each:
            answer = client.request(method, path)
            assert answer.status_code == 403 if method == "HEAD" else name in refusal(answer, 403)
    for method, path in (("PUT", "/session/?uncompress=false"), ("GET", "/model/causal_sam"), ("GET", "/reload")):
        assert client.request(method, path).status_code == 200
    app = FastAPI(docs_url=None)
    install_border(app, BorderRules(AccessPolicy(), BodyLimits(MIB), tuple(OFF_BY_DEFAULT)))
    with TestClient(app, base_url="http://localhost") as open_client:
        for each in requests.values():
            assert [open_client.request(*one).status_code for one in each] == [404] * len(each)


def test_bodies_have_a_limit_while_they_arrive(client: TestClient) -> None:
    def chunks(total: int) -> Iterator[bytes]:
        for _ in range(total // 2**16):
            yield b" " * 2**16

    file = {"file": ("image.nii.gz", b"x" * (UPLOAD_MB * MIB - 1000))}
    assert client.post("/infer/model", files=file).status_code == 200
    file = {"file": ("image.nii.gz", b"x" * (UPLOAD_MB * MIB + 1000))}
    assert "4 MiB" in refusal(client.post("/infer/model", files=file), 413)
    head, kind = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n',
        "multipart/form-data; boundary=x",
    )
    streamed = client.post("/infer/model", content=[head, *chunks(6 * MIB)], headers={"content-type": kind})
    assert "4 MiB" in refusal(streamed, 413)
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain", "", "multipart/form-data"):
        path = "/train/adapters" if kind.startswith("multipart") else "/infer/model"
        for content in (b" " * (3 * MIB), chunks(3 * MIB)):
            assert "2 MiB" in refusal(client.post(path, content=content, headers={"content-type": kind}), 413), kind
    for length in ("-1", "abc", "1e9", "9" * 5000):
        refusal(client.post("/train/x", content=b"{}", headers={"content-length": length}), (400, 413))


def test_a_body_that_does_not_arrive_is_given_up(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "IDLE_SECONDS", 0.0)
    refusal(client.post("/train/x", content=iter([b"{"])), 408)


def test_a_request_that_breaks_off_reaches_no_endpoint(client: TestClient) -> None:
    """What had arrived could be JSON, or nothing at all, with which a training would start."""
    for begun in ([], [b""], [b"{}"]):
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in begun]
        assert status_of(client.app, "/train/adapters", "POST", [*messages, {"type": "http.disconnect"}]) == 400


def test_json_that_cannot_be_used_reaches_no_endpoint(client: TestClient) -> None:
    texts = (
        *(b"{", b"nul", b'{"a": NaN}', b"[Infinity]", b"[-Infinity]", b"[1e999]", b'{"\\ud800": 1}', b'["\\udfff"]'),
        *(
            b"[" * 40 + b"]" * 40,
            b"[" * 200_000,
            b'{"a":' * 5000,
            b"9" * 5000,
            b"[18446744073709551616]",
            b"\xff\xfe{",
            b"\xed\xa0\x80",
        ),
        *(b'{"a": "\xff"}', b'["' + b"x" * 200_000 + b'"]', b"[1,]", b"'a'", b"{} {}"),
    )
    for text in texts:
        for kind in ("application/json", "application/json; charset=utf-8", "application/problem+json"):
            answer = client.post("/train/adapters", content=text, headers={"content-type": kind})
            assert refusal(answer, 422).startswith("The body of the request "), text[:20]
    for text in (b"{}", b"[]", b'{"a": [1, 2.5, "\xc3\xa9", null, true]}', b'"\\ud83d\\ude00"', b"9007199254740992"):
        answer = client.post("/train/adapters", content=text, headers={"content-type": "application/json"})
        assert answer.json() == len(text)


def test_configured_names_are_checked() -> None:
    assert checked_host("Seg.Hospital.org.") == "seg.hospital.org"
    assert checked_host("fe80::1") == checked_host("[FE80::1]") == "fe80::1"
    assert checked_origin("https://A.org/") == "https://a.org:443"
    for host in ("http://a.org", "a.org:80", "a b", "", "*", "a/b"):
        with pytest.raises(InputError, match="hosts"):
            checked_host(host)
    for origin in ("*", "null", "a.org", "ftp://a.org", "https://a.org/page", "https://u@a.org", ""):
        with pytest.raises(InputError, match="origins"):
            checked_origin(origin)
