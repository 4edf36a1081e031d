"""Automatic masks as they were before anybody saw them, and how well they agreed with the accepted labels.

One folder for each image and model, named by a hash, with three files: ``case.json`` (whose masks these are, and the
certainty of each), ``masks.json`` (the masks), and ``dice.json`` once a label of the image was accepted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from causal_sam.atomic import atomic_write
from causal_sam.errors import InputError
from causal_sam.imaging import PackedMask
from causal_sam.imaging.overlap import dice
from causal_sam.prompting.named import NamedPrediction
from causal_sam.site.calibration import case_score
from causal_sam.site.scores import Stamp

logger = logging.getLogger(__name__)

FOLDER = "automatic"
CASE, MASKS, DICE = "case.json", "masks.json", "dice.json"
# The names of files and labels may name patients.
FOLDER_MODE, FILE_MODE = 0o700, 0o600


@dataclass(frozen=True)
class AutomaticCase:
    """What a model found in an image by the names of labels.

    Attributes:
        image_id: identifier in the data store.
        stamp: stamp of the image.
        model: identifies the weights that made the masks.
        certainty: label -> the model's estimate of the overlap, 0 to 1, of the masks that have voxels.
        volume_ml: label -> volume in ml.
        missing: labels that the model knows and did not find.
    """

    image_id: str
    stamp: Stamp
    model: str
    certainty: dict[str, float]
    volume_ml: dict[str, float]
    missing: list[str] = field(default_factory=list)


_CASE, _DICE = TypeAdapter(AutomaticCase), TypeAdapter(dict[str, float])


class AutomaticMasks:
    """The automatic masks of a site.

    Args:
        folder: their folder, created with the first masks. Files that cannot be read count as missing, since masks can
            be computed again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(
        self,
        image_id: str,
        stamp: Stamp,
        model: str,
        names: Sequence[str],
        prediction: NamedPrediction,
        voxel_ml: float,
    ) -> AutomaticCase:
        """Keep the masks of a case, in place of those of other models that were never compared with a label.

        Args:
            image_id: identifier in the data store.
            stamp: stamp of the image.
            model: identifies the weights that made the masks.
            names: labels, in the order of the values of the prediction, counted from 1.
            prediction: the masks, and the model's estimates.
            voxel_ml: volume of a voxel in ml.

        Raises:
            OSError: they cannot be written.
        """
        masks = {
            name: PackedMask.pack(prediction.label_map == value)
            for value, name in enumerate(names, start=1)
            if name in prediction.predicted_iou
        }
        case = AutomaticCase(
            image_id,
            stamp,
            model,
            {name: round(prediction.predicted_iou[name], 4) for name in masks},
            {name: round(mask.count * voxel_ml, 3) for name, mask in masks.items()},
            [name for name in names if name not in masks],
        )
        folder = self._of(image_id, model)
        for other in self._folder.glob(f"{_hash(image_id)}-*"):
            if other == folder or not (other / DICE).exists():
                shutil.rmtree(other, ignore_errors=True)
        self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        _write(folder / MASKS, json.dumps({name: mask.as_json() for name, mask in masks.items()}).encode())
        _write(folder / CASE, _CASE.dump_json(case))
        return case

    def get(self, image_id: str, model: str) -> AutomaticCase | None:
        """Return what a model found in an image; None if it has not been asked."""
        return _read_case(self._of(image_id, model))

    def masks(self, image_id: str, model: str) -> dict[str, PackedMask]:
        """Return label -> mask of what a model found in an image; {} if it has not been asked."""
        try:
            content = json.loads((self._of(image_id, model) / MASKS).read_bytes())
            return {name: PackedMask.from_json(mask) for name, mask in content.items()}
        except (OSError, ValueError, AttributeError, InputError):
            return {}

    def compare(self, image_id: str, seen: Collection[str], accepted: Callable[[str], NDArray[np.bool_]]) -> None:
        """Keep how well the masks of an image agree with the label that is accepted now.

        Args:
            image_id: identifier in the data store.
            seen: labels that the annotator has judged; the others are not compared.
            accepted: label -> accepted mask (I, J, K), empty if the annotator removed the structure.

        Raises:
            OSError: it cannot be written.
        """
        for model in self.models(image_id):
            masks = self.masks(image_id, model)
            values = {name: dice(mask.unpack(), accepted(name)) for name, mask in masks.items() if name in seen}
            _write(self._of(image_id, model) / DICE, _DICE.dump_json(values))

    def models(self, image_id: str) -> list[str]:
        """Return the models whose masks of an image are kept."""
        cases = map(_read_case, sorted(self._folder.glob(f"{_hash(image_id)}-*")))
        return [case.model for case in cases if case is not None]

    def scores(self, model: str) -> dict[str, float]:
        """Return image -> `case_score` of the masks of a model, for the images with an accepted label to compare."""
        scores = {}
        for path in self._folder.glob(f"*-{_hash(model)}/{DICE}"):
            case = _read_case(path.parent)
            try:
                score = None if case is None else case_score(case.certainty, _DICE.validate_json(path.read_bytes()))
            except (OSError, ValidationError, KeyError):
                continue
            if case is not None and score is not None:
                scores[case.image_id] = score
        return scores

    def _of(self, image_id: str, model: str) -> Path:
        return self._folder / f"{_hash(image_id)}-{_hash(model)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as part:
        part.touch(FILE_MODE)
        part.write_bytes(content)


def _read_case(folder: Path) -> AutomaticCase | None:
    try:
        return _CASE.validate_json((folder / CASE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        logger.warning("The automatic masks in %s cannot be used; they are computed again.", folder)
        return None
