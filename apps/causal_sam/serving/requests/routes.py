"""All HTTP routes in one table: MONAI Label's, each either replaced by an endpoint of ours or run in a thread.

MONAI Label's endpoints are coroutines that work where they are: while one of them reads labels, asks an archive or
scores, the event loop stands still and nobody gets an answer. Here none of them is left on the loop. Each family of
routes (the first part of the path) has threads of its own, so that slow requests of one never hold those of another.
"""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import anyio
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from monailabel.config import settings
from starlette.datastructures import UploadFile
from starlette.routing import BaseRoute

from serving.requests.background_tasks import infer_batch, next_sample, score, score_method, train, train_model
from serving.requests.datastore_routes import add_image, get_dataset, get_image, get_label, save_label
from serving.requests.identifiers import checked_identifier
from serving.requests.inference import infer
from serving.requests.json_objects import checked_object
from serving.requests.logs import gpu, logs
from serving.requests.proxy import proxy
from serving.requests.sign_in import access_token, install_sign_in
from serving.requests.viewer import viewer
from serving.sessions.endpoints import create_session, get_session, remove_session

Endpoint = Callable[..., Any]

# Method and path of MONAI Label -> the endpoint that answers instead. Functions run in a thread, coroutines do not.
REPLACEMENTS: dict[tuple[str, str], Endpoint] = {
    ("POST", "/infer/{model}"): infer,
    ("GET", "/datastore/image"): get_image,
    ("PUT", "/datastore/label"): save_label,
    ("PUT", "/datastore/image"): add_image,
    ("PUT", "/datastore/"): add_image,
    ("GET", "/datastore/label"): get_label,
    ("GET", "/datastore/dataset"): get_dataset,
    ("PUT", "/session/"): create_session,
    ("GET", "/session/{session_id}"): get_session,
    ("DELETE", "/session/{session_id}"): remove_session,
    ("POST", "/train/"): train,
    ("POST", "/train/{model}"): train_model,
    ("POST", "/activelearning/{strategy}"): next_sample,
    ("POST", "/batch/infer/{model}"): infer_batch,
    ("POST", "/scoring/"): score,
    ("POST", "/scoring/{method}"): score_method,
    ("GET", "/logs/"): logs,
    ("GET", "/logs/gpu"): gpu,
    ("GET", "/ohif/{path:path}"): viewer,
    **{
        (method, f"/proxy/dicom/{operation}{{path:path}}"): proxy
        for method in ("GET", "POST")
        for operation in ("", "qido/", "wado/", "stow/")
    },
}
if settings.MONAI_LABEL_AUTH_ENABLE:  # MONAI Label has the route only then
    REPLACEMENTS["POST", "/auth/token"] = access_token
THREADS_PER_FAMILY = 16
# Form fields that MONAI Label parses as JSON.
_JSON_FIELDS = ("params", "info", "wsi")


def install_routes(app: FastAPI) -> None:
    """Let the table answer in place of MONAI Label's routers; what the app itself answers stays.

    Raises:
        LookupError: MONAI Label has no route that a replacement is for.
    """
    limiters: Mapping[str, anyio.CapacityLimiter] = defaultdict(lambda: anyio.CapacityLimiter(THREADS_PER_FAMILY))
    replacements, table = dict(REPLACEMENTS), APIRouter(prefix=settings.MONAI_LABEL_API_STR)
    for route in _routes_of_routers(app.router.routes):
        path = route.path.removeprefix(settings.MONAI_LABEL_API_STR)
        for method in sorted(route.methods):
            endpoint = replacements.pop((method, path), None)
            if endpoint is None or not inspect.iscoroutinefunction(endpoint):
                endpoint = in_thread(endpoint or route.endpoint, limiters[path.split("/")[1]])
            table.add_api_route(
                path,
                endpoint,
                methods=[method],
                tags=route.tags,
                summary=route.summary,
                responses=route.responses,
                include_in_schema=route.include_in_schema,
                deprecated=route.deprecated,
                response_model=None,
            )
    if replacements:
        raise LookupError(f"MONAI Label has no routes {', '.join(map(str, replacements))} to replace.")
    app.router.routes[:] = [route for route in app.router.routes if not _is_of_router(route)]
    app.include_router(table)
    app.openapi_schema = None
    install_sign_in(app)


def _routes_of_routers(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    """The routes of MONAI Label's routers, which FastAPI keeps apart, or in older versions among those of the app."""
    for route in routes:
        if _is_of_router(route):
            inner = getattr(route, "original_router", None)
            yield from (inner.routes if inner else [route])


def _is_of_router(route: BaseRoute) -> bool:
    endpoint = getattr(route, "endpoint", None)
    return hasattr(route, "original_router") or getattr(endpoint, "__module__", "").startswith("monailabel.endpoints.")


def in_thread(endpoint: Endpoint, limiter: anyio.CapacityLimiter) -> Endpoint:
    """Make an endpoint run in a thread, once its files and JSON fields are checked.

    Args:
        endpoint: a function, or a coroutine function that waits for nothing, as those of MONAI Label are.
        limiter: limiter for the threads.
    """

    async def run(**arguments: Any) -> Any:
        _check(arguments)
        return await anyio.to_thread.run_sync(partial(_finish, endpoint, arguments), limiter=limiter)

    # FastAPI reads parameters and their dependencies from the signature.
    run.__signature__ = inspect.signature(endpoint, eval_str=True)  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = endpoint.__name__, endpoint.__doc__
    return run


def _check(arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, UploadFile) and item.filename:
                # MONAI Label's own client, and so Slicer, sends the path that the file has at its end.
                item.filename = re.split(r"[/\\]", item.filename)[-1]
                checked_identifier(item.filename, "file name")
        if name in _JSON_FIELDS and isinstance(value, str):
            checked_object(value, f"form field {name}")


def _finish(endpoint: Endpoint, arguments: Mapping[str, Any]) -> Any:
    result = endpoint(**arguments)
    if not inspect.iscoroutine(result):
        return result
    try:
        result.send(None)
    except StopIteration as done:
        return done.value
    result.close()
    raise TypeError(f"{endpoint.__name__} waits for something, so it cannot run in a thread; replace it.")
