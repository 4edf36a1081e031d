"""`causal-sam benchmark scaling`: how much faster several processes train than one."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from causal_sam.cli.options import AsJson, ImageSize


def scaling(
    processes: Annotated[
        list[int] | None, typer.Option(min=2, help="Processes that share a batch; may be repeated.", show_default="2")
    ] = None,
    batch: Annotated[int, typer.Option(min=8, help="Images per step, in all processes together.")] = 16,
    pairs: Annotated[int, typer.Option(min=4, help="Anatomies among these that are shown in two styles.")] = 6,
    steps: Annotated[int, typer.Option(min=5, help="Training steps, each timed.")] = 20,
    image_size: ImageSize = None,
    as_json: AsJson = False,
) -> None:
    """Time training steps in one process and in several, with one thread each, on the same batch.

    Processes share a machine's processors or have a GPU each.
    """
    from causal_sam.benchmark.scaling import measure_scaling

    announce = (lambda text: None) if as_json else (lambda text: typer.echo(text, err=True))
    found = measure_scaling(processes or [2], batch, pairs, steps, image_size, announce)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        typer.echo(
            f"{one.processes} processes: {one.step_seconds:.3f} s a step, {one.speedup:.2f} times as fast as one"
        )
