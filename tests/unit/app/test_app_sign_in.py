"""Sign-in with a small OpenID Connect server: tokens, roles, and a server that fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.config import settings
from monailabel.endpoints import info, login, train
from oidc import Realm, running_realm, signed_token
from processes import free_port

from serving.requests import routes
from serving.requests.errors import install_error_handlers
from serving.requests.sign_in import access_token


@pytest.fixture
def realm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Realm]:
    with running_realm() as realm:
        monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", True)
        monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", realm.url)
        yield realm


@pytest.fixture
def client(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
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


def token(*arguments: Any, **more: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {signed_token(*arguments, **more)}"}


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


def test_passwords_are_checked_by_the_sign_in_server(client: TestClient, realm: Realm, monkeypatch) -> None:
    def ask(password: str) -> Any:
        return client.post("/auth/token", data={"username": "ann", "password": password})

    given = ask("right").json()
    assert given["token_type"] == "bearer"
    headers = {"authorization": f"Bearer {given['access_token']}"}
    assert client.get("/auth/token/valid", headers=headers).json()["username"] == "ann"
    assert ask("wrong").status_code == 401
    realm.status = 503
    assert ask("right").status_code == 502
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", f"http://127.0.0.1:{free_port()}")
    for answer in (ask("right"), client.get("/info/", headers=token())):
        assert answer.status_code == 502
        assert answer.json()["detail"].startswith("The sign-in server ")
