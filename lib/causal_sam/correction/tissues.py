"""Tissues that Hounsfield units tell apart, whatever the organ beside them."""

from __future__ import annotations

from causal_sam.text import canonical

# Ranges as in textbooks, a little wider for noise; soft tissues, vessels and bone overlap.
_HU = {"fat": (-200.0, -30.0), "subcutaneous fat": (-200.0, -30.0), "visceral fat": (-200.0, -30.0)}
_HU |= dict.fromkeys(("air", "gas", "bowel gas", "lung", "left lung", "right lung"), (-1100.0, -300.0))


def tissue_hu(name: str) -> tuple[float, float] | None:
    """Return the range of Hounsfield units of a tissue, by any of its names; None if they do not tell it.

    >>> tissue_hu("adipose tissue"), tissue_hu("spleen")
    ((-200.0, -30.0), None)
    """
    return _HU.get(canonical(name))
