"""The border: every request passes it before MONAI Label or an endpoint of ours sees it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

from fastapi import FastAPI
from monailabel.config import settings
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from causal_sam.errors import InputError
from serving.private_log import known_method, origin
from serving.requests.access import AccessPolicy
from serving.requests.addresses import METHODS, check_address
from serving.requests.bodies import BodyLimits

logger = logging.getLogger(__name__)

# Browsers neither show an answer within a page of another site, nor take it for something else than it says it is.
_ANSWER_HEADERS = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}


@dataclass(frozen=True)
class BorderRules:
    """Rules for incoming requests.

    Attributes:
        access: names of the server, and pages that may use it.
        bodies: size limits of bodies.
        switched_on: routes of `OFF_BY_DEFAULT` that are on.
    """

    access: AccessPolicy
    bodies: BodyLimits
    switched_on: Collection[str] = ()


class Border:
    """ASGI middleware that answers what may not pass with ``{"detail": sentence}``."""

    def __init__(self, app: ASGIApp, rules: BorderRules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers, method = Headers(scope=scope), scope.get("method", "GET")
        path = get_route_path(scope).removeprefix(settings.MONAI_LABEL_API_STR)
        try:
            self._rules.access.check(method, headers)
            check_address(method, path, scope["raw_path"], scope["query_string"], self._rules.switched_on)
            if scope["type"] == "http":
                receive = await self._rules.bodies.admit(path, headers, receive)
        except InputError as error:
            logger.warning("%s at the border answered %d (%s).", known_method(method), error.status, origin(error))
            if scope["type"] == "http":
                answer = JSONResponse({"detail": str(error)}, status_code=error.status, headers=_ANSWER_HEADERS)
                await answer(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return

        # Answers are whole: no viewer asks for parts of files, and a bad range would be refused without a sentence.
        scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"range"]}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_ANSWER_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def install_border(app: FastAPI, rules: BorderRules) -> None:
    """Put the border in front of an application, in place of MONAI Label's answer to pages of other origins."""
    # Tells browsers that pages may read answers: those whose requests the border let pass.
    readable = Middleware(
        CORSMiddleware, allow_origin_regex=".*", allow_methods=METHODS, allow_headers=["*"], allow_credentials=True
    )
    app.user_middleware[:] = [Middleware(Border, rules=rules), readable]
    # MONAI Label makes its app while the web server starts up, when the chain of middleware is built already.
    app.middleware_stack = None
