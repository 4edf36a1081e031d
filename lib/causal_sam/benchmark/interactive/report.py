"""The report of the interactive benchmark: Dice against clicks, clicks needed, HD95, harm done and time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.image import imsave

from causal_sam.benchmark.interactive.cvpr2025 import PUBLISHED, RULES, SCORES, case_scores, structure_scores
from causal_sam.benchmark.interactive.tables import HARMLESS, KEY, click_table, dice_curves, summarise
from causal_sam.benchmark.interactive.trials import Trial
from causal_sam.benchmark.report import FEW, PALETTE, Report, new_report, plot_curve
from causal_sam.errors import InputError, join_limited

DIGITS = {"dice": 5, "hd95_mm": 3, "nsd": 5, "far_change": 4, "seconds": 4}
PERCENT = dict.fromkeys(("failed@85", "lowered", "far_change", "unknown", "over_time"), ".0%")


def write_interactive_report(
    folder: Path,
    trials: Sequence[Trial],
    settings: Mapping[str, Any],
    pictures: Iterable[tuple[str, np.ndarray]],
    *,
    is_challenge: bool = False,
) -> None:
    """Write `report.md`, `trials.csv`, `summary.csv`, `summary.json` and plots; see `new_report`.

    Args:
        folder: folder of the report.
        trials: at least one trial.
        settings: options of the benchmark.
        pictures: names and images (HxWx3 uint8) to show.
        is_challenge: also write the scores of the CVPR 2025 challenge, and `cvpr2025.csv`.

    Raises:
        InputError: there are no trials, or the folder contains something else.
    """
    if not trials:
        raise InputError("Nothing was measured: the chosen cases have no large enough structure with a chosen name.")
    clicks = click_table(trials)
    groups, structures = summarise(clicks.assign(structure="all")), summarise(clicks)
    curves = dice_curves(clicks)
    has_corrections = clicks["clicks"].nunique() > 1
    with new_report(folder, "Interactive segmentation by a simulated annotator", settings) as report:
        report.csv("trials.csv", clicks.drop(columns="trial"), DIGITS)
        report.csv("summary.csv", pd.concat([groups, structures]))
        report.json({"groups": groups, "structures": structures, "curves": curves})
        report.text(
            "All methods get the same first prompt. p10: 10th percentile of Dice over all trials, so over first clicks "
            f"and cases. In brackets: 95 % bootstrap interval of the mean; {FEW}"
        )
        if has_corrections:
            report.text(
                "Each next click is in the largest error region of the method's own mask. NoC: mean number of clicks "
                f"until a Dice is reached; a trial that never reaches it counts all {clicks['clicks'].max()} clicks, "
                "and *failed* is the share of such trials. HD95: in mm, over masks that are not empty. Drop: largest "
                "loss of mean Dice from one click to the next. Lowered: share of trials in which a click lowered Dice "
                f"by more than {HARMLESS:g}. Far change: share of the voxels changed by a correction that are farther "
                "than two voxels from the connected error that was clicked. Seconds: median of the first prompt "
                "(which includes encoding the image, unless an earlier trial did) and of later clicks."
            )
            report.text(*_harm(clicks))
        if unknown := list(clicks.loc[~clicks["known"], "structure"].unique()):
            report.text(f"Unknown names, which count as Dice 0: {join_limited(unknown, len(unknown))}.")
        for heading, rows in (("## All structures", groups), ("## Each structure", structures)):
            _tables(report, heading, rows, has_corrections=has_corrections)
        if is_challenge:
            _challenge(report, trials, clicks)
        report.text("## Plots")
        if has_corrections:
            report.figure("dice.png", _plot_dice(curves), "Dice against clicks: mean and 10th percentile")
            report.figure("clicks.png", _plot_noc(groups), "Clicks needed")
        report.figure("structures.png", _plot_structures(structures), "Dice of each structure")
        for number, (name, image) in enumerate(pictures):
            if number == 0:
                report.text("## Worst and best", "Truth green; first mask red, last mask yellow.")
            imsave(report.folder / f"{name}.png", image)
            report.text(f"![{name}]({name}.png)")


def _harm(clicks: pd.DataFrame) -> Iterator[str]:
    """Say for each method in how many targets a click lowered Dice."""
    key = ["group", "case", "structure", "slice"]
    for method, rows in clicks.groupby("method", sort=False):
        changes = rows.groupby("trial")["dice"].diff()
        targets = rows.groupby(key, dropna=False)
        lowered = rows[changes < -HARMLESS].groupby(key, dropna=False)
        yield (
            f"{method}: a click lowered Dice by more than {HARMLESS:g} in {lowered.ngroups} of {targets.ngroups} "
            f"targets; a correction changed it by {changes.mean():+.4f} in the mean."
        )


def _tables(report: Report, heading: str, rows: pd.DataFrame, *, has_corrections: bool) -> None:
    dice = [name for name in rows if name.startswith(("dice@", "p10@"))]
    distances = [name for name in ("hd95@0_mm", "hd95@1_mm", "hd95@5_mm") if name in rows]
    if not has_corrections:
        report.table(rows[[*KEY, "count", *dice, *distances, "unknown", "first_seconds"]], heading, PERCENT)
        return
    effort = [name for name in rows if name.startswith("noc@")]
    harm = ["largest_drop", "lowered", "change_per_click", "far_change"]
    report.table(rows[[*KEY, "count", *dice]], heading)
    report.table(
        rows[[*KEY, *effort, "failed@85", *distances, *harm, "first_seconds", "next_seconds"]], formats=PERCENT
    )


def _challenge(report: Report, trials: Sequence[Trial], clicks: pd.DataFrame) -> None:
    scores, cases = structure_scores(trials), case_scores(clicks)
    report.csv("cvpr2025.csv", scores)
    report.text("## CVPR 2025 challenge", RULES)
    columns = list(SCORES)
    report.table(cases.groupby(["group", "method"], sort=False)[columns].mean().reset_index(), "### Mean of cases")
    columns += ["seconds", "over_time"]
    report.table(scores.groupby(KEY, sort=False)[columns].mean().reset_index(), "### Each structure", PERCENT)
    report.table(PUBLISHED, "### Published, on the images of the challenge", dict.fromkeys(SCORES, ".4f"))


def _plot_dice(curves: pd.DataFrame) -> Figure:
    names, methods = (list(curves[column].unique()) for column in ("group", "method"))
    figure = Figure(figsize=(max(6, 4.5 * len(names)), 4.5), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for (group, method), rows in curves.groupby(["group", "method"], sort=False):
        axis, colour = axes[names.index(group)], PALETTE[methods.index(method) % len(PALETTE)]
        plot_curve(axis, rows["clicks"], rows["dice"], method, colour)
        axis.plot(rows["clicks"], rows["p10"], linestyle=":", color=colour)
        axis.set(title=group, xlabel="clicks", ylim=(0, 1), xticks=rows["clicks"])
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("Dice: mean, 95 % interval; dotted: 10th percentile")
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


def _plot_structures(structures: pd.DataFrame) -> Figure:
    """Draw the mean Dice of each structure after the first prompt as bars, and the 10th percentile as a line."""
    first = next(name for name in structures if name.startswith("dice@")).removeprefix("dice@")
    methods = list(structures["method"].unique())
    figure = Figure(figsize=(8, max(3, 0.28 * len(structures))), layout="constrained")
    axis = figure.subplots()
    for place, row in enumerate(structures.to_dict("records")):
        colour = PALETTE[methods.index(row["method"]) % len(PALETTE)]
        axis.barh(place, row[f"dice@{first}"].value, color=colour, height=0.7)
        axis.plot([row[f"p10@{first}"]] * 2, [place - 0.35, place + 0.35], color="black")
    axis.set_yticks(range(len(structures)), [" · ".join(key) for key in structures[KEY].itertuples(index=False)])
    axis.set(xlim=(0, 1), xlabel="Dice after the first prompt: mean; line: 10th percentile")
    axis.tick_params(axis="y", labelsize=7)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    return figure
