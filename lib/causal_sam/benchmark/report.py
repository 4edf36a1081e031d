"""The report of a benchmark: a folder with `report.md`, CSV tables, a JSON summary and plots."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from causal_sam.benchmark.statistics import MIN_GROUPS, Estimate
from causal_sam.errors import InputError

FEW = f"† marks fewer than {MIN_GROUPS} seeds or cases, from which an interval means little."
SUMMARY = "summary.json"
VERSIONS = ("causal-sam", "torch", "monai", "numpy", "scikit-image", "opencv-python-headless", "SimpleITK")
# Colours that colour-blind readers can tell apart (Okabe and Ito, Color Universal Design, 2008), and a neutral grey.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#F0E442")
GREY = "#999999"


class Report:
    """Collects the text of a report and writes its other files.

    Args:
        folder: existing folder of the report.
        title: heading of `report.md`.
        settings: options of the benchmark; machine and library versions are added.
    """

    def __init__(self, folder: Path, title: str, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = {**settings, "machine": machine()}
        self.settings["versions"] = {name: metadata.version(name) for name in VERSIONS}
        self._lines = [f"# {title}", "", *(f"* {escape(k)}: {escape(words(v))}" for k, v in self.settings.items()), ""]

    def text(self, *paragraphs: str) -> None:
        """Add Markdown paragraphs."""
        for paragraph in paragraphs:
            self._lines += [paragraph, ""]

    def table(self, rows: pd.DataFrame, heading: str = "", formats: Mapping[str, str] | None = None) -> None:
        """Add a table; without rows nothing is added.

        Args:
            rows: table; underscores in column names become spaces.
            heading: Markdown heading such as "## Time".
            formats: column -> format of its numbers; estimates and other floats have ".3f" by default.
        """
        if rows.empty:
            return
        lines = [[escape(name.replace("_", " ")) for name in rows], ["---"] * len(rows.columns)]
        for row in rows.to_dict("records"):
            lines.append([escape(cell(value, (formats or {}).get(name, ".3f"))) for name, value in row.items()])
        self.text(*[heading] * bool(heading), "\n".join(f"| {' | '.join(line)} |" for line in lines))

    def figure(self, name: str, figure: Figure, caption: str) -> None:
        """Save a plot as PNG and show it.

        Args:
            name: file name.
            figure: plot.
            caption: alternative text.
        """
        figure.set_dpi(120)
        FigureCanvasAgg(figure).print_png(self.folder / name)
        self.text(f"![{caption}]({name})")

    def csv(self, name: str, rows: pd.DataFrame, digits: Mapping[str, int] | None = None) -> None:
        """Write a table as CSV; estimates get a column for each end of the interval.

        Args:
            name: file name.
            rows: table; missing values become empty cells.
            digits: column -> decimal places; other columns keep full precision.
        """
        columns: dict[str, Any] = {}
        for column, values in rows.items():
            if values.map(lambda value: isinstance(value, Estimate)).any():
                for end in ("value", "low", "high"):
                    name_of_end = column if end == "value" else f"{column}_{end}"
                    columns[name_of_end] = values.map(lambda value, end=end: getattr(value, end, None))
            elif digits is not None and column in digits:
                columns[column] = values.map(f"{{:.{digits[column]}f}}".format, na_action="ignore")
            else:
                columns[column] = values
        pd.DataFrame(columns).to_csv(self.folder / name, index=False)

    def json(self, content: Mapping[str, Any], name: str = SUMMARY) -> None:
        """Write the settings and a summary as JSON; numbers that are not finite become null.

        Args:
            content: nested dicts, lists, tables and estimates.
            name: file name.
        """
        text = json.dumps({"settings": self.settings} | _plain(content), indent=1, ensure_ascii=False, allow_nan=False)
        (self.folder / name).write_text(text + "\n")

    def save(self) -> None:
        """Write `report.md`."""
        (self.folder / "report.md").write_text("\n".join(self._lines))


@contextmanager
def new_report(folder: Path, title: str, settings: Mapping[str, Any], mark: str = SUMMARY) -> Iterator[Report]:
    """Yield a report in a temporary folder, which replaces ``folder`` once everything is written.

    Args:
        folder: folder of the report; an older report in it is replaced.
        title: heading of `report.md`.
        settings: options of the benchmark.
        mark: file by which an older report is recognised.

    Raises:
        InputError: the folder contains something else.
    """
    check_folder(folder, mark)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        report = Report(part, title, settings)
        yield report
        report.save()
        part.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_folder(folder: Path, mark: str = SUMMARY) -> None:
    """Check that a report may be written to a folder, before hours are spent on the benchmark.

    Args:
        folder: folder of the report.
        mark: file by which an older report is recognised.

    Raises:
        InputError: the path is a file, or a folder that contains something other than a report.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder for the report.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
        raise InputError(f"{folder} contains something other than a report: give a new folder.")


def machine() -> str:
    """Return processor, number of cores, system and Python version, as far as they are known."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.M) if cpuinfo.is_file() else []
    model = names[0] if names else platform.processor() or platform.machine()
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {system}"


def cell(value: Any, spec: str) -> str:
    """Format a cell of a table.

    Args:
        value: text, number, list, missing value (shown as "-") or `Estimate` (shown as "value (low to high)", with †
            if it comes from too few seeds or cases).
        spec: format of floats and estimates.
    """
    if isinstance(value, Estimate):
        value, low, high, mark = value.value, value.low, value.high, " †" * value.few
        return f"{cell(value, spec)} ({cell(low, spec)} to {cell(high, spec)}){mark}"
    if value is None or value is pd.NA or value != value:
        return "-"
    return format(value, spec.replace(".", "z.")).replace("%", " %") if isinstance(value, float) else words(value)


def words(value: Any) -> str:
    """Return a setting as text; lists and mappings lose their brackets."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(words, value))
    return str(value)


def escape(text: str) -> str:
    """Escape the characters by which Markdown would change names such as ``*/T1``."""
    return re.sub(r"([\\|*`<])", r"\\\1", text)


def plot_curve(axis: Axes, places: Sequence[float], estimates: Iterable[Estimate], label: str, colour: str) -> None:
    """Draw estimates as a line with a band for their intervals, which is left out if one of them has few values."""
    values, low, high = np.array([(each.value, each.low, each.high) for each in estimates]).T
    axis.plot(places, values, marker="o", markersize=4, color=colour, label=label)
    if not any(each.few for each in estimates):
        axis.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return _plain(value.to_dict())
    if isinstance(value, pd.DataFrame):
        return _plain(value.to_dict("records"))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
