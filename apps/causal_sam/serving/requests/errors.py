"""Errors as clients see them: a status that says whose fault it is, and one sentence that their dialogs can show."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import psutil
import requests
from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)
from starlette.exceptions import HTTPException

from causal_sam.errors import CausalSamError, InputError
from serving.data.archive import describe_failure
from serving.private_log import known_method, origin

logger = logging.getLogger(__name__)


class RefusedError(InputError):
    """A request is refused before an endpoint sees it.

    Args:
        status: HTTP status.
        sentence: says what is wrong and what would be right.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class ConflictError(InputError):
    """The data has changed since the client saw it, or the request would lose some of it."""

    status = 409


class ClientGoneError(InputError):
    """The client closed its connection before it had its answer; nobody reads this one."""

    status = 499


class NoteRefusedError(InputError):
    """A note was not carried out; its sentence is the question back, or says why.

    Args:
        sentence: text for the clinician.
        details: the same in a structure, for programs.
    """

    def __init__(self, sentence: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.details = dict(details or {})


def _answer(
    request: Request, status: int, sentence: str, error: Exception, details: Mapping[str, Any] = {}
) -> JSONResponse:
    # Neither the path nor the sentence is logged: they quote what a client wrote.
    route = getattr(request.scope.get("route"), "path", "of no route")
    logger.warning("%s %s answered %d (%s).", known_method(request.method), route, status, origin(error))
    return JSONResponse({"detail": sentence, **details}, status_code=status)


def _sentence(message: object) -> str:
    """Make what MONAI Label and FastAPI say a sentence."""
    return str(message).strip(" +.!") + "."


async def _input_error(request: Request, error: InputError) -> JSONResponse:
    return _answer(request, error.status, str(error), error, getattr(error, "details", {}))


async def _own_error(request: Request, error: CausalSamError) -> JSONResponse:
    logger.error("%s", error)  # about the server, not about what was asked
    return _answer(request, 500, str(error), error)


async def _monailabel_error(request: Request, error: MONAILabelException) -> JSONResponse:
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        status = 404
    else:
        status = 400 if error.error == MONAILabelError.INVALID_INPUT else 500
    return _answer(request, status, _sentence(error.msg), error)


async def _no_answer_from_archive(request: Request, error: requests.RequestException) -> JSONResponse:
    status = None if error.response is None else error.response.status_code
    logger.warning("The archive failed: %s, status %s.", type(error).__name__, status)
    return _answer(request, *describe_failure(error), error)


async def _malformed_request(request: Request, error: RequestValidationError) -> JSONResponse:
    problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
    shown = "; ".join(ascii(problem[:200])[1:-1] for problem in problems[:3])
    return _answer(request, 422, f"The request is malformed ({shown}).", error)


async def _http_error(request: Request, error: HTTPException) -> Response:
    if error.status_code < 400:
        return await http_exception_handler(request, error)
    sentence = _sentence(error.detail)
    if error.detail == HTTPStatus(error.status_code).phrase:
        sentence = {
            404: f"This server has nothing at {request.url.path[:200]!a}.",
            405: f"The method {request.method} is not allowed at {request.url.path[:200]!a}.",
        }.get(error.status_code, sentence)
    answer = _answer(request, error.status_code, sentence, error)
    answer.headers.update(error.headers or {})
    return answer


async def _process_is_gone(request: Request, error: psutil.NoSuchProcess) -> JSONResponse:
    return _answer(request, 409, "The task ended before it could be stopped.", error)


def describe_unexpected(error: Exception) -> str:
    """Say in a sentence that the server failed; only the log tells more."""
    return f"The server failed ({type(error).__name__}); its log has the details, your masks are kept."


async def _unexpected_error(request: Request, error: Exception) -> JSONResponse:
    # The web server logs the stack trace of whatever arrives here.
    return JSONResponse({"detail": describe_unexpected(error)}, status_code=500)


_HANDLERS = {
    InputError: _input_error,
    CausalSamError: _own_error,
    MONAILabelException: _monailabel_error,
    requests.RequestException: _no_answer_from_archive,
    RequestValidationError: _malformed_request,
    HTTPException: _http_error,
    psutil.NoSuchProcess: _process_is_gone,
    Exception: _unexpected_error,
}


def install_error_handlers(app: FastAPI) -> None:
    """Answer errors of the app's endpoints with ``{"detail": sentence}``."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    # MONAI Label makes its app while the web server starts up, when the handlers known until then are already built
    # into the chain of middleware: let the next request build it anew.
    app.middleware_stack = None


class _OnlyTheSentence(logging.Filter):
    """Replaces the stack trace of one error in a log by what the error says."""

    def __init__(self, sentence: str) -> None:
        super().__init__()
        self.sentence = sentence

    def filter(self, record: logging.LogRecord) -> bool:
        if self.sentence in record.getMessage():
            record.msg, record.args = self.sentence, ()
        return True


def explain_failed_start(error: CausalSamError) -> None:
    """Let the web server's log say why the start failed in one sentence, where it would print a stack trace."""
    logging.getLogger("uvicorn.error").addFilter(_OnlyTheSentence(str(error)))
