"""The promptable task: clicks and boxes in, the mask of a label or a label map of all of them out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import PLANES, Volume, write_mask
from causal_sam.prompting import LabelPrompter
from serving.data.images import VolumeCache, volume_key
from serving.data.label_set import BACKGROUND, MAX_LABELS, LabelSet
from serving.data.saved_labels import SavedLabels
from serving.models import PredictorPool, with_problem
from serving.requests.clicks import EXTENTS, Clicks, Lasso, Options
from serving.requests.clients import Connection
from serving.requests.errors import ClientGoneError
from serving.results import ResultsFolder
from serving.sessions.click_log import ClickLog
from serving.sessions.mask_transaction import MaskTransaction, draw_label_map
from serving.sessions.refinement import Refinement, Refiner
from serving.sessions.working_masks import WorkingMasks, is_unnamed

logger = logging.getLogger(__name__)

# Under these keys the app tells its tasks what MONAI Label does not: they are set by the server for every request.
CLIENT_KEY = "causal_sam_client"
IMAGE_ID_KEY = "causal_sam_image_id"
CONNECTION_KEY = "causal_sam_connection"
# Following a structure says so in the log this often.
PROGRESS_SECONDS = 2.0

_results = ResultsFolder()


@dataclass(frozen=True)
class Resources:
    """What the promptable tasks of an app share, so that a client may change between them on the way.

    Attributes:
        labels: the label set.
        plane: which plane is segmented if the request does not say.
        extent: whether structures are followed through the volume if the request does not say; one of `EXTENTS`.
        volumes: decoded images.
        predictors: the model.
        saved: labels in the data store.
        working: masks of all clients.
        click_log: counts what people did.
    """

    labels: LabelSet
    plane: str
    extent: str
    volumes: VolumeCache
    predictors: PredictorPool
    saved: SavedLabels
    working: WorkingMasks
    click_log: ClickLog


class PromptableInferTask(InferTask):
    """Segments what was clicked or boxed, and remembers it for the client's next request.

    The slices that were prompted are decided first. With the option *extent* on "volume" the structure is then followed
    from them through the volume; with "slice", or when the client names one slice, the others stay as they are.

    Without any click, a label that the model was taught is segmented by its name.

    Registered twice: clients choose the form of their request by the task's type. As *deepgrow* they send the clicks
    of one label and take its mask; as *deepedit* they send the clicks of all labels and take a label map. Either form
    is understood by both.

    Of masks that were drawn, saved or found by name clicks change only what is near them, the more the farther they are
    from the border, and of found ones on the slices beside theirs too, unless the option *local* is off: then the model
    may decide all of the slices that it reaches anew, which is quicker where much is wrong.

    With the option *reset*, the current label is forgotten, what was saved of it included, and decided from the clicks
    of this request alone; of a client that does not name a current label, those with clicks. Other labels stay. Clients
    send the option as the user left it, so while it is
    ticked in OHIF every request starts again: since OHIF sends all clicks that it shows, its masks are then just what
    the clicks give, without the memory of how they came about.

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
        super().__init__(
            type=type,
            labels=labels,
            dimension=3,
            description="Segment a structure in CT or MR by clicks and boxes, on a slice or through the volume",
            config={
                "reset": False,
                "extent": [resources.extent, *(extent for extent in EXTENTS if extent != resources.extent)],
                "local": True,
                "plane": [resources.plane, *(plane for plane in PLANES if plane != resources.plane)],
                "frame": 0,
            },
        )
        self._resources = resources
        self._refiner = Refiner(resources.predictors.inference_slots)

    def is_valid(self) -> bool:
        """Whether clients may see the task: always, the model is loaded before the server answers."""
        return True

    def _taught(self, label: str | None) -> LabelPrompter | None:
        """What the model was taught, if that is where the label can be found without clicks."""
        taught = None if label is None else self._resources.predictors.taught()
        return taught.labels if taught is not None and taught.labels.find(label) is not None else None

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer one request.

        Args:
            request: the client's parameters, with the image's path and what the app added.

        Returns:
            The path of a temporary file with the mask, on the grid of the image, and the parameters of the response.

        Raises:
            InputError: the image or the prompts cannot be used. The working mask is as it was.
            ClientGoneError: the client went away meanwhile; the same holds.
        """
        begin = time.monotonic()
        resources = self._resources
        options = Options.from_request(request, resources.plane, resources.extent)
        key = volume_key(Path(request["image"]), options.frame)
        volume = resources.volumes.get(key)
        if isinstance(label := request.get("label"), str):
            request = {**request, "label": resources.labels.known_as(label)}
        clicks = Clicks.from_request(request, resources.labels.names, volume.shape)
        predictor = resources.predictors.for_volume(volume, options.plane)
        lasso = Lasso.from_request(request, volume.shape)
        if lasso is not None:
            clicks = clicks.with_box(lasso.box(predictor.slices.axis))
        if options.only_slice is not None:
            clicks = clicks.on_slice(predictor.slices.axis, options.only_slice)
        by_name = problem = None
        if clicks.is_empty and not (options.reset and clicks.asked):
            by_name, problem = self._taught(clicks.current), resources.predictors.problem
            if by_name is None:
                raise InputError(
                    "Nothing was clicked: give at least one foreground point, a roi or a lasso"
                    + (" on any slice" if options.only_slice is None else f" on slice {options.only_slice}")
                    + ", or a label that this server was taught. What is segmented stays; the option reset empties it."
                    + ("" if problem is None else f" {problem}")
                )
        read = time.monotonic()
        connection = request.get(CONNECTION_KEY)
        if by_name is not None:
            with resources.predictors.inference_slots.hold(
                CancellationMonitor(clicks.current, connection)
            ) as yield_slot:
                named = predictor.predict_named([clicks.current], by_name, yield_slot).label_map > 0
        with resources.working.open((key, request.get(CLIENT_KEY))) as working:
            saved = resources.saved.newest(request.get(IMAGE_ID_KEY), options.frame)
            work = MaskTransaction(working, clicks, options, volume, saved)
            work.take_over_saved(resources.saved)
            work.reset()
            if lasso is not None:
                work.take_over_lasso(lasso, predictor)
            if by_name is not None:
                if work.state(clicks.current).is_kept:
                    raise InputError(
                        f"Nothing was clicked, and {clicks.current} has a mask already, which stays as it is: give a "
                        "point to correct it, or tick reset to empty it."
                    )
                work.fill(clicks.current, named, predictor.slices.axis)
            refinements = work.refine(
                self._refiner,
                predictor,
                follow=options.follow,
                watch=lambda name: CancellationMonitor(name, connection),
            )
            work.commit()
        resources.click_log.clicked(request.get(IMAGE_ID_KEY), request.get(CLIENT_KEY), options.frame, clicks)
        if clicks.is_label_map:
            mask, names = draw_label_map(work.states, resources.labels.indices, volume.shape)
        else:
            mask, names = refinements[work.current].mask, {clicks.current or "segment": 1}
        times = (begin, read, time.monotonic())
        path, params = answer(mask, names, work, refinements, options, predictor.slices.axis, times)
        return path, with_problem(params, problem)


class CancellationMonitor:
    """Looks after a structure that is being followed: ends it when its client is gone, and logs how far it is."""

    def __init__(self, label: str, connection: Connection | None) -> None:
        self._label = "the structure" if is_unnamed(label) else label
        self._connection = connection
        self._logged = time.monotonic()

    def __call__(self, done: int) -> None:
        if self._connection is not None and self._connection.is_closed:
            raise ClientGoneError(f"The client went away while {self._label} was followed; nothing was changed.")
        if time.monotonic() - self._logged >= PROGRESS_SECONDS:
            self._logged = time.monotonic()
            logger.info("Following a structure: %d slices done.", done)


def answer(
    mask: NDArray[Any],
    names: Mapping[str, int],
    work: MaskTransaction,
    refinements: Mapping[str, Refinement],
    options: Options,
    axis: int,
    times: tuple[float, float, float],
) -> tuple[str, dict[str, Any]]:
    """Write the mask of an answer and describe it.

    Args:
        mask: in the file's voxel order.
        names: label name -> value in the mask.
        work: what was done.
        refinements: of the labels that were prompted.
        options: of the request.
        axis: voxel axis perpendicular to the slices.
        times: when the request came, when its image was read, and when the mask was there.

    Returns:
        The path of a temporary file, and the parameters of the response.
    """
    return written(mask, work.volume, names, _described(work, refinements, work.volume, axis), options, times)


def written(
    mask: NDArray[Any],
    volume: Volume,
    names: Mapping[str, int],
    params: dict[str, Any],
    options: Options,
    times: tuple[float, float, float],
) -> tuple[str, dict[str, Any]]:
    """Write a mask to a temporary file, and add to the parameters of the response what all answers have."""
    begin, read, inferred = times
    path = _results.new_path(options.extension)
    write_mask(mask, volume, path, compress=options.compress, dtype=options.dtype)
    end = time.monotonic()
    if volume.frames > 1:
        params["message"] = f"{params['message'].rstrip('.')}; in frame {volume.frame} of 0 to {volume.frames - 1}."
    params |= {"label_names": dict(names), "frame": volume.frame, "frames": volume.frames}
    params["latencies"] = {
        "pre": round(read - begin, 2),
        "infer": round(inferred - read, 2),
        "invert": 0,
        "post": 0,
        "write": round(end - inferred, 2),
        "total": round(end - begin, 2),
        "transform": None,
    }
    return str(path), params


def _described(
    work: MaskTransaction, refinements: Mapping[str, Refinement], volume: Volume, axis: int
) -> dict[str, Any]:
    """Put the result into numbers, and into one sentence for clients that can show it."""
    labels = {}
    for name, refinement in refinements.items():
        slices = np.flatnonzero(refinement.mask.any(axis=tuple(other for other in range(3) if other != axis)))
        ious = [record.predicted_iou for record in refinement.state.slices.values()]
        labels[name] = {
            "volume_ml": round(float(np.count_nonzero(refinement.mask)) * volume.voxel_ml, 3),
            "slices": [int(index) for index in slices],
            "updated_slices": list(refinement.decided),
            "followed_slices": list(refinement.followed),
            "predicted_iou": round(float(np.mean(ious)), 4) if ious else None,
        }
    unused = sum(refinement.unused for refinement in refinements.values())
    shown = labels.get(work.current) or next(iter(labels.values()))
    said = [
        f"{'the structure' if is_unnamed(name) else name}: {label['volume_ml']:.1f} ml on "
        f"{len(label['slices'])} slices, {len(label['updated_slices'])} decided now"
        + (f" and {len(label['followed_slices'])} followed from them" if label["followed_slices"] else "")
        for name, label in labels.items()
        if label["slices"] or label["updated_slices"] or name == work.current
    ]
    message = "; ".join(said) or "nothing is segmented"
    if unused and not work.is_label_map:
        message += f" ({unused} background clicks lie where there is nothing to correct)"
    if work.spared:
        spared = ", ".join(sorted(work.spared))
        message += f"; nothing of {spared} was taken, which is accepted: click inside of it to take a part"
    return {
        "label": None if is_unnamed(work.current) else work.current,
        "predicted_iou": shown["predicted_iou"],
        "volume_ml": shown["volume_ml"],
        "slices": shown["slices"],
        "axis": axis,
        "labels": {name: label for name, label in labels.items() if not is_unnamed(name)},
        "message": f"{message}.",
    }
