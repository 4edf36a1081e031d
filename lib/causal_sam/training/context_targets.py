"""Targets and losses of the volume context: structures of a rendered body on the cells of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from causal_sam.imaging.overlap import dice
from causal_sam.phantom.bodies import LabelledBody, lesions
from causal_sam.text import load_lexicon

# Weight of a structure whose name is in the lexicon; the weight of any other, such as a muscle of an atlas, is 1.
COMMON_WEIGHT = 8.0
# Power of the sizes of structures in how often they are chosen.
SIZE_POWER = 1 / 3


def share_of_cells(labels: Tensor, values: tuple[int, ...], stride: int) -> Tensor:
    """Return the share of each cell that has one of the values: ZxHxW -> Zx(H/stride)x(W/stride)."""
    table = torch.zeros(int(labels.max()) + 1, dtype=torch.float32)
    table[[value for value in values if value < len(table)]] = 1
    return F.avg_pool2d(table[labels.long()][:, None], stride)[:, 0]


def name_weights(structures: Mapping[str, tuple[int, ...]], labels: Tensor, min_voxels: float) -> dict[str, float]:
    """Return the probability with which each structure in a window is chosen.

    Atlases name hundreds of muscles and vessels; structures that people commonly segment are chosen more often.

    Args:
        structures: name -> label values.
        labels: labels of the window.
        min_voxels: size below which a structure is left out.
    """
    counts = torch.bincount(labels.flatten().long(), minlength=1 + max(map(max, structures.values()), default=0))
    sizes = {name: float(counts[list(values)].sum()) for name, values in structures.items()}
    weights = {
        name: size**SIZE_POWER * (COMMON_WEIGHT if _is_common(name) else 1.0)
        for name, size in sizes.items()
        if size >= min_voxels
    }
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


@cache
def _is_common(name: str) -> bool:
    lexicon = load_lexicon()
    return any(len(reading.parts) == 1 and not reading.unknown for reading in lexicon.readings(name))


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


def choose_structures(
    body: LabelledBody, count: int, min_voxels: float, rng: np.random.Generator
) -> list[tuple[str, tuple[int, ...]]]:
    """Choose structures of a body by `name_weights`, and fill up with those without a name.

    Unions of structures, such as both kidneys, are left out.

    Args:
        body: the body.
        count: number of structures; less if it has no more.
        min_voxels: size below which a structure is left out.
        rng: source of randomness.

    Returns:
        Name and label values of each; "" for no name.
    """
    weights = name_weights(body.structures, body.labels, min_voxels)
    single = {name: weight for name, weight in weights.items() if not is_union(name, body.structures)}
    chosen: list[tuple[str, tuple[int, ...]]] = []
    if single:
        shares = np.array(list(single.values())) / sum(single.values())
        names = rng.choice(list(single), min(count, len(single)), replace=False, p=shares).tolist()
        chosen = [(name, body.structures[name]) for name in names]
    unnamed = [value for value in body.unnamed if int((body.labels == value).sum()) >= min_voxels]
    return chosen + [("", (value,)) for value in rng.permutation(unnamed)[: count - len(chosen)].tolist()]


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return cross-entropy in proportion to a structure's size, weighted towards hard cells, plus 1 - Dice.

    The size is that of the structure or of the answer, whichever is larger: in proportion to the structure alone, a
    large answer for a small structure would cost far more than a small one for a large structure, and a click that can
    mean both would always be answered by the small one.

    Args:
        logits: ZxYxX.
        target: ZxYxX, share of each cell that is inside.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    found, size = logits.sigmoid(), target.sum()
    hard = 0.05 + (found - target).abs().detach()
    overlap = (2 * (found * target).sum() + 1) / (found.sum() + size + 1)
    return (entropy * hard).sum() / (torch.maximum(size, found.detach().sum()) + 50) + 1 - overlap


def dice_of(logits: Tensor, target: Tensor) -> float:
    """Return the Dice of the cells with positive logits against the cells that are more than half inside."""
    return dice((logits > 0).numpy(force=True), (target > 0.5).numpy(force=True))
