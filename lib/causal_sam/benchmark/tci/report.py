"""Tables and a plot of what notes did to wrong masks, in a folder that a reader can open."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from causal_sam.benchmark.ood.stats import ENOUGH, Estimate, mean
from causal_sam.benchmark.report import SUMMARY, environment, replace_folder, row, words
from causal_sam.benchmark.tci.trials import Trial
from causal_sam.errors import InputError

TRIALS = "trials.csv"
PLOT = "dice.png"
ALL, MODULATED, EXACT = "all", "decided by the model", "exact operators"
CORRECTED, UNTOUCHED, OTHER_TEXT = "#0072B2", "#999999", "#D55E00"


def summarise_trials(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Summarise trials: all of them, those of acts that the decoder decides, of exact acts, of each group and kind.

    Args:
        trials: at least one.

    Returns:
        Records with ``what``, ``notes``, ``cases``, ``read`` (share of notes read rightly), ``raised`` (share of notes
        that raised Dice), ``raised_if_read`` (the same of notes read rightly), ``acts``, ``refused`` (share of the
        acts), ``outside`` (voxels), ``before`` and ``after`` (mean Dice), ``gain``, and of the notes that have controls
        ``other`` (gain with the text of another act), ``none`` (gain without modulation), ``own_minus_other`` and
        ``own_minus_none``, all five in points of Dice; ``seconds`` and ``click_seconds`` (each median and 95th
        percentile), and ``clicks`` (median of how many clicks a note takes as long as). Dice and what is made of it
        are an `Estimate` over cases; what there is nothing of is None.
    """
    scopes: dict[str, list[Trial]] = {ALL: list(trials)}
    scopes[MODULATED] = [trial for trial in trials if trial.modulated]
    scopes[EXACT] = [trial for trial in trials if not trial.modulated]
    for trial in trials:
        scopes.setdefault(trial.group, []).append(trial)
    for trial in trials:
        scopes.setdefault(trial.kind, []).append(trial)
    return [_summary(name, members) for name, members in scopes.items() if members]


def write_tci_report(folder: Path, trials: Sequence[Trial], settings: Mapping[str, Any]) -> None:
    """Write `report.md`, `trials.csv`, `summary.csv`, `summary.json` and a plot.

    The folder appears when all is written; one that is there from before is replaced if it holds a report or nothing.

    Args:
        folder: to write.
        trials: at least one.
        settings: how they were made, for the reader.

    Raises:
        InputError: there are no trials, or the folder holds something else.
    """
    if not trials:
        raise InputError(
            "Nothing was measured: no structure of the chosen cases is large enough, or none has its name."
        )
    with replace_folder(folder, SUMMARY) as part:
        records = summarise_trials(trials)
        about = {**settings, **environment()}
        with (part / TRIALS).open("w", newline="") as file:
            writer = csv.DictWriter(file, [each.name for each in fields(Trial)])
            writer.writeheader()
            writer.writerows(asdict(trial) for trial in trials)
        _write_summary(part / "summary.csv", records)
        (part / SUMMARY).write_text(
            json.dumps({"settings": about, "summary": records}, default=asdict, indent=1, ensure_ascii=False) + "\n"
        )
        _plot(part / PLOT, trials)
        (part / "report.md").write_text(_markdown(records, trials, about))


def _summary(name: str, trials: Sequence[Trial]) -> dict[str, Any]:
    right = [trial for trial in trials if trial.read_rightly]
    asked = [trial for trial in trials if trial.after_other_text is not None]
    acts = sum(trial.acts for trial in trials)
    return {
        "what": name,
        "notes": len(trials),
        "cases": len({(trial.group, trial.case) for trial in trials}),
        "read": len(right) / len(trials),
        "raised": float(np.mean([trial.gain > 0 for trial in trials])),
        "raised_if_read": float(np.mean([trial.gain > 0 for trial in right])) if right else None,
        "acts": acts,
        "refused": sum(trial.refused for trial in trials) / acts if acts else None,
        "outside": sum(trial.outside for trial in trials),
        "before": _over_cases(trials, lambda trial: trial.before),
        "after": _over_cases(trials, lambda trial: trial.after),
        "gain": _over_cases(trials, lambda trial: 100 * trial.gain),
        "other": _over_cases(asked, lambda trial: 100 * (trial.after_other_text - trial.before)),
        "none": _over_cases(asked, lambda trial: 100 * (trial.after_no_text - trial.before)),
        "own_minus_other": _over_cases(asked, lambda trial: 100 * (trial.after - trial.after_other_text)),
        "own_minus_none": _over_cases(asked, lambda trial: 100 * (trial.after - trial.after_no_text)),
        "seconds": _times([trial.seconds for trial in trials]),
        "click_seconds": _times([trial.click_seconds for trial in trials]),
        "clicks": float(np.median([trial.seconds / trial.click_seconds for trial in trials])),
    }


def _over_cases(trials: Sequence[Trial], measure: Callable[[Trial], float]) -> Estimate | None:
    groups: dict[tuple[int, str], list[float]] = {}
    for trial in trials:
        groups.setdefault((0, f"{trial.group}/{trial.case}"), []).append(measure(trial))
    return mean(groups) if groups else None


def _times(seconds: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(seconds)), "p95": float(np.percentile(seconds, 95))}


def _write_summary(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """A row for each record; of what has an interval its ends too, and of times both figures."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(_flat(records[0])))
        writer.writeheader()
        writer.writerows(map(_flat, records))


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, value in record.items():
        if name in ("before", "after", "gain", "other", "none", "own_minus_other", "own_minus_none"):
            for end in ("value", "low", "high"):
                cells[name if end == "value" else f"{name}_{end}"] = None if value is None else getattr(value, end)
        elif isinstance(value, dict):
            cells |= {f"{name}_{part}": number for part, number in value.items()}
        else:
            cells[name] = value
    return cells


def _markdown(records: Sequence[Mapping[str, Any]], trials: Sequence[Trial], about: Mapping[str, Any]) -> str:
    lines = ["# Wrong masks corrected by notes", ""]
    lines += [f"* {key}: {words(value)}" for key, value in about.items()]
    lines += [
        "",
        "Each wrong mask was simulated, and its note written from a template. *Read*: notes understood as exactly the "
        "act that the error needs. *Raised*: notes after which Dice was higher, in brackets of those read rightly. "
        "*Refused*: acts whose result the guard did not take. *Outside*: voxels changed where the region of the act, "
        f"drawn anew, is 0. Gains are in points of Dice, with a 95 % bootstrap interval over cases if there are "
        f"{ENOUGH} or more.",
        "",
    ]
    titles = ("what", "notes", "cases", "read", "raised", "Dice before", "after", "gain", "refused", "outside")
    lines += _table(titles, (_corrected(record) for record in records))
    lines += [
        "## Is the text used?",
        "",
        "The same acts in the same regions, but the decoder sees the sentence of another act on the same label, or no "
        "text at all. If that does as well, the language is not used. Notes with an act that the decoder decides.",
        "",
    ]
    titles = ("what", "own text", "other text", "own - other", "no text", "own - no text")
    controlled = (record for record in records if record["what"] != ALL and record["other"] is not None)
    lines += _table(titles, map(_controlled, controlled))
    lines += [
        "## Time",
        "",
        "Seconds from the note to the new mask of the whole structure, beside a click into the middle of the structure "
        "that is followed through the volume; both with embeddings at hand.",
        "",
    ]
    titles = ("what", "note, median", "95 %", "click, median", "95 %", "clicks a note takes")
    lines += _table(titles, (_timed(record) for record in records))
    lines += ["## Each kind of error", "", f"![Dice before and after]({PLOT})", ""]
    misread = [trial for trial in trials if not trial.read_rightly]
    if misread:
        lines += ["## Notes that were read otherwise", ""]
        lines += _table(("note", "wanted", "read"), ((trial.note, trial.wanted, trial.read) for trial in misread))
    return "\n".join(lines)


def _table(titles: Sequence[str], rows: Any) -> list[str]:
    return [row(titles), row(["---"] * len(titles)), *map(row, rows), ""]


def _corrected(record: Mapping[str, Any]) -> list[str]:
    raised = f"{_percent(record['raised'])} ({_percent(record['raised_if_read'])})"
    return [
        record["what"],
        str(record["notes"]),
        str(record["cases"]),
        _percent(record["read"]),
        raised,
        f"{record['before'].value:.3f}",
        f"{record['after'].value:.3f}",
        _points(record["gain"]),
        _percent(record["refused"]),
        str(record["outside"]),
    ]


def _controlled(record: Mapping[str, Any]) -> list[str]:
    own = record["other"].value + record["own_minus_other"].value
    measures = (record[name] for name in ("other", "own_minus_other", "none", "own_minus_none"))
    return [record["what"], f"{own:+.1f}", *map(_points, measures)]


def _timed(record: Mapping[str, Any]) -> list[str]:
    times = [record[name][part] for name in ("seconds", "click_seconds") for part in ("median", "p95")]
    return [record["what"], *(f"{seconds:.3f}" for seconds in times), f"{record['clicks']:.1f}"]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _points(estimate: Estimate) -> str:
    text = f"{estimate.value:+.1f}"
    return text if estimate.cases < ENOUGH else f"{text} ({estimate.low:+.1f} to {estimate.high:+.1f})"


def _plot(path: Path, trials: Sequence[Trial]) -> None:
    """An arrow from the mean Dice of the wrong masks to that of the corrected ones, for each kind of error."""
    kinds = {kind: [trial for trial in trials if trial.kind == kind] for kind in dict.fromkeys(t.kind for t in trials)}
    figure = Figure(figsize=(8, 1.8 + 0.4 * len(kinds)), layout="constrained")
    axis = figure.subplots()
    for place, members in enumerate(kinds.values()):
        before, after = (np.mean([getattr(trial, name) for trial in members]) for name in ("before", "after"))
        asked = [trial.after_other_text for trial in members if trial.after_other_text is not None]
        axis.annotate("", (after, place), (before, place), arrowprops={"arrowstyle": "->", "color": CORRECTED})
        axis.plot(before, place, "o", color=UNTOUCHED, label="before")
        axis.plot(after, place, "o", color=CORRECTED, label="after")
        if asked:
            axis.plot(np.mean(asked), place, "x", color=OTHER_TEXT, label="after, text of another act")
    axis.set_yticks(range(len(kinds)), [f"{kind} ({len(members)})" for kind, members in kinds.items()])
    axis.invert_yaxis()
    axis.set_xlabel("mean Dice")
    axis.grid(axis="x", alpha=0.3)
    handles, labels = axis.get_legend_handles_labels()
    legend = dict(zip(labels, handles, strict=True))
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.set_dpi(120)
    FigureCanvasAgg(figure).print_png(path)
