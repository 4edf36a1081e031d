"""`causal-sam benchmark page`: how long users of the browser page wait."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def page(
    size: Annotated[str, typer.Option(metavar="IxJxK", help="Voxels of the volume.")] = "512x512x100",
    repeats: Annotated[int, typer.Option(min=1, help="Acts of each kind; their median counts.")] = 7,
    first_mask: Annotated[bool, typer.Option(help="Also time the way from the command to the first mask.")] = True,
    chromium: Annotated[
        Path | None, typer.Option(help="The browser.", show_default="Chromium or Chrome on the path")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures to this file.", show_default=False)
    ] = None,
) -> None:
    """Time the page in Chromium: opening a case, from a click to the mask on the screen, and the first mask of all.

    A server is started on a generated CT, and Playwright (`pip install playwright`) drives the browser.
    """
    import json
    import os
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from causal_sam.benchmark.page_latency import find_chromium, measure_first_mask, measure_page
    from causal_sam.cli.benchmark.latency import free_port, volume_shape
    from causal_sam.cli.serve import check_monai_label, server_command, server_environment

    shape, browser = volume_shape(size), str(chromium or find_chromium())
    check_monai_label()
    console, environment = Console(), server_environment(os.environ)
    first = None
    if first_mask:
        with console.status("a server with the demo studies, and the first mask …"):
            first = measure_first_mask(environment, free_port(), browser)
        console.print(
            f"From the command to the first mask: {first.mask:.1f} s with 2 clicks (page there {first.served:.1f} s, "
            f"cases listed {first.listed:.1f} s, case drawn {first.opened:.1f} s; load {first.load:.1f})."
        )
    port = free_port()
    with console.status("a server, and the page …"):
        command = server_command("{studies}", "127.0.0.1", port, {})
        found = measure_page(shape, repeats, command, environment, port, browser)
    table = Table(title=f"Medians in seconds, {size} voxels")
    for title in ("", "model", "answer", "mask drawn", "beyond the model", "at most", "CPU of the page", "load"):
        table.add_column(title, justify="left" if not title else "right")
    for kind in found.kinds:
        table.add_row(
            kind.name,
            *(
                f"{kind.median(seconds):.2f}"
                for seconds in (
                    lambda step: step.model,
                    lambda step: step.answered,
                    lambda step: step.drawn,
                    lambda step: step.drawn - step.model,
                )
            ),
            f"{max(step.drawn - step.model for step in kind.steps):.2f}",
            f"{kind.median(lambda step: step.page):.2f}",
            f"{kind.load:.1f}",
        )
    console.print(table)
    opened = ", ".join(f"{seconds:.1f}" for seconds in found.opened)
    console.print(f"Opening the case: {opened} s (load {found.load:.1f}).")
    if json_file is not None:
        report = {"first_mask": None if first is None else asdict(first), "page": asdict(found)}
        json_file.write_text(json.dumps(report, indent=1) + "\n")
