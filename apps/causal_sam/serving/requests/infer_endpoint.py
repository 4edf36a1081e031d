"""Inference off the event loop, with the client known and its parameters checked.

MONAI Label's own endpoint is a coroutine that runs the task where it is: until the task is done the event loop stands
still, and nobody gets an answer, not even to ``/info/``. This endpoint takes the same request, by the same path, and
answers it in a thread.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import anyio
from fastapi import BackgroundTasks, Depends, File, Form, Request, UploadFile
from monailabel.config import settings
from monailabel.endpoints.infer import ResultType
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from causal_sam.errors import InputError
from serving.data.segment_store import SegmentStore
from serving.requests.clients import Connection, RequestContext, identify, in_context
from serving.requests.inference import run_inference
from serving.requests.json_objects import checked_object
from serving.requests.limits import ClientLimit
from serving.requests.options import checked_client_id
from serving.sessions.endpoints import open_session

# Requests beyond these wait their turn. A pool of their own: the default one also sends files and answers the other
# endpoints, which must not wait behind inferences.
MAX_REQUESTS_AT_ONCE = 32
# How often it is looked whether the client still waits.
WATCH_SECONDS = 0.5
_threads = anyio.CapacityLimiter(MAX_REQUESTS_AT_ONCE)
_limit = ClientLimit()

# Where the image comes from and which model sees it is said by the request's address; MONAI Label would let
# parameters of these names overrule it unchecked.
_ADDRESS_KEYS = ("image", "model", "session")


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
    user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))],
    image: str = "",
    session_id: str = "",
    params: Annotated[str, Form()] = "{}",
    file: Annotated[UploadFile | None, File()] = None,
    label: Annotated[UploadFile | None, File()] = None,
    output: ResultType | None = None,
) -> Any:
    """Answer one inference as MONAI Label's endpoint does, in a thread."""
    checked = checked_params(params)
    context = RequestContext(
        name=identify(
            session_id,
            user.username if settings.MONAI_LABEL_AUTH_ENABLE else None,
            request.client.host if request.client else None,
            checked_client_id(checked),
        ),
        server_chose_image=bool(file or session_id),
        connection=Connection(),
    )

    def run() -> Any:
        _check_address(image, session_id, file, output)
        return run_inference(background_tasks, model, image, session_id, checked, file, label, output)

    limit = app_instance().requests_per_client
    watching = asyncio.create_task(_watch(request, context.connection))
    try:
        with _limit.admit(context.name, limit), in_context(context):
            return await anyio.to_thread.run_sync(run, limiter=_threads)
    finally:
        watching.cancel()


async def _watch(request: Request, connection: Connection) -> None:
    """Say when the client closes its connection: a thread cannot be cancelled, it has to look for itself."""
    while not await request.is_disconnected():
        await asyncio.sleep(WATCH_SECONDS)
    connection.close()


def _check_address(image: str, session_id: str, file: UploadFile | None, output: ResultType | None) -> None:
    if not (image or session_id or file):
        raise InputError("Name the image to segment: give image=<id>, session_id=<id> or upload a file.")
    if session_id:
        open_session(session_id)
    if output == ResultType.dicom_seg and not (image and isinstance(app_instance().datastore(), SegmentStore)):
        raise InputError("output=dicom_seg needs image=<series> of a DICOMweb server; ask for image, json or all.")
