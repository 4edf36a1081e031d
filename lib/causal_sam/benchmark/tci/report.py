"""The report of the benchmark of notes: simulated errors, the notes about them and the corrected masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from causal_sam.benchmark.report import FEW, GREY, PALETTE, new_report
from causal_sam.benchmark.statistics import mean
from causal_sam.benchmark.tci.trials import Trial
from causal_sam.errors import InputError

GAINS = ("own", "other", "own_minus_other", "none", "own_minus_none")
SHARES = ("read", "raised", "raised_if_read", "right", "refused", "asked")
# Column -> title in the tables of `report.md`; formats are by title.
TITLES = {"what": "notes about", "before": "Dice before", "after": "Dice after", "clicks": "note / click"}
TITLES |= {"own": "own text", "other": "other text", "none": "no text", "own_minus_none": "own minus no text"}
FORMATS = {TITLES.get(name, name): "+.1f" for name in ("gain", *GAINS)} | dict.fromkeys(SHARES, ".1%")
FORMATS["note / click"] = ".1f"
COUNTS = ("what", "notes", "cases")
TIMES = ["seconds_median", "seconds_p95", "click_seconds_median", "click_seconds_p95"]
ALL, MODULATED, EXACT = "all", "decided by the model", "exact operators"


def trial_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return a row for each trial, with a column for each attribute of `Trial`."""
    table = pd.DataFrame(map(asdict, trials), columns=[field.name for field in fields(Trial)])
    return table.astype({"after_other_text": float, "after_no_text": float, "right": float})


def summarise_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Summarise all trials, those with modulated acts, those with exact acts, and those of each group and kind.

    Args:
        trials: table from `trial_table` with at least one row.

    Returns:
        Columns ``what`` (name of these trials), ``notes``, ``cases``, ``read`` (share of notes read as intended),
        ``raised`` (share of notes that raised Dice), ``raised_if_read`` (the same of notes read as intended),
        ``right`` (mean share of the changed voxels that are right), ``acts``, ``refused`` (share of the acts),
        ``asked`` (share of notes that had to be confirmed), ``outside`` (voxels); ``before`` and ``after``
        (Dice), ``gain``, and of notes with controls ``other`` (gain with the text of another act), ``none`` (gain
        without modulation), ``own`` (gain),
        ``own_minus_other`` and ``own_minus_none``: `Estimate` objects over cases or None, gains in points of Dice;
        ``seconds_*`` and ``click_seconds_*`` (median and 95th percentile), and ``clicks`` (median time of a note
        divided by that of a click).
    """
    parts = {ALL: trials, MODULATED: trials[trials["modulated"]], EXACT: trials[~trials["modulated"]]}
    parts |= {name: rows for column in ("group", "kind") for name, rows in trials.groupby(column, sort=False)}
    return pd.DataFrame([_summary(name, rows) for name, rows in parts.items() if len(rows)])


def write_tci_report(folder: Path, trials: Sequence[Trial], settings: Mapping[str, Any]) -> None:
    """Write `report.md`, `trials.csv`, `summary.csv`, `summary.json` and a plot; see `new_report`.

    Args:
        folder: folder of the report.
        trials: at least one trial.
        settings: options of the benchmark.

    Raises:
        InputError: there are no trials, or the folder contains something else.
    """
    if not trials:
        raise InputError("Nothing was measured: the chosen cases have no large enough structure with a chosen name.")
    table = trial_table(trials)
    summary = summarise_trials(table)
    with new_report(folder, "Wrong masks corrected by notes", settings) as report:
        report.csv("trials.csv", table)
        report.csv("summary.csv", summary)
        report.json({"summary": summary})
        report.text(
            "Each error was simulated; *real* ones are the largest of masks that were really made. Notes were written "
            "from templates. *Read*: notes understood as exactly the act that corrects the error. *Raised*: notes that "
            "raised Dice. *Right*: changed voxels that are right afterwards. *Refused*: acts whose result the guard "
            "rejected. *Asked*: notes that had to be confirmed, and were. *Outside*: changed voxels where the "
            "recomputed region of the act is 0. Gains are in points of Dice. In brackets: 95 % bootstrap interval over "
            f"cases; {FEW}"
        )
        report.table(
            summary[[*COUNTS, *SHARES, "before", "after", "gain", "outside"]].rename(columns=TITLES), "", FORMATS
        )
        report.text(
            "## Is the text used?",
            "The same acts in the same regions, but the decoder sees the sentence of another act on the same label, or "
            "no text at all. If that does as well, the language is not used. Only notes with a modulated act count.",
        )
        controls = summary[(summary["what"] != ALL) & summary["other"].notna()]
        report.table(controls[["what", *GAINS]].rename(columns=TITLES), "", FORMATS)
        report.text(
            "## Time",
            "Seconds from the note to the new mask of the whole structure, compared with a click into the middle of "
            "the structure that is propagated through the volume. Embeddings are cached for both.",
        )
        report.table(summary[["what", *TIMES, "clicks"]].rename(columns=TITLES), "", FORMATS)
        report.text("## Each kind of error")
        report.figure("dice.png", _plot(table), "Dice before and after")
        misread = table[table["read"] != table["wanted"]]
        report.table(misread[["note", "wanted", "read"]], "## Notes that were read differently")


def _summary(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    right = rows["read"] == rows["wanted"]
    raised = rows["after"] > rows["before"]
    acts = rows["acts"].sum()
    rows = rows.assign(
        case=rows["group"] + "/" + rows["case"],
        gain=100 * (rows["after"] - rows["before"]),
        own=100 * (rows["after"] - rows["before"]),
        other=100 * (rows["after_other_text"] - rows["before"]),
        none=100 * (rows["after_no_text"] - rows["before"]),
        own_minus_other=100 * (rows["after"] - rows["after_other_text"]),
        own_minus_none=100 * (rows["after"] - rows["after_no_text"]),
    )
    controlled = rows[rows["after_other_text"].notna()]
    return {
        "what": name,
        "notes": len(rows),
        "cases": rows["case"].nunique(),
        "read": right.mean(),
        "raised": raised.mean(),
        "raised_if_read": raised[right].mean(),
        "right": rows["right"].mean(),
        "asked": (rows["doubt"] != "").mean(),
        "acts": acts,
        "refused": rows["refused"].sum() / acts if acts else None,
        "outside": rows["outside"].sum(),
        **{measure: mean(rows, measure) for measure in ("before", "after", "gain")},
        **{
            measure: mean(controlled, measure)
            for measure in ("own", "other", "none", "own_minus_other", "own_minus_none")
        },
        **{
            f"{column}_{part}": rows[column].quantile(share)
            for column in ("seconds", "click_seconds")
            for part, share in (("median", 0.5), ("p95", 0.95))
        },
        "clicks": (rows["seconds"] / rows["click_seconds"]).median(),
    }


def _plot(trials: pd.DataFrame) -> Figure:
    """Draw an arrow from mean Dice before to mean Dice after, for each kind of error."""
    kinds = trials.groupby("kind", sort=False)
    means = kinds[["before", "after", "after_other_text"]].mean()
    figure = Figure(figsize=(8, 1.8 + 0.4 * len(means)), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(means))
    for place, (before, after) in enumerate(zip(means["before"], means["after"], strict=True)):
        axis.annotate("", (after, place), (before, place), arrowprops={"arrowstyle": "->", "color": PALETTE[0]})
    axis.plot(means["before"], places, "o", color=GREY, label="before")
    axis.plot(means["after"], places, "o", color=PALETTE[0], label="after")
    axis.plot(means["after_other_text"], places, "x", color=PALETTE[4], label="after, text of another act")
    axis.set_yticks(places, [f"{kind} ({count})" for kind, count in kinds.size().items()])
    axis.invert_yaxis()
    axis.set_xlabel("mean Dice")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure
