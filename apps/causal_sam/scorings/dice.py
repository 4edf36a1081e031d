"""The scoring method *dice*: how much of what the model drew was accepted, label by label."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.scoring import ScoringMethod
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import Volume, read_volume
from causal_sam.imaging.overlap import dice
from causal_sam.learning.accepted import frame_in_info, is_on_grid, names_in_info, values_by_name
from scorings.labels import SavedLabel, keep_result, labelled_images
from serving.labels import LabelSet

logger = logging.getLogger(__name__)

DIGITS = 4


class DiceScoring(ScoringMethod):
    """Dice of the label that a task saved (tag *original*) against the one that a person accepted (*final*).

    MONAI Label's own method of this name multiplies label maps as if they held but 0 and 1. This one compares each
    label by its name. A label that only one of the two has gets 0: it had to be drawn, or erased. Labels that the model
    was never taught, and that the task therefore left out, are not compared.

    Args:
        labels: the label set; for names in other spellings, and label maps whose client did not say what they hold.
        result: file for the result.
    """

    # What a request may choose, with the kinds of the values.
    options: ClassVar[dict[str, str]] = {"y": "", "y_pred": ""}

    def __init__(self, labels: LabelSet, result: Path) -> None:
        super().__init__("Dice of the labels that tasks saved against the accepted ones, by label and image")
        self._labels, self._result = labels, result

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Compare all images that have both.

        Args:
            request: of the client; ``y`` and ``y_pred`` are tags to compare, by default *final* and *original*.
            datastore: of the images.

        Returns:
            ``mean`` over the images of the mean over their labels, ``labels`` with the mean of each label, ``images``
            with the Dice of each label by image id, and ``skipped`` with a sentence for each that cannot be compared.

        Raises:
            InputError: the data store keeps its labels elsewhere.
        """
        truth, predicted = request.get("y", DefaultLabelTag.FINAL), request.get("y_pred", DefaultLabelTag.ORIGINAL)
        images: dict[str, dict[str, float]] = {}
        skipped: dict[str, str] = {}
        for image_id, saved in labelled_images(datastore):
            if truth not in saved or predicted not in saved:
                continue
            try:
                images[image_id] = self._compare(saved[truth], saved[predicted])
            except InputError as error:
                skipped[image_id] = str(error)
                logger.warning("%s is not scored: %s", image_id, error)
        by_label: dict[str, list[float]] = {}
        for found in images.values():
            for name, value in found.items():
                by_label.setdefault(name, []).append(value)
        means = [float(np.mean(list(found.values()))) for found in images.values()]
        result = {
            "mean": round(float(np.mean(means)), DIGITS) if means else None,
            "labels": {name: round(float(np.mean(by_label[name])), DIGITS) for name in sorted(by_label)},
            "images": images,
            "skipped": skipped,
        }
        keep_result(self._result, result)
        return result

    def _compare(self, truth: SavedLabel, predicted: SavedLabel) -> dict[str, float]:
        """Dice by label of one image.

        Raises:
            InputError: the two cannot be compared.
        """
        if frame_in_info(predicted.info):
            raise InputError(
                f"The label that the task saved is of frame {frame_in_info(predicted.info)}; accepted labels are "
                "compared with the first one."
            )
        volume, accepted = self._read(truth)
        other, drawn = self._read(predicted)
        if not is_on_grid(other, volume):
            raise InputError("The label that the task saved and the accepted one are not on the same grid.")
        params = predicted.info.get("params")
        untaught = params.get("untaught") if isinstance(params, dict) else None
        names = sorted((accepted.keys() | drawn.keys()) - set(untaught or ()))
        if not names:
            raise InputError("There is no label to compare: none was drawn, or the model was taught none of them.")
        nothing = np.zeros(volume.shape, bool)
        return {name: round(dice(drawn.get(name, nothing), accepted.get(name, nothing)), DIGITS) for name in names}

    def _read(self, label: SavedLabel) -> tuple[Volume, dict[str, NDArray[np.bool_]]]:
        """Read a label map, and the masks in it that have a name and voxels.

        Raises:
            InputError: it cannot be read, or nothing says what its values are.
        """
        drawn = read_volume(label.path)
        present = [int(value) for value in np.unique(drawn.array) if value > 0]
        named = names_in_info(label.info)
        values = values_by_name(named, present) if named else self._labels.indices
        masks = {
            self._labels.known_as(name): drawn.array == value for name, value in values.items() if value in present
        }
        if present and not masks:
            raise InputError(f"Nothing says which structures the values of {label.path.name} are.")
        return drawn, masks
