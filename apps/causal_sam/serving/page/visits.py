"""A request about a case: whose it is, the session that it works on, and the answer, whole or as a stream of events."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import anyio
import requests
from fastapi import Depends, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance
from pydantic import BaseModel

from causal_sam.errors import CausalSamError, InputError
from causal_sam.imaging import Volume
from causal_sam.prompting.slots import OnSlice, ignore
from infers.base import CLIENT_KEY, CONNECTION_KEY, IMAGE_ID_KEY, Call, open_call
from serving.data.archive import describe_failure
from serving.data.images import ImageRef, volume_key
from serving.requests.cancellation import CancellationMonitor
from serving.requests.clicks import Options
from serving.requests.clients import RequestContext
from serving.requests.errors import describe_unexpected
from serving.requests.inference import context_of, run_for_client
from serving.requests.options import checked_client_id
from serving.requests.sign_in import Reader
from serving.shutdown import is_ending

if TYPE_CHECKING:
    from main import CausalSamApp

logger = logging.getLogger(__name__)

EVENTS = "text/event-stream"
EVENT_SECONDS, PROGRESS_SECONDS = 0.25, 1.0
# For the documentation of routes that answer by `Visit.answer`.
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer. With `Accept: text/event-stream` it is a stream: events `progress` with the number "
        "of `slices` done, and at the end one event `timing` with the seconds of the `model` and of all of the "
        "`request`, and one event `answer`; or one event `error` with `status` and `detail`. Otherwise the header "
        "`Server-Timing` has these times in milliseconds.",
        "content": {EVENTS: {}},
    }
}
T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")


def app() -> CausalSamApp:
    """The app of this server."""
    return app_instance()


@dataclass(frozen=True)
class Timing:
    """Seconds that a request took on the server.

    Attributes:
        model: seconds that the model worked.
        request: seconds from opening the session until it was kept, waiting for others included.
    """

    model: float
    request: float


@dataclass(frozen=True)
class Visit:
    """A request about a case.

    Attributes:
        request: request of the client.
        image_id: id of the image.
        frame: index of the frame.
        user: the user, if users sign in.
        context: origin of the request.
    """

    request: Request
    image_id: str
    frame: int
    user: User
    context: RequestContext

    def image(self) -> ImageRef:
        """Return the image, fetched from the archive if need be.

        Raises:
            InputError: there is no such image, or it cannot be read.
        """
        return app().finder.find(self.image_id)

    def volume(self) -> Volume:
        """Return the decoded image.

        Raises:
            InputError: as `image`.
        """
        return app().resources.volumes.get(volume_key(self.image().path, self.frame))

    async def run(self, work: Callable[[], R]) -> R:
        """Run work that changes no session, in a thread."""
        return await run_for_client(self.request, self.context, work)

    @contextmanager
    def open_session(self, plane: str | None = None, on_slice: OnSlice = ignore) -> Iterator[Call]:
        """Open the client's session on the image; if the block raises, the session stays as it was.

        Args:
            plane: plane in which slices are segmented; None for that of the configuration.
            on_slice: called during long work with the number of slices done.

        Raises:
            InputError: as `image`.
        """
        image, monitor = self.image(), CancellationMonitor(self.context.connection)
        request = {
            "image": str(image.path),
            "frame": self.frame,
            **({} if plane is None else {"plane": plane}),
            IMAGE_ID_KEY: image.image_id,
            CLIENT_KEY: self.context.name,
            CONNECTION_KEY: self.context.connection,
        }

        def on_slice_of_client(count: int) -> None:
            on_slice(count)
            monitor(count)

        resources = app().resources
        options = Options.from_request(request, resources.plane, resources.extent)
        with open_call(resources, request, options, on_slice_of_client) as call:
            monitor(0)  # what was cancelled while it waited for the session changes nothing
            yield call

    async def change(self, work: Callable[[Call], T], plane: str | None = None) -> Response:
        """Work on the client's session, and answer; if the work raises, the session stays as it was.

        Args:
            work: what to do with the session; returns the answer.
            plane: plane in which slices are segmented; None for that of the configuration.
        """
        done = [0]

        def on_slice(count: int) -> None:
            done[0] = count

        def run() -> tuple[T, Timing]:
            begin = time.perf_counter()
            with self.open_session(plane, on_slice) as call:
                answer = work(call)
            return answer, Timing(call.slots.seconds, time.perf_counter() - begin)

        if EVENTS in self.request.headers.get("accept", ""):
            return StreamingResponse(self._events(run, done), media_type=EVENTS, headers={"Cache-Control": "no-store"})
        answer, timing = await self.run(run)
        times = ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in asdict(timing).items())
        return JSONResponse(answer.model_dump(mode="json"), headers={"Server-Timing": times})

    async def _events(self, run: Callable[[], tuple[BaseModel, Timing]], done: list[int]) -> AsyncIterator[str]:
        """Yield progress until the work is done, and then its answer."""
        task = asyncio.create_task(self.run(run))
        told = 0
        try:
            while not (await asyncio.wait({task}, timeout=EVENT_SECONDS))[0]:
                if done[0] != told:
                    told = done[0]
                    yield event("progress", {"slices": told})
            answer, timing = await task
            yield event("timing", asdict(timing))
            yield event("answer", answer.model_dump(mode="json"))
        except InputError as error:
            yield event("error", {"status": error.status, "detail": str(error), **getattr(error, "details", {})})
        except requests.RequestException as error:
            status, sentence = describe_failure(error)
            yield event("error", {"status": status, "detail": sentence})
        except CausalSamError as error:
            logger.error("%s", error)  # about the server, not about what was asked
            yield event("error", {"status": 500, "detail": str(error)})
        except Exception as error:  # the answer has begun, so that no handler of the app sees it
            logger.exception("A request about a case failed.")
            yield event("error", {"status": 500, "detail": describe_unexpected(error)})
        finally:
            if self.context.connection is not None and not task.done():
                self.context.connection.close()


class _Progress(Protocol):
    """Progress of work in the background, as routes answer it."""

    is_running: bool

    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


def progress_events(name: str, look: Callable[[], _Progress]) -> StreamingResponse:
    """Return the progress of work in the background as events, until it ends or the server does.

    Args:
        name: name of the events.
        look: returns the progress; called in a thread.
    """

    async def events() -> AsyncIterator[str]:
        while (now := await anyio.to_thread.run_sync(look)).is_running and not is_ending():
            yield event(name, now.model_dump(mode="json"))
            await asyncio.sleep(PROGRESS_SECONDS)
        yield event(name, now.model_dump(mode="json"))

    return StreamingResponse(events(), media_type=EVENTS, headers={"Cache-Control": "no-store"})


def event(name: str, content: Mapping[str, Any]) -> str:
    """Return a server-sent event with content in JSON."""
    return f"event: {name}\ndata: {json.dumps(content)}\n\n"


ClientId = Annotated[
    str | None, Query(description="Name of the client, which tells apart the users behind one network address.")
]


def visit(
    request: Request,
    case: str,
    user: Reader,
    client_id: ClientId = None,
    frame: Annotated[int, Query(ge=0, description="Index of the frame, from 0.")] = 0,
) -> Visit:
    """Read who asks about which case."""
    context = context_of(request, user, checked_client_id({"client_id": client_id}))
    return Visit(request, case, frame, user, context)


ToCase = Annotated[Visit, Depends(visit)]
