"""Tissues of the structures of label maps: brightness in CT and MR, from `tissues.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Tissue:
    """How a tissue looks.

    Attributes:
        hu: mean Hounsfield units in the phases "native", "arterial", "portal venous" and "delayed".
        sd: standard deviation of that mean over patients and organs, in HU.
        t1: brightness in T1-weighted MR, 0 to 1.
        t2: brightness in T2-weighted MR, 0 to 1.
        texture: strength of the texture inside; 1 is usual.
        fluid: True if FLAIR shows it dark.
        fat: True if its signal is that of fat, which is out of phase with that of water.
        core: tissue of the inside; None if the organ is of one tissue.
        depth: distance in mm from the surface at which the inside begins.
    """

    hu: tuple[float, ...]
    sd: float
    t1: float
    t2: float
    texture: float
    fluid: bool = False
    fat: bool = False
    core: str | None = None
    depth: float = 0.0


@cache
def tissues() -> dict[str, Tissue]:
    """Return all tissues by name."""
    return {name: Tissue(**fields | {"hu": tuple(fields["hu"])}) for name, fields in _contents()["tissues"].items()}


@cache
def tissue_of(structure: str) -> str:
    """Return the tissue that a structure, or the surface of one, is made of.

    >>> tissue_of("left kidney"), tissue_of("L3 vertebra"), tissue_of("thing")
    ('kidney', 'bone', 'soft')
    """
    return next(tissue for pattern, tissue in _patterns() if pattern.search(structure))


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), tissue) for pattern, tissue in _contents()["structures"]]


@cache
def _contents() -> Mapping[str, Any]:
    return yaml.safe_load((Path(__file__).parent / "tissues.yaml").read_text(encoding="utf-8"))
