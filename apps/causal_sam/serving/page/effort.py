"""Route of the effort: what each accepted label has cost."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from scorings.effort import EffortScoring
from serving.page.visits import app
from serving.requests.sign_in import Reader

SCORING = "effort"
router = APIRouter()


class Effort(BaseModel):
    """What an accepted label has cost.

    Attributes:
        id: id of the image.
        accepted: when it was accepted, in seconds since 1970; None if unknown.
        clicks: points, boxes, lassos, and updates by strokes.
        notes: notes that were written.
        seconds: time from the first act to the acceptance, without long pauses; None where nothing was done.
    """

    id: str
    accepted: float | None
    clicks: int
    notes: int
    seconds: float | None


@router.get("/effort")
def list_effort(user: Reader) -> list[Effort]:
    """List what each accepted label has cost, the one accepted first at the top.

    Raises:
        InputError: the data store keeps its labels elsewhere.
    """
    scoring: EffortScoring = app()._scoring_methods[SCORING]
    efforts = [Effort(id=image_id, **effort) for image_id, effort in scoring.efforts(app().datastore()).items()]
    return sorted(efforts, key=lambda effort: (effort.accepted or 0.0, effort.id))
