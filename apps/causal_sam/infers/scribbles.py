"""The scribbles task: strokes in, the mask of their label out, decided by the same model as clicks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferType

from causal_sam.prompting.refinement import Refinement
from causal_sam.prompting.slices import VolumeSlices
from infers.base import CLIENT_KEY, IMAGE_ID_KEY, Answer, Call, Resources, SessionTask
from infers.messages import describe_refinements
from serving.requests.clicks import EXTENTS, Options
from serving.requests.scribbles import Scribbles


class ScribblesInferTask(SessionTask):
    """Segments the structure in which strokes were painted, as Slicer's scribbles panel sends them.

    The label map that comes with the strokes also has the label as the user sees it, brush edits included: the strokes
    correct this mask. Every painted voxel is in the answer as it was painted.

    Args:
        resources: shared with the other tasks.
    """

    def __init__(self, resources: Resources) -> None:
        extents = [resources.extent, *(extent for extent in EXTENTS if extent != resources.extent)]
        super().__init__(
            InferType.SCRIBBLES,
            "Segment a structure in CT or MR by strokes inside and outside of it",
            resources,
            {"extent": extents},
        )

    def parse(self, request: Mapping[str, Any], options: Options, slices: VolumeSlices) -> Scribbles:
        """Read the strokes."""
        return Scribbles.from_request(request, self._resources.labels.indices, slices.volume)

    def run(self, call: Call, requested: Scribbles) -> Answer:
        """Segment from the strokes."""
        label, follow = call.known_as(requested.label), call.options.follow
        refinement = call.session.add_scribble(label, requested.strokes, shown=requested.shown, follow=follow)
        return self._answer(call, label, refinement)

    def show(self, call: Call, requested: Scribbles) -> Answer:
        """Answer with the label as it is."""
        label = call.known_as(requested.label)
        return self._answer(call, label, Refinement.unchanged(call.session.state(label)))

    def count(self, request: Mapping[str, Any], frame: int, requested: Scribbles) -> None:
        """Count an update."""
        self._resources.click_log.painted(request.get(IMAGE_ID_KEY), request.get(CLIENT_KEY), frame, requested.label)

    def _answer(self, call: Call, label: str, refinement: Refinement) -> Answer:
        params = describe_refinements(call, {label: refinement}, label, counts_unused=True)
        return Answer(refinement.mask, {label: 1}, params)
