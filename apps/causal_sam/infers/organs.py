"""The automatic task: label names in, or none for all that were learned, a label map out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType

from causal_sam.errors import InputError
from causal_sam.prompting import NamedPrediction
from causal_sam.prompting.named import is_known
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.site.scores import Stamp
from infers.base import IMAGE_ID_KEY, Answer, Call, Resources, SessionTask
from serving.models import VersionUnusableError, with_problem
from serving.requests.clicks import Options, flag

logger = logging.getLogger(__name__)

NAMES_KEY, REPLACE_KEY = "organs", "replace"
NOTHING_TAUGHT = (
    "This server has not learned any label yet: save labels with the tag final, then press Update Model or run the "
    "trainer adapters."
)


@dataclass(frozen=True)
class Wanted:
    """Requested labels; ``replace`` segments those that somebody made or corrected again, too."""

    labels: list[str]
    replace: bool


class OrgansInferTask(SessionTask):
    """Segments labels by their names in the whole volume, without clicks.

    The masks become the client's masks of these labels, so that clicks correct them. Masks that somebody made or
    corrected stay, unless the option *replace* is on. The answer holds all labels of the session: OHIF shows it in
    place of all that it had.

    Args:
        resources: shared with the other tasks.
    """

    # It needs nobody to click or write.
    runs_in_batches = True

    def __init__(self, resources: Resources) -> None:
        super().__init__(
            InferType.SEGMENTATION,
            "Segment structures in CT or MR by their names, those that were learned at this site",
            resources,
            {NAMES_KEY: "", REPLACE_KEY: False},
        )

    def info(self) -> dict[str, Any]:
        """Describe the task for ``/info/``, with what is wrong with the version in use."""
        info, problem = super().info(), self._resources.predictors.problem
        return info if problem is None else info | {"description": f"{info['description']}. {problem}"}

    def parse(self, request: Mapping[str, Any], options: Options, slices: VolumeSlices) -> Wanted:
        """Read which labels of the label set a request names, in any spelling; all of them if it names none."""
        labels, text = self._resources.labels, request.get(NAMES_KEY)
        if text is not None and not isinstance(text, str):
            raise InputError(f"{NAMES_KEY} must be label names separated by commas, not {str(text)[:40]!r}.")
        names = [name.strip() for name in (text or "").split(",") if name.strip()]
        wanted = list(dict.fromkeys(labels.resolve(name) for name in names)) if text else list(labels.names)
        return Wanted(wanted, flag(request, REPLACE_KEY))

    def run(self, call: Call, requested: Wanted) -> Answer:
        """Segment the labels that were learned here, and those that the context of the volume knows.

        Raises:
            InputError: none of them was learned.
            VersionUnusableError: what was learned cannot be loaded.
        """
        bundle, problem = call.bundle, self._resources.predictors.problem
        labels = None if bundle is None else bundle.labels
        known = [name for name in requested.labels if call.predictor.knows_name(name, labels)]
        untaught = [name for name in requested.labels if name not in known]
        if not known:
            if bundle is None:
                raise InputError(NOTHING_TAUGHT) if problem is None else VersionUnusableError(problem)
            are = "was" if len(untaught) == 1 else "were"
            learned = ", ".join(bundle.labels.metadata.names)
            raise InputError(f"{', '.join(untaught)} {are} never learned; this server learned {learned}.")
        prediction, kept = call.session.segment_by_name(known, labels, replace=requested.replace)
        if set(requested.labels).issuperset(self._resources.labels.names):
            self._keep(call, known, prediction)
        params = {
            **_described(call, prediction, known, kept, untaught),
            "version": None if bundle is None else bundle.version,
            "by_context": [name for name in known if not is_known(name, labels)],
        }
        return Answer(*call.session.label_map(), with_problem(params, problem))

    def _keep(self, call: Call, names: Sequence[str], prediction: NamedPrediction) -> None:
        """Keep what was found of all labels that are known, to compare it with the label that will be accepted."""
        image_id, saved = call.request.get(IMAGE_ID_KEY), self._resources.saved
        if image_id is None or call.volume.frame:
            return
        newest = saved.newest(image_id)
        if newest is not None and newest.is_final:
            return  # the model may have learned from it
        model, stamp = self._resources.predictors.automatic_model(call.bundle), Stamp.of(Path(call.request["image"]))
        before = self._resources.automatic.get(image_id, model)
        if before is not None and before.stamp == stamp:
            return
        try:
            self._resources.automatic.put(image_id, stamp, model, names, prediction, call.volume.voxel_ml)
        except OSError as error:
            logger.warning("Automatic masks are not kept: they cannot be written (%s).", error.strerror)


def _described(
    call: Call, prediction: NamedPrediction, requested: Sequence[str], kept: Sequence[str], untaught: Sequence[str]
) -> dict[str, Any]:
    found = [name for name in requested if name not in kept]
    labels = {
        name: {
            "volume_ml": round(float(np.count_nonzero(call.session.mask(name))) * call.volume.voxel_ml, 3),
            "predicted_iou": round(prediction.predicted_iou[name], 4)
            if name in found and name in prediction.predicted_iou
            else None,
        }
        for name in requested
    }
    present = [
        f"{name}: {labels[name]['volume_ml']:.1f} ml" + _certainty(labels[name]["predicted_iou"])
        for name in found
        if labels[name]["volume_ml"]
    ]
    missing = [name for name in found if not labels[name]["volume_ml"]]
    said = present or (["nothing was found"] if found else [])
    if missing and present:
        said.append(f"not found: {', '.join(missing)}")
    if kept:
        said.append(f"kept as somebody made or corrected them: {', '.join(kept)} (the option replace finds them anew)")
    if untaught:
        said.append(f"never learned, so left out: {', '.join(untaught)}")
    return {"labels": labels, "kept": list(kept), "untaught": list(untaught), "message": "; ".join(said) + "."}


def _certainty(estimate: float | None) -> str:
    return "" if estimate is None else f" ({100 * estimate:.0f} % sure)"
