"""Search for the best fixed setting of each baseline on generated images; real images must not influence it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np

from causal_sam.benchmark.baselines import make_baseline, random_settings
from causal_sam.benchmark.classical import ClassicalMethod
from causal_sam.imaging.overlap import dice
from causal_sam.phantom.samples import Sample, scans
from causal_sam.simulation.annotator import next_click

CLICKS = (1, 3, 5)
# Scans of about this size are what clinical slices have after cropping to the patient.
SIZE = 192
VALIDATION_SEED = 1_000_003


def tune(
    name: str, samples: int, settings: int, seed: int, progress: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Search the best setting of a baseline.

    A random search: each setting segments one structure of each generated scan with the simulated annotator; the mean
    Dice over 1, 3 and 5 clicks decides.

    Args:
        name: name of the baseline.
        samples: number of generated scans.
        settings: number of settings to try, including the default.
        seed: seed of the scans and of the search.
        progress: called after each setting.

    Returns:
        The setting, its score, that of the default setting, its score on other scans, and how it was found.

    Raises:
        InputError: the baseline does not exist.
    """
    drawn = list(islice(scans(SIZE, 1, seed), samples))
    scored = []
    for setting in random_settings(name, settings, np.random.default_rng(seed)):
        scored.append((score(make_baseline(name, setting), drawn), setting))
        progress()
    best, setting = max(scored, key=lambda pair: pair[0])
    others = list(islice(scans(SIZE, 1, seed + VALIDATION_SEED), samples))
    return {
        "setting": setting,
        "score": round(best, 4),
        "score_of_default": round(scored[0][0], 4),
        "score_on_other_scans": round(score(make_baseline(name, setting), others), 4),
        "samples": samples,
        "settings_tried": len(scored),
        "seed": seed,
    }


def score(baseline: ClassicalMethod, samples: list[Sample]) -> float:
    """Return the mean Dice after 1, 3 and 5 clicks on the first structure of each sample."""
    scores = []
    for sample in samples:
        truth, mask = sample.masks[0], np.zeros_like(sample.masks[0], bool)
        points: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for n in range(1, max(CLICKS) + 1):
            click = next_click(truth, mask)
            if click is not None:
                points[click.foreground].append((click.row, click.column))
                inside, outside = (np.array(points[kind], np.intp).reshape(-1, 2) for kind in (True, False))
                mask = baseline.segment(sample.image[1], inside, outside, (1.0, 1.0))
            if n in CLICKS:
                scores.append(dice(mask, truth))
    return float(np.mean(scores))
