"""Tables of the interactive benchmark: a row for each prompt of each trial, and their summary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from causal_sam.benchmark.interactive.trials import Trial
from causal_sam.benchmark.statistics import mean_of_values

KEY = ["group", "structure", "method"]
TARGETS = (0.80, 0.85, 0.90)
# A click that lowers Dice by no more than this does no harm.
HARMLESS = 0.005


def click_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return a row for each prompt of each trial; ``trial`` numbers the trials."""
    rows = [
        {
            "trial": number,
            "method": trial.method,
            "group": trial.target.group,
            "case": trial.target.case,
            "structure": trial.target.structure,
            "slice": trial.target.index,
            "voxels": int(trial.target.truth.sum()),
            "repeat": trial.repeat,
            "known": trial.is_known,
            "clicks": step.clicks,
            "dice": step.dice,
            "hd95_mm": step.hd95,
            "nsd": step.nsd,
            "far_change": step.far_change,
            "seconds": step.seconds,
        }
        for number, trial in enumerate(trials)
        for step in trial.steps
    ]
    measures = dict.fromkeys(("hd95_mm", "nsd", "far_change", "seconds"), float)
    return pd.DataFrame(rows).astype({"slice": "Int64", **measures})


def summarise(clicks: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each group, structure and method, in order of appearance.

    Args:
        clicks: table from `click_table`.

    Returns:
        Columns ``group``, ``structure``, ``method``, ``count``; for some numbers of clicks n ``dice@n`` (`Estimate` of
        the mean), ``p10@n`` (10th percentile of Dice), ``hd95@n_mm`` (mean over the trials where it is finite) and
        ``empty@n`` (share where it is infinite); for each target Dice in per cent t ``noc@t`` (mean number of clicks,
        where a trial that does not reach the target counts all clicks) and ``failed@t`` (share of such trials);
        ``largest_drop`` of mean Dice from one click to the next; ``lowered`` (share of trials in which a click lowered
        Dice by more than `HARMLESS`), ``change_per_click`` (mean change of Dice by a correction) and ``far_change``
        (its mean over corrections; see `far_change`); ``unknown`` (share of trials); ``first_seconds`` and
        ``next_seconds`` (medians).
    """
    records = []
    for names, rows in clicks.groupby(KEY, sort=False):
        dice, distances = (rows.pivot(index="trial", columns="clicks", values=name) for name in ("dice", "hd95_mm"))
        record = {**dict(zip(KEY, names, strict=True)), "count": len(dice)}
        for n, mm in distances.dropna(axis=1, how="all").items():
            record |= {f"dice@{n}": mean_of_values(dice[n]), f"p10@{n}": np.percentile(dice[n], 10)}
            record |= {f"hd95@{n}_mm": mm[np.isfinite(mm)].mean(), f"empty@{n}": np.isinf(mm).mean()}
        reached = {round(100 * target): dice >= target for target in TARGETS}
        for target, hit in reached.items():
            record[f"noc@{target}"] = hit.idxmax(axis=1).where(hit.any(axis=1), dice.columns[-1]).mean()
        record |= {f"failed@{target}": (~hit.any(axis=1)).mean() for target, hit in reached.items()}
        changes = dice.diff(axis=1).iloc[:, 1:]
        is_first = rows["clicks"] == dice.columns[0]
        record |= {
            "largest_drop": max(0.0, -changes.mean().min()) if len(changes.columns) else 0.0,
            "lowered": (changes < -HARMLESS).any(axis=1).mean(),
            "change_per_click": changes.stack().mean(),
            "far_change": rows.loc[~is_first, "far_change"].mean(),
            "unknown": 1 - rows.loc[is_first, "known"].mean(),
            "first_seconds": rows.loc[is_first, "seconds"].median(),
            "next_seconds": rows.loc[~is_first, "seconds"].median(),
        }
        records.append(record)
    return pd.DataFrame(records)


def dice_curves(clicks: pd.DataFrame) -> pd.DataFrame:
    """Return the mean (`Estimate`) and the 10th percentile of Dice for each group, method and number of clicks."""
    return pd.DataFrame(
        [
            (*key, mean_of_values(dice), np.percentile(dice, 10))
            for key, dice in clicks.groupby(["group", "method", "clicks"], sort=False)["dice"]
        ],
        columns=["group", "method", "clicks", "dice", "p10"],
    )
