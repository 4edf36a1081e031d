"""The scoring method *dice*: how much of what the model drew was accepted, label by label."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.exception import LabelNotFoundException
from monailabel.interfaces.tasks.scoring import ScoringMethod
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.imaging import Volume, read_volume
from causal_sam.imaging.label_maps import as_label_map
from causal_sam.imaging.label_names import named_masks
from causal_sam.imaging.overlap import dice
from causal_sam.site.accepted import frame_in_info, is_on_grid
from scorings.labels import keep_result, labelled_images
from serving.data.folder_store import FolderStore
from serving.data.label_set import LabelSet

logger = logging.getLogger(__name__)

DIGITS = 4


class DiceScoring(ScoringMethod):
    """Dice of the label that a task saved (tag *original*) against the one that a person accepted (*final*).

    MONAI Label's own method of this name multiplies label maps as if they held but 0 and 1. This one compares each
    label by its name. A label that only one of the two has gets 0: it had to be drawn, or erased. Labels that the model
    was never learned, and that the task therefore left out, are not compared.

    Args:
        labels: the label set; for names in other spellings.
        result: file for the result.
    """

    # Options of a request, with the types of their values.
    options: ClassVar[dict[str, str]] = {"y": "", "y_pred": ""}

    def __init__(self, labels: LabelSet, result: Path) -> None:
        super().__init__("Dice of the labels that tasks saved against the accepted ones, by label and image")
        self._labels, self._result = labels, result

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Compare all images that have both.

        Args:
            request: request of the client; ``y`` and ``y_pred`` are tags to compare, by default *final* and *original*.
            datastore: data store of the images.

        Returns:
            ``mean`` over the images of the mean over their labels, ``labels`` with the mean of each label, ``images``
            with the Dice of each label by image id, and ``skipped`` with a sentence for each that cannot be compared.

        Raises:
            InputError: the data store keeps its labels elsewhere.
        """
        truth = request.get("y", DefaultLabelTag.FINAL.value)
        predicted = request.get("y_pred", DefaultLabelTag.ORIGINAL.value)
        images: dict[str, dict[str, float]] = {}
        skipped: dict[str, str] = {}
        for image_id, saved in labelled_images(datastore):
            if truth not in saved or predicted not in saved:
                continue
            try:
                images[image_id] = self._compare(datastore, image_id, truth, predicted)
            except (InputError, LabelNotFoundException) as error:
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

    def _compare(self, datastore: FolderStore, image_id: str, truth: str, predicted: str) -> dict[str, float]:
        """Dice by label of one image.

        Raises:
            InputError: the two cannot be compared.
            LabelNotFoundException: one was deleted.
        """
        other, drawn, info = self._read(datastore, image_id, predicted)
        if frame := frame_in_info(info):
            raise InputError(
                f"The label that the task saved is of frame {frame}; accepted labels are compared with the first one."
            )
        volume, accepted, _ = self._read(datastore, image_id, truth)
        if not is_on_grid(other, volume):
            raise InputError("The label that the task saved and the accepted one are not on the same grid.")
        params = info.get("params")
        untaught = params.get("untaught") if isinstance(params, dict) else None
        names = sorted((accepted.keys() | drawn.keys()) - set(untaught or ()))
        if not names:
            raise InputError("There is no label to compare: none was drawn, or the model learned none of them.")
        nothing = np.zeros(volume.shape, bool)
        return {name: round(dice(drawn.get(name, nothing), accepted.get(name, nothing)), DIGITS) for name in names}

    def _read(
        self, datastore: FolderStore, image_id: str, tag: str
    ) -> tuple[Volume, dict[str, NDArray[np.bool_]], dict[str, Any]]:
        """Read a label map, the masks in it by name, and its info.

        Raises:
            InputError: it cannot be read, or nothing says what some of its values are.
            LabelNotFoundException: it was deleted.
        """
        with datastore.open_label(image_id, tag) as (path, info):
            volume = read_volume(path)
            named, unnamed = named_masks(as_label_map(volume, path.name), info)
        if unnamed:
            raise InputError(f"Nothing says which structures the values of the label {tag} are: save it with names.")
        masks: dict[str, NDArray[np.bool_]] = {}
        for name, mask in named.items():
            ours = self._labels.known_as(name)
            if mask.any():
                masks[ours] = masks[ours] | mask if ours in masks else mask
        return volume, masks, info
