"""The automatic task: label names in, or none for all that were taught, a label map out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import PLANES, Volume
from causal_sam.prompting import LabelPrompter, NamedPrediction
from infers.promptable import CLIENT_KEY, CONNECTION_KEY, IMAGE_ID_KEY, CancellationMonitor, Resources, written
from serving.data.images import volume_key
from serving.models import VersionUnusableError, with_problem
from serving.requests.clicks import Clicks, Options, flag
from serving.sessions.mask_transaction import MaskTransaction, draw_label_map

NAMES_KEY, REPLACE_KEY = "organs", "replace"
NOTHING_TAUGHT = (
    "No label has been taught to this server yet: save labels with the tag final, then press Update Model or run the "
    "trainer adapters."
)


class OrgansInferTask(InferTask):
    """Segments labels by their names in the whole volume, without clicks.

    The masks become the client's working masks of these labels, so that clicks correct them. Masks that somebody made
    or corrected stay, unless the option *replace* is on. The answer holds all labels of the working mask: OHIF shows it
    in place of all that it had.

    Args:
        resources: shared with the other tasks.
    """

    # It needs nobody to click or write.
    runs_in_batches = True

    def __init__(self, resources: Resources) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=dict(resources.labels.indices),
            dimension=3,
            description="Segment structures in CT or MR by their names, those that this site has taught",
            config={
                NAMES_KEY: "",
                REPLACE_KEY: False,
                "plane": [resources.plane, *(plane for plane in PLANES if plane != resources.plane)],
                "frame": 0,
            },
        )
        self._resources = resources

    def info(self) -> dict[str, Any]:
        """Describe the task for ``/info/``, with what is wrong with the version in use."""
        info, problem = super().info(), self._resources.predictors.problem
        return info if problem is None else info | {"description": f"{info['description']}. {problem}"}

    def is_valid(self) -> bool:
        """Whether clients may see the task: always; what was not taught is said in the answer."""
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer one request.

        Args:
            request: the client's parameters, with the image's path and what the app added. ``organs`` names labels,
                separated by commas, in any spelling; empty for all. With ``replace`` those that somebody made or
                corrected are found anew too.

        Returns:
            The path of a temporary file with the label map, and the parameters of the response.

        Raises:
            InputError: the image cannot be used, or none of the labels was taught. The working mask is as it was.
            VersionUnusableError: what was taught cannot be loaded; the same holds.
            ClientGoneError: the client went away meanwhile; the same holds.
        """
        begin = time.monotonic()
        resources = self._resources
        options = Options.from_request(request, resources.plane, resources.extent)
        taught = resources.predictors.taught()
        problem = resources.predictors.problem
        if taught is None:
            raise InputError(NOTHING_TAUGHT) if problem is None else VersionUnusableError(problem)
        labels = taught.labels
        wanted, replaces = self._wanted(request.get(NAMES_KEY)), flag(request, REPLACE_KEY)
        asked = [name for name in wanted if labels.find(name) is not None]
        untaught = [name for name in wanted if name not in asked]
        if not asked:
            raise InputError(_never_taught(untaught, labels))
        key = volume_key(Path(request["image"]), options.frame)
        volume = resources.volumes.get(key)
        predictor = resources.predictors.for_volume(volume, options.plane)
        read = time.monotonic()
        watch = CancellationMonitor("the labels", request.get(CONNECTION_KEY))
        with resources.predictors.inference_slots.hold(watch) as yield_slot:
            prediction = predictor.predict_named(asked, labels, yield_slot)
        with resources.working.open((key, request.get(CLIENT_KEY))) as working:
            saved = resources.saved.newest(request.get(IMAGE_ID_KEY), options.frame)
            work = MaskTransaction(working, Clicks(None, {}, True), options, volume, saved)
            work.take_over_saved(resources.saved)
            kept = [name for name in asked if work.state(name).is_kept and not replaces]
            for name in set(asked).difference(kept):
                work.states.pop(name, None)
            for value, name in enumerate(asked, start=1):
                if name not in kept:
                    work.fill(name, prediction.label_map == value, predictor.slices.axis)
            work.commit()
        mask, names = draw_label_map(work.states, resources.labels.indices, volume.shape)
        described = {**_described(mask, names, prediction, asked, kept, untaught, volume), "version": taught.version}
        described = with_problem(described, problem)
        times = (begin, read, time.monotonic())
        return written(mask, volume, names, described, options, times)

    def _wanted(self, text: Any) -> list[str]:
        """Labels of the label set that a request names; all of them if it names none.

        Raises:
            InputError: a name is no label of the server.
        """
        labels = self._resources.labels
        if text is None or text == "":
            return list(labels.names)
        if not isinstance(text, str):
            raise InputError(f"{NAMES_KEY} must be label names separated by commas, not {str(text)[:40]!r}.")
        names = [name.strip() for name in text.split(",") if name.strip()]
        return list(dict.fromkeys(labels.resolve(name) for name in names))


def _never_taught(names: Sequence[str], taught: LabelPrompter) -> str:
    are = "was" if len(names) == 1 else "were"
    return f"{', '.join(names)} {are} never taught; this server was taught {', '.join(taught.metadata.names)}."


def _described(
    mask: NDArray[np.uint8],
    names: Mapping[str, int],
    prediction: NamedPrediction,
    asked: Sequence[str],
    kept: Sequence[str],
    untaught: Sequence[str],
    volume: Volume,
) -> dict[str, Any]:
    counts = np.bincount(mask.ravel(order="K"), minlength=len(names) + 1)
    found = [name for name in asked if name not in kept]
    labels = {
        name: {
            "volume_ml": round(float(counts[names[name]]) * volume.voxel_ml, 3),
            "predicted_iou": round(prediction.predicted_iou[name], 4)
            if name in found and name in prediction.predicted_iou
            else None,
        }
        for name in asked
    }
    present = [f"{name}: {labels[name]['volume_ml']:.1f} ml" for name in found if labels[name]["volume_ml"]]
    missing = [name for name in found if not labels[name]["volume_ml"]]
    said = present or (["nothing was found"] if found else [])
    if missing and present:
        said.append(f"not found: {', '.join(missing)}")
    if kept:
        said.append(f"kept as somebody made or corrected them: {', '.join(kept)} (the option replace finds them anew)")
    if untaught:
        said.append(f"never taught, so left out: {', '.join(untaught)}")
    return {"labels": labels, "kept": list(kept), "untaught": list(untaught), "message": "; ".join(said) + "."}
