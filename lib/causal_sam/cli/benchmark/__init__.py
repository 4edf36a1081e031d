"""`causal-sam benchmark …`: how good and how fast, measured where it is used."""

from __future__ import annotations

import typer

from causal_sam.cli.benchmark.interactive import interactive
from causal_sam.cli.benchmark.latency import latency
from causal_sam.cli.benchmark.tune import tune

app = typer.Typer(name="benchmark", no_args_is_help=True, help="Measure quality and speed on your images and machine.")
app.command()(interactive)
app.command()(latency)
app.command()(tune)
