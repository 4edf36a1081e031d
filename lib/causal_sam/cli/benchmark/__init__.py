"""`causal-sam benchmark …`: how good and how fast, measured where it is used."""

from __future__ import annotations

import typer

from causal_sam.cli.benchmark.interactive import interactive
from causal_sam.cli.benchmark.latency import latency
from causal_sam.cli.benchmark.learning import learning
from causal_sam.cli.benchmark.notes import notes
from causal_sam.cli.benchmark.ood import ood
from causal_sam.cli.benchmark.page import page
from causal_sam.cli.benchmark.scaling import scaling
from causal_sam.cli.benchmark.tci import tci
from causal_sam.cli.benchmark.tune import tune
from causal_sam.data_sets.layouts import LAYOUTS

app = typer.Typer(name="benchmark", no_args_is_help=True, help="Measure quality and speed on your images and machine.")
app.command(epilog="\n\n".join(f"{kind}: {layout}." for kind, layout in LAYOUTS.items()))(interactive)
app.command()(latency)
app.command()(learning)
app.command()(notes)
app.command()(ood)
app.command()(page)
app.command()(scaling)
app.command()(tci)
app.command()(tune)
