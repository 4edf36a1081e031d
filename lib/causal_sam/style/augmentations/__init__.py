"""Style augmentations: the same anatomy under another scanner, protocol or imaging condition.

Each kind draws its parameters for the slices to change; `augment_style` chains several of them in the order of the
imaging chain. They update the acquisition facts of the image and do not move the anatomy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causal_sam.errors import InputError, NotFoundError
from causal_sam.style.augmentations.base import StyleAugmentation
from causal_sam.style.augmentations.contrast import ContrastPhase, Gamma, OtherModality, Remap
from causal_sam.style.augmentations.ct import Dose, Kernel, Streaks
from causal_sam.style.augmentations.grid import InPlaneResolution, SliceThickness
from causal_sam.style.augmentations.mr import BiasField, FieldStrength, Ghosts, Gibbs, Motion
from causal_sam.style.slices import StyledSlices

__all__ = [
    "STYLE_AUGMENTATIONS",
    "BiasField",
    "ContrastPhase",
    "Dose",
    "FieldStrength",
    "Gamma",
    "Ghosts",
    "Gibbs",
    "InPlaneResolution",
    "Kernel",
    "Motion",
    "OtherModality",
    "Remap",
    "SliceThickness",
    "Streaks",
    "StyleAugmentation",
    "augment_style",
]

STYLE_AUGMENTATIONS: dict[str, type[StyleAugmentation]] = {
    kind.name: kind
    for kind in (
        OtherModality,
        Remap,
        ContrastPhase,
        Gamma,
        InPlaneResolution,
        SliceThickness,
        Kernel,
        BiasField,
        Dose,
        FieldStrength,
        Gibbs,
        Ghosts,
        Motion,
        Streaks,
    )
}


def augment_style(
    slices: StyledSlices, rng: np.random.Generator, max_count: int = 3, names: Sequence[str] | None = None
) -> tuple[StyledSlices, tuple[StyleAugmentation, ...]]:
    """Change the style of slices at random.

    Args:
        slices: slices, which are not modified.
        rng: source of randomness; the same seed gives the same style.
        max_count: maximum number of augmentations; at least one is applied.
        names: augmentations to choose from; None for all. Those that do not fit the slices are skipped.

    Returns:
        The slices in the new style, and the applied augmentations in their order.

    Raises:
        NotFoundError: an augmentation is unknown.
        InputError: no augmentation fits the slices.
    """
    names = tuple(STYLE_AUGMENTATIONS) if names is None else names
    unknown = sorted(set(names) - STYLE_AUGMENTATIONS.keys())
    if unknown:
        raise NotFoundError(
            f"There is no style augmentation {unknown[0]!r}; there are {', '.join(STYLE_AUGMENTATIONS)}."
        )
    pool = [kind for name, kind in STYLE_AUGMENTATIONS.items() if name in names]
    if not any(kind.fits(slices) for kind in pool):
        raise InputError(
            f"None of the style augmentations {', '.join(names)} fits {len(slices.array)} slice(s) of modality "
            f"{slices.acquisition.modality or 'unknown'!r}."
        )
    selected = _pick(pool, slices, int(rng.integers(1, max_count + 1)), rng)
    done: list[StyleAugmentation] = []
    while selected:
        kind, modality = selected.pop(0), slices.acquisition.modality
        pool.remove(kind)
        done.append(kind.draw(slices, rng))
        slices = done[-1].apply(slices, rng)
        if slices.acquisition.modality != modality:
            # Augmentations that were selected for the old modality may not fit the new one.
            selected = _pick(pool, slices, len(selected), rng)
    return slices, tuple(done)


def _pick(
    pool: list[type[StyleAugmentation]], slices: StyledSlices, count: int, rng: np.random.Generator
) -> list[type[StyleAugmentation]]:
    """Draw up to ``count`` different suitable kinds, in the order of the imaging chain."""
    fitting = [kind for kind in pool if kind.fits(slices)]
    weights = np.array([kind.weight for kind in fitting])
    count = min(count, len(fitting))
    chosen = rng.choice(len(fitting), count, replace=False, p=weights / weights.sum()) if count else ()
    return sorted((fitting[i] for i in chosen), key=lambda kind: kind.stage)
