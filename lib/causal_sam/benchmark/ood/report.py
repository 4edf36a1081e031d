"""Tables and plots of a benchmark across domains, in a folder that a reader can open. They state figures alone."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal_sam.benchmark.ood import plots
from causal_sam.benchmark.ood.results import Run, Score
from causal_sam.benchmark.ood.stats import ENOUGH, Estimate, group_values, mean, median, paired_differences
from causal_sam.benchmark.report import environment, replace_folder, row, words
from causal_sam.errors import InputError

# Tells a report of this kind from other folders.
RECORD = "report.json"
# In the order of the tables; others come after them.
METHODS = ("U-Net", "SAM + adapters", "+ style augmentation", "+ LAD, random vectors", "+ LAD")
REFERENCE, OURS = "SAM + adapters", "+ LAD"
COMPARED_WITH = ("SAM + adapters", "U-Net", "+ style augmentation", "+ LAD, random vectors")
IN_DOMAIN, OUT_OF_DOMAIN = "in domain", "out of domain"
MEASURES = {"dice": "Dice", "nsd": "NSD"}


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features that one method pooled inside structures of held-out images.

    Attributes:
        features: NxC.
        styles: the image's style, of each row.
        structures: name of the structure, of each row.

    Raises:
        InputError: the three do not belong together.
    """

    features: NDArray[np.floating]
    styles: list[str]
    structures: list[str]

    def __post_init__(self) -> None:
        """Check the lengths."""
        shape = np.shape(self.features)
        if len(shape) != 2 or not shape[0] or not shape[0] == len(self.styles) == len(self.structures):
            raise InputError(
                f"Features must be NxC with a style and a structure for each row, not {shape} with "
                f"{len(self.styles)} styles and {len(self.structures)} structures."
            )


@dataclass(frozen=True, eq=False)
class Example:
    """A slice of a held-out case and what the methods made of it.

    Attributes:
        domain: style or data set.
        case: of the data set.
        image: HxW in [0, 1].
        truth: HxW, number of the structure, 0 outside of all.
        predictions: method -> HxW, with the same numbers.

    Raises:
        InputError: they are not of one shape.
    """

    domain: str
    case: str
    image: NDArray[np.floating]
    truth: NDArray[np.integer]
    predictions: dict[str, NDArray[np.integer]]

    def __post_init__(self) -> None:
        """Check the shapes."""
        shapes = {np.shape(array) for array in (self.image, self.truth, *self.predictions.values())}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise InputError(
                f"Image, truth and predictions of {self.domain}, {self.case} must be of one shape HxW, not "
                f"{' and '.join(map(str, sorted(shapes)))}."
            )


def summarise_protocol(runs: Sequence[Run]) -> dict[str, Any]:
    """Summarise the runs of one protocol.

    Args:
        runs: of any number of methods, each with any seeds.

    Returns:
        ``protocol``; ``shifts``: names of the columns, in domain first, with the union of the others last where there
        are several; ``domains``: domain -> its column; ``structures``: names; ``hd95``: column -> "mean", or "median"
        where a method has infinite distances; ``methods``: records of each with ``method``, ``seeds``,
        ``shifts``, ``domains`` and ``structures`` (name -> measures; for structures a name is (structure, in or out of
        domain)), ``probes``, ``step_seconds``, ``relative_step`` and ``trainable_share``; ``differences``: "+ LAD"
        minus others in points. Measures are an `Estimate` or None where there is nothing to measure.
    """
    methods = _in_order((run.method for run in runs), METHODS)
    columns = {score.domain: _column(score.shift) for run in runs for score in run.scores}
    shifts = _in_order(columns.values(), (IN_DOMAIN,))
    domains = dict(sorted(columns.items(), key=lambda item: shifts.index(item[1])))
    structures = list(dict.fromkeys(score.structure for run in runs for score in run.scores))
    if len(set(shifts) - {IN_DOMAIN}) > 1:
        shifts.append(OUT_OF_DOMAIN)
    central = {shift: "median" if _any_infinite(runs, _in_column(shift)) else "mean" for shift in shifts}
    by_method = {method: [run for run in runs if run.method == method] for method in methods}
    records = []
    for method, own in by_method.items():
        records.append(
            {
                "method": method,
                "seeds": sorted(run.seed for run in own),
                "shifts": {shift: _measures(own, _in_column(shift), central[shift]) for shift in shifts},
                "domains": {domain: _estimates(own, _in_domain(domain)) for domain in domains},
                "structures": {
                    (structure, side): _estimates(own, _of_structure(structure, side))
                    for structure in structures
                    for side in (IN_DOMAIN, OUT_OF_DOMAIN)
                },
                "probes": _probes(own),
                "step_seconds": float(np.median([run.step_seconds for run in own])),
                "relative_step": _relative_step(own, by_method.get(REFERENCE, [])),
                "trainable_share": float(np.mean([run.trainable_share for run in own])),
            }
        )
    differences = []
    for other in COMPARED_WITH:
        for shift in shifts if {OURS, other} <= set(methods) else ():
            found = {
                measure: _mean(
                    paired_differences(
                        by_method[OURS], by_method[other], lambda s, m=measure: 100 * getattr(s, m), _in_column(shift)
                    )
                )
                for measure in MEASURES
            }
            if found["dice"] is not None:
                differences.append({"method": OURS, "against": other, "shift": shift} | found)
    return {
        "protocol": runs[0].protocol,
        "shifts": shifts,
        "domains": domains,
        "structures": structures,
        "hd95": central,
        "methods": records,
        "differences": differences,
    }


def write_ood_report(
    folder: Path,
    runs: Sequence[Run],
    settings: Mapping[str, str],
    features: Mapping[str, FeatureSet],
    examples: Sequence[Example],
) -> None:
    """Write `report.md`, `scores.csv`, `report.json` and plots.

    The folder appears when all is written; one that is there from before is replaced if it holds such a report or
    nothing. The file of the runs must be somewhere else.

    Args:
        folder: to write.
        runs: of any protocols, seeds and methods; a protocol without any score is left out.
        settings: how they were made, for the reader.
        features: method -> features; those of "SAM + adapters" and "+ LAD" are drawn.
        examples: slices to show.

    Raises:
        InputError: nothing was measured, a method was run twice with a seed, or the folder holds something else.
    """
    if not any(run.scores for run in runs):
        raise InputError("Nothing was measured: no run has a score.")
    keys = [(run.protocol, run.method, run.seed) for run in runs]
    twice = next((key for n, key in enumerate(keys) if key in keys[:n]), None)
    if twice:
        raise InputError(f"{twice[1]} was run twice on {twice[0]} with seed {twice[2]}: keep one of the two.")
    drawn = {method: features[method] for method in (REFERENCE, OURS) if method in features}
    about = dict(settings) | environment()
    with replace_folder(folder, RECORD) as part:
        summaries = [
            summarise_protocol([run for run in runs if run.protocol == protocol])
            for protocol in dict.fromkeys(run.protocol for run in runs if run.scores)
        ]
        _write_scores(part / "scores.csv", runs)
        record = {"settings": about, "protocols": [_plain(summary) for summary in summaries]}
        (part / RECORD).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
        for number, summary in enumerate(summaries, 1):
            plots.plot_bars(part / f"dice-{number}.png", summary)
        if drawn:
            plots.plot_features(part / "features.png", drawn)
        if examples:
            plots.plot_examples(part / "examples.png", examples, METHODS)
        (part / "report.md").write_text(_markdown(summaries, about, bool(drawn), bool(examples)))


def _in_order(names: Iterable[str], first: Sequence[str]) -> list[str]:
    there = dict.fromkeys(names)
    return [name for name in first if name in there] + [name for name in there if name not in first]


def _column(shift: str) -> str:
    return IN_DOMAIN if shift == "none" else shift


def _in_column(name: str) -> Callable[[Score], bool]:
    if name == OUT_OF_DOMAIN:
        return lambda score: score.shift != "none"
    return lambda score: _column(score.shift) == name


def _in_domain(name: str) -> Callable[[Score], bool]:
    return lambda score: score.domain == name


def _of_structure(name: str, side: str) -> Callable[[Score], bool]:
    return lambda score: score.structure == name and (score.shift == "none") == (side == IN_DOMAIN)


def _any_infinite(runs: Sequence[Run], keep: Callable[[Score], bool]) -> bool:
    return any(math.isinf(score.hd95) for run in runs for score in run.scores if keep(score))


def _mean(groups: Mapping[tuple[int, str], Sequence[float]]) -> Estimate | None:
    return mean(groups) if groups else None


def _estimates(runs: Sequence[Run], keep: Callable[[Score], bool]) -> dict[str, Estimate | None]:
    return {m: _mean(group_values(runs, lambda score, m=m: getattr(score, m), keep)) for m in MEASURES}


def _measures(runs: Sequence[Run], keep: Callable[[Score], bool], central: str) -> dict[str, Any]:
    distances = group_values(runs, lambda score: score.hd95, keep)
    return _estimates(runs, keep) | {
        "hd95": (median if central == "median" else mean)(distances) if distances else None,
        "infinite": sum(math.isinf(distance) for values in distances.values() for distance in values),
    }


def _probes(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Each probe of a method over its seeds."""
    records = []
    for name in dict.fromkeys(probe.name for run in runs for probe in run.probes):
        probes = [probe for run in runs for probe in run.probes if probe.name == name]
        accuracies = [probe.accuracy for probe in probes]
        records.append(
            {
                "name": name,
                "accuracy": float(np.mean(accuracies)),
                "lowest": min(accuracies),
                "highest": max(accuracies),
                "chance": float(np.mean([probe.chance for probe in probes])),
                "ratio": float(np.mean([probe.accuracy / probe.chance for probe in probes])),
                "seeds": len(probes),
                "images": sorted({probe.images for probe in probes}),
                "styles": sorted({probe.styles for probe in probes}),
            }
        )
    return records


def _relative_step(runs: Sequence[Run], reference: Sequence[Run]) -> float | None:
    """Median of the ratios seed by seed: how fast a step is may differ from seed to seed for reasons of their own."""
    seconds = {run.seed: run.step_seconds for run in reference}
    ratios = [run.step_seconds / seconds[run.seed] for run in runs if run.seed in seconds]
    return float(np.median(ratios)) if ratios else None


def _plain(value: Any) -> Any:
    """What JSON can hold: an infinite distance becomes null."""
    if isinstance(value, Estimate):
        extra = {"few": value.few, "excludes_zero": value.excludes_zero}
        return _plain(asdict(value) | extra)
    if isinstance(value, dict):
        return {", ".join(key) if isinstance(key, tuple) else key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def _write_scores(path: Path, runs: Sequence[Run]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        header = ["protocol", "seed", "method", "domain", "shift", "case", "structure", "dice", "hd95_mm", "nsd"]
        writer.writerow(header)
        for run in runs:
            for score in run.scores:
                what = [score.domain, score.shift, score.case, score.structure]
                values = [f"{score.dice:.5f}", f"{score.hd95:.3f}", f"{score.nsd:.5f}"]
                writer.writerow([run.protocol, run.seed, run.method, *what, *values])


def _markdown(summaries: Sequence[dict[str, Any]], about: dict[str, Any], features: bool, examples: bool) -> str:
    lines = ["# Segmentation in and out of domain", ""]
    lines += [f"* {_name(key)}: {_name(words(value))}" for key, value in about.items()]
    lines += [
        "",
        "Means are over seeds, in a seed over cases, and in a case over its structures; medians give them the same "
        "weight. In brackets: 95 % interval by a bootstrap that draws seeds, and in each drawn seed cases. HD95 in mm; "
        "it is infinite where one of two masks is empty. NSD: share of the borders within the tolerance. "
        f"† stands where there are fewer than {ENOUGH} seeds or cases: the interval then means little.",
        "",
    ]
    for number, summary in enumerate(summaries, 1):
        lines += [f"## {_name(summary['protocol'])}", ""]
        lines += _method_tables(summary)
        lines += [f"![Dice in each domain](dice-{number}.png)", ""]
        lines += _differences_table(summary["differences"])
        lines += _probe_table(summary["methods"])
        lines += _cost_table(summary["methods"])
        lines += _breakdown_tables(summary)
    if features:
        lines += [
            "## Features",
            "",
            "First two principal components of each method's own features, pooled inside structures.",
            "",
            "![Features by style and by structure](features.png)",
            "",
        ]
    if examples:
        lines += ["## Examples", "", "White line: truth. Colours: structures as each method found them.", ""]
        lines += ["![Examples](examples.png)", ""]
    return "\n".join(lines)


def _method_tables(summary: dict[str, Any]) -> list[str]:
    lines = []
    shifts = summary["shifts"]
    for measure, title in (*MEASURES.items(), ("hd95", "HD95")):
        columns = [f"{shift}, {summary['hd95'][shift]}" if measure == "hd95" else shift for shift in shifts]
        rows = []
        for record in summary["methods"]:
            found = [record["shifts"][shift] for shift in shifts]
            cells = [_estimate(values[measure], 1 if measure == "hd95" else 3) for values in found]
            if measure == "hd95":
                cells = [_with_infinite(cell, values) for cell, values in zip(cells, found, strict=True)]
            rows.append([record["method"], str(len(record["seeds"])), *cells])
        lines += _table(title, ["method", "seeds", *columns], rows)
    return lines


def _differences_table(differences: Sequence[dict[str, Any]]) -> list[str]:
    if not differences:
        return []
    rows = []
    clear: dict[str, list[str]] = {}
    for record in differences:
        cells = [record["against"], record["shift"], str(record["dice"].seeds), str(record["dice"].values)]
        for measure, title in MEASURES.items():
            estimate = record[measure]
            mark = " †" if estimate.few else ""
            cells += [_estimate(estimate, 1, "+"), ("yes" if estimate.excludes_zero else "no") + mark]
            if estimate.excludes_zero:
                comparison = clear.setdefault(f"{title}, against {record['against']}", [])
                comparison.append(f"{record['shift']} ({estimate.value:+z.1f}){mark}")
        rows.append(cells)
    header = ["against", "where", "seeds", "pairs"]
    header += [cell for title in MEASURES.values() for cell in (f"{title}, points", "excludes 0")]
    return [
        *_table(f"Differences: {OURS} minus other methods", header, rows),
        "A point is 0.01. Both methods are measured on the same structure of the same case with the same seed. The "
        f"{len(MEASURES) * len(rows)} intervals are not corrected for their number. Those that exclude 0:",
        "",
        *(f"* {comparison}: {', '.join(places)}" for comparison, places in clear.items()),
        *([] if clear else ["* none"]),
        "",
    ]


def _probe_table(methods: Sequence[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(probe["name"] for record in methods for probe in record["probes"])
    if not names:
        return []
    rows = [
        [
            name,
            record["method"],
            str(probe["seeds"]),
            f"{probe['accuracy']:.3f} ({probe['lowest']:.3f} to {probe['highest']:.3f})",
            f"{probe['chance']:.3f}",
            f"{probe['ratio']:.2f}",
            words(probe["images"]),
            words(probe["styles"]),
        ]
        for name in names
        for record in methods
        for probe in record["probes"]
        if probe["name"] == name
    ]
    header = ["probe", "method", "seeds", "accuracy", "chance", "accuracy / chance", "images", "styles"]
    return [
        *_table("Style told from the features", header, rows),
        "A linear probe on held-out images; at 1 it tells no more than guessing does. In brackets: lowest and highest "
        "of the seeds.",
        "",
    ]


def _cost_table(methods: Sequence[dict[str, Any]]) -> list[str]:
    rows = []
    for record in methods:
        relative = "-" if record["relative_step"] is None else f"{record['relative_step']:.2f}"
        rows.append(
            [
                record["method"],
                f"{record['step_seconds']:.3f}",
                relative,
                f"{100 * record['trainable_share']:.1f} %",
            ]
        )
    return _table("Training", ["method", "seconds a step", f"relative to {REFERENCE}", "parameters that train"], rows)


def _breakdown_tables(summary: dict[str, Any]) -> list[str]:
    """Dice of each domain and of each structure, a column a method."""
    methods = summary["methods"]
    domains = [
        [domain, shift, *(_estimate(record["domains"][domain]["dice"], 3) for record in methods)]
        for domain, shift in summary["domains"].items()
    ]
    structures = [
        [structure, side, *(_estimate(record["structures"][structure, side]["dice"], 3) for record in methods)]
        for structure in summary["structures"]
        for side in (IN_DOMAIN, OUT_OF_DOMAIN)
        if any(record["structures"][structure, side]["dice"] for record in methods)
    ]
    names = [record["method"] for record in methods]
    return [
        *_table("Dice of each domain", ["domain", "shift", *names], domains),
        *_table("Dice of each structure", ["structure", "where", *names], structures),
    ]


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [row(list(map(_name, cells))) for cells in (header, *rows)]
    return [f"### {title}", "", lines[0], row(["---"] * len(header)), *lines[1:], ""]


def _estimate(estimate: Estimate | None, digits: int, sign: str = "") -> str:
    if estimate is None:
        return "-"
    numbers = (estimate.value, estimate.low, estimate.high)
    value, low, high = (f"{number:{sign}z.{digits}f}" for number in numbers)
    return f"{value} ({low} to {high})" + (" †" if estimate.few else "")


def _with_infinite(cell: str, values: dict[str, Any]) -> str:
    return f"{cell}, {values['infinite']} of {values['hd95'].values} infinite" if values["infinite"] else cell


def _name(text: str) -> str:
    """Text as it is, where Markdown would take patterns such as `*/T1` or a bar for something else."""
    return re.sub(r"([\\|*`<])", r"\\\1", text)
