"""``/proxy/dicom``: the viewer's way to the archive, which only this server has the password of.

MONAI Label's own proxy drops queries, so that searches find everything, waits for a slow archive on the event loop and
without limit, follows redirects, and lets paths leave the DICOMweb root.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from http import HTTPStatus
from tempfile import SpooledTemporaryFile
from urllib.parse import parse_qsl, urlsplit

import anyio
import requests
from fastapi import Request, UploadFile
from fastapi.responses import StreamingResponse
from monailabel.config import settings

from causal_sam.errors import NotFoundError
from serving.data.archive import CONNECT_SECONDS, QUERY_SECONDS, ArchiveError
from serving.opened_images import prepare_opened
from serving.requests.errors import RefusedError
from serving.requests.sign_in import Reader

MAX_REQUESTS_AT_ONCE = 32
_threads = anyio.CapacityLimiter(MAX_REQUESTS_AT_ONCE)

# Resources of DICOMweb, below the root. No part can be "..", nor hold what an archive may decode to a separator.
_RESOURCE = re.compile(r"(studies|series|instances)(/[A-Za-z0-9][A-Za-z0-9._,-]*)*/?")
_STORE = re.compile(r"studies(/[0-9][0-9.]*)?/?")
# A viewer that opens a series asks for its metadata.
_SERIES = re.compile(r"studies/[0-9.]+/series/(?P<series>[0-9.]+)/metadata/?")
_SEARCH = re.compile(r"(.+/)?(studies|series|instances)/?")
_SENT = ("accept", "accept-encoding", "content-type")
_ANSWERED = ("content-type", "content-encoding", "content-length", "etag", "last-modified", "cache-control", "warning")
# Answers of the archive are data, and never a page of this server.
_SANDBOX = {"Content-Security-Policy": "default-src 'none'; sandbox"}
# Statuses that say something of the request; the others say something of the archive, or of this server's password.
_OF_THE_REQUEST = frozenset({400, 404, 405, 406, 409, 410, 411, 413, 414, 415, 416, 422, 429})
CHUNK_BYTES = 2**17


async def proxy(request: Request, path: str, user: Reader) -> StreamingResponse:
    """Pass a request of DICOMweb on to the archive, and its answer back while it arrives.

    Args:
        request: GET for searches and retrievals, POST to store.
        path: path of the resource below the DICOMweb root.
        user: signed-in user with the required role.

    Raises:
        NotFoundError: the server has a folder of studies, no archive.
        RefusedError: the path is no resource of DICOMweb, or the archive refuses the request.
        ArchiveError: the archive sends the client elsewhere.
        requests.RequestException: it does not answer as it should.
    """
    operation = request.url.path.removesuffix(path).rstrip("/").rpartition("/")[2]
    address = _address(operation, path, request.method)
    headers = {"accept-encoding": "identity"} | {
        name: request.headers[name] for name in _SENT if name in request.headers
    }
    query = parse_qsl(request.scope["query_string"].decode("ascii"), keep_blank_values=True)
    is_search = request.method == "GET" and _SEARCH.fullmatch(path)
    timeout = QUERY_SECONDS if is_search else settings.MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT
    with SpooledTemporaryFile(max_size=CHUNK_BYTES) as file:
        if request.method == "POST":
            body = UploadFile(file)
            async for chunk in request.stream():
                await body.write(chunk)
            await body.seek(0)

        def ask() -> requests.Response:
            return requests.request(
                request.method,
                address,
                params=query,
                headers=headers | _token(),
                auth=_password(),
                data=file if request.method == "POST" else None,
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT_SECONDS, timeout),
            )

        answer = await anyio.to_thread.run_sync(ask, limiter=_threads)
    if answer.status_code not in range(200, 300):
        answer.close()
        _refuse(answer)
    if (opened := _SERIES.fullmatch(path)) and request.method == "GET":
        prepare_opened(request.app, opened["series"])
    passed = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
    return StreamingResponse(_body(answer), answer.status_code, passed | _SANDBOX)


def _address(operation: str, path: str, method: str) -> str:
    """Return the address of a resource in the archive.

    Raises:
        NotFoundError: there is no archive.
        RefusedError: it is no resource of DICOMweb, or cannot be stored to.
    """
    if not settings.MONAI_LABEL_STUDIES.startswith(("http://", "https://")):
        raise NotFoundError("This server has a folder of studies and no DICOMweb server behind it.")
    if not (_STORE if method == "POST" else _RESOURCE).fullmatch(path):
        raise RefusedError(
            404, "The path must be a resource of DICOMweb, such as studies/1.2.3/series; one can store to studies only."
        )
    # Some versions of OHIF ask for metadata where searches go.
    if operation == "qido" and path.rstrip("/").endswith("metadata"):
        operation = "wado"
    prefixes = {
        "qido": settings.MONAI_LABEL_QIDO_PREFIX,
        "wado": settings.MONAI_LABEL_WADO_PREFIX,
        "stow": settings.MONAI_LABEL_STOW_PREFIX,
    }
    parts = (settings.MONAI_LABEL_STUDIES.rstrip("/"), (prefixes.get(operation) or "").strip("/"), path)
    return "/".join(part for part in parts if part)


def _password() -> tuple[str, str] | None:
    user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    return (user, password) if user and password and not _is_google() else None


def _is_google() -> bool:
    return (urlsplit(settings.MONAI_LABEL_STUDIES).hostname or "").endswith(".googleapis.com")


def _token() -> Mapping[str, str]:
    """Return the sign-in header for Google's archive, as MONAI Label does; empty for other archives."""
    if not _is_google():
        return {}
    import google.auth
    import google.auth.transport.requests

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    credentials.refresh(google.auth.transport.requests.Request())
    return {"Authorization": f"Bearer {credentials.token}"}


def _refuse(answer: requests.Response) -> None:
    """Tell the client of an answer that is no success, without the archive's own words.

    Raises:
        RefusedError, ArchiveError, requests.HTTPError: always one of them.
    """
    if answer.status_code in _OF_THE_REQUEST:
        phrase = HTTPStatus(answer.status_code).phrase
        raise RefusedError(answer.status_code, f"The server that holds the images answers: {phrase}.")
    answer.raise_for_status()
    raise ArchiveError(
        "The server that holds the images sends clients to another address; its operator has to set that one."
    )


async def _body(answer: requests.Response) -> AsyncIterator[bytes]:
    """The body as it was sent, compressed or not."""
    chunks: Iterator[bytes] = answer.raw.stream(CHUNK_BYTES, decode_content=False)
    try:
        while chunk := await anyio.to_thread.run_sync(next, chunks, b"", limiter=_threads):
            yield chunk
    finally:
        answer.close()
