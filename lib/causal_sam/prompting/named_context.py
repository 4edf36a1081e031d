"""Segmentation by names that the context of a volume knows and the model's labels do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causal_sam.imaging import FILE_ORDER
from causal_sam.prompting.named import NamedPrediction
from causal_sam.prompting.prompts import Prompts
from causal_sam.prompting.volume_mask import VolumeMasker


def add_from_context(
    prediction: NamedPrediction | None,
    names: Sequence[str],
    trained: Sequence[str],
    by_context: Sequence[str],
    masker: VolumeMasker,
) -> NamedPrediction:
    """Add the masks of a context to a prediction, where that has no label.

    Args:
        prediction: prediction for ``trained``; None if these are none.
        names: all names, in the order of the values of the result, counted from 1.
        trained: names that the model was trained on.
        by_context: names that the context knows.
        masker: masks from the context.

    Returns:
        The prediction for all names; the certainty of the context stands for the predicted IoU.
    """
    label_map = np.zeros(masker.slices.volume.shape, np.uint8, order=FILE_ORDER)
    sure: dict[str, float] = {}
    answers = masker.context.segment_named(by_context)
    for name in sorted(by_context, key=lambda each: answers[each].certainty):  # the surest is drawn last
        label_map[masker.draw(answers[name], Prompts()).mask] = names.index(name) + 1
        sure[name] = answers[name].certainty
    if prediction is not None:
        values = np.array([0, *(names.index(name) + 1 for name in trained)], np.uint8)
        label_map = np.where(prediction.label_map > 0, values[prediction.label_map], label_map)
        sure |= prediction.predicted_iou
    present = np.flatnonzero(np.bincount(label_map.ravel(order="K"), minlength=len(names) + 1)[1:])
    shown = [names[n] for n in present.tolist()]
    return NamedPrediction(label_map, {name: sure[name] for name in shown})
