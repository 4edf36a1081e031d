"""The report of the benchmark across domains. It states figures and draws no conclusions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from causal_sam.benchmark.ood import plots
from causal_sam.benchmark.ood.results import Run
from causal_sam.benchmark.report import FEW, Report, cell, escape, new_report
from causal_sam.benchmark.statistics import mean, mean_table, median, paired_differences
from causal_sam.errors import InputError

# The summary, by which an older report of this kind is recognised.
RECORD = "report.json"
# Order in the tables; other methods come after these.
METHODS = ("U-Net", "SAM + adapters", "+ style augmentation", "+ LAD, random vectors", "+ LAD")
REFERENCE, OURS = "SAM + adapters", "+ LAD"
COMPARED_WITH = ("SAM + adapters", "U-Net", "+ style augmentation", "+ LAD, random vectors")
IN_DOMAIN, OUT_OF_DOMAIN = "in domain", "out of domain"
MEASURES = {"dice": "Dice", "nsd": "NSD"}


def score_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row for each score of each run."""
    key = ("protocol", "seed", "method")
    rows = [{name: getattr(run, name) for name in key} | asdict(score) for run in runs for score in run.scores]
    return pd.DataFrame(rows).rename(columns={"hd95": "hd95_mm"})


def summarise_protocol(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Summarise the runs of one protocol.

    Args:
        runs: runs of any number of methods and seeds, with at least one score.

    Returns:
        Tables with a row for each method and: ``shifts`` (``shift``: in domain first, and last the union of the others
        if there are several; ``dice``, ``nsd`` and ``hd95`` in mm, which is a median if a method has infinite distances
        there, see ``central``, and the number of ``infinite`` ones), ``domains`` (``domain`` and its ``shift``),
        ``structures`` (``structure`` and ``where``: in or out of domain), ``differences`` ("+ LAD" minus the method
        ``against`` in points, by ``shift``), ``probes`` (``probe``, with mean, lowest and highest ``accuracy`` of the
        seeds) and ``training`` (medians of seconds per step and of its ratio to that of the reference with the same
        seed, share of trainable parameters). ``dice``, ``nsd`` and ``hd95`` are `Estimate` objects.
    """
    methods = _in_order((run.method for run in runs), METHODS)
    scores = score_table(runs).sort_values("method", key=lambda names: names.map(methods.index), kind="stable")
    scores["where"] = np.where(scores["shift"] == "none", IN_DOMAIN, OUT_OF_DOMAIN)
    scores["shift"] = scores["shift"].replace("none", IN_DOMAIN)
    shifts = _in_order(scores["shift"], (IN_DOMAIN,))
    parts = {shift: scores[scores["shift"] == shift] for shift in shifts}
    if len(set(shifts) - {IN_DOMAIN}) > 1:
        parts[OUT_OF_DOMAIN] = scores[scores["where"] == OUT_OF_DOMAIN]
    by_shift, differences = [], []
    for shift, part in parts.items():
        central = "median" if np.isinf(part["hd95_mm"]).any() else "mean"
        by_method = dict(list(part.groupby("method", sort=False)))
        for method, rows in by_method.items():
            record = {"shift": shift, "method": method} | {measure: mean(rows, measure) for measure in MEASURES}
            record["hd95"] = median(rows, "hd95_mm") if central == "median" else mean(rows, "hd95_mm")
            by_shift.append(record | {"central": central, "infinite": int(np.isinf(rows["hd95_mm"]).sum())})
        points = {name: rows.assign(dice=100 * rows["dice"], nsd=100 * rows["nsd"]) for name, rows in by_method.items()}
        for other in COMPARED_WITH if OURS in points else ():
            pairs = {m: paired_differences(points[OURS], points[other], m) for m in MEASURES if other in points}
            if pairs and len(pairs["dice"]):
                record = {"method": OURS, "against": other, "shift": shift}
                record |= {"seeds": pairs["dice"]["seed"].nunique(), "pairs": len(pairs["dice"])}
                differences.append(record | {measure: mean(rows, measure) for measure, rows in pairs.items()})
    domains = mean_table(scores, ["domain", "shift", "method"], list(MEASURES))
    structures = mean_table(scores, ["structure", "where", "method"], list(MEASURES))
    return {
        "shifts": pd.DataFrame(by_shift),
        "domains": domains.sort_values("shift", key=lambda names: names.map(shifts.index), kind="stable"),
        "structures": structures.sort_values("where", kind="stable"),
        "differences": pd.DataFrame(sorted(differences, key=lambda row: COMPARED_WITH.index(row["against"]))),
        "probes": _probes(runs, methods),
        "training": _training(runs, methods),
    }


def write_ood_report(
    folder: Path,
    runs: Sequence[Run],
    settings: Mapping[str, str],
    features: Mapping[str, plots.FeatureSet],
    examples: Sequence[plots.Example],
) -> None:
    """Write `report.md`, `scores.csv`, `report.json` and plots; see `new_report`.

    Args:
        folder: folder of the report; it must not contain the file of the runs.
        runs: runs of any protocols, seeds and methods; a protocol without any score is left out.
        settings: options of the benchmark.
        features: method -> features; those of "SAM + adapters" and "+ LAD" are drawn.
        examples: slices to show.

    Raises:
        InputError: nothing was measured, a method was run twice with a seed, or the folder contains something else.
    """
    if not any(run.scores for run in runs):
        raise InputError("Nothing was measured: no run has a score.")
    keys = [(run.protocol, run.method, run.seed) for run in runs]
    twice = next((key for n, key in enumerate(keys) if key in keys[:n]), None)
    if twice:
        raise InputError(f"{twice[1]} was run twice on {twice[0]} with seed {twice[2]}: keep one of the two.")
    drawn = {method: features[method] for method in (REFERENCE, OURS) if method in features}
    with new_report(folder, "Segmentation in and out of domain", settings, RECORD) as report:
        summaries = {
            protocol: summarise_protocol([run for run in runs if run.protocol == protocol])
            for protocol in dict.fromkeys(run.protocol for run in runs if run.scores)
        }
        report.csv("scores.csv", score_table(runs), {"dice": 5, "hd95_mm": 3, "nsd": 5})
        report.json({"protocols": summaries}, RECORD)
        report.text(
            "Means are over seeds, within a seed over cases, and within a case over its structures; medians use the "
            "same weights. In brackets: 95 % interval by a bootstrap that draws seeds, and cases within each drawn "
            "seed. HD95: in mm; infinite if one of the two masks is empty. NSD: share of the borders within the "
            f"tolerance. {FEW}"
        )
        for number, (protocol, summary) in enumerate(summaries.items(), 1):
            report.text(f"## {escape(protocol)}")
            _write_protocol(report, summary, f"dice-{number}.png", protocol)
        if drawn:
            text = "First two principal components of each method's own features, pooled inside structures."
            report.text("## Features", text)
            report.figure("features.png", plots.plot_features(drawn), "Features by style and by structure")
        if examples:
            report.text("## Examples", "White line: truth. Colours: structures as each method segments them.")
            report.figure("examples.png", plots.plot_examples(examples, METHODS), "Examples")


def _in_order(names: Iterable[str], first: Sequence[str]) -> list[str]:
    present = dict.fromkeys(names)
    return [name for name in first if name in present] + [name for name in present if name not in first]


def _probes(runs: Sequence[Run], methods: Sequence[str]) -> pd.DataFrame:
    probes = [
        {"probe": probe.name, "method": run.method} | asdict(probe) | {"ratio": probe.accuracy / probe.chance}
        for method in methods
        for run in runs
        for probe in run.probes
        if run.method == method
    ]
    if not probes:
        return pd.DataFrame()
    accuracy = {name: ("accuracy", how) for name, how in (("seeds", "size"), ("lowest", "min"), ("highest", "max"))}
    means = {name: (name, "mean") for name in ("accuracy", "chance", "ratio")}
    counts = {name: (name, lambda values: sorted(set(values))) for name in ("images", "styles")}
    table = pd.DataFrame(probes).groupby(["probe", "method"], sort=False).agg(**accuracy, **means, **counts)
    return table.sort_index(level="probe", sort_remaining=False, kind="stable").reset_index()


def _training(runs: Sequence[Run], methods: Sequence[str]) -> pd.DataFrame:
    rows = pd.DataFrame(
        [(run.method, run.seed, run.step_seconds, run.trainable_share) for run in runs],
        columns=["method", "seeds", "step_seconds", "trainable_share"],
    )
    # Seeds are compared with themselves: their steps may differ in speed for other reasons than the method.
    reference = rows[rows["method"] == REFERENCE].set_index("seeds")["step_seconds"]
    rows["relative_step"] = rows["step_seconds"] / rows["seeds"].map(reference)
    how = {"seeds": "count", "step_seconds": "median", "relative_step": "median", "trainable_share": "mean"}
    return rows.groupby("method").agg(how).loc[methods].reset_index()


def _write_protocol(report: Report, summary: Mapping[str, pd.DataFrame], plot: str, protocol: str) -> None:
    training, shifts = summary["training"], summary["shifts"]
    distances = [
        cell(row.hd95, ".1f") + f", {row.infinite} of {row.hd95.values} infinite" * bool(row.infinite)
        for row in shifts.itertuples()
    ]
    shifts = shifts.assign(hd95=distances, central=shifts["shift"] + ", " + shifts["central"])
    for measure, title, names in (*((*item, "shift") for item in MEASURES.items()), ("hd95", "HD95", "central")):
        wide = _spread(shifts, ["method"], names, measure)
        report.table(training[["method", "seeds"]].merge(wide, how="left"), f"### {title}")
    report.figure(plot, plots.plot_bars(summary["domains"], protocol), "Dice in each domain")
    if len(summary["differences"]):
        _write_differences(report, summary["differences"])
    if len(summary["probes"]):
        report.table(summary["probes"], "### Style in the features")
        report.text("A linear probe predicts the style of held-out images; a ratio of 1 is no better than chance.")
    report.table(training, "### Training", {"trainable_share": ".1%"})
    report.table(_spread(summary["domains"], ["domain", "shift"], "method", "dice"), "### Dice of each domain")
    report.table(_spread(summary["structures"], ["structure", "where"], "method", "dice"), "### Dice of each structure")


def _spread(rows: pd.DataFrame, index: list[str], column: str, value: str) -> pd.DataFrame:
    """Return a table with a column for each value of ``column``, in order of appearance."""
    return rows.set_index([*index, column])[value].unstack(sort=False).reset_index()


def _write_differences(report: Report, differences: pd.DataFrame) -> None:
    table = differences[["against", "shift", "seeds", "pairs"]]
    clear: dict[str, list[str]] = {}
    for measure, title in MEASURES.items():
        answers = [("yes" if each.excludes_zero else "no") + " †" * each.few for each in differences[measure]]
        table = table.assign(**{f"{title}, points": differences[measure], f"{title} excludes 0": answers})
        for against, shift, each in differences[["against", "shift", measure]].itertuples(index=False):
            if each.excludes_zero:
                places = clear.setdefault(f"{title}, against {against}", [])
                places.append(f"{shift} ({cell(each.value, '+.1f')}){' †' * each.few}")
    formats = {f"{title}, points": "+.1f" for title in MEASURES.values()}
    report.table(table, f"### Differences: {OURS} minus other methods", formats)
    report.text(
        "A point is 0.01. Both methods are measured on the same structure of the same case with the same seed. The "
        f"{len(MEASURES) * len(differences)} intervals are not corrected for their number. Those that exclude 0:",
        "\n".join(f"* {comparison}: {', '.join(places)}" for comparison, places in clear.items()) or "* none",
    )
