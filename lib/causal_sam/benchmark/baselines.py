"""The methods that ours are compared with, by name.

The settings of the classical methods are the best of a search on generated images (`causal_sam.benchmark.tuning`), in
``baseline_settings.json``; no real image chose them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from importlib.resources import files
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from causal_sam.benchmark.classical import (
    Geodesic,
    GrabCut,
    GraphCut,
    RandomWalker,
    RegionGrowing,
    ThresholdBand,
)
from causal_sam.benchmark.interactive.options import Prompt
from causal_sam.benchmark.nninteractive import NnInteractive
from causal_sam.errors import InputError
from causal_sam.imaging import Volume

SETTINGS_FILE = "baseline_settings.json"


class BaselineSession(Protocol):
    """A baseline at work on one structure of an image."""

    def click(self, place: tuple[int, ...], *, inside: bool) -> NDArray[np.bool_]:
        """Click a place of the image and return the new mask."""


class Baseline(Protocol):
    """A method to compare with.

    Attributes:
        name: name on the command line.
        dimensions: supported numbers of image dimensions.
        prompts: first prompts that it takes; its sessions have a method for each.
    """

    name: ClassVar[str]
    dimensions: ClassVar[frozenset[int]]
    prompts: ClassVar[frozenset[Prompt]]

    def image(self, volume: Volume) -> NDArray:
        """Return the voxels of a volume as the method wants them."""

    def begin(self, image: NDArray, spacing: Sequence[float]) -> BaselineSession:
        """Start on an image or a slice of it, with its spacing in mm."""


_CLASSICAL: tuple[Any, ...] = (RandomWalker, Geodesic, GraphCut, GrabCut, RegionGrowing, ThresholdBand)
_BASELINES: dict[str, Any] = {method.name: method for method in (*_CLASSICAL, NnInteractive)}
BASELINE_NAMES = tuple(_BASELINES)
CLASSICAL_NAMES = tuple(method.name for method in _CLASSICAL)


def load_baseline(name: str) -> Baseline:
    """Return a baseline, a classical one with its best setting.

    Raises:
        InputError: the baseline does not exist, or is not installed.
    """
    return make_baseline(name, tuned_settings().get(name, {}).get("setting", {}))


def make_baseline(name: str, setting: dict[str, Any]) -> Any:
    """Return a baseline with a given setting; missing parameters have their defaults.

    Raises:
        InputError: the baseline or one of the parameters does not exist, or the baseline is not installed.
    """
    method = _BASELINES.get(name)
    if method is None:
        raise InputError(f"There is no baseline '{name}': choose from {', '.join(BASELINE_NAMES)}.")
    known = [field.name for field in fields(method)]
    if unknown := setting.keys() - known:
        raise InputError(f"Baseline '{name}' has no parameter {', '.join(sorted(unknown))}: it has {', '.join(known)}.")
    return method(**setting)


def tuned_settings() -> dict[str, dict[str, Any]]:
    """Return the results of the search on generated images: name -> setting, score and options of the search."""
    return json.loads((files("causal_sam.benchmark") / SETTINGS_FILE).read_text())


def random_settings(name: str, count: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield the default and ``count - 1`` random settings of a classical baseline, each at most once."""
    method = _BASELINES[name]
    choices = {field.name: field.metadata["choices"] for field in fields(method)}
    seen: list[dict[str, Any]] = []
    setting = asdict(method())
    while len(seen) < min(count, int(np.prod([len(values) for values in choices.values()]))):
        if setting not in seen:
            seen.append(setting)
            yield setting
        setting = {key: values[int(rng.integers(len(values)))] for key, values in choices.items()}
