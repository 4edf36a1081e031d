"""A small OpenID Connect server: it tells its key, and gives tokens for one password."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_FORM = serialization.PublicFormat.SubjectPublicKeyInfo
_PUBLIC = KEY.public_key().public_bytes(serialization.Encoding.PEM, _FORM).decode()
PASSWORD = "right"


class Realm:
    """What the server answers.

    Attributes:
        url: address of the realm.
        status: HTTP status of its answers, where nothing is wrong with a request.
        seconds: how long the tokens are valid that it gives.
        roles: roles of the users in these tokens.
    """

    def __init__(self, url: str) -> None:
        self.url, self.status, self.seconds = url, 200, 600.0
        self.roles: Sequence[str] = ("monailabel-user", "monailabel-annotator")


@contextmanager
def running_realm() -> Iterator[Realm]:
    """Run the server on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lines = _PUBLIC.strip().splitlines()
            self.answer({"public_key": "".join(lines[1:-1]), "token_endpoint": f"{realm.url}/token"}, realm.status)

        def do_POST(self) -> None:
            sent = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            if sent["password"] != [PASSWORD]:
                self.answer({"error": "invalid_grant"}, 401)
                return
            (user,) = sent["username"]
            token = signed_token(realm.roles, preferred_username=user, exp=time.time() + realm.seconds)
            self.answer({"access_token": token, "token_type": "bearer"}, realm.status)

        def answer(self, content: Any, status: int) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    realm = Realm(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield realm
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def signed_token(roles: Any = ("monailabel-user",), key: Any = KEY, algorithm: str = "RS256", **more: Any) -> str:
    """A token of a user called ann, unless ``more`` says otherwise."""
    payload = {"preferred_username": "ann", "exp": time.time() + 600, "realm_access": {"roles": list(roles)}, **more}
    return jwt.encode(payload, key, algorithm)
