"""The note task: what is wrong with the masks, in the clinician's words, in; the corrected label map out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from langchain_core.runnables import Runnable
from monailabel.interfaces.tasks.infer_v2 import InferType

from causal_sam.correction.context import ImageContext, sides_in, slices_in
from causal_sam.correction.corrector import Corrector, PlanResult
from causal_sam.correction.tissues import tissue_hu
from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.notes import Interpretation, NoteRequest, Plan
from causal_sam.prompting.label_state import is_unnamed, protected_labels
from causal_sam.prompting.prompt_set import PromptSet
from causal_sam.prompting.slices import VolumeSlices
from infers.base import Answer, Call, Resources, SessionTask
from serving.models import with_problem
from serving.requests.clicks import NOTE_KEY, Options, flag, read_prompts
from serving.requests.errors import NoteRefusedError

# Keys of OHIF's clicks without a label name: they are left over from another task, and their label is unknown.
LEFT_OVER = ("foreground", "background", "roi")
# In place of the name of an interpreter: a person confirmed the plan of a preview, or chose among readings.
CONFIRMED = "confirmed"
NO_MASK = (
    "There is no mask of this image yet, so there is nothing to correct: click a structure, ask for labels by name, or "
    "save a label first."
)


@dataclass(frozen=True)
class NoteOptions:
    """Note and options of a request.

    Attributes:
        note: without spaces around it; may be empty if a step is to be undone.
        preview: report what the note would do, and do nothing.
        repeat: carry the note out even if it was the last one.
        prompts: prompts of named labels, which are applied before the note.
        plan: plan of a preview that the user confirmed, or reading that they chose; None to have the note read.
        confirm: make changes also if they are larger than is plausible.
        rule: identity of the rule of the protocol that the note is; None if a person wrote the note.
    """

    note: str
    preview: bool
    repeat: bool
    prompts: PromptSet
    plan: Plan | None = None
    confirm: bool = False
    rule: str | None = None


class NoteInferTask(SessionTask):
    """Corrects the masks of an image as a note says, at once.

    The masks are those of the client's session; those of the newest saved label if it has none; else those that the
    model finds by the names that it learned. Clicks that come with the note, under the names of labels, count first.
    The answer holds all labels of the session: OHIF shows it in place of all that it had.

    Clients send the options as the user left them, an old note among them. So a note that was carried out last is not
    carried out again unless *repeat* says so. With *undo* an old note, or none, is not read, and with a new one nothing
    is done: the client has to say which of the two it wants.

    Args:
        resources: shared with the other tasks.
        interpreter: interpreter for notes.
        describe: an image -> its style in words; for interpreters that ask.
    """

    is_one_step = False  # undo takes back the note alone, and then the clicks that came with it

    def __init__(
        self,
        resources: Resources,
        interpreter: Runnable[NoteRequest, Interpretation],
        describe: Callable[[Volume], str],
    ) -> None:
        super().__init__(
            InferType.SEGMENTATION,
            "Correct the masks by a note that says what is wrong, such as: spleen leaks into the stomach",
            resources,
            {NOTE_KEY: "", "preview": False, "repeat": False, "confirm": False},
        )
        self._interpreter, self._describe = interpreter, describe

    def parse(self, request: Mapping[str, Any], options: Options, slices: VolumeSlices) -> NoteOptions:
        """Read the note, and the clicks of labels with names: OHIF's others are left over from another task."""
        note = request.get(NOTE_KEY)
        if note is not None and not isinstance(note, str):
            raise InputError(
                f"{NOTE_KEY} must be text, such as 'spleen leaks into the stomach', not {str(note)[:40]!r}."
            )
        preview, repeat, confirm = (flag(request, name) for name in ("preview", "repeat", "confirm"))
        labels, label = self._resources.labels, request.get("label")
        if not (isinstance(label, str) and label):
            request = {key: value for key, value in request.items() if key not in LEFT_OVER}
        clicks = read_prompts(request, labels.names, slices.volume.shape)
        named = {name: prompts for name, prompts in clicks.prompts.items() if name is not None and prompts}
        prompts = PromptSet(clicks.current, named, shares_background=True)
        return NoteOptions((note or "").strip(), preview, repeat, prompts, confirm=confirm)

    def step_back(self, call: Call, requested: NoteOptions) -> dict[str, Any]:
        """Undo or redo a step, of whatever kind, unless the note is a new one.

        Raises:
            NoteRefusedError: it is.
        """
        history = call.session.history
        if requested.note not in ("", *history.notes):
            raise NoteRefusedError(
                "The note is new, and undo or redo is ticked: untick undo to carry out the note, or empty the note to "
                "undo the last step. Nothing was changed."
            )
        if not requested.preview:
            return super().step_back(call, requested)
        step = call.step_back()
        call.session.history = history
        return {"message": f"Preview, nothing is changed: {call.verb}: {step}."}

    def run(self, call: Call, requested: NoteOptions) -> Answer:
        """Carry the note out.

        Raises:
            NoteRefusedError: the note gives a question, or none of its acts could be done.
            JournalError: what is done cannot be recorded.
        """
        session = call.session
        before = session.history
        if before.last_note == requested.note and not requested.repeat:
            params: dict[str, Any] = {"message": "This note was carried out already: write another, or tick repeat."}
        else:
            params = self.carry_out(call, requested)
        if requested.preview:
            session.history = before
        version = None if call.bundle is None else call.bundle.version
        return Answer(
            *session.label_map(), with_problem({**params, "version": version}, self._resources.predictors.problem)
        )

    def carry_out(self, call: Call, requested: NoteOptions) -> dict[str, Any]:
        """Carry the note out in the session; the journal learns of it unless it is a preview.

        Returns:
            Parameters of the response: ``plan``, ``interpreter``, ``notice``, ``effects``, ``totals``, ``preview``,
            ``message``.

        Raises:
            NoteRefusedError: the note gives a question, or none of its acts could be done.
            JournalError: what is done cannot be recorded.
        """
        session, options, problem = call.session, call.options, self._resources.predictors.problem
        session.set_prompts(requested.prompts, follow=options.follow, local=options.local, only_new=True)
        self._find(call)
        unnamed = [name for name, state in session.states.items() if is_unnamed(name) and not state.is_empty]
        names = tuple(session.masks())
        if not names and len(unnamed) != 1:
            raise NoteRefusedError(NO_MASK if problem is None else f"{NO_MASK} {problem}")
        reading = self._read(call, requested, names or self._resources.labels.names)
        plan = reading.plan
        details = {"plan": plan.model_dump(mode="json"), "interpreter": reading.interpreter, "notice": reading.notice}
        if requested.rule is not None:
            details["rule"] = requested.rule
        if plan.question is not None:
            choices = [{"sentence": each.sentence, "plan": each.model_dump(mode="json")} for each in reading.choices]
            self._refuse(call, requested, plan.question, details | {"question": plan.question, "choices": choices})
        if not names:
            # OHIF does not say of which label its clicks are; a note about one label says whose mask that is.
            about = {act.label for act in plan.interventions}
            if len(about) > 1:
                about = ", ".join(sorted(about))
                self._refuse(call, requested, f"There is one mask, and the note is about {about}.", details)
            session.history = session.history.renamed(unnamed[0], about.pop())
        states = session.states
        outcome = session.apply_note(
            requested.note,
            plan,
            self._corrector(call),
            confirm=requested.confirm or requested.preview or requested.plan is not None,
            spare_others=requested.rule is not None,
        )
        done = [each for each in outcome.corrections if each.objection is None]
        objections = [each.objection for each in outcome.corrections if each.objection is not None]
        details["effects"] = [
            each.to_dict() | {"taken_ml": {name: round(ml, 3) for name, ml in each.effect.taken_ml.items()}}
            for each in outcome.corrections
        ]
        details["totals"] = {
            name: {"gained_ml": round(effect.gained_ml, 3), "lost_ml": round(effect.lost_ml, 3)}
            for name, effect in outcome.totals.items()
        }
        details["preview"] = requested.preview
        understood = f"Understood: {plan.sentence}."
        remarks = _unseen_neighbours(outcome, names, call.volume.modality == "CT")
        if reading.notice is not None:
            remarks.append(reading.notice)
        said = [
            *(f"{each.effect}." for each in done),
            *(f"In all, {effect}." for effect in outcome.totals.values()),
            *(*objections, *remarks),
        ]
        if requested.preview:
            details |= {"remarks": " ".join(remarks), "doubts": outcome.doubts}
            said += outcome.doubts
            return details | {"message": " ".join(["Preview, nothing is changed:", understood, *said])}
        message = " ".join([understood, *said])
        if outcome.question is not None:
            self._refuse(call, requested, outcome.question, details | {"question": outcome.question})
        if not done:
            self._refuse(call, requested, " ".join(objections), details)
        packed = {name: states[name].mask.as_json() for name in outcome.masks}
        call.record({"act": "note", "note": requested.note, **details, "before": packed})
        return details | {"message": message}

    def _find(self, call: Call) -> None:
        """Without any mask, find the labels that were learned, or that the context of the volume knows."""
        if any(not state.is_empty for state in call.session.states.values()):
            return
        prompter = None if call.bundle is None else call.bundle.labels
        names = [name for name in self._resources.labels.names if call.predictor.knows_name(name, prompter)]
        if names:
            call.session.segment_by_name(names, prompter)

    def _read(self, call: Call, requested: NoteOptions, labels: tuple[str, ...]) -> Interpretation:
        if requested.plan is not None:
            self._check_plan(requested.plan, NoteRequest(requested.note, labels))
            return Interpretation(requested.plan, CONFIRMED)
        current = requested.prompts.current if requested.prompts.current in labels else None
        if current is None and len(labels) == 1:
            current = labels[0]
        session, slot = call.session, self._resources.predictors.inference_slots.hold
        masks, prepared = session.masks(), call.predictor.context
        context = ImageContext(
            *(self._corrector(call), call.predictor.slices, masks, self._describe),
            lambda acts_on: protected_labels(session.states, session.locked, acts_on),
            lambda names: {} if prepared is None else prepared.segment_known(names, slot),
            slot,
            {name: sorted(state.points(inside=True)) for name, state in session.states.items()},
        )
        return self._interpreter.invoke(
            NoteRequest(
                *(requested.note, tuple(labels), current),
                sides_in(call.volume, masks),
                slices_in(call.volume, masks),
                context,
            )
        )

    def _check_plan(self, plan: Plan, request: NoteRequest) -> None:
        if plan.question is not None:
            raise InputError("A plan that is to be carried out has interventions, not a question.")
        unknown = {act.label for act in plan.interventions}.difference(request.labels, self._resources.labels.names)
        if unknown:
            raise InputError(f"There is no label {min(unknown)!r}; present are {', '.join(request.labels)}.")

    def _corrector(self, call: Call) -> Corrector:
        return self._resources.predictors.corrector(call.bundle)

    def _refuse(self, call: Call, requested: NoteOptions, sentence: str, details: dict[str, Any]) -> NoReturn:
        if not requested.preview:
            call.record({"act": "refused", "note": requested.note, "answer": sentence, **details})
        raise NoteRefusedError(sentence, details)


def _unseen_neighbours(outcome: PlanResult, masks: Collection[str], is_ct: bool) -> list[str]:
    """Return a sentence for each neighbour of an act whose place neither a mask nor Hounsfield units show."""
    done = [each.intervention for each in outcome.corrections if each.objection is None]
    consequences = {
        "exclude": "what bulges out or looks unlike the rest is removed",
        "expand": "its place is not known, and the mask may grow elsewhere",
    }
    unseen = dict.fromkeys(
        (act.near, consequences[act.action])
        for act in done
        if act.action in consequences and act.near is not None and act.near not in masks
        if not (act.action == "exclude" and is_ct and tissue_hu(act.near))
    )
    return [
        f"There is no mask of {near}, so {consequence}. Check it, or segment {near} first."
        for near, consequence in unseen
    ]
