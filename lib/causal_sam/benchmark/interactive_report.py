"""The report of the interactive benchmark: Dice against clicks, clicks needed, HD95 and time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.image import imsave

from causal_sam.benchmark.interactive import Trial
from causal_sam.benchmark.report import FEW, PALETTE, new_report, plot_curve
from causal_sam.benchmark.statistics import mean_of_values
from causal_sam.errors import InputError

KEY = ["group", "structure", "method"]
TARGETS = (0.80, 0.85, 0.90)


def click_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return a row for each click of each trial; ``trial`` numbers the trials."""
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
            "clicks": n,
            "dice": score,
            "hd95_mm": trial.hd95.get(n),
            "seconds": trial.seconds[n - 1] if n <= len(trial.seconds) else None,
        }
        for number, trial in enumerate(trials)
        for n, score in enumerate(trial.dice, 1)
    ]
    return pd.DataFrame(rows).astype({"slice": "Int64", "hd95_mm": float, "seconds": float})


def summarise(clicks: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each group, structure and method, in order of appearance.

    Args:
        clicks: table from `click_table`.

    Returns:
        Columns ``group``, ``structure``, ``method``, ``count``; for some numbers of clicks n ``dice@n`` (`Estimate` of
        the mean), ``hd95@n_mm`` (mean over the trials where it is finite) and ``empty@n`` (share where it is infinite);
        for each target Dice in per cent t ``noc@t`` (mean number of clicks, where a trial that does not reach the
        target counts all clicks) and ``failed@t`` (share of such trials); ``largest_drop`` of mean Dice from one click
        to the next; ``first_seconds`` and ``next_seconds`` (medians).
    """
    records = []
    for names, rows in clicks.groupby(KEY, sort=False):
        dice, distances = (rows.pivot(index="trial", columns="clicks", values=name) for name in ("dice", "hd95_mm"))
        record = {**dict(zip(KEY, names, strict=True)), "count": len(dice)}
        for n, mm in distances.dropna(axis=1, how="all").items():
            record[f"dice@{n}"] = mean_of_values(dice[n])
            record |= {f"hd95@{n}_mm": mm[np.isfinite(mm)].mean(), f"empty@{n}": np.isinf(mm).mean()}
        reached = {round(100 * target): dice >= target for target in TARGETS}
        for target, hit in reached.items():
            record[f"noc@{target}"] = hit.idxmax(axis=1).where(hit.any(axis=1), dice.columns[-1]).mean()
        record |= {f"failed@{target}": (~hit.any(axis=1)).mean() for target, hit in reached.items()}
        record["largest_drop"] = max(0.0, *(-dice.mean().diff().fillna(0)))
        record["first_seconds"] = rows.loc[rows["clicks"] == 1, "seconds"].median()
        record["next_seconds"] = rows.loc[rows["clicks"] > 1, "seconds"].median()
        records.append(record)
    return pd.DataFrame(records)


def write_interactive_report(
    folder: Path, trials: Sequence[Trial], settings: Mapping[str, Any], pictures: Iterable[tuple[str, np.ndarray]]
) -> None:
    """Write `report.md`, `trials.csv`, `summary.csv`, `summary.json` and plots; see `new_report`.

    Args:
        folder: folder of the report.
        trials: at least one trial.
        settings: options of the benchmark.
        pictures: names and images (HxWx3 uint8) to show.

    Raises:
        InputError: there are no trials, or the folder contains something else.
    """
    if not trials:
        raise InputError("Nothing was measured: the chosen cases have no large enough structure with a chosen name.")
    clicks = click_table(trials)
    groups, structures = summarise(clicks.assign(structure="all")), summarise(clicks)
    curves = pd.DataFrame(
        [
            (*key, mean_of_values(dice))
            for key, dice in clicks.groupby(["group", "method", "clicks"], sort=False)["dice"]
        ],
        columns=["group", "method", "clicks", "dice"],
    )
    with new_report(folder, "Interactive segmentation by a simulated annotator", settings) as report:
        report.csv("trials.csv", clicks.drop(columns="trial"), {"dice": 5, "hd95_mm": 3, "seconds": 4})
        report.csv("summary.csv", pd.concat([groups, structures]))
        report.json({"groups": groups, "structures": structures, "curves": curves})
        report.text(
            "All methods get the same first click. Each next click is in the largest error region of the method's own "
            "mask. NoC: mean number of clicks until a Dice is reached; a trial that never reaches it counts all "
            f"{clicks['clicks'].max()} clicks, and *failed* is the share of such trials. HD95: in mm, over masks that "
            f"are not empty. In brackets: 95 % bootstrap interval of the mean; {FEW} Drop: largest loss of mean Dice "
            "from one click to the next. Seconds: median of the first click (which includes encoding the image) and "
            "of later clicks."
        )
        shown = [*KEY, "count", *(name for name in groups if name.startswith(("dice@", "noc@"))), "failed@85"]
        shown += [name for name in ("hd95@1_mm", "hd95@5_mm") if name in groups]
        for heading, rows in (("## All structures", groups), ("## Each structure", structures)):
            report.table(rows[[*shown, "largest_drop", "first_seconds", "next_seconds"]], heading, {"failed@85": ".0%"})
        report.text("## Plots")
        report.figure("dice.png", _plot_dice(curves), "Dice against clicks")
        report.figure("clicks.png", _plot_noc(groups), "Clicks needed")
        for number, (name, image) in enumerate(pictures):
            if number == 0:
                report.text("## Worst and best", "Truth green; mask after one click red, after the last click yellow.")
            imsave(report.folder / f"{name}.png", image)
            report.text(f"![{name}]({name}.png)")


def _plot_dice(curves: pd.DataFrame) -> Figure:
    names, methods = (list(curves[column].unique()) for column in ("group", "method"))
    figure = Figure(figsize=(max(6, 4.5 * len(names)), 4.5), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for (group, method), rows in curves.groupby(["group", "method"], sort=False):
        axis, colour = axes[names.index(group)], PALETTE[methods.index(method) % len(PALETTE)]
        plot_curve(axis, rows["clicks"], rows["dice"], method, colour)
        axis.set(title=group, xlabel="clicks", ylim=(0, 1), xticks=rows["clicks"])
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("Dice, mean and 95 % interval")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _plot_noc(groups: pd.DataFrame) -> Figure:
    clicks = groups.set_index(["group", "method"])["noc@85"].unstack(sort=False)
    figure = Figure(figsize=(max(6, 2.2 * len(clicks)), 4.5), layout="constrained")
    axis = figure.subplots()
    clicks.plot.bar(ax=axis, width=0.8, rot=0, color=PALETTE, legend=False, xlabel="", ylabel="clicks until Dice 0.85")
    axis.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure
