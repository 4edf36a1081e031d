"""Tables and plots of an interactive benchmark, in a folder that a reader can open."""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from causal_sam.benchmark.interactive import DISTANCES_AFTER, Trial
from causal_sam.benchmark.metrics import number_of_clicks
from causal_sam.errors import InputError

SUMMARY = "summary.json"
TARGETS = (0.80, 0.85, 0.90)
RESAMPLES = 1000
VERSIONS = ("causal-sam", "torch", "monai", "numpy", "scikit-image", "opencv-python-headless", "SimpleITK")


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean by bootstrap over the values."""
    values = np.asarray(values, float)
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def summarise(trials: Sequence[Trial], by: Callable[[Trial], tuple[str, ...]]) -> list[dict[str, Any]]:
    """Summarise trials that share a key.

    Args:
        trials: of any number of methods.
        by: the key of a trial, such as its group; the method is added to it.

    Returns:
        One record for each key and method, in order of first appearance: ``key``, ``method``, ``count``, ``dice``
        (mean after each click), ``interval`` (of each mean), ``noc`` (target -> mean number of clicks, where a target
        that was not reached counts as all clicks), ``failed`` (target -> share not reached), ``hd95`` (clicks -> mean
        in millimetre over the trials where it is finite), ``empty`` (clicks -> share where it is not),
        ``largest_drop`` of mean Dice from one click to the next, ``first_seconds`` and ``next_seconds`` (medians).
    """
    keys: dict[tuple[tuple[str, ...], str], list[Trial]] = {}
    for trial in trials:
        keys.setdefault((by(trial), trial.method), []).append(trial)
    records = []
    for (key, method), members in keys.items():
        scores = np.array([trial.dice for trial in members])
        mean = scores.mean(axis=0)
        clicks = [n for n in DISTANCES_AFTER if n <= scores.shape[1]]
        distances = {n: np.array([trial.hd95[n] for trial in members]) for n in clicks}
        later = [second for trial in members for second in trial.seconds[1:]]
        records.append(
            {
                "key": list(key),
                "method": method,
                "count": len(members),
                "dice": mean.tolist(),
                "interval": [interval(column) for column in scores.T],
                "noc": {t: float(np.mean([number_of_clicks(s, t) for s in scores])) for t in TARGETS},
                "failed": {t: float((scores.max(axis=1) < t).mean()) for t in TARGETS},
                "hd95": {
                    n: float(d[np.isfinite(d)].mean()) if np.isfinite(d).any() else None for n, d in distances.items()
                },
                "empty": {n: float((~np.isfinite(d)).mean()) for n, d in distances.items()},
                "largest_drop": float(max(0.0, *(mean[:-1] - mean[1:]))) if len(mean) > 1 else 0.0,
                "first_seconds": float(np.median([trial.seconds[0] for trial in members])),
                "next_seconds": float(np.median(later)) if later else None,
            }
        )
    return records


def write_report(
    folder: Path, trials: Sequence[Trial], settings: dict[str, Any], pictures: Iterable[tuple[str, np.ndarray]]
) -> None:
    """Write `report.md`, `trials.csv`, `summary.csv`, `summary.json` and plots.

    The folder appears when all is written; one that is there from before is replaced if it holds a report or nothing.

    Args:
        folder: to write.
        trials: at least one.
        settings: how they were made, for the reader.
        pictures: names and images (HxWx3 uint8) to show.

    Raises:
        InputError: there are no trials, or the folder holds something else.
    """
    if not trials:
        raise InputError(
            "Nothing was measured: no structure of the chosen cases is large enough, or none has its name."
        )
    with replace_folder(folder, SUMMARY) as part:
        groups = summarise(trials, lambda trial: (trial.target.group,))
        structures = summarise(trials, lambda trial: (trial.target.group, trial.target.structure))
        _write_trials(part / "trials.csv", trials)
        _write_summary(part / "summary.csv", groups + structures)
        about = settings | environment()
        (part / SUMMARY).write_text(
            json.dumps({"settings": about, "groups": groups, "structures": structures}, indent=1) + "\n"
        )
        _plot_curves(part / "dice.png", groups)
        _plot_clicks(part / "clicks.png", groups)
        shown = []
        for name, image in pictures:
            imsave(part / f"{name}.png", image)
            shown.append(name)
        (part / "report.md").write_text(_markdown(groups, structures, about, shown))


@contextmanager
def replace_folder(folder: Path, mark: str) -> Iterator[Path]:
    """Give a folder to write a report into, which takes the place of the other one when all is written.

    Args:
        folder: to write; with its content it is replaced.
        mark: file that tells such a report from other folders.

    Raises:
        InputError: the folder holds something else than such a report.
    """
    check_folder(folder, mark)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield part
        part.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_folder(folder: Path, mark: str = SUMMARY) -> None:
    """Make sure that a report may be written there, before hours are spent on it.

    Args:
        folder: of the report.
        mark: file that tells such a report from other folders.

    Raises:
        InputError: it is a file, or a folder with something else in it.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder for the report.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
        raise InputError(f"{folder} holds something else than a report: give a new folder.")


def environment() -> dict[str, Any]:
    """Return the machine and the versions of the libraries that a benchmark ran with."""
    return {"machine": machine(), "versions": {name: metadata.version(name) for name in VERSIONS}}


def machine() -> str:
    """Processor, cores and system, as far as they are known."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    )


def _write_trials(path: Path, trials: Sequence[Trial]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "method",
                "group",
                "case",
                "structure",
                "slice",
                "voxels",
                "repeat",
                "clicks",
                "dice",
                "hd95_mm",
                "seconds",
            ]
        )
        for trial in trials:
            target = trial.target
            where = (target.group, target.case, target.structure, "" if target.index is None else target.index)
            for n, score in enumerate(trial.dice, 1):
                distance = f"{trial.hd95[n]:.3f}" if n in trial.hd95 else ""
                seconds = f"{trial.seconds[n - 1]:.4f}" if n <= len(trial.seconds) else ""
                size = int(target.truth.sum())
                writer.writerow([trial.method, *where, size, trial.repeat, n, f"{score:.5f}", distance, seconds])


def _write_summary(path: Path, records: Sequence[dict[str, Any]]) -> None:
    clicks = [n for n in DISTANCES_AFTER if n <= len(records[0]["dice"])]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        header = ["group", "structure", "method", "count"]
        for n in clicks:
            header += [f"dice@{n}", f"dice@{n}_low", f"dice@{n}_high", f"hd95@{n}_mm"]
        header += [f"noc@{round(100 * t)}" for t in TARGETS] + [f"failed@{round(100 * t)}" for t in TARGETS]
        writer.writerow([*header, "largest_drop", "first_seconds", "next_seconds"])
        for record in records:
            group, structure = [*record["key"], "all"][:2]
            cells = [group, structure, record["method"], record["count"]]
            for n in clicks:
                cells += [record["dice"][n - 1], *record["interval"][n - 1], record["hd95"][n]]
            cells += [*record["noc"].values(), *record["failed"].values()]
            writer.writerow([*cells, record["largest_drop"], record["first_seconds"], record["next_seconds"]])


def _markdown(groups, structures, about: dict[str, Any], pictures: Sequence[str]) -> str:
    clicks = [n for n in DISTANCES_AFTER if n <= len(groups[0]["dice"])]
    lines = ["# Interactive segmentation by a simulated annotator", ""]
    lines += [f"* {key}: {words(value)}" for key, value in about.items()]
    lines += [
        "",
        "All methods get the same first click. Each next click is in the largest error region of the method's own "
        "mask. NoC: mean number of clicks until a Dice was reached; where it never was, all "
        f"{len(groups[0]['dice'])} count, and *failed* is their share. HD95 in mm, over the masks that are not empty. "
        "In brackets: 95 % bootstrap interval of the mean. Drop: largest loss of mean Dice from one click to the next. "
        "Seconds: median of the first click (with the encoding of the image) and of "
        "later ones.",
        "",
    ]
    for title, records in (("All structures", groups), ("Each structure", structures)):
        lines += [f"## {title}", "", row(_header(clicks)), row(["---"] * len(_header(clicks)))]
        for record in records:
            cells = [", ".join(record["key"]), record["method"], str(record["count"])]
            for n in clicks:
                low, high = record["interval"][n - 1]
                cells.append(f"{record['dice'][n - 1]:.3f} ({low:.3f} to {high:.3f})")
            cells += [f"{record['noc'][t]:.2f}" for t in TARGETS] + [f"{100 * record['failed'][0.85]:.0f} %"]
            cells += [_number(record["hd95"][n], 1) for n in clicks if n in (1, 5)]
            cells += [f"{record['largest_drop']:.3f}", _number(record["first_seconds"], 3)]
            lines.append(row([*cells, _number(record["next_seconds"], 3)]))
        lines.append("")
    lines += ["## Plots", "", "![Dice against clicks](dice.png)", "", "![Clicks needed](clicks.png)", ""]
    if pictures:
        lines += ["## Worst and best", "", "Truth green; after one click red, after the last one yellow.", ""]
        for name in pictures:
            lines += [f"![{name}]({name}.png)", ""]
    return "\n".join(lines)


def _header(clicks: Sequence[int]) -> list[str]:
    dice = [f"Dice after {n}" for n in clicks]
    noc = [f"NoC@{round(100 * t)}" for t in TARGETS]
    hd95 = [f"HD95 after {n}" for n in clicks if n in (1, 5)]
    return ["what", "method", "n", *dice, *noc, "failed@85", *hd95, "drop", "first s", "next s"]


def row(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def words(value: Any) -> str:
    """Return a setting as text; lists and mappings without brackets."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(words, value))
    return str(value)


def _plot_curves(path: Path, groups: Sequence[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(tuple(record["key"]) for record in groups))
    figure = Figure(figsize=(max(6, 4.5 * len(names)), 4.5), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for record in groups:
            if tuple(record["key"]) != name:
                continue
            clicks = np.arange(1, len(record["dice"]) + 1)
            low, high = np.array(record["interval"]).T
            (line,) = axis.plot(clicks, record["dice"], marker="o", markersize=3, label=record["method"])
            axis.fill_between(clicks, low, high, alpha=0.15, color=line.get_color())
        axis.set(title=", ".join(name), xlabel="clicks", ylim=(0, 1), xticks=clicks)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("Dice, mean and 95 % interval")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    FigureCanvasAgg(figure).print_png(path)


def _plot_clicks(path: Path, groups: Sequence[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(tuple(record["key"]) for record in groups))
    methods = list(dict.fromkeys(record["method"] for record in groups))
    figure = Figure(figsize=(max(6, 2.2 * len(names)), 4.5), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(methods)
    for m, method in enumerate(methods):
        found = {tuple(r["key"]): r["noc"][0.85] for r in groups if r["method"] == method}
        places = [n + (m - (len(methods) - 1) / 2) * width for n, name in enumerate(names) if name in found]
        axis.bar(places, [found[name] for name in names if name in found], width, label=method)
    axis.set_xticks(range(len(names)), [", ".join(name) for name in names])
    axis.set_ylabel("clicks until Dice 0.85")
    axis.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    FigureCanvasAgg(figure).print_png(path)
