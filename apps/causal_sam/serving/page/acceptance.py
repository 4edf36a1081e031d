"""Acceptance: the labels of a session are saved as the accepted label of its image."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response
from monailabel.config import settings
from monailabel.interfaces.datastore import DefaultLabelTag

from causal_sam.errors import InputError
from causal_sam.imaging import write_mask
from causal_sam.prompting.label_state import is_unnamed
from causal_sam.site.accepted import frame_in_info
from infers.base import IMAGE_ID_KEY, Call, take_over_saved
from serving.page.schemas import Session, StepRequest
from serving.page.sessions import describe_session
from serving.page.visits import STREAMED, ToCase, Visit, app
from serving.requests.errors import ConflictError
from serving.requests.sign_in import Annotator

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/cases/{case}")


@router.post("/accept", response_model=Session, responses=STREAMED)
async def accept(case: ToCase, known: StepRequest, user: Annotator) -> Response:
    """Save all labels as the accepted label of the image, with the tag ``final``; in the DICOM archive too.

    The protocol is checked before; the message says which of its rules do not hold, and they do not hinder the
    acceptance. The answer is 409 if ``known`` lacks a mask, or if the accepted label has more than the session.
    """

    def work(call: Call) -> Session:
        image_id = call.request[IMAGE_ID_KEY]
        if image_id is None:
            raise InputError("Only an image that the data store lists can have an accepted label.")
        refuse_unseen(call, known.known)
        _refuse_to_lose(call, image_id)
        rules = save_accepted(call, case, image_id)
        compare_with_automatic(call, image_id)
        take_over_saved(call.session, call.resources.saved, image_id, call.volume)
        names = [name for name, state in call.session.states.items() if not (is_unnamed(name) or state.is_empty)]
        return describe_session(call, known.known, f"Accepted: {', '.join(names)}.{rules}")

    return await case.change(work)


def refuse_unseen(call: Call, known: Collection[str]) -> None:
    """Refuse to accept masks that the client does not show.

    Args:
        call: the request; its session may have taken over a label just now.
        known: keys of the masks that the client holds; empty from programs that show none.

    Raises:
        ConflictError: it lacks one.
    """
    states = call.session.states.items()
    if known and any(state.key not in known for name, state in states if not (is_unnamed(name) or state.is_empty)):
        raise ConflictError(
            "Nothing was accepted: the masks are not those that you saw, since somebody saved a newer label of this "
            "image meanwhile, or changed them; look at them, then accept."
        )


def _refuse_to_lose(call: Call, image_id: str) -> None:
    """Refuse to replace an accepted label by a session that could not take over all of it.

    Raises:
        ConflictError: it is of another frame, cannot be read, or has values without a name.
    """
    newest = call.resources.saved.newest(image_id, None)
    if newest is None or not newest.is_final:
        return
    frame = frame_in_info(newest.info)
    if frame not in (None, call.volume.frame):
        raise ConflictError(
            f"Frame {frame} of this image has an accepted label, and an image has only one: remove it first, or save "
            f"frame {call.volume.frame} as an image of its own."
        )
    _, is_whole = call.resources.saved.masks(newest, call.volume)
    if not is_whole:
        raise ConflictError(
            "This image has an accepted label that cannot be shown, as it has values without a name or is not on the "
            f"grid of the image: save it again with names, or move {newest.path.name} out of the folder of accepted "
            "labels, then accept."
        )


def save_accepted(call: Call, case: Visit, image_id: str) -> str:
    """Check the protocol on all labels of a session, and save them as the accepted label of an image.

    Returns:
        Sentence about the rules of the protocol, after a space; empty if there are none.

    Raises:
        InputError: they cannot be saved, as when there are no voxels.
    """
    protocol = app().protocol
    report = protocol.check_accepted(call)
    label_map, values = call.session.label_map()
    present = set(np.unique(label_map))
    info = {
        "label_info": [{"name": name, "idx": value} for name, value in values.items() if value in present],
        "user": case.user.username if settings.MONAI_LABEL_AUTH_ENABLE else case.context.name,
        "params": {"frame": call.volume.frame},
    }
    with tempfile.TemporaryDirectory(prefix="causal-sam-accepted-") as folder:
        path = write_mask(label_map, call.volume, Path(folder) / "label.nii.gz")
        label_id = app().datastore().save_label(image_id, str(path), DefaultLabelTag.FINAL.value, info)
    app().on_save_label(image_id, label_id)
    if report is None:
        return ""
    protocol.keep(call.stamped(report.to_dict()))
    return f" {report}"


def compare_with_automatic(call: Call, image_id: str) -> None:
    """Compare the accepted masks with those that were found by name before anybody saw them.

    Only labels that the annotator had in the session count, also those that were removed from it.
    """
    if call.volume.frame:
        return
    session = call.session
    seen = {name for step in session.history.steps[: session.history.position + 1] for name in step.labels}
    try:
        call.resources.automatic.compare(image_id, seen, session.mask)
    except OSError as error:
        logger.warning("Automatic masks are not compared: nothing can be written (%s).", error.strerror)
