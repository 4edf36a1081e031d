"""Routes about small parts of masks that lie apart from the rest, for a look before a label is accepted."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from causal_sam.imaging.stray_parts import stray_parts
from causal_sam.prompting.label_state import is_unnamed
from infers.base import Call
from serving.page.acceptance import refuse_unseen
from serving.page.schemas import LabelsRequest, Session, StrayParts, StrayPartsList
from serving.page.sessions import describe_session, known_labels
from serving.page.visits import STREAMED, ToCase

router = APIRouter(prefix="/cases/{case}")


@router.get("/stray-parts", response_model=StrayPartsList, responses=STREAMED)
async def find_stray_parts(case: ToCase) -> Response:
    """Find small parts that lie apart from the rest of their label; those of locked labels are left out."""

    def work(call: Call) -> StrayPartsList:
        found = []
        for name, state in call.session.states.items():
            if is_unnamed(name) or state.is_empty or name in call.session.locked:
                continue
            parts = stray_parts(state.mask, call.volume.voxel_ml)
            if parts is not None:
                ml = round(parts.voxels * call.volume.voxel_ml, 3)
                found.append(StrayParts(label=name, count=parts.count, ml=ml, place=parts.place))
        return StrayPartsList(labels=found)

    return await case.change(work)


@router.post("/stray-parts/remove", response_model=Session, responses=STREAMED)
async def remove_stray_parts(case: ToCase, wanted: LabelsRequest) -> Response:
    """Remove the small parts that lie apart from the rest of labels, as one step."""

    def work(call: Call) -> Session:
        refuse_unseen(call, wanted.known)  # the page accepts what is left, unseen
        session, voxel_ml, removed = call.session, call.volume.voxel_ml, []
        with session.one_step():
            for name in known_labels(call, wanted.labels):
                parts = stray_parts(session.state(name).mask, voxel_ml)
                if parts is not None:
                    session.set_mask(name, session.mask(name) & ~parts.mask)
                    removed.append(f"{parts.voxels * voxel_ml:.1f} ml from {name}")
        message = f"Removed {' and '.join(removed)}." if removed else "There was nothing to remove."
        return describe_session(call, wanted.known, message)

    return await case.change(work)
