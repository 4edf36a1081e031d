"""Active learning: priority of the studies to label next, from the model's uncertainty and the distance of their style.

Uncertainty alone selects studies that resemble each other, and diversity alone selects those that the model already
segments well. The priority is therefore a weighted mean of both:

* **Uncertainty**: computed from the mask decoder for each label on a few slices. Its four masks of one prompt form a
  small committee, whose disagreement shows where labels are most valuable (query by committee, Seung et al. 1992); in
  addition, it predicts the IoU of its mask.
* **Style**: distance of the style description from the nearest one of the labelled studies. Taking the farthest study
  repeatedly is the greedy solution of the k-centre problem, as in Sener and Savarese (2018, "Active learning for
  convolutional neural networks: a core-set approach").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from causal_sam.prompting import LabelPrompter
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.named import MIN_LIKELY
from causal_sam.prompting.slices import VolumeSlices

# Slices per study: few, since a pass covers all studies.
MAX_SLICES = 8
# Uncertainty of a label that is found on no slice: it may be out of view or not recognised.
ABSENT_UNCERTAINTY = 0.5
# Cosine distance of very different descriptions, such as of a CT and an MR image. Distances are normalised by it, so
# that they have the range of uncertainties.
MAX_STYLE_DISTANCE = 0.4
# Weight of the style in the priority; the rest is that of the uncertainty.
STYLE_WEIGHT = 0.5
_DIGITS = 4


@dataclass(frozen=True)
class Candidate:
    """An unlabelled study.

    Attributes:
        image_id: identifier in the data store.
        style: unit vector of its style description.
        uncertainty: uncertainty of the model, 0 to 1; None if it was not computed.
    """

    image_id: str
    style: NDArray[np.floating]
    uncertainty: float | None


@dataclass(frozen=True)
class RankedStudy:
    """Priority of a study.

    Attributes:
        image_id: identifier in the data store.
        priority: priority, 0 to 1.
        style_distance: distance to the nearest labelled study, 0 to 1.
        uncertainty: uncertainty of the model, 0 to 1; None if it was not computed.
    """

    image_id: str
    priority: float
    style_distance: float
    uncertainty: float | None


def uncertainty(
    encoder: SliceEncoder,
    slices: VolumeSlices,
    labels: LabelPrompter,
    *,
    slot: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_slice: Callable[[int], object] = lambda done: None,
) -> float | None:
    """Return the uncertainty of the model about its labels on a few slices of a study.

    Args:
        encoder: slice encoder with the model of the labels.
        slices: all slices of the volume.
        labels: label prompter of the model.
        slot: returns a context for the work on each slice, so that other requests get the model in between.
        on_slice: called before each slice with the number of processed slices; its exceptions cancel the work.

    Returns:
        0 to 1: mean over the labels of the mean over the slices on which each is found, or `ABSENT_UNCERTAINTY` if it
            is found on none. None without labels.
    """
    names = labels.metadata.names
    if not names:
        return None
    uncertainties: list[list[float]] = [[] for _ in names]
    for done, index in enumerate(sample_indices(slices.frame.count)):
        on_slice(done)
        with slot():
            for n, value in _label_uncertainties(encoder, slices, index, labels).items():
                uncertainties[n].append(value)
    means = [float(np.mean(found)) if found else ABSENT_UNCERTAINTY for found in uncertainties]
    return round(float(np.mean(means)), _DIGITS)


def sample_indices(count: int, most: int = MAX_SLICES) -> list[int]:
    """Choose at most ``most`` of ``count`` slices, at the centres of equal parts of the volume.

    >>> sample_indices(100, 4)
    [12, 37, 62, 87]
    >>> sample_indices(3)
    [0, 1, 2]
    """
    parts = min(count, most)
    return [int((part + 0.5) * count / parts) for part in range(parts)]


@torch.inference_mode()
def _label_uncertainties(
    encoder: SliceEncoder, slices: VolumeSlices, index: int, labels: LabelPrompter
) -> dict[int, float]:
    """Return position -> uncertainty of the labels that are found on a slice."""
    model, size = encoder.model, encoder.model.mask_size
    embedding = encoder.embedding(slices, index).to(model.device)
    tokens, coarse_logits = labels.prompts(embedding, labels.metadata.names)
    likely = torch.nonzero(coarse_logits.flatten(1).amax(1).sigmoid() > MIN_LIKELY).flatten()
    if not len(likely):
        return {}
    decoded = model.decode_all(embedding, tokens=tokens[likely], mask_logits=coarse_logits[likely])
    rows, columns = (-(-side * size // model.image_size) for side in (slices.height, slices.width))
    masks = (decoded.logits[..., :rows, :columns] > 0).flatten(2)  # the rest is padding
    uncertainties = {}
    for n, answers, iou in zip(likely.tolist(), masks, decoded.iou[:, 0].clamp(0, 1).tolist(), strict=True):
        if answers[0].any():
            uncertainties[n] = (disagreement(answers.cpu().numpy()) + 1 - iou) / 2
    return uncertainties


def disagreement(masks: NDArray[np.bool_]) -> float:
    """Return the mean of 1 - IoU over all pairs of masks; two empty masks agree.

    Args:
        masks: NxP masks, at least two.

    >>> disagreement(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 0]], bool))
    0.3333333333333333
    """
    distances = []
    for one, other in combinations(masks, 2):
        either = np.count_nonzero(one | other)
        distances.append(1 - np.count_nonzero(one & other) / either if either else 0.0)
    return float(np.mean(distances))


def style_distances(styles: NDArray[np.floating], labelled: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the distance of styles to the nearest style of labelled studies, 0 to 1; 1 if there are none.

    Args:
        styles: NxD unit vectors of style descriptions.
        labelled: MxD unit vectors of the same text encoder.

    Returns:
        N distances.
    """
    if not len(labelled):
        return np.ones(len(styles))
    nearest = (styles @ labelled.T).max(axis=1)
    return np.clip((1 - nearest) / MAX_STYLE_DISTANCE, 0.0, 1.0)


def priority(distance: float, unsure: float | None) -> float:
    """Return the priority of a study: the weighted mean of both, or the distance alone without an uncertainty.

    >>> priority(0.5, 0.25), priority(0.5, None)
    (0.375, 0.5)
    """
    if unsure is None:
        return distance
    return STYLE_WEIGHT * distance + (1 - STYLE_WEIGHT) * unsure


def rank(candidates: Sequence[Candidate], labelled: Sequence[NDArray[np.floating]]) -> list[RankedStudy]:
    """Sort studies by decreasing priority, ties by their identifiers.

    A study without an uncertainty gets the average of the others; if there is none, styles alone decide.

    Args:
        candidates: unlabelled studies.
        labelled: styles of studies that are labelled or about to be.
    """
    if not candidates:
        return []
    known = [each.uncertainty for each in candidates if each.uncertainty is not None]
    average = float(np.mean(known)) if known else None
    distances = style_distances(np.stack([each.style for each in candidates]), np.array(labelled))
    ranked = []
    for each, distance in zip(candidates, distances.tolist(), strict=True):
        unsure = average if each.uncertainty is None else each.uncertainty
        # Rounding makes ties reproducible on every machine.
        value = round(priority(distance, unsure), _DIGITS)
        ranked.append(RankedStudy(each.image_id, value, round(distance, _DIGITS), each.uncertainty))
    return sorted(ranked, key=lambda each: (-each.priority, each.image_id))
