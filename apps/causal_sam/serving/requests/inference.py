"""Inference off the event loop, with the client known, its parameters checked, and nothing left on disk afterwards.

MONAI Label's own endpoint is a coroutine that runs the task where it is: until the task is done the event loop stands
still, and nobody gets an answer, not even to ``/info/``. This endpoint takes the same request, by the same path, and
answers it in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import anyio
from fastapi import BackgroundTasks, File, Form, Request, UploadFile
from fastapi.responses import FileResponse, Response
from monailabel.config import settings
from monailabel.endpoints.infer import ResultType, send_response
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance

from causal_sam.errors import InputError
from serving.data.dicomweb_store import DicomWebStore
from serving.private_log import loggable
from serving.requests.clients import Connection, RequestContext, current_context, identify, in_context
from serving.requests.json_objects import checked_object
from serving.requests.options import checked_client_id
from serving.requests.sign_in import Reader
from serving.sessions.endpoints import open_session
from serving.sessions.uploads import received

logger = logging.getLogger(__name__)

# Requests beyond these wait their turn. A pool of their own: the default one also sends files and answers the other
# endpoints, which must not wait behind inferences.
MAX_REQUESTS_AT_ONCE = 32
# Sentence of an answer, percent-encoded.
MESSAGE_HEADER = "Causal-SAM-Message"
MAX_MESSAGE = 1000
_threads = anyio.CapacityLimiter(MAX_REQUESTS_AT_ONCE)
T = TypeVar("T")

# Where the image comes from and which model sees it is said by the request's address; MONAI Label would let
# parameters of these names overrule it unchecked.
_ADDRESS_KEYS = ("image", "model", "session")


class TooManyRequestsError(InputError):
    """The client has to wait for answers to its earlier requests."""

    status = 429


class ClientLimit:
    """Counts the requests of each client that are being answered; for one thread, such as that of the event loop."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def admit(self, client: str, limit: int) -> Iterator[None]:
        """Count a request of ``client`` during the block.

        Raises:
            TooManyRequestsError: ``limit`` of its requests are being answered.
        """
        if self._open[client] >= limit:
            raise TooManyRequestsError(
                f"{limit} of your requests are being answered or wait already: wait for their answers, then ask again."
            )
        self._open[client] += 1
        try:
            yield
        finally:
            self._open -= Counter((client,))  # drops those that have none


_limit = ClientLimit()


def checked_params(text: str) -> dict[str, Any]:
    """Parse the ``params`` of an inference, leaving out what its address says.

    Raises:
        InputError: they are not a JSON object.
    """
    return {key: value for key, value in checked_object(text).items() if key not in _ADDRESS_KEYS}


async def infer(
    request: Request,
    background_tasks: BackgroundTasks,
    model: str,
    user: Reader,
    image: str = "",
    session_id: str = "",
    params: Annotated[str, Form()] = "{}",
    file: Annotated[UploadFile | None, File()] = None,
    label: Annotated[UploadFile | None, File()] = None,
    output: ResultType | None = None,
) -> Any:
    """Answer one inference as MONAI Label's endpoint does, in a thread.

    Args:
        request: request of the client.
        background_tasks: tasks that run after the response; they remove the result.
        model: the task.
        user: has the role that this takes.
        image: id in the studies; a session's image or an uploaded one counts before it.
        session_id: empty for none.
        params: the client's parameters, a JSON object.
        file: an uploaded image.
        label: an uploaded label map, such as scribbles.
        output: form of the answer.

    Raises:
        NotFoundError: there is no such model, image or session.
        InputError: an upload or a parameter cannot be used.
    """
    checked = checked_params(params)
    context = context_of(
        request, user, checked_client_id(checked), session_id, server_chose_image=bool(file or session_id)
    )

    def run() -> Any:
        if not (image or session_id or file):
            raise InputError("Name the image to segment: give image=<id>, session_id=<id> or upload a file.")
        if output == ResultType.dicom_seg and not (image and isinstance(app_instance().datastore(), DicomWebStore)):
            raise InputError("output=dicom_seg needs image=<series> of a DICOMweb server; ask for image, json or all.")
        result = _run_task(model, checked, image, session_id, file, label)
        with removed_on_failure(result["file"]):
            if output == ResultType.dicom_seg:
                return _answer_as_dicom_seg(background_tasks, image, result)
            return _with_message(send_response(app_instance().datastore(), result, output, background_tasks), result)

    return await run_for_client(request, context, run)


def context_of(
    request: Request, user: User, client_id: str | None, session_id: str = "", *, server_chose_image: bool = False
) -> RequestContext:
    """Return the origin of a request, with a connection that is to be watched.

    Args:
        request: request of the client.
        user: the user, if users sign in.
        client_id: id that the client claims.
        session_id: MONAI Label session of the request; empty for none.
        server_chose_image: see `RequestContext`.
    """
    address = request.client.host if request.client else None
    username = user.username if settings.MONAI_LABEL_AUTH_ENABLE else None
    return RequestContext(
        identify(session_id, username, address, client_id), server_chose_image, connection=Connection()
    )


async def run_for_client(request: Request, context: RequestContext, run: Callable[[], T]) -> T:
    """Run a function in a thread in the context of a request, within the limit of its client.

    Raises:
        TooManyRequestsError: too many requests of the client are being answered.
    """
    limit = app_instance().requests_per_client
    watching = asyncio.create_task(_watch(request, context.connection))
    try:
        with _limit.admit(context.name, limit), in_context(context):
            return await anyio.to_thread.run_sync(run, limiter=_threads)
    finally:
        watching.cancel()


async def _watch(request: Request, connection: Connection) -> None:
    """Say when the client closes its connection: a thread cannot be cancelled, it has to look for itself.

    The body was read before, so what is received next is the end of the connection.
    """
    while (await request.receive())["type"] != "http.disconnect":
        pass
    connection.close()


def _run_task(
    model: str,
    params: Mapping[str, Any],
    image: str,
    session_id: str,
    file: UploadFile | None,
    label: UploadFile | None,
) -> dict[str, Any]:
    """Run the task on the image, with the uploads on disk meanwhile."""
    begin = time.monotonic()
    with ExitStack() as uploads:
        if session_id:
            image = str(open_session(session_id).image)
        elif file is not None:
            image = str(uploads.enter_context(received(file, "image")))
        context = current_context()
        if label is not None:
            context = replace(context, label_file=uploads.enter_context(received(label, "label")))
        with in_context(context):
            result = app_instance().infer({**params, "model": model, "image": image})
    logger.info("%s: %s; %.2f s.", model, loggable(params), time.monotonic() - begin)
    return result


@contextmanager
def removed_on_failure(path: str | Path | None) -> Iterator[None]:
    """Remove the file of a result if the block fails: only an answer that is sent removes it behind itself."""
    try:
        yield
    except BaseException:
        if path is not None:
            Path(path).unlink(missing_ok=True)
        raise


def _with_message(response: Any, result: Mapping[str, Any]) -> Any:
    """Put the sentence into a header: OHIF asks for the mask alone, and its companion shows the sentence."""
    if isinstance(response, Response) and (message := result["params"].get("message")):
        response.headers[MESSAGE_HEADER] = quote(message[:MAX_MESSAGE])
    return response


def _answer_as_dicom_seg(background_tasks: BackgroundTasks, image: str, result: Mapping[str, Any]) -> FileResponse:
    """Answer the mask of an inference as DICOM SEG, with the names that the task gives.

    MONAI Label's own answer takes names and order of the segments from the client.

    Raises:
        InputError: there is no mask, or it is empty.
    """
    if not result.get("file"):
        raise InputError("The task gave no mask, so there is nothing to write as DICOM SEG.")
    with tempfile.NamedTemporaryFile(suffix=".dcm", delete=False) as file:
        path = Path(file.name)
    with removed_on_failure(path):
        app_instance().datastore().write_result(image, Path(result["file"]), {"params": result["params"]}, path)
    for each in (path, Path(result["file"])):
        background_tasks.add_task(each.unlink, missing_ok=True)
    return FileResponse(path, media_type="application/dicom", filename=path.name)
