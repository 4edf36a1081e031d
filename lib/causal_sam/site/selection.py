"""Which study a person should label next: where the model is unsure, and what looks like nothing that it has learnt.

Uncertainty alone picks studies that resemble each other, and diversity alone picks those that the model masters. So a
study's priority is a weighted mean of both:

* **Uncertainty**: what the mask decoder says of itself, by label, on a few slices. Its four masks of one prompt are a
  small committee, whose disagreement tells where labels are worth most (query by committee, Seung et al. 1992), and it
  predicts the IoU of its answer.
* **Style**: how far the description of the image lies from the nearest one of the studies that were labelled already.
  To take the farthest first, again and again, is the greedy solution of the k-centre problem, by which Sener and
  Savarese (2018, "Active learning for convolutional neural networks: a core-set approach") choose what to label.
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

# Looked at in each study: few, since a pass goes over all studies, and spread, since organs may be anywhere.
SLICES = 8
# How uncertain a label is that is found on none of them. It may be out of view, or the model may not recognise it.
ABSENT = 0.5
# Cosine distance of descriptions that have hardly anything in common, such as of a CT and of an MR image. Distances are
# measured in it, so that they have the range of uncertainties.
FAR_STYLE = 0.4
# Share of the priority that is the style's; the rest is the uncertainty's.
STYLE_WEIGHT = 0.5
_DIGITS = 4


@dataclass(frozen=True)
class Candidate:
    """A study that may be labelled next.

    Attributes:
        image_id: of the data store.
        style: unit vector of its description.
        uncertainty: of the model, 0 to 1; None where it was not computed.
    """

    image_id: str
    style: NDArray[np.floating]
    uncertainty: float | None


@dataclass(frozen=True)
class Ranked:
    """How much is to be learnt from a study.

    Attributes:
        image_id: of the data store.
        priority: 0 to 1.
        style_distance: to the nearest labelled study, 0 to 1.
        uncertainty: of the model, 0 to 1; None where it was not computed.
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
    check: Callable[[int], object] = lambda done: None,
) -> float | None:
    """Return how unsure the model is about the labels that it was taught, on a few slices of a study.

    Args:
        encoder: of the slices, with the model of the labels.
        slices: whole.
        labels: what the model was taught.
        slot: makes what is entered around the work on each slice, so that others get the model in between.
        check: called before each slice with the number of slices done; what it raises ends the work.

    Returns:
        0 to 1: the mean over the labels of the mean over the slices on which each is found, and `ABSENT` for a label
        that is found on none. None if no label was taught.
    """
    names = labels.taught.names
    if not names:
        return None
    doubts: list[list[float]] = [[] for _ in names]
    for done, index in enumerate(spread(slices.frame.count)):
        check(done)
        with slot():
            for n, doubt in _doubts(encoder, slices, index, labels).items():
                doubts[n].append(doubt)
    return round(float(np.mean([np.mean(found) if found else ABSENT for found in doubts])), _DIGITS)


def spread(count: int, most: int = SLICES) -> list[int]:
    """Choose at most ``most`` of ``count`` slices, in the middle of equal parts of the volume.

    >>> spread(100, 4)
    [12, 37, 62, 87]
    >>> spread(3)
    [0, 1, 2]
    """
    parts = min(count, most)
    return [int((part + 0.5) * count / parts) for part in range(parts)]


@torch.inference_mode()
def _doubts(encoder: SliceEncoder, slices: VolumeSlices, index: int, labels: LabelPrompter) -> dict[int, float]:
    """Position of each label that is found on a slice -> how unsure the model is about it there."""
    model, size = encoder.model, encoder.model.mask_size
    embedding = encoder.embedding(slices, index).to(model.device)
    tokens, drafts = labels.prompts(embedding, labels.taught.names)
    likely = torch.nonzero(drafts.flatten(1).amax(1).sigmoid() > MIN_LIKELY).flatten()
    if not len(likely):
        return {}
    decoded = model.decode_all(embedding, tokens=tokens[likely], mask_logits=drafts[likely])
    rows, columns = (-(-side * size // model.image_size) for side in (slices.height, slices.width))
    masks = (decoded.logits[..., :rows, :columns] > 0).flatten(2)  # the rest is padding
    doubts = {}
    for n, answers, iou in zip(likely.tolist(), masks, decoded.iou[:, 0].clamp(0, 1).tolist(), strict=True):
        if answers[0].any():
            doubts[n] = (disagreement(answers.cpu().numpy()) + 1 - iou) / 2
    return doubts


def disagreement(masks: NDArray[np.bool_]) -> float:
    """Mean of 1 - IoU over all pairs of masks; two that are empty agree.

    Args:
        masks: NxP, at least two.

    >>> disagreement(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 0]], bool))
    0.3333333333333333
    """
    apart = []
    for one, other in combinations(masks, 2):
        either = np.count_nonzero(one | other)
        apart.append(1 - np.count_nonzero(one & other) / either if either else 0.0)
    return float(np.mean(apart))


def style_distances(styles: NDArray[np.floating], labelled: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return how far styles lie from the nearest of those of labelled studies, 0 to 1; 1 if there are none.

    Args:
        styles: NxD unit vectors of descriptions.
        labelled: MxD unit vectors of the same text encoder.

    Returns:
        N numbers.
    """
    if not len(labelled):
        return np.ones(len(styles))
    nearest = (styles @ labelled.T).max(axis=1)
    return np.clip((1 - nearest) / FAR_STYLE, 0.0, 1.0)


def priority(distance: float, unsure: float | None) -> float:
    """Return the priority of a study: the weighted mean of both, or the style's distance where it is all there is.

    >>> priority(0.5, 0.25), priority(0.5, None)
    (0.375, 0.5)
    """
    if unsure is None:
        return distance
    return STYLE_WEIGHT * distance + (1 - STYLE_WEIGHT) * unsure


def rank(candidates: Sequence[Candidate], labelled: Sequence[NDArray[np.floating]]) -> list[Ranked]:
    """Order studies by how much is to be learnt from them, the most first; equal ones by their id.

    A study whose uncertainty was not computed counts as unsure as the others are on the average; if it was computed for
    none, styles alone decide.

    Args:
        candidates: not labelled yet.
        labelled: styles of those that are or are about to be.
    """
    if not candidates:
        return []
    known = [each.uncertainty for each in candidates if each.uncertainty is not None]
    usual = float(np.mean(known)) if known else None
    distances = style_distances(np.stack([each.style for each in candidates]), np.array(labelled))
    ranked = []
    for each, distance in zip(candidates, distances.tolist(), strict=True):
        unsure = usual if each.uncertainty is None else each.uncertainty
        # Rounded, so that equal ones are equal on every machine.
        value = round(priority(distance, unsure), _DIGITS)
        ranked.append(Ranked(each.image_id, value, round(distance, _DIGITS), each.uncertainty))
    return sorted(ranked, key=lambda each: (-each.priority, each.image_id))
