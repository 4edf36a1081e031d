"""What is wrong with masks, in a number that also small structures have a say in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causal_sam.style.lad import with_background


class LabelMapLoss(nn.Module):
    """1 - Dice, and cross-entropy, of labels that exclude each other, by softmax over these and the background.

    The logit of the background is 0, so that a label is inside where its own is positive and the highest. Labels that
    look alike, such as nuclei of the brain, compete for a voxel: each on its own, by a sigmoid, they can all settle
    for "rather not here" and never be begun to be found. In the cross-entropy each of them counts by a power of its
    area, the power 1 being the mean over all pixels; Dice is averaged over the labels.
    """

    def forward(
        self, logits: Tensor, truth: Tensor, power: float, total: Callable[[Tensor], Tensor] = lambda sums: sums
    ) -> Tensor:
        """Return the loss.

        Args:
            logits: BxNxhxw of N labels.
            truth: BxNxhxw in [0, 1], shares of each pixel; what is missing to 1 is background.
            power: of the areas.
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


class MaskLoss(nn.Module):
    """1 - Dice, and cross-entropy in which inside and outside count by a power of their areas.

    Both are of each label over the whole batch, then averaged over labels. Slice by slice, those without a label would
    teach to find nothing before the others could teach to find it. And with all pixels alike in the cross-entropy (the
    power 1) the pixels outside do the same for a structure of a few hundred of them: it is never begun to be found.
    With the power 1/2 it is, but drawn too large.
    """

    def forward(
        self, logits: Tensor, truth: Tensor, power: float, total: Callable[[Tensor], Tensor] = lambda sums: sums
    ) -> Tensor:
        """Return the loss.

        Args:
            logits: BxNxhxw of N labels.
            truth: BxNxhxw in [0, 1].
            power: of the areas inside and outside.
            total: adds sums to those of other parts of the same batch, in other processes.
        """
        found, outside = logits.sigmoid(), 1 - truth
        measured = (found * truth, found, truth, outside, F.softplus(-logits) * truth, F.softplus(logits) * outside)
        sums = total(torch.stack([one.sum((0, 2, 3)) for one in measured]))
        common, found, inside, outside, missed, extra = sums.unbind()
        overlap = (2 * common + 1) / (found + inside + 1)
        share = inside**power / (inside**power + outside**power)
        missed, extra = missed / inside.clamp(min=1), extra / outside.clamp(min=1)
        return (1 - overlap + share * missed + (1 - share) * extra).mean()
