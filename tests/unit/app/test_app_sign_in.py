"""Sign-in with a small OpenID Connect server: tokens, roles, and a server that fails."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.config import settings
from monailabel.endpoints import info, login, train
from processes import free_port

from serving.requests import routes
from serving.requests.errors import install_error_handlers
from serving.requests.sign_in import access_token

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
FORM = serialization.PublicFormat.SubjectPublicKeyInfo
PUBLIC = KEY.public_key().public_bytes(serialization.Encoding.PEM, FORM).decode()


class Realm(BaseHTTPRequestHandler):
    """Tells its key and where tokens are given, and gives them for one password."""

    status: ClassVar[int] = 200

    def do_GET(self) -> None:
        address = f"http://127.0.0.1:{self.server.server_port}"
        lines = PUBLIC.strip().splitlines()
        self.answer({"public_key": "".join(lines[1:-1]), "token_endpoint": f"{address}/token"}, self.status)

    def do_POST(self) -> None:
        sent = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        is_right = sent["password"] == ["right"]
        self.answer({"access_token": "given", "token_type": "bearer"}, self.status if is_right else 401)

    def answer(self, content: Any, status: int) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def realm(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Realm]]:
    class Mine(Realm):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", True)
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", f"http://127.0.0.1:{server.server_port}")
    yield Mine
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(realm: type[Realm], monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    app = FastAPI()
    # MONAI Label decides when it is imported whether tokens are looked for; here it was imported without sign-in.
    for module in (info, login, train):
        app.include_router(module.router)
    monkeypatch.setattr(info, "app_info", lambda: {"answers": True})
    monkeypatch.setattr(train, "stop", lambda: {"stopped": True})
    monkeypatch.setattr(routes, "REPLACEMENTS", {("POST", "/auth/token"): access_token})
    install_error_handlers(app)
    routes.install_routes(app)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def token(roles: Any = ("monailabel-user",), key: Any = KEY, algorithm: str = "RS256", **more: Any) -> dict[str, str]:
    payload = {"preferred_username": "ann", "exp": time.time() + 600, "realm_access": {"roles": list(roles)}, **more}
    return {"authorization": f"Bearer {jwt.encode(payload, key, algorithm)}"}


def test_a_user_with_the_role_is_let_in_and_others_are_not(client: TestClient) -> None:
    assert client.get("/info/", headers=token()).json() == {"answers": True}
    assert client.get("/auth/token/valid", headers=token()).json()["username"] == "ann"
    assert client.delete("/train/", headers=token()).status_code == 403
    assert client.delete("/train/", headers=token(["monailabel-admin"])).json() == {"stopped": True}
    for roles in ({}, {"roles": None}, None, [], "monailabel-admin"):
        answer = client.get("/info/", headers=token(realm_access=roles))
        assert answer.status_code in (401, 403), roles
        assert answer.json()["detail"].endswith(".")


def test_tokens_that_are_not_valid_are_refused(client: TestClient) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    bad = (
        *({}, {"authorization": "Bearer "}, {"authorization": "Bearer a.b.c"}, {"authorization": "Basic YTpi"}),
        *(token(key=stranger), token(exp=time.time() - 10), token(key="k" * 64, algorithm="HS256")),
        *(token(key=None, algorithm="none"), token(preferred_username=None), token(preferred_username=["a"])),
    )
    for headers in bad:
        answer = client.get("/info/", headers=headers)
        assert answer.status_code == 401, headers
        assert answer.json()["detail"].endswith(".")


def test_passwords_are_checked_by_the_sign_in_server(client: TestClient, realm: type[Realm], monkeypatch) -> None:
    def ask(password: str) -> Any:
        return client.post("/auth/token", data={"username": "ann", "password": password})

    assert ask("right").json() == {"access_token": "given", "token_type": "bearer"}
    assert ask("wrong").status_code == 401
    realm.status = 503
    assert ask("right").status_code == 502
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", f"http://127.0.0.1:{free_port()}")
    for answer in (ask("right"), client.get("/info/", headers=token())):
        assert answer.status_code == 502
        assert answer.json()["detail"].startswith("The sign-in server ")
