"""Routes of the inbox: automatic masks of cases that nobody works on, those first that are most likely right."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Annotated

import numpy as np
from cachetools import LRUCache, cached
from fastapi import APIRouter, Body
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from causal_sam.errors import InputError, NotFoundError
from causal_sam.imaging import PackedMask, slice_axis
from causal_sam.prompting.history import StepKind
from causal_sam.site.automatic_masks import AutomaticCase
from causal_sam.site.calibration import DiceBound
from infers.base import IMAGE_ID_KEY, Call, take_over_saved
from serving.data.images import VolumeKey, volume_key
from serving.data.label_colors import label_color
from serving.page.acceptance import save_accepted
from serving.page.pictures import picture_of_slice
from serving.page.schemas import Session, StepRequest
from serving.page.sessions import describe_session
from serving.page.visits import EVENTS, STREAMED, ToCase, Visit, app, progress_events
from serving.requests.errors import ConflictError
from serving.requests.sign_in import Annotator, Reader

PICTURE_SIDE = 256
MAX_PICTURES = 500
router = APIRouter()


class InboxLabel(BaseModel):
    """An automatic mask.

    Attributes:
        certainty: the model's own estimate of the overlap, from 0 to 1.
        bound: its Dice is at least this, with the probability of the guarantee; None without a guarantee.
        colour: colour in the picture, as `#rrggbb`.
    """

    name: str
    volume_ml: float
    certainty: float
    bound: float | None
    colour: str


class InboxCase(BaseModel):
    """A case with automatic masks.

    Attributes:
        bound: smallest bound of its masks: all of them are at least as good with the probability of the guarantee. None
            without a guarantee, or without masks.
        certainty: smallest certainty of its masks; None without masks.
        missing: labels that the model knows and did not find.
        model: identifies the weights that made the masks.
    """

    id: str
    model: str
    bound: float | None
    certainty: float | None
    labels: list[InboxLabel]
    missing: list[str]


class InboxRequest(BaseModel):
    """``model`` of the masks that the client shows; None accepts those of the model in use."""

    model: str | None = None


class InboxProgress(BaseModel):
    """Progress of the search for automatic masks; ``message`` says how the last one ended."""

    is_running: bool
    done: int
    total: int
    message: str


class InboxAnswer(BaseModel):
    """Sentence about what was done."""

    message: str


class InboxList(BaseModel):
    """The inbox.

    Attributes:
        cases: cases without an accepted label that nobody works on, the most likely right first.
        waiting: number of cases on this machine whose masks the model in use has not looked for.
        guarantee: sentence about the bounds.
        level: probability of the guarantee.
        accepted: number of accepted labels behind it.
        needed: number that a guarantee needs.
    """

    cases: list[InboxCase]
    waiting: int
    guarantee: str
    level: float
    accepted: int
    needed: int
    progress: InboxProgress


@router.get("/inbox")
def list_inbox(user: Reader) -> InboxList:
    """List the cases with automatic masks, those first that are most likely right."""
    inbox, resources = app().inbox, app().resources
    found, waiting = inbox.cases()
    bound, in_work = _bound(), resources.histories.in_work()
    cases = [_case(case, bound) for case in found if case.image_id not in in_work]
    return InboxList(
        cases=sorted(cases, key=lambda case: -1.0 if case.certainty is None else case.certainty, reverse=True),
        waiting=len(waiting),
        guarantee=str(bound),
        level=bound.level,
        accepted=bound.count,
        needed=bound.needed,
        progress=_progress(),
    )


def _bound() -> DiceBound:
    inbox, predictors = app().inbox, app().resources.predictors
    accepted = set(inbox.studies.accepted())
    scores = inbox.masks.scores(predictors.automatic_model(predictors.current_bundle()))
    return DiceBound.of(score for image_id, score in scores.items() if image_id in accepted)


def _case(case: AutomaticCase, bound: DiceBound) -> InboxCase:
    least = min(case.certainty.values(), default=None)
    return InboxCase(
        id=case.image_id,
        model=case.model,
        bound=None if least is None else bound.lower(least),
        certainty=least,
        labels=[
            InboxLabel(
                name=name,
                volume_ml=case.volume_ml[name],
                certainty=certainty,
                bound=bound.lower(certainty),
                colour="#{:02x}{:02x}{:02x}".format(*label_color(name, number)),
            )
            for number, (name, certainty) in enumerate(case.certainty.items())
        ],
        missing=case.missing,
    )


def _progress() -> InboxProgress:
    return InboxProgress(**vars(app().inbox.progress))


@router.post("/inbox/search")
def start_search(user: Annotator) -> InboxProgress:
    """Begin to find masks by name in the cases that wait, in the background."""
    app().inbox.start()
    return _progress()


@router.delete("/inbox/search")
def stop_search(user: Annotator) -> InboxProgress:
    """Stop it; the masks that were found stay."""
    app().inbox.stop()
    return _progress()


@router.get("/inbox/search/events", response_class=StreamingResponse, responses={200: {"content": {EVENTS: {}}}})
async def search_events(user: Reader) -> StreamingResponse:
    """Send the progress as events `inbox`, until nothing is searched."""
    return progress_events("inbox", _progress)


@router.get("/cases/{case}/inbox/picture", response_class=Response, responses={200: {"content": {"image/png": {}}}})
async def picture(case: ToCase) -> Response:
    """Return the slice with the largest part of the automatic masks as a PNG, the masks over it.

    Raises:
        NotFoundError: there is no such image, or the case has no automatic masks.
    """

    def draw() -> Response:
        path = case.image().path
        return Response(_picture(volume_key(path), _found(case).model, case.image_id), media_type="image/png")

    return await case.run(draw)


@cached(LRUCache(MAX_PICTURES), lock=threading.Lock())
def _picture(key: VolumeKey, model: str, image_id: str) -> bytes:
    volume, masks = app().resources.volumes.get(key), app().inbox.masks.masks(image_id, model)
    arrays = [(mask.unpack(), label_color(name, number)) for number, (name, mask) in enumerate(masks.items())]
    axis = slice_axis(volume)
    others = tuple(other for other in range(3) if other != axis)
    areas = sum((mask.sum(axis=others) for mask, _ in arrays), np.zeros(volume.shape[axis], int))
    index = int(areas.argmax()) if areas.any() else volume.shape[axis] // 2
    return picture_of_slice(volume, index, PICTURE_SIDE, arrays)


@router.post("/cases/{case}/inbox/open", response_model=Session, responses=STREAMED)
async def take_masks(case: ToCase, known: StepRequest) -> Response:
    """Take the automatic masks of a case over into the client's session, as one step.

    Raises:
        NotFoundError: the case has no automatic masks.
        InputError: the session has masks already.
    """

    def work(call: Call) -> Session:
        found = _take(case, call)
        return describe_session(call, known.known, f"Found by name: {', '.join(found.certainty)}.", found.certainty)

    return await case.change(work)


@router.post("/cases/{case}/inbox/accept", response_model=InboxAnswer, responses=STREAMED)
async def accept_masks(
    case: ToCase, user: Annotator, shown: Annotated[InboxRequest, Body(default_factory=InboxRequest)]
) -> Response:
    """Save the automatic masks of a case as its accepted label, as they are.

    They do not count as evidence that the model is right, since nobody has looked at every slice.

    Raises:
        NotFoundError: the case has no automatic masks.
        InputError: the session has masks already.
        ConflictError: the image has an accepted label, or the masks are not those that the client shows.
    """

    def work(call: Call) -> InboxAnswer:
        image_id = call.request[IMAGE_ID_KEY]
        newest = call.resources.saved.newest(image_id, None)
        if newest is not None and newest.is_final:
            raise ConflictError(f"{case.image_id} has an accepted label already: open it to look at that.")
        found = _take(case, call)
        if shown.model not in (None, found.model):
            raise ConflictError(f"Other masks were found in {case.image_id} meanwhile: look at them, then accept.")
        rules = save_accepted(call, case, image_id)
        take_over_saved(call.session, call.resources.saved, image_id, call.volume)
        return InboxAnswer(message=f"Accepted {image_id}: {', '.join(found.certainty)}.{rules}")

    return await case.change(work)


def _found(case: Visit) -> AutomaticCase:
    predictors, image_id = app().resources.predictors, case.image().image_id or ""
    found = app().inbox.masks.get(image_id, predictors.automatic_model(predictors.current_bundle()))
    if found is None or found.stamp != app().inbox.studies.stamp(image_id):
        raise NotFoundError(f"{case.image_id} has no automatic masks of the model in use: search for them first.")
    return found


def _take(case: Visit, call: Call) -> AutomaticCase:
    """Take the automatic masks over into the session, and return the case."""
    if case.frame:
        raise InputError(f"The automatic masks are of frame 0, not {case.frame}: leave frame out.")
    found, session = _found(case), call.session
    if any(not state.is_empty for state in session.states.values()):
        raise InputError("The case has masks already: open it, and accept or correct them there.")
    masks: dict[str, PackedMask] = app().inbox.masks.masks(found.image_id, found.model)
    if not masks:
        raise InputError(f"Nothing was found by name in {case.image_id}: open it, and segment it there.")
    before = session.history
    for name, mask in masks.items():
        session.set_mask(name, mask.unpack(), automatic=True)
    step = replace(session.history.head, kind=StepKind.NAME, about=", ".join(masks))
    session.history = before.then(step)
    return found
