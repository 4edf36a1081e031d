"""The promptable task: clicks and boxes in, the mask of a label or a label map of all of them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferType

from causal_sam.errors import InputError
from causal_sam.prompting.prompt_set import PromptSet, find_unnamed
from causal_sam.prompting.prompts import Lasso
from causal_sam.prompting.refinement import Refinement
from causal_sam.prompting.slices import VolumeSlices
from infers.base import CLIENT_KEY, IMAGE_ID_KEY, Answer, Call, Resources, SessionTask
from infers.messages import describe_refinements
from serving.data.label_set import BACKGROUND, MAX_LABELS
from serving.models import with_problem
from serving.requests.clicks import EXTENTS, Options, read_lasso, read_prompts, with_lasso


class PromptableInferTask(SessionTask):
    """Segments clicked or boxed structures, and keeps the masks for the client's next request.

    The prompted slices are segmented first. With the option *extent* on "volume" the structure is then followed from
    them through the volume; with "slice", or when the client names one slice, the other slices stay as they are.

    Without any click, a label that the model was trained on is segmented by its name.

    Registered twice: clients choose the form of their request by the task's type. As *deepgrow* they send the clicks
    of one label and take its mask; as *deepedit* they send the clicks of all labels and take a label map. Either form
    is understood by both.

    With the option *local*, on by default, a click on a mask that was drawn, saved or segmented by name changes only
    its neighbourhood. The radius grows with the click's distance from the border. On masks segmented by name,
    neighbouring slices change too. With *local* off, the model may decide all slices that it reaches again, which is
    quicker where much is wrong.

    The option *reset* discards the mask of the current label, a saved one too, and segments the label from the clicks
    of this request alone. If the client names no current label, this holds for all labels with clicks. Other labels
    stay. Clients send the option as the user left it, so while it is ticked in OHIF every request starts again: OHIF
    sends all clicks that it shows, and each mask depends on these clicks alone, not on earlier requests.

    Args:
        type: ``InferType.DEEPGROW`` or ``InferType.DEEPEDIT``.
        resources: shared with the other tasks.
    """

    def __init__(self, type: InferType, resources: Resources) -> None:
        labels = dict(resources.labels.indices)
        if type == InferType.DEEPEDIT:
            # OHIF offers background clicks in any case, and takes a name without a value for the first free one,
            # which then hides a structure. No mask has this value.
            labels[BACKGROUND] = MAX_LABELS + 1
        extents = [resources.extent, *(extent for extent in EXTENTS if extent != resources.extent)]
        super().__init__(
            type,
            "Segment a structure in CT or MR by clicks and boxes, on a slice or through the volume",
            resources,
            {"reset": False, "extent": extents, "local": True},
            labels,
        )

    def parse(
        self, request: Mapping[str, Any], options: Options, slices: VolumeSlices
    ) -> tuple[PromptSet, Lasso | None]:
        """Read the clicks, and the closed curve whose box is among them."""
        shape = slices.volume.shape
        prompts, lasso = read_prompts(request, self._resources.labels.names, shape), read_lasso(request, shape)
        if lasso is not None:
            prompts = with_lasso(prompts, lasso, slices.axis)
        if options.only_slice is not None:
            prompts = prompts.on_slice(slices.axis, options.only_slice)
        return prompts, lasso

    def run(self, call: Call, requested: tuple[PromptSet, Lasso | None]) -> Answer:
        """Segment from the prompts, or by the label's name if there are none."""
        options, session, (prompts, lasso) = call.options, call.session, requested
        by_name = not prompts and not (options.reset and prompts.about)
        problem = self._check_name(call, prompts.current) if by_name else None
        prompts = _named(call, prompts)
        if options.reset:
            session.reset(prompts.about)
        if by_name:
            session.segment_by_name([prompts.current], None if call.bundle is None else call.bundle.labels)
        refinements = session.set_prompts(prompts, lasso=lasso, follow=options.follow, local=options.local)
        answer = self._answer(call, prompts, refinements)
        return replace(answer, params=with_problem(answer.params, problem))

    def show(self, call: Call, requested: tuple[PromptSet, Lasso | None]) -> Answer:
        """Answer with the labels as they are."""
        prompts = _named(call, requested[0])
        refinements = {name: Refinement.unchanged(call.session.state(name)) for name in prompts.prompts}
        return self._answer(call, prompts, refinements)

    def count(self, request: Mapping[str, Any], frame: int, requested: tuple[PromptSet, Lasso | None]) -> None:
        """Count the clicks."""
        self._resources.click_log.clicked(request.get(IMAGE_ID_KEY), request.get(CLIENT_KEY), frame, requested[0])

    def _check_name(self, call: Call, label: str | None) -> str | None:
        """Refuse a request without prompts whose label cannot be segmented by its name.

        Returns:
            Why the current version of the adapters is not the one in use, if it is not.
        """
        bundle = call.bundle if label is not None else None
        problem, only_slice = self._resources.predictors.problem, call.options.only_slice
        if label is None or not call.predictor.knows_name(label, None if bundle is None else bundle.labels):
            raise InputError(
                "Nothing was clicked: give at least one foreground point, a roi or a lasso"
                + (" on any slice" if only_slice is None else f" on slice {only_slice}")
                + ", or a label that this server learned. What is segmented stays; the option reset empties it."
                + ("" if problem is None else f" {problem}")
            )
        if call.session.state(label).is_kept:
            raise InputError(
                f"Nothing was clicked, and {label} has a mask already, which stays as it is: give a "
                "point to correct it, or tick reset to empty it."
            )
        return problem

    def _answer(self, call: Call, prompts: PromptSet, refinements: Mapping[str, Refinement]) -> Answer:
        params = describe_refinements(call, refinements, prompts.current, counts_unused=not prompts.shares_background)
        if prompts.shares_background:
            return Answer(*call.session.label_map(), params)
        return Answer(refinements[prompts.current].mask, {params["label"] or "segment": 1}, params)


def _named(call: Call, prompts: PromptSet) -> PromptSet:
    """Find the mask that prompts without a label name belong to."""
    if None not in prompts.prompts:
        return prompts
    own = prompts.prompts[None]
    name = find_unnamed(call.session.states, own)
    return replace(prompts, current=name, prompts={name: own})
