"""Routes that work on the client's session on a case: prompts, history, locks, labels by name, notes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response

from causal_sam.errors import InputError
from causal_sam.imaging import PackedMask
from causal_sam.imaging.directions import patient_axes
from causal_sam.prompting import InteractiveSession
from causal_sam.prompting.label_state import LabelState, Source, is_unnamed, state_of
from causal_sam.prompting.prompt_set import PromptSet
from causal_sam.prompting.prompts import Prompts, Strokes
from infers.base import CLIENT_KEY, IMAGE_ID_KEY, Call
from infers.messages import describe_refinements, describe_taken
from infers.note import NoteInferTask, NoteOptions
from infers.organs import OrgansInferTask, Wanted
from serving.data.label_set import checked_label
from serving.page.schemas import (
    AutomaticRequest,
    Box,
    Brush,
    HistoryRequest,
    Label,
    LabelsRequest,
    LassoCurve,
    Mask,
    NoteChange,
    NotePreview,
    NoteRequest,
    NoteText,
    OpenedCase,
    Points,
    Prompt,
    Scribble,
    Session,
    Step,
    Voxel,
)
from serving.page.steps import boxes, describe_steps
from serving.page.visits import STREAMED, ToCase, app

router = APIRouter(prefix="/cases/{case}")


@router.get("/session", response_model=OpenedCase, responses=STREAMED)
async def open_session(case: ToCase) -> Response:
    """Open the client's session on an image: all masks, the history, and what the image is like."""

    def work(call: Call) -> OpenedCase:
        volume = call.volume
        return OpenedCase(
            **dict(describe_session(call, (), "")),
            id=case.image_id,
            shape=volume.shape,
            spacing=volume.spacing,
            affine=volume.affine.tolist(),
            axes=patient_axes(volume.affine),
            axis=call.predictor.slices.axis,
            window=(call.predictor.slices.window.low, call.predictor.slices.window.high),
            modality=volume.modality,
            frame=volume.frame,
            frames=volume.frames,
            names=list(call.resources.labels.names),
        )

    return await case.change(work)


@router.post("/prompts", response_model=Session, responses=STREAMED)
async def add_prompt(case: ToCase, prompt: Prompt) -> Response:
    """Add points, a box, a lasso, scribbles or brush strokes as one step."""

    def work(call: Call) -> Session:
        label = call.known_as(prompt.name)
        with call.session.one_step():
            message = _add(call, label, prompt)
        answer = describe_session(call, prompt.known, message)
        answer.taken_ml = call.taken_ml([label])
        return answer

    return await case.change(work, prompt.plane)


def _add(call: Call, label: str, prompt: Prompt) -> str:
    """Carry a prompt out in the session, count it, and describe the result."""
    session, log = call.session, call.resources.click_log
    counted = (call.request[IMAGE_ID_KEY], call.request[CLIENT_KEY], call.volume.frame)
    match prompt:
        case Points():
            voxels = [(v, True) for v in prompt.foreground] + [(v, False) for v in prompt.background]
            if not voxels:
                raise InputError("Give at least one point in foreground or background.")
            for voxel, positive in voxels:
                refinement = session.add_point(label, voxel, positive=positive, follow=prompt.follow)
            prompts = Prompts(tuple(prompt.foreground), tuple(prompt.background))
            log.clicked(*counted, PromptSet(label, {label: prompts}))
        case Box():
            refinement = session.add_box(label, prompt.box, follow=prompt.follow)
            log.clicked(*counted, PromptSet(label, {label: Prompts(box=prompt.box)}))
        case LassoCurve():
            refinement = session.add_lasso(label, prompt.corners, follow=prompt.follow)
            log.painted(*counted, label)
        case Scribble():
            strokes = Strokes(*(_painted(mask, call.volume.shape) for mask in (prompt.inside, prompt.outside)))
            if not (strokes.foreground.any() or strokes.background.any()):
                raise InputError("Nothing was scribbled: paint at least one stroke inside or outside of the label.")
            refinement = session.add_scribble(label, strokes, follow=prompt.follow)
            log.painted(*counted, label)
        case Brush():
            painted, before = prompt.painted.unpacked(call.volume.shape), session.mask(label)
            session.set_mask(label, before & ~painted if prompt.erase else before | painted)
            log.painted(*counted, label)
            ml = session.state(label).mask.count * call.volume.voxel_ml
            return f"{label}: {ml:.1f} ml{describe_taken(call.taken_ml([label]))}."
    return describe_refinements(call, {label: refinement}, label, counts_unused=True)["message"]


def _painted(mask: Mask | None, shape: Voxel) -> np.ndarray:
    return np.zeros(shape, bool) if mask is None else mask.unpacked(shape)


@router.post("/history", response_model=Session, responses=STREAMED)
async def move_in_history(case: ToCase, wanted: HistoryRequest) -> Response:
    """Undo or repeat steps until the step at a position is shown."""

    def work(call: Call) -> Session:
        session = call.session
        if wanted.position >= len(session.history.steps):
            raise InputError(f"The history has the steps 0 to {len(session.history.steps) - 1}.")
        count = session.history.position - wanted.position
        undone = count > 0
        texts, shown = describe_steps(session.history.steps, call.volume), session.history.position
        moves = range(shown, wanted.position, -1) if undone else range(shown + 1, wanted.position + 1)
        steps = [session.undo() if undone else session.redo() for _ in moves]
        call.record_steps_back(*steps, undone=undone)
        verb = "Undone" if undone else "Redone"
        return describe_session(call, wanted.known, " ".join(f"{verb}: {texts[n]}." for n in moves))

    return await case.change(work)


@router.post("/locks", response_model=Session, responses=STREAMED)
async def lock_labels(case: ToCase, wanted: LabelsRequest) -> Response:
    """Let no later step change the given labels, and unlock all others."""

    def work(call: Call) -> Session:
        call.session.lock(*known_labels(call, wanted.labels), only=True)
        return describe_session(call, wanted.known, "")

    return await case.change(work)


@router.post("/reset", response_model=Session, responses=STREAMED)
async def reset_labels(case: ToCase, wanted: LabelsRequest) -> Response:
    """Empty labels, what was saved of them included."""

    def work(call: Call) -> Session:
        call.session.reset(known_labels(call, wanted.labels))
        return describe_session(call, wanted.known, "")

    return await case.change(work)


@router.post("/automatic", response_model=Session, responses=STREAMED)
async def segment_by_name(case: ToCase, wanted: AutomaticRequest) -> Response:
    """Segment labels by their names, all that the server knows if none is named."""

    def work(call: Call) -> Session:
        task: OrgansInferTask = app()._infers["causal_sam_organs"]
        labels = known_labels(call, wanted.labels) or list(call.resources.labels.names)
        with call.session.one_step():
            params = task.run(call, Wanted(labels, wanted.replace)).params
        certainty = {name: each["predicted_iou"] for name, each in params["labels"].items()}
        return describe_session(call, wanted.known, params["message"], certainty)

    return await case.change(work)


@router.post("/note/preview", response_model=NotePreview, responses=STREAMED)
async def preview_note(case: ToCase, note: NoteText) -> Response:
    """Read a note, and show what it would change; nothing is changed.

    A question to the user is a refusal with its ``question``, and ``choices`` if there are readings to choose from.
    """
    return await case.change(lambda call: preview_answer(call, _options(call, note, preview=True)))


def preview_answer(call: Call, options: NoteOptions) -> NotePreview:
    """Carry a note out on trial, and describe what it would change."""
    before = call.session.history
    params = note_task().carry_out(call, options)
    changes = _changes(call, before.head.labels)
    call.session.history = before
    return NotePreview(
        plan=params["plan"],
        sentences=[
            f"{effect['sentence']}: {effect['objection'] or effect['amount'] + '.'}" for effect in params["effects"]
        ],
        message=params["remarks"],
        doubts=params["doubts"],
        notice=params["notice"],
        changes=changes,
        effects=params["effects"],
    )


def _changes(call: Call, before: Mapping[str, LabelState]) -> list[NoteChange]:
    """Changes of the labels of a session since an earlier state."""
    changes, voxel_ml = [], call.volume.voxel_ml
    for name, state in call.session.states.items():
        earlier = state_of(before, name, call.volume.shape)
        if is_unnamed(name) or state.mask.same_as(earlier.mask):
            continue
        now, then = state.mask.unpack(), earlier.mask.unpack()
        gained, lost = PackedMask.pack(now & ~then), PackedMask.pack(then & ~now)
        changes.append(
            NoteChange(
                label=name,
                gained_ml=round(gained.count * voxel_ml, 3),
                lost_ml=round(lost.count * voxel_ml, 3),
                gained=Mask.of(gained),
                lost=Mask.of(lost),
            )
        )
    return changes


@router.post("/note", response_model=Session, responses=STREAMED)
async def carry_out_note(case: ToCase, note: NoteRequest) -> Response:
    """Carry a note out by the plan of its preview, or read it again without one. A question is a refusal."""

    def work(call: Call) -> Session:
        params = note_task().carry_out(call, _options(call, note))
        return describe_session(call, note.known, params["message"])

    return await case.change(work)


def note_task() -> NoteInferTask:
    """The task that carries notes out."""
    return app()._infers["causal_sam_note"]


def _options(call: Call, note: NoteText, *, preview: bool = False) -> NoteOptions:
    current = None if note.label is None else call.known_as(note.label)
    return NoteOptions(note.note.strip(), preview, repeat=True, prompts=PromptSet(current, {}), plan=note.plan)


def known_labels(call: Call, names: Collection[str]) -> list[str]:
    """Return names as the server writes them, each once.

    Raises:
        InputError: no label can be called so.
    """
    return list(dict.fromkeys(call.known_as(checked_label(name)) for name in names))


def describe_session(
    call: Call, known: Collection[str], message: str, certainty: Mapping[str, float | None] = {}
) -> Session:
    """Describe a session; masks that the client holds are left out."""
    session, states, steps = call.session, call.session.states, call.session.history.steps
    order = {name: number for number, name in enumerate(call.resources.labels.names)}
    names = sorted((name for name in states if not is_unnamed(name)), key=lambda name: order.get(name, len(order)))
    return Session(
        labels=[
            Label(
                name=name,
                volume_ml=round(states[name].mask.count * call.volume.voxel_ml, 3),
                is_locked=name in session.locked,
                source=states[name].source.value,
                certainty=certainty.get(name, states[name].certainty) if _is_first_answer(session, name) else None,
                foreground=sorted(states[name].points(inside=True)),
                background=sorted(states[name].points(inside=False)),
                boxes=sorted(boxes(states[name])),
                key=states[name].key,
                mask=None if states[name].key in known else Mask.of(states[name].mask),
            )
            for name in names
        ],
        steps=[
            Step(kind=step.kind.name.lower(), text=text)
            for step, text in zip(steps, describe_steps(steps, call.volume), strict=True)
        ],
        position=session.history.position,
        locked=sorted(session.locked),
        message=message,
    )


def _is_first_answer(session: InteractiveSession, label: str) -> bool:
    """Return True if the mask of a label is as the model drew it first, which its estimate is about."""
    state = session.states[label]
    if state.source is not Source.USER:
        return state.source is Source.AUTOMATIC
    steps = session.history.steps[: session.history.position + 1]
    return all(step.labels.get(label) in (None, state) or step.labels[label].is_empty for step in steps)
