"""Targets and losses of the volume context: structures of a rendered body on the cells of a grid."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from causal_sam.imaging.overlap import dice
from causal_sam.phantom.bodies import lesions


def share_of_cells(labels: Tensor, values: tuple[int, ...], stride: int) -> Tensor:
    """Return the share of each cell that has one of the values: ZxHxW -> Zx(H/stride)x(W/stride)."""
    table = torch.zeros(int(labels.max()) + 1, dtype=torch.float32)
    table[[value for value in values if value < len(table)]] = 1
    return F.avg_pool2d(table[labels.long()][:, None], stride)[:, 0]


def is_union(name: str, structures: Mapping[str, tuple[int, ...]]) -> bool:
    """Return True if a structure has other named structures as its parts; a lesion is no part of an organ.

    Args:
        name: name of the structure.
        structures: name -> label values.

    >>> is_union("kidneys", {"kidneys": (1, 2), "left kidney": (1,), "right kidney": (2,)})
    True
    >>> is_union("liver", {"liver": (1, 2), "lesion": (2,)})
    False
    """
    values = set(structures[name])
    return any(set(part) < values for other, part in structures.items() if other not in lesions.NAMES)


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return cross-entropy in proportion to the size of a structure, weighted towards hard cells, plus 1 - Dice.

    Args:
        logits: ZxYxX.
        target: ZxYxX, share of each cell that is inside.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    found, size = logits.sigmoid(), target.sum()
    hard = 0.05 + (found - target).abs().detach()
    overlap = (2 * (found * target).sum() + 1) / (found.sum() + size + 1)
    return (entropy * hard).sum() / (size + 50) + 1 - overlap


def dice_of(logits: Tensor, target: Tensor) -> float:
    """Dice of the cells with positive logits and of those that are mostly inside."""
    return dice((logits > 0).numpy(force=True), (target > 0.5).numpy(force=True))
