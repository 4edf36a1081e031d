"""Tables and plots of what annotators saved as the model learnt, in a folder that a reader can open."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from causal_sam.benchmark.learning.records import Found, Made, Record, Structure
from causal_sam.benchmark.ood.plots import COLOURS
from causal_sam.benchmark.ood.stats import Estimate, mean
from causal_sam.benchmark.report import SUMMARY, environment, row, words

Key = tuple[int, str]


def summarise_learning(records: Sequence[Record], later: Sequence[str] | None = None) -> dict[str, Any]:
    """Summarise the records of one way to choose cases.

    Args:
        records: at least one, all of one order.
        later: labels that were annotated in the second half; those that were not tell what is forgotten.

    Returns:
        ``clicks``: per case, by how many were accepted before (an `Estimate` over seeds and cases); ``total``: of all
        cases of a seed. ``held_out_clicks``: the same of held-out cases, before anything was learnt and at the end, and
        ``ratio``, the one divided by the other. ``automatic``: Dice on held-out cases by how many were accepted, and
        ``labels``: the same by label at the end. ``forgotten``: Dice that labels lost which were not annotated in the
        second half. ``seconds``: of each update, ``rejected``: how many were not published.
    """
    structures = [record for record in records if isinstance(record, Structure)]
    found = [record for record in records if isinstance(record, Found)]
    made = [record for record in records if isinstance(record, Made)]
    worked = [record for record in structures if not record.held_out]
    apart = [record for record in structures if record.held_out]
    steps = sorted({record.accepted for record in worked})
    last = max((record.accepted for record in made), default=0)
    ends = {
        end: _per_case([r for r in apart if r.accepted == accepted]) for end, accepted in (("begin", 0), ("end", last))
    }
    summary: dict[str, Any] = {
        "clicks": {step: _mean(_per_case([r for r in worked if r.accepted == step])) for step in steps},
        "by_hand": sum(record.by_hand for record in worked),
        "structures": len(worked),
        "total": _mean(
            {
                (seed, ""): [sum(sum(v) for (s, _), v in _per_case(worked).items() if s == seed)]
                for seed in {r.seed for r in worked}
            }
        ),
        "held_out_clicks": {end: _mean(groups) for end, groups in ends.items()},
        "ratio": _ratio(ends["begin"], ends["end"]),
        "automatic": {
            accepted: _mean(_dice(r for r in found if r.accepted == accepted))
            for accepted in sorted({r.accepted for r in found})
        },
        "labels": {
            label: _mean(_dice(r for r in found if r.accepted == last and r.label == label))
            for label in dict.fromkeys(r.label for r in found)
        },
        "seconds": [round(record.seconds, 1) for record in made],
        "rejected": sum(record.status == "rejected" for record in made),
    }
    dropped = {r.label for r in found} - set(later or {r.label for r in found})
    if dropped:
        middle = max((r.accepted for r in made if r.accepted <= last // 2), default=last)
        before = {(r.seed, r.case, r.label): r.dice for r in found if r.accepted == middle}
        losses: dict[Key, list[float]] = {}
        for r in found:
            if r.accepted == last and r.label in dropped:
                losses.setdefault((r.seed, r.case), []).append(before[r.seed, r.case, r.label] - r.dice)
        summary["forgotten"] = _mean(losses)
    return summary


def write_learning_report(
    folder: Path, records: Sequence[Record], settings: Mapping[str, str], later: Sequence[str] | None
) -> None:
    """Write `report.md`, `structures.csv`, `found.csv`, `updates.csv`, `summary.json` and `learning.png`.

    Args:
        folder: is made.
        records: at least one structure.
        settings: how they were made, for the reader.
        later: labels that were annotated in the second half.
    """
    folder.mkdir(parents=True, exist_ok=True)
    orders = list(dict.fromkeys(record.order for record in records))
    summaries = {order: summarise_learning([r for r in records if r.order == order], later) for order in orders}
    for kind, name in ((Structure, "structures.csv"), (Found, "found.csv"), (Made, "updates.csv")):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, [each.name for each in fields(kind)])
            writer.writeheader()
            writer.writerows(asdict(record) for record in records if isinstance(record, kind))
    saved = {
        what: _saved([r for r in records if isinstance(r, Structure) and wanted(r)], orders)
        for what, wanted in (
            ("of a repetition", lambda r: not r.held_out),
            ("of the held-out cases at the end", lambda r: r.held_out and r.accepted > 0),
        )
    }
    about = {**settings, **environment()}
    content = {"settings": about, "orders": summaries, "fewer clicks than random": saved}
    (folder / SUMMARY).write_text(json.dumps(content, default=asdict, indent=1, ensure_ascii=False) + "\n")
    (folder / "report.md").write_text(_markdown(summaries, about, saved))
    _plot(folder / "learning.png", summaries)


def _per_case(structures: Iterable[Structure]) -> dict[Key, list[float]]:
    """Clicks of each case: the sum over its structures."""
    clicks: dict[Key, float] = {}
    for record in structures:
        key = (record.seed, record.case)
        clicks[key] = clicks.get(key, 0) + record.clicks
    return {key: [value] for key, value in clicks.items()}


def _dice(found: Iterable[Found]) -> dict[Key, list[float]]:
    groups: dict[Key, list[float]] = {}
    for record in found:
        groups.setdefault((record.seed, record.case), []).append(record.dice)
    return groups


def _mean(groups: Mapping[Key, Sequence[float]]) -> Estimate | None:
    return mean(groups) if groups else None


def _ratio(begin: Mapping[Key, Sequence[float]], end: Mapping[Key, Sequence[float]]) -> float | None:
    """Clicks of the same cases at the end and at the beginning, all together."""
    shared = begin.keys() & end.keys()
    before = sum(begin[key][0] for key in shared)
    return sum(end[key][0] for key in shared) / before if before else None


def _saved(structures: Sequence[Structure], orders: Sequence[str]) -> dict[str, Estimate]:
    """Clicks of a repetition that an order saves against taking cases at random, over seeds."""
    totals: dict[str, dict[int, float]] = {}
    for record in structures:
        seeds = totals.setdefault(record.order, {})
        seeds[record.seed] = seeds.get(record.seed, 0) + record.clicks
    random = totals.get("random", {})
    return {
        order: mean({(n, ""): [random[n] - clicks] for n, clicks in totals[order].items() if n in random})
        for order in orders
        if order != "random" and random.keys() & totals[order].keys()
    }


def _markdown(
    summaries: Mapping[str, dict[str, Any]], about: Mapping[str, str], saved: Mapping[str, Mapping[str, Estimate]]
) -> str:
    lines = ["# Learning from accepted labels", "", "![Clicks and Dice](learning.png)", ""]
    lines += [
        row(["setting", "value"]),
        row(["---"] * 2),
        *(row([key, words(value)]) for key, value in about.items()),
        "",
    ]
    for order, summary in summaries.items():
        lines += [f"## Cases chosen: {order}", ""]
        lines += [row(["accepted before", "clicks per case", "automatic Dice on held-out cases"]), row(["---"] * 3)]
        for step in sorted({*summary["clicks"], *summary["automatic"]}):
            clicks, found = summary["clicks"].get(step), summary["automatic"].get(step)
            lines.append(row([str(step), _told(clicks, 1), _told(found, 3)]))
        apart = summary["held_out_clicks"]
        lines += ["", f"- Clicks of all cases of a repetition: {_told(summary['total'], 1)}."]
        if apart["begin"] and apart["end"]:
            lines.append(
                f"- Held-out cases take {_told(apart['begin'], 1)} clicks before anything was learnt and "
                f"{_told(apart['end'], 1)} at the end: {summary['ratio']:.2f} of them."
            )
        if "forgotten" in summary:
            lines.append(f"- Dice lost by labels that were not annotated any more: {_told(summary['forgotten'], 4)}.")
        lines.append(f"- Drawn by hand in the end: {summary['by_hand']} of {summary['structures']} structures.")
        lines.append(
            f"- Updates took {words([f'{s:.0f} s' for s in summary['seconds']])}; {summary['rejected']} were rejected."
        )
        lines += ["", row(["label", "automatic Dice at the end"]), row(["---"] * 2)]
        lines += [row([label, _told(value, 3)]) for label, value in summary["labels"].items()]
        lines.append("")
    lines += [
        f"- {order} saves {value.value:.1f} clicks {what} against random, {value.low:.1f} to {value.high:.1f} over "
        f"{value.seeds} repetitions."
        for what, orders in saved.items()
        for order, value in orders.items()
    ]
    return "\n".join(lines).rstrip() + "\n"


def _told(value: Estimate | None, digits: int) -> str:
    if value is None:
        return "-"
    if value.few:
        return f"{value.value:.{digits}f}"
    return f"{value.value:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def _plot(path: Path, summaries: Mapping[str, dict[str, Any]]) -> None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    clicks, found = figure.subplots(1, 2, sharex=True)
    for (order, summary), colour in zip(summaries.items(), COLOURS, strict=False):
        _curve(clicks, summary["clicks"], order, colour)
        _curve(found, summary["automatic"], order, colour)
        apart = summary["held_out_clicks"]
        if apart["begin"] and apart["end"]:
            ends = [0, max(summary["automatic"])], [apart["begin"].value, apart["end"].value]
            clicks.plot(*ends, "s--", color=colour, markerfacecolor="none", label=f"{order}, held-out cases")
    clicks.set(xlabel="cases accepted before", ylabel="clicks per case", ylim=(0, None))
    found.set(xlabel="cases accepted", ylabel="automatic Dice, held-out cases", ylim=(0, 1))
    clicks.legend()
    for axes in (clicks, found):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    FigureCanvasAgg(figure).print_figure(path, dpi=110)


def _curve(axes: Axes, points: Mapping[int, Estimate], label: str, colour: str) -> None:
    steps = list(points)
    values, low, high = (np.array([getattr(points[step], end) for step in steps]) for end in ("value", "low", "high"))
    axes.plot(steps, values, marker="o", color=colour, label=label)
    if not any(points[step].few for step in steps):
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
