"""The report of the benchmark of learning: clicks and automatic Dice while the model learns from accepted labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from causal_sam.benchmark.learning.records import AdapterUpdate, AnnotatedStructure, AutomaticScore, Record
from causal_sam.benchmark.report import FEW, PALETTE, Report, cell, plot_curve, words
from causal_sam.benchmark.statistics import Estimate, mean, mean_table

TABLES = {"structures.csv": AnnotatedStructure, "found.csv": AutomaticScore, "updates.csv": AdapterUpdate}


def record_tables(records: Sequence[Record]) -> list[pd.DataFrame]:
    """Return a table for each kind of record, in the order of `TABLES`."""
    return [
        pd.DataFrame(
            [asdict(record) for record in records if isinstance(record, kind)], columns=[f.name for f in fields(kind)]
        ).astype({"version": "Int64"})
        for kind in TABLES.values()
    ]


def summarise_learning(records: Sequence[Record], later: Sequence[str] | None = None) -> dict[str, Any]:
    """Summarise the records of one order of cases.

    Args:
        records: at least one record, all of one order.
        later: labels that were annotated in the second half; the others show what is forgotten.

    Returns:
        ``steps``: table with ``accepted``, ``clicks`` of the next case and automatic ``dice`` on held-out cases;
        ``total``: clicks of all cases of a seed; ``by_hand`` and ``structures``: counts; ``held_out_clicks``: clicks of
        held-out cases before the first update and at the end; ``ratio``: the latter divided by the former; ``labels``:
        table with automatic ``dice`` by ``label`` at the end; ``seconds``: of each update; ``rejected``: number of
        updates that were not published; ``forgotten``: Dice lost by labels that were not annotated in the second half.
        Measures are `Estimate` objects over seeds and cases, or None if there is nothing to measure.
    """
    structures, scores, updates = record_tables(records)
    clicks = structures.groupby(["held_out", "accepted", "seed", "case"], sort=False)["clicks"].sum().reset_index()
    pool = clicks[~clicks["held_out"].astype(bool)]
    last = updates["accepted"].max() if len(updates) else 0
    begin, end = (clicks[clicks["held_out"].astype(bool) & (clicks["accepted"] == n)] for n in (0, last))
    both = begin.merge(end, on=["seed", "case"], suffixes=("_begin", "_end"))
    worked = structures[~structures["held_out"].astype(bool)]
    steps = [mean_table(pool, ["accepted"], ["clicks"]), mean_table(scores, ["accepted"], ["dice"])]
    first_half = updates.loc[updates["accepted"] <= last // 2, "accepted"]
    middle = scores[scores["accepted"] == (first_half.max() if len(first_half) else last)]
    at_end = scores[scores["accepted"] == last]
    lost = at_end[~at_end["label"].isin(later or at_end["label"])].merge(middle, on=["seed", "case", "label"])
    return {
        "steps": pd.concat([table.set_index("accepted") for table in steps], axis=1).sort_index().reset_index(),
        "by_hand": int(worked["by_hand"].sum()),
        "structures": len(worked),
        "total": mean(pool.groupby("seed", sort=False)["clicks"].sum().reset_index().assign(case=""), "clicks"),
        "held_out_clicks": {"begin": mean(begin, "clicks"), "end": mean(end, "clicks")},
        "ratio": both["clicks_end"].sum() / both["clicks_begin"].sum() if both["clicks_begin"].sum() else None,
        "labels": mean_table(at_end, ["label"], ["dice"]),
        "seconds": updates["seconds"].round(1).tolist(),
        "rejected": int((updates["status"] == "rejected").sum()),
        "forgotten": mean(lost.assign(lost=lost["dice_y"] - lost["dice_x"]), "lost"),
    }


def write_learning_report(
    folder: Path, records: Sequence[Record], settings: Mapping[str, str], later: Sequence[str] | None
) -> None:
    """Write `report.md`, `structures.csv`, `found.csv`, `updates.csv`, `summary.json` and `learning.png`.

    Args:
        folder: folder of the report, which may hold the records too; created if needed.
        records: records with at least one structure.
        settings: options of the benchmark.
        later: labels that were annotated in the second half.
    """
    folder.mkdir(parents=True, exist_ok=True)
    orders = list(dict.fromkeys(record.order for record in records))
    summaries = {order: summarise_learning([r for r in records if r.order == order], later) for order in orders}
    report = Report(folder, "Learning from accepted labels", settings)
    tables = record_tables(records)
    for name, table in zip(TABLES, tables, strict=True):
        report.csv(name, table)
    structures, held_out = tables[0], tables[0]["held_out"].astype(bool)
    saved = {
        "of a repetition": _clicks_saved(structures[~held_out]),
        "of the held-out cases at the end": _clicks_saved(structures[held_out & (structures["accepted"] > 0)]),
    }
    report.json({"orders": summaries, "fewer clicks than random": saved})
    report.text(f"In brackets: 95 % bootstrap interval over repetitions and cases; {FEW}")
    report.figure("learning.png", _plot(summaries), "Clicks and Dice")
    for order, summary in summaries.items():
        _write_order(report, order, summary)
    lines = [
        f"- {order} saves {value.value:.1f} clicks {what} compared with random, {value.low:.1f} to {value.high:.1f} "
        f"over {value.seeds} repetitions."
        for what, estimates in saved.items()
        for order, value in estimates.items()
    ]
    report.text(*["\n".join(lines)] * bool(lines))
    report.save()


def _clicks_saved(structures: pd.DataFrame) -> dict[str, Estimate]:
    """Return by how many clicks of a repetition each order undercuts the random order, over seeds."""
    totals = structures.groupby(["order", "seed"], sort=False)["clicks"].sum()
    saved: dict[str, Estimate] = {}
    for order in totals.index.unique("order"):
        if order != "random" and "random" in totals:
            pairs = (totals["random"] - totals[order]).dropna().rename("clicks").reset_index().assign(case="")
            saved |= {order: mean(pairs, "clicks")} if len(pairs) else {}
    return saved


def _write_order(report: Report, order: str, summary: Mapping[str, Any]) -> None:
    report.text(f"## Cases chosen: {order}")
    steps = summary["steps"].rename(columns={"accepted": "accepted_before", "dice": "held_out_dice"})
    report.table(steps, formats={"clicks": ".1f"})
    held_out = summary["held_out_clicks"]
    lines = [f"- Clicks of all cases of a repetition: {cell(summary['total'], '.1f')}."]
    if held_out["begin"] and held_out["end"]:
        lines.append(
            f"- Held-out cases take {cell(held_out['begin'], '.1f')} clicks before the first update and "
            f"{cell(held_out['end'], '.1f')} at the end: a ratio of {summary['ratio']:.2f}."
        )
    if summary["forgotten"]:
        lines.append(f"- Dice lost by labels that were no longer annotated: {cell(summary['forgotten'], '.4f')}.")
    lines.append(f"- Drawn by hand in the end: {summary['by_hand']} of {summary['structures']} structures.")
    seconds = words([f"{seconds:.0f} s" for seconds in summary["seconds"]])
    lines.append(f"- Updates took {seconds}; {summary['rejected']} were rejected.")
    report.text("\n".join(lines))
    report.table(summary["labels"].rename(columns={"dice": "held_out_dice_at_the_end"}))


def _plot(summaries: Mapping[str, dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True)
    for (order, summary), colour in zip(summaries.items(), PALETTE, strict=False):
        steps = summary["steps"]
        for axis, measure in zip(axes, ("clicks", "dice"), strict=True):
            rows = steps[steps[measure].notna()]
            if len(rows):
                plot_curve(axis, rows["accepted"], rows[measure], order, colour)
        held_out = summary["held_out_clicks"]
        if held_out["begin"] and held_out["end"]:
            ends = [0, steps["accepted"].max()], [held_out["begin"].value, held_out["end"].value]
            axes[0].plot(*ends, "s--", color=colour, markerfacecolor="none", label=f"{order}, held-out cases")
    axes[0].set(xlabel="cases accepted before", ylabel="clicks per case", ylim=(0, None))
    axes[1].set(xlabel="cases accepted", ylabel="automatic Dice, held-out cases", ylim=(0, 1))
    axes[0].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
