"""Losses of masks: 1 - Dice and a cross-entropy, with which small structures are learned too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional as F

from causal_sam.style.lad import with_background

_SMOOTHED: dict[str, Any] = {"smooth_nr": 1.0, "smooth_dr": 1.0, "reduction": "none"}
_DICE, _DICE_OF_LOGITS = DiceLoss(**_SMOOTHED), DiceLoss(**_SMOOTHED, sigmoid=True)


def label_map_loss(
    logits: Tensor, truth: Tensor, power: float, total: Callable[[Tensor], Tensor] = lambda sums: sums
) -> Tensor:
    """Return 1 - Dice plus cross-entropy of labels that exclude each other, by softmax over these and the background.

    The logit of the background is 0, so that a label is inside where its own is positive and the highest. Labels that
    look alike, such as nuclei of the brain, compete for a voxel: each on its own, by a sigmoid, they can all settle
    for "rather not here" and are never found. For a single label this is the sigmoid.

    Dice is that of each label over the whole batch, averaged over the labels: slice by slice, those without a label
    would teach to find nothing before the others could teach to find it. In the cross-entropy each label, and the
    background, counts by a power of its area. At 1 this is the mean over all pixels, where the pixels outside outweigh
    a structure of a few hundred of them, and it is never found; at 1/2 it is found, but drawn too large. With the power
    1 the loss is `monai.losses.DiceCELoss` over the batch.

    Args:
        logits: BxNxhxw of N labels.
        truth: BxNxhxw in [0, 1], shares of each pixel; what is missing to 1 is background.
        power: power of the areas.
        total: adds sums to those of other parts of the same batch, in other processes.
    """
    log_found = with_background(logits).log_softmax(1)
    truth = torch.cat([1 - truth.sum(1, keepdim=True), truth], 1)
    found = log_found.exp()
    measured = (found * truth, found, truth, -log_found * truth)
    common, found, inside, missed = total(torch.stack([one.sum((0, 2, 3)) for one in measured])).unbind()
    overlap = (2 * common + 1) / (found + inside + 1)
    share = inside**power / (inside**power).sum()
    return (1 - overlap[1:]).mean() + (share * missed / inside.clamp(min=1)).sum()


def hard_pixel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return cross-entropy, weighted towards hard pixels, plus 1 - Dice of each mask.

    Args:
        logits: NxMxLxL.
        target: Nx1xLxL, the share of each pixel that is inside.

    Returns:
        NxM.
    """
    target = target.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = (entropy * (0.2 + (logits.sigmoid() - target).abs().detach())).mean((-2, -1))
    return 4 * focal + _DICE_OF_LOGITS(logits, target)[..., 0, 0]


def edit_loss(logits: Tensor, truth: Tensor, before: Tensor, region: Tensor) -> Tensor:
    """Return cross-entropy inside a region, plus 1 - Dice of a mask that is decided again there alone.

    Args:
        logits: Bx1xLxL, the decision.
        truth: Bx1xLxL in [0, 1], the mask that is wanted.
        before: Bx1xLxL in [0, 1], the mask that stays outside the region.
        region: Bx1xLxL; inside where it is positive.
    """
    inside = (region > 0).float()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    entropy = (entropy * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp(min=1)
    return (entropy + _DICE(logits.sigmoid() * inside + before * (1 - inside), truth).flatten()).mean()
