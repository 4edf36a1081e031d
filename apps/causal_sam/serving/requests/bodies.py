"""Size limits of request bodies, checked while they arrive, and checks of JSON before an endpoint sees it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import Message, Receive

from serving.requests.errors import RefusedError
from serving.requests.json_objects import checked_json

MIB = 2**20
MAX_PLAIN_BYTES = 2 * MIB
"""Limit of bodies without files."""

_MAX_DIGITS = 15
# Routes that take files, which the server writes to disk while they arrive; the others read bodies into memory.
_UPLOADS = ("/infer/", "/datastore/", "/session/", "/model/")
_ARCHIVE = "/proxy/"
# A client that sends nothing for so long is given up.
IDLE_SECONDS = 30.0
# Clients read the answer only when they have sent all, so a body that is too large is read on for so long.
DRAIN_SECONDS = 10.0


@dataclass(frozen=True)
class BodyLimits:
    """Limits of bodies.

    Attributes:
        max_upload_bytes: maximum size of a body with files.
    """

    max_upload_bytes: int

    async def admit(self, path: str, headers: Headers, receive: Receive) -> Receive:
        """Check the body of a request as far as that can be done at once.

        Returns:
            The callable from which the application receives the body instead.

        Raises:
            InputError: the body is JSON that `checked_json` refuses.
            RefusedError: the body is too large (413) or does not arrive (408).
        """
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        is_upload = path.startswith(_ARCHIVE) or (path.startswith(_UPLOADS) and kind == "multipart/form-data")
        limit = self.max_upload_bytes if is_upload else MAX_PLAIN_BYTES
        announced = headers.get("content-length", "0")
        if not announced.isdecimal():
            raise RefusedError(400, "The Content-Length of the request is no number.")
        if len(announced) > _MAX_DIGITS or int(announced) > limit:
            raise _too_large(limit)
        incoming = _Limited(receive, limit)
        if is_upload:
            return incoming
        try:
            body = await incoming.read()
        except HTTPException as error:
            raise RefusedError(error.status_code, error.detail) from None
        if body and (kind == "application/json" or kind.endswith("+json")):
            checked_json(body, "body of the request")
        return _Replayed(body, receive)


class _Limited:
    """Receives a body, and raises what FastAPI answers with where it is too large or does not arrive."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit = receive, limit
        self._seen, self._is_complete = 0, False

    async def __call__(self) -> Message:
        if self._is_complete:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), IDLE_SECONDS)
        except TimeoutError:
            raise HTTPException(
                408, f"The rest of the request did not arrive within {IDLE_SECONDS:.0f} s.", {"Connection": "close"}
            ) from None
        self._seen += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._seen > self._limit:
            await self._drain()
            raise HTTPException(413, str(_too_large(self._limit)), {"Connection": "close"})
        return message

    async def read(self) -> bytes:
        """The whole body."""
        chunks = []
        while not self._is_complete:
            message = await self()
            if message["type"] == "http.disconnect":
                raise HTTPException(400, "The connection was closed before the whole request had arrived.")
            chunks.append(message.get("body", b""))
        return b"".join(chunks)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._is_complete:
                    self._is_complete = not (await self._receive()).get("more_body", False)
        except TimeoutError:
            self._is_complete = True


class _Replayed:
    """Receives a body that was read already, and then what comes behind it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._receive = receive

    async def __call__(self) -> Message:
        return self._messages.pop() if self._messages else await self._receive()


def _too_large(limit: int) -> RefusedError:
    return RefusedError(413, f"The body of the request is larger than {limit // MIB} MiB, which is the most allowed.")
