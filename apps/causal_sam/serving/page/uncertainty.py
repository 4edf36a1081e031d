"""Route of the uncertainty map of a label."""

from __future__ import annotations

import base64
import zlib
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from causal_sam.prompting.uncertainty import mask_uncertainty
from serving.data.label_set import checked_label
from serving.page.schemas import Voxel
from serving.page.visits import ToCase
from serving.requests.cancellation import CancellationMonitor
from serving.requests.clients import Priority

COMPRESSION = 1
router = APIRouter()


class Uncertainty(BaseModel):
    """How unsure the model is about each voxel around a mask.

    Attributes:
        label: name of the label.
        key: ``key`` of the mask.
        corner: first voxel of the part that is sent.
        extent: size of that part; zeros where there is nothing to be unsure about.
        values: one byte a voxel, the last axis fastest, 0 for sure to 255 for as likely wrong as right, or more;
            compressed by zlib, as base64.
        slices: number of slices with an estimate; 0 where the model has none.
    """

    label: str
    key: str
    corner: Voxel
    extent: Voxel
    values: str
    slices: int


@router.get("/cases/{case}/uncertainty")
async def uncertainty(case: ToCase, name: Annotated[str, Query(description="Name of the label.")]) -> Uncertainty:
    """Return how unsure the model is about a label of the client's session.

    Others use the model first. The session is not held meanwhile, so that steps do not wait.
    """

    def work() -> Uncertainty:
        with case.open_session() as call:
            label = call.known_as(checked_label(name))
            state = call.session.state(label)
        slot = partial(call.resources.predictors.inference_slots.hold, priority=Priority.BACKGROUND)
        found = mask_uncertainty(call.predictor, label, state, slot, CancellationMonitor(case.context.connection))
        return Uncertainty(
            label=label,
            key=state.key,
            corner=found.corner,
            extent=found.values.shape,
            values=base64.b64encode(zlib.compress(found.values.tobytes(), COMPRESSION)).decode(),
            slices=found.slices,
        )

    return await case.run(work)
