"""Style interventions: the same anatomy as another scanner, protocol or moment would have shown it.

Each kind has parameters of its own and is drawn for the slices that it is to change; `intervene` chains some of them in
the order of physics. What they say of the image, its acquisition facts, stays true; what is seen of the anatomy stays
where it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causal_sam.errors import InputError, NotFoundError
from causal_sam.style.augmentations.base import StyleIntervention
from causal_sam.style.augmentations.contrast import ContrastPhase, Gamma, OtherModality, Remap
from causal_sam.style.augmentations.ct import Dose, Kernel, Streaks
from causal_sam.style.augmentations.grid import InPlaneResolution, SliceThickness
from causal_sam.style.augmentations.mr import BiasField, FieldStrength, Ghosts, Gibbs, Motion
from causal_sam.style.slices import StyledSlices

__all__ = [
    "STYLE_INTERVENTIONS",
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
    "StyleIntervention",
    "applicable",
    "intervene",
]

STYLE_INTERVENTIONS: dict[str, type[StyleIntervention]] = {
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


def applicable(slices: StyledSlices) -> tuple[str, ...]:
    """Return the names of the interventions that fit the slices, in the order of physics.

    Slices of unknown modality are given other contrast and resolution, as any of them may have.
    """
    return tuple(name for name, kind in STYLE_INTERVENTIONS.items() if kind.fits(slices))


def intervene(
    slices: StyledSlices, rng: np.random.Generator, most: int = 3, names: Sequence[str] | None = None
) -> tuple[StyledSlices, tuple[StyleIntervention, ...]]:
    """Show the same anatomy in another style.

    Args:
        slices: are left as they are.
        rng: source of randomness; the same seed gives the same style.
        most: interventions at most; at least one is done.
        names: of the interventions to choose from; None for all. Those that do not fit the slices are not chosen.

    Returns:
        The slices in their other style, and what was done, in its order.

    Raises:
        NotFoundError: there is no intervention of such a name.
        InputError: none of them fits the slices.
    """
    names = tuple(STYLE_INTERVENTIONS) if names is None else names
    unknown = sorted(set(names) - STYLE_INTERVENTIONS.keys())
    if unknown:
        raise NotFoundError(
            f"There is no style intervention {unknown[0]!r}; there are {', '.join(STYLE_INTERVENTIONS)}."
        )
    pool = [kind for name, kind in STYLE_INTERVENTIONS.items() if name in names]
    if not any(kind.fits(slices) for kind in pool):
        raise InputError(
            f"None of the style interventions {', '.join(names)} fits {len(slices.array)} slice(s) of modality "
            f"{slices.acquisition.modality or 'unknown'!r}."
        )
    picked = _pick(pool, slices, int(rng.integers(1, most + 1)), rng)
    done: list[StyleIntervention] = []
    while picked:
        kind, modality = picked.pop(0), slices.acquisition.modality
        pool.remove(kind)
        done.append(kind.draw(slices, rng))
        slices = done[-1].apply(slices, rng)
        if slices.acquisition.modality != modality:
            # What was picked for the old modality may not exist in the new one.
            picked = _pick(pool, slices, len(picked), rng)
    return slices, tuple(done)


def _pick(
    pool: list[type[StyleIntervention]], slices: StyledSlices, count: int, rng: np.random.Generator
) -> list[type[StyleIntervention]]:
    """Pick different kinds that fit, fewer if there are fewer, in the order of physics."""
    fitting = [kind for kind in pool if kind.fits(slices)]
    weights = np.array([kind.weight for kind in fitting])
    count = min(count, len(fitting))
    chosen = rng.choice(len(fitting), count, replace=False, p=weights / weights.sum()) if count else ()
    return sorted((fitting[i] for i in chosen), key=lambda kind: kind.stage)
