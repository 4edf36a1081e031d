"""What is wrong with masks, in a number that also small structures have a say in."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class MaskLoss(nn.Module):
    """1 - Dice, and cross-entropy in which inside and outside count by a power of their areas.

    Both are of each label over the whole batch, then averaged over labels. Slice by slice, those without a label would
    teach to find nothing before the others could teach to find it. And with all pixels alike in the cross-entropy (the
    power 1) the pixels outside do the same for a structure of a few hundred of them: it is never begun to be found.
    With the power 1/2 it is, but drawn too large.
    """

    def forward(self, logits: Tensor, truth: Tensor, power: float) -> Tensor:
        """Return the loss.

        Args:
            logits: BxNxhxw of N labels.
            truth: BxNxhxw in [0, 1].
            power: of the areas inside and outside.
        """
        everywhere = (0, 2, 3)
        found = logits.sigmoid()
        inside, outside = truth.sum(everywhere), (1 - truth).sum(everywhere)
        overlap = (2 * (found * truth).sum(everywhere) + 1) / (found.sum(everywhere) + inside + 1)
        missed = (F.softplus(-logits) * truth).sum(everywhere) / inside.clamp(min=1)
        extra = (F.softplus(logits) * (1 - truth)).sum(everywhere) / outside.clamp(min=1)
        share = inside**power / (inside**power + outside**power)
        return (1 - overlap + share * missed + (1 - share) * extra).mean()
