"""`causal-sam benchmark latency`: time and memory of the models on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ERROR_CLICKS = 20


def latency(
    model: Annotated[list[str] | None, typer.Option(help="A model; may be repeated. Default: compact.")] = None,
    reference: Annotated[str, typer.Option(help="The model to compare with, or 'none'.")] = "vit_b",
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each time; their median counts.")] = 20,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the processor.", show_default="as PyTorch chooses")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures to this file.", show_default=False)
    ] = None,
) -> None:
    """Time encoding, clicks and volumes, and measure memory, each model in a process of its own.

    Weights that are not on this machine are not downloaded but replaced by random ones: that does not change the times.
    """
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from causal_sam.benchmark.latency import measure, precision_error
    from causal_sam.errors import InputError
    from causal_sam.sam import MODELS, load_model

    names = list(dict.fromkeys([*(model or ["compact"]), *([] if reference == "none" else [reference])]))
    for name in names:
        if name not in MODELS:
            raise InputError(f"There is no model '{name}': choose from {', '.join(MODELS)}.")
    console = Console()
    found = []
    for name in names:
        with console.status(f"{name} …"):
            found.append(measure(name, repeats, threads))

    table = Table(title="Medians in seconds")
    table.add_column("")
    for one in found:
        table.add_column(one.model, justify="right")
    rows = {
        "weights": lambda one: f"{one.weights}, {one.weight_mb:.1f} MB",
        "parameters": lambda one: f"{one.parameters / 1e6:.2f} million",
        "encoder": lambda one: f"{one.precision}, {one.device}, {one.threads} threads",
        "load": lambda one: f"{one.load:.2f}",
        "encode a slice": lambda one: f"{one.encode:.4f}",
        "decode a click": lambda one: f"{one.decode:.4f}",
        "first click, in all": lambda one: f"{one.first_click:.4f}",
        "next click, in all": lambda one: f"{one.click:.4f}",
        f"encode {found[0].volume_slices} slices": lambda one: (
            f"{one.volume:.2f}" + (" (from one slice)" if one.volume_estimated else "")
        ),
        "peak memory": lambda one: f"{one.peak_mb:.0f} MB, {one.peak_before_mb:.0f} MB before the model",
    }
    for title, cell in rows.items():
        table.add_row(title, *map(cell, found))
    console.print(table)
    if reference != "none":
        last = found[-1]
        for one in found[:-1]:
            console.print(
                f"{one.model} against {last.model}: encodes {last.encode / one.encode:.0f} times as fast, "
                f"decodes {last.decode / one.decode:.1f} times as fast."
            )
    errors = {}
    if "compact" in names:
        errors["compact"] = asdict(precision_error(load_model("compact"), ERROR_CLICKS))
        console.print(
            "compact against plain float32, {clicks} clicks on generated slices: logits differ by at most "
            "{largest_logit:.2g}; Dice of the masks {mean_dice:.4f} in the mean, {smallest_dice:.4f} at least.".format(
                **errors["compact"]
            )
        )
    if json_file is not None:
        report = {"latency": [asdict(one) for one in found], "error_against_float32": errors}
        json_file.write_text(json.dumps(report, indent=1) + "\n")
