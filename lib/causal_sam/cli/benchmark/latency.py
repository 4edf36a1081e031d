"""`causal-sam benchmark latency`: time and memory of the models on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

ERROR_CLICKS = 20


def latency(
    model: Annotated[list[str] | None, typer.Option(help="A model; may be repeated. Default: compact.")] = None,
    reference: Annotated[str, typer.Option(help="The model to compare with, or 'none'.")] = "vit_b",
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each time; their median counts.")] = 20,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the processor.", show_default="as PyTorch chooses")
    ] = None,
    http: Annotated[
        bool, typer.Option("--http", help="Time clicks over HTTP instead: a server with the first model is started.")
    ] = False,
    notes: Annotated[
        bool, typer.Option("--notes", help="Time notes about an organ of two litres instead, beside clicks on it.")
    ] = False,
    size: Annotated[
        str, typer.Option(metavar="IxJxK", help="With --http and --notes: voxels of the volume.")
    ] = "512x512x100",
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
    if http:
        _http(console, names[0], volume_shape(size), repeats, json_file)
        return
    if notes:
        _notes(console, volume_shape(size), repeats, threads, json_file)
        return
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
    for name in names:
        if not isinstance(MODELS[name].checkpoint, Path):  # it would have to be downloaded
            continue
        errors[name] = asdict(precision_error(load_model(name), ERROR_CLICKS))
        console.print(
            "{name} against plain float32, {clicks} clicks on generated slices: logits differ by at most "
            "{largest_logit:.2g}; Dice of the masks {mean_dice:.4f} in the mean, {smallest_dice:.4f} at least.".format(
                name=name, **errors[name]
            )
        )
    if json_file is not None:
        report = {"latency": [asdict(one) for one in found], "error_against_float32": errors}
        json_file.write_text(json.dumps(report, indent=1) + "\n")


def volume_shape(text: str) -> tuple[int, int, int]:
    """Parse a size such as ``512x512x100``.

    Raises:
        InputError: it is none, or a side has less than 32 voxels.
    """
    from causal_sam.errors import InputError

    sides = text.lower().split("x")
    if len(sides) != 3 or not all(side.isdigit() and int(side) >= 32 for side in sides):
        raise InputError(f"--size takes three numbers of voxels of at least 32, such as 512x512x100, not {text!r}.")
    i, j, k = map(int, sides)
    return i, j, k


def _notes(
    console: Console, shape: tuple[int, int, int], repeats: int, threads: int | None, json_file: Path | None
) -> None:
    import json
    from dataclasses import asdict

    from rich.table import Table

    from causal_sam.benchmark.note_latency import measure_notes

    with console.status("notes and clicks …"):
        found = measure_notes(shape, repeats, threads)
    table = Table(title=f"Medians in seconds, liver in {'x'.join(map(str, shape))} voxels, compact")
    for title in ("", "seconds", "Dice before", "after"):
        table.add_column(title, justify="left" if not title else "right")
    for one in found.acts:
        table.add_row(one.name, f"{one.seconds:.3f}", f"{one.dice_before:.3f}", f"{one.dice_after:.3f}")
    console.print(table)
    console.print(
        f"Once a volume: {found.encoded:.1f} s to encode its slices and {found.prepared:.1f} s for its context. "
        f"Memory: {found.peak_mb:.0f} MB at most up to the last click, {found.peak_before_mb:.0f} MB before the volume."
    )
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(found), indent=1) + "\n")


def free_port() -> int:
    """Return a port of the loopback interface that nothing uses."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _http(console: Console, model: str, shape: tuple[int, int, int], repeats: int, json_file: Path | None) -> None:
    import json
    import os
    from dataclasses import asdict

    from rich.table import Table

    from causal_sam.benchmark.http_latency import measure_deepgrow, measure_http
    from causal_sam.cli.serve import check_monai_label, server_command, server_environment

    check_monai_label()
    port = free_port()
    command = server_command("{studies}", "127.0.0.1", port, {"model": model, "labels": "followed,structure"})
    with console.status("a server, and clicks …"):
        found, server_mb = measure_http(shape, repeats, command, server_environment(os.environ), port)
    with console.status("MONAI Label's deepgrow …"):
        found += [measure_deepgrow(shape, min(repeats, 3), dimension) for dimension in (2, 3)]
    table = Table(title=f"Seconds, {'x'.join(map(str, shape))} voxels, {model}")
    for title in ("", "first", "repeated", "answer, MB"):
        table.add_column(title, justify="left" if not title else "right")
    for one in found:
        table.add_row(one.name, f"{one.first:.3f}", f"{one.repeated:.3f}", f"{one.megabytes:.2f}")
    console.print(table)
    console.print(f"The server took {server_mb:.0f} MB of memory at most.")
    for reference in found[-2:]:
        console.print(
            f"A repeated click takes 1/{reference.repeated / found[0].repeated:.1f} (OHIF) and "
            f"1/{reference.repeated / found[1].repeated:.1f} (Slicer) of {reference.name}."
        )
    if json_file is not None:
        report = {"latency": [asdict(one) for one in found], "server_peak_mb": server_mb}
        json_file.write_text(json.dumps(report, indent=1) + "\n")
