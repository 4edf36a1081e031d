"""The scribbles task: strokes in, the mask of their label out, decided by the same model as clicks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from causal_sam.imaging import PLANES, PackedMask
from causal_sam.prompting.prompts import Prompts
from infers.promptable import CLIENT_KEY, CONNECTION_KEY, IMAGE_ID_KEY, CancellationMonitor, Resources, answer
from serving.data.images import volume_key
from serving.requests.clicks import EXTENTS, Clicks, Options, on_one_slice, slices_of
from serving.requests.scribbles import Scribbles
from serving.sessions.mask_transaction import MaskTransaction
from serving.sessions.refinement import Refiner
from serving.sessions.working_masks import LabelState


class ScribblesInferTask(InferTask):
    """Segments the structure in which strokes were painted, as Slicer's scribbles panel sends them.

    The label map that comes with the strokes also has the label as the user sees it, brush edits included: it is what
    the strokes correct. What was painted is in the answer as it was painted.

    Args:
        resources: shared with the other tasks.
    """

    def __init__(self, resources: Resources) -> None:
        super().__init__(
            type=InferType.SCRIBBLES,
            labels=dict(resources.labels.indices),
            dimension=3,
            description="Segment a structure in CT or MR by strokes inside and outside of it",
            config={
                "extent": [resources.extent, *(extent for extent in EXTENTS if extent != resources.extent)],
                "plane": [resources.plane, *(plane for plane in PLANES if plane != resources.plane)],
                "frame": 0,
            },
        )
        self._resources = resources
        self._refiner = Refiner(resources.predictors.inference_slots)

    def is_valid(self) -> bool:
        """Whether clients may see the task: always, the model is loaded before the server answers."""
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer one request.

        Args:
            request: the client's parameters, with the paths of the image and of the label map.

        Returns:
            The path of a temporary file with the label's mask, and the parameters of the response.

        Raises:
            InputError: the image or the strokes cannot be used. The working mask is as it was.
            ClientGoneError: the client went away meanwhile; the same holds.
        """
        begin = time.monotonic()
        resources = self._resources
        options = Options.from_request(request, resources.plane, resources.extent)
        key = volume_key(Path(request["image"]), options.frame)
        volume = resources.volumes.get(key)
        scribbles = Scribbles.from_request(request, resources.labels.indices, volume)
        predictor = resources.predictors.for_volume(volume, options.plane)
        label, axis = scribbles.label, predictor.slices.axis
        prompts = scribbles.prompts(predictor.slices.frame)
        clicks = Clicks(label, {label: prompts}, False)
        read = time.monotonic()
        with resources.working.open((key, request.get(CLIENT_KEY))) as working:
            saved = resources.saved.newest(request.get(IMAGE_ID_KEY), options.frame)
            work = MaskTransaction(working, clicks, options, volume, saved)
            work.take_over_saved(resources.saved)
            state = work.state(label)
            if scribbles.mask is not None:
                state = state.edited(scribbles.mask)
            refinement = self._refiner.refine(
                _as_drawn(state, prompts, axis),
                prompts,
                predictor,
                follow=options.follow,
                limits=None if scribbles.roi is None else tuple(scribbles.roi[2 * axis : 2 * axis + 2]),
                check=CancellationMonitor(label, request.get(CONNECTION_KEY)),
            )
            mask = scribbles.enforced(refinement.mask)
            enforced = replace(refinement.state, mask=PackedMask.pack(mask))
            refinement = work.settle(label, replace(refinement, mask=mask, state=enforced), prompts)
            work.commit()
        resources.click_log.painted(request.get(IMAGE_ID_KEY), request.get(CLIENT_KEY), options.frame, label)
        return answer(
            refinement.mask, {label: 1}, work, {label: refinement}, options, axis, (begin, read, time.monotonic())
        )


def _as_drawn(state: LabelState, prompts: Prompts, axis: int) -> LabelState:
    """Forget how the slices with new strokes came about, but not their mask: a longer stroke has other points."""
    if state.axis != axis:
        return state
    here = {index: on_one_slice(prompts, axis, index) for index in slices_of(prompts, axis)}
    kept = {
        index: record
        for index, record in state.slices.items()
        if index not in here or not (record.lacks(here[index]) or record.exceeds(here[index]))
    }
    return replace(state, slices=kept)
