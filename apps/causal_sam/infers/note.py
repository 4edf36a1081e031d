"""The note task: what is wrong with the masks, in the clinician's words, in; the corrected label map out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.runnables import Runnable
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from numpy.typing import NDArray

from causal_sam import __version__
from causal_sam.correction.context import VolumeContext, sides_in
from causal_sam.correction.journal import Journal
from causal_sam.errors import InputError
from causal_sam.imaging import PLANES, Volume
from causal_sam.notes import Interpretation, NoteRequest
from causal_sam.prompting import Predictor
from infers.promptable import CLIENT_KEY, CONNECTION_KEY, IMAGE_ID_KEY, CancellationMonitor, Resources, written
from serving.data.images import volume_key
from serving.models import LoadedBundle, with_problem
from serving.requests.clicks import NO_PROMPTS, NOTE_KEY, Clicks, Options, flag
from serving.requests.errors import NoteRefusedError
from serving.sessions.mask_transaction import MaskTransaction, draw_label_map
from serving.sessions.refinement import Refinement, Refiner
from serving.sessions.working_masks import AppliedNote, LabelState, Source, is_unnamed

logger = logging.getLogger(__name__)

# OHIF's clicks without a name: left over from another task, and of a label that it does not say.
LEFT_OVER = ("foreground", "background", "roi")
NO_MASK = (
    "There is no mask of this image yet, so there is nothing to correct: click a structure, ask for labels by name, or "
    "save a label first."
)


@dataclass(frozen=True)
class NoteOptions:
    """What a request asks for.

    Attributes:
        note: without spaces around it; may be empty if a note is to be undone.
        undo: take back the last note that was carried out.
        preview: say what the note would do, and do nothing.
        repeat: carry the note out even if it was the last one.

    Raises:
        InputError: it is not text.
    """

    note: str
    undo: bool
    preview: bool
    repeat: bool

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> NoteOptions:
        """Read the options of the task."""
        note = request.get(NOTE_KEY)
        if note is not None and not isinstance(note, str):
            raise InputError(
                f"{NOTE_KEY} must be text, such as 'spleen leaks into the stomach', not {str(note)[:40]!r}."
            )
        return cls((note or "").strip(), *(flag(request, key) for key in ("undo", "preview", "repeat")))


class NoteInferTask(InferTask):
    """Corrects the masks of an image as a note says, at once.

    The masks are the client's working masks; those of the newest saved label if it has none; else those that the model
    finds by the names that it was taught. Clicks that come with the note, under the names of labels, count first. The
    answer holds all labels of the working mask: OHIF shows it in place of all that it had.

    Clients send the options as the user left them, an old note among them. So a note that was carried out last is not
    carried out again unless *repeat* says so. With *undo* an old note, or none, is not read, and with a new one nothing
    is done: the client has to say which of the two it wants.

    Args:
        resources: shared with the other tasks.
        interpreter: of notes.
        journal: of what becomes of them.
        describe: an image -> its style in words; for interpreters that ask.
    """

    def __init__(
        self,
        resources: Resources,
        interpreter: Runnable[NoteRequest, Interpretation],
        journal: Journal,
        describe: Callable[[Volume], str],
    ) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=dict(resources.labels.indices),
            dimension=3,
            description="Correct the masks by a note that says what is wrong, such as: spleen leaks into the stomach",
            config={
                NOTE_KEY: "",
                "undo": False,
                "preview": False,
                "repeat": False,
                "plane": [resources.plane, *(plane for plane in PLANES if plane != resources.plane)],
                "frame": 0,
            },
        )
        self._resources, self._interpreter, self._journal, self._describe = resources, interpreter, journal, describe
        self._refiner = Refiner(resources.predictors.inference_slots)

    def is_valid(self) -> bool:
        """Whether clients may see the task: always."""
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer one request.

        Args:
            request: the client's parameters, with the image's path and what the app added.

        Returns:
            The path of a temporary file with the label map, and the parameters of the response.

        Raises:
            NoteRefusedError: the note gives a question, or nothing of it could be done. The masks are as they were.
            InputError: the image or the request cannot be used; the same holds.
            JournalError: what is done cannot be recorded; the same holds.
            ClientGoneError: the client went away meanwhile; the same holds.
        """
        begin = time.monotonic()
        resources, asked = self._resources, NoteOptions.from_request(request)
        options = Options.from_request(request, resources.plane, resources.extent)
        key = volume_key(Path(request["image"]), options.frame)
        volume = resources.volumes.get(key)
        predictor, taught = resources.predictors.for_volume(volume, options.plane), resources.predictors.taught()
        clicks = self._named_clicks(request, volume)
        read = time.monotonic()
        with resources.working.open((key, request.get(CLIENT_KEY))) as working:
            saved = resources.saved.newest(request.get(IMAGE_ID_KEY), options.frame)
            work = MaskTransaction(working, clicks, options, volume, saved)
            work.take_over_saved(resources.saved)
            before = dict(work.states)
            turn = NoteRun(work, predictor, asked, request, taught)
            if asked.undo:
                params = self._undo(turn)
            elif work.notes and work.notes[-1].note == asked.note and not asked.repeat:
                last = work.notes[-1].message
                params = {"message": f"This note was carried out already ({last}): write another, or tick repeat."}
            else:
                params = self._carry_out(turn, options)
            if not asked.preview:
                work.commit()
        params = with_problem({**params, "version": turn.version}, resources.predictors.problem)
        shown = before if asked.preview else work.states
        mask, names = draw_label_map(shown, resources.labels.indices, volume.shape)
        times = (begin, read, time.monotonic())
        return written(mask, volume, names, params, options, times)

    def _named_clicks(self, request: Mapping[str, Any], volume: Volume) -> Clicks:
        """The clicks of labels with names. OHIF's others are left over from another task, and it does not say whose."""
        labels = self._resources.labels
        label = request.get("label")
        if not isinstance(label, str) or not label:
            request = {key: value for key, value in request.items() if key not in LEFT_OVER}
        else:
            request = {**request, "label": labels.known_as(label)}
        clicks = Clicks.from_request(request, labels.names, volume.shape)
        prompts = {n: p for n, p in clicks.prompts.items() if n is not None and (p.foreground or p.background or p.box)}
        return Clicks(clicks.current, prompts, True)

    def _undo(self, turn: NoteRun) -> dict[str, Any]:
        work = turn.work
        if not work.notes:
            raise NoteRefusedError(
                "There is no note to undo: none was carried out on this image since it was last saved. To carry out a "
                "note, untick undo."
            )
        if turn.asked.note not in ("", *work.undone, *(each.note for each in work.notes)):
            raise NoteRefusedError(
                "The note is new, and undo is ticked: untick undo to carry out the note, or empty the note to undo the "
                "last one. Nothing was changed."
            )
        last = work.notes[-1]
        since = [name for name, state in last.after.items() if not work.state(name).mask.same_as(state.mask)]
        message = f"Undone: {last.note!r}"
        if since:
            message += f"; what was changed since then in {', '.join(since)} is undone with it"
        if turn.asked.preview:
            return {"message": f"Preview, nothing is changed: {message}."}
        self._record(turn, {"act": "undo", "note": last.note})
        work.notes, work.undone = work.notes[:-1], work.undone | {last.note}
        for name in last.before:
            work.states.pop(name, None)
        for name, state in last.before.items():
            work.settle(name, Refinement.unchanged(state), NO_PROMPTS)
        return {"undone": last.note, "message": f"{message}."}

    def _carry_out(self, turn: NoteRun, options: Options) -> dict[str, Any]:
        work, resources = turn.work, self._resources
        work.refine(self._refiner, turn.predictor, follow=options.follow, watch=lambda name: turn.watch, only_new=True)
        self._find(turn)
        masks = work.masks()
        unnamed = [name for name, state in work.states.items() if is_unnamed(name) and not state.is_empty]
        if not masks and len(unnamed) != 1:
            problem = resources.predictors.problem
            raise NoteRefusedError(NO_MASK if problem is None else f"{NO_MASK} {problem}")
        reading = self._read(turn, masks, tuple(masks) or resources.labels.names)
        plan = reading.plan
        details = {"plan": plan.model_dump(mode="json"), "interpreter": reading.interpreter, "notice": reading.notice}
        if plan.question is not None:
            self._refuse(turn, plan.question, details | {"question": plan.question})
        if not masks:
            # OHIF does not say of which label its clicks are; a note about one label says whose mask that is.
            about = {act.label for act in plan.interventions}
            if len(about) > 1:
                self._refuse(turn, f"There is one mask, and the note is about {', '.join(sorted(about))}.", details)
            name = about.pop()
            work.states[name] = work.states.pop(unnamed[0])
            masks = work.masks()
        acts_on = {act.label for act in plan.interventions}
        accepted = {name for name in masks if work.state(name).source is Source.ACCEPTED}
        corrector = resources.predictors.corrector(turn.taught)
        with resources.predictors.inference_slots.hold(turn.watch) as yield_slot:
            outcome = corrector.carry_out(plan, turn.predictor.slices, masks, yield_slot, locked=accepted - acts_on)
        corrections = outcome.corrections
        done = [each for each in corrections if each.objection is None]
        objections = [each.objection for each in corrections if each.objection is not None]
        details["effects"] = [each.to_dict() | {"taken_ml": _rounded(each.effect.taken_ml)} for each in corrections]
        details["preview"] = turn.asked.preview
        said = [f"{each.effect}." for each in done] + objections
        if reading.notice:
            said.append(reading.notice)
        if turn.asked.preview:
            return details | {"message": f"Preview, nothing is changed: {' '.join(said)}"}
        if not done:
            self._refuse(turn, " ".join(objections), details)
        message = " ".join(said)
        packed = {name: work.states[name].mask.as_json() for name in outcome.masks}
        self._record(turn, {"act": "note", "note": turn.asked.note, **details, "before": packed})
        before = {name: work.states[name] for name in outcome.masks}
        after = {
            name: state.edited(outcome.masks[name], Source.USER if name in acts_on else state.source)
            for name, state in before.items()
        }
        work.states.update(after)
        if after:
            work.notes = [*work.notes, AppliedNote(turn.asked.note, message, before, after)]
        return details | {"message": message}

    def _find(self, turn: NoteRun) -> None:
        """Without any mask, find the labels that were taught."""
        work, resources = turn.work, self._resources
        if any(not state.is_empty for state in work.states.values()):
            return
        if turn.taught is None:
            return
        taught = turn.taught.labels
        names = [name for name in resources.labels.names if taught.find(name) is not None]
        if not names:
            return
        with resources.predictors.inference_slots.hold(turn.watch) as yield_slot:
            found = turn.predictor.predict_named(names, taught, yield_slot).label_map
        for value, name in enumerate(names, start=1):
            work.states[name] = LabelState.found(found == value, turn.predictor.slices.axis)

    def _read(self, turn: NoteRun, masks: dict[str, NDArray[np.bool_]], labels: Sequence[str]) -> Interpretation:
        current = turn.work.current if turn.work.current in labels else None
        if current is None and len(labels) == 1:
            current = labels[0]
        sides = sides_in(turn.work.volume, masks)
        corrector = self._resources.predictors.corrector(turn.taught)
        context = VolumeContext(corrector, turn.predictor.slices, masks, self._describe)
        return self._interpreter.invoke(NoteRequest(turn.asked.note, tuple(labels), current, sides, context))

    def _refuse(self, turn: NoteRun, sentence: str, details: dict[str, Any]) -> None:
        if not turn.asked.preview:
            self._record(turn, {"act": "refused", "note": turn.asked.note, "answer": sentence, **details})
        raise NoteRefusedError(sentence, details)

    def _record(self, turn: NoteRun, entry: Mapping[str, Any]) -> None:
        model, volume = turn.predictor.model, turn.work.volume
        self._journal.append(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "user": turn.request.get(CLIENT_KEY),
                "image": turn.request.get(IMAGE_ID_KEY) or Path(turn.request["image"]).name,
                "frame": volume.frame,
                "versions": {"causal_sam": __version__, "model": model.name, "adapters": turn.version},
                **entry,
            }
        )


class NoteRun:
    """One request on its way."""

    def __init__(
        self,
        work: MaskTransaction,
        predictor: Predictor,
        asked: NoteOptions,
        request: Mapping[str, Any],
        taught: LoadedBundle | None,
    ) -> None:
        self.work, self.predictor, self.asked, self.request, self.taught = work, predictor, asked, request, taught
        self.watch = CancellationMonitor("the note", request.get(CONNECTION_KEY))

    @property
    def version(self) -> int | None:
        """The version of the adapters that was in use."""
        return None if self.taught is None else self.taught.version


def _rounded(volumes: Mapping[str, float]) -> dict[str, float]:
    return {label: round(ml, 3) for label, ml in volumes.items()}
