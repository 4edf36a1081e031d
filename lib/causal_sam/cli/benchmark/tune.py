"""`causal-sam benchmark tune`: the best setting of each baseline on generated images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from causal_sam.atomic import atomic_write
from causal_sam.errors import InputError


def tune(
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write; other baselines in it are kept.")],
    baseline: Annotated[
        list[str] | None, typer.Option(help="A classical baseline; may be repeated. Default: all.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Generated scans to segment.")] = 24,
    settings: Annotated[int, typer.Option(min=1, help="Settings to try for each baseline.")] = 12,
    seed: Annotated[int, typer.Option(help="Random seed of the scans and of the search.")] = 0,
) -> None:
    """Search the best fixed setting of each baseline on generated images, with the simulated annotator.

    The settings that come with the package were found so, with the default options.
    """
    import json

    from rich.progress import Progress

    from causal_sam.benchmark.baselines import CLASSICAL_NAMES
    from causal_sam.benchmark.tuning import tune as search

    names = baseline or list(CLASSICAL_NAMES)
    if unknown := [name for name in names if name not in CLASSICAL_NAMES]:
        raise InputError(f"There is no classical baseline {unknown[0]!r}: choose from {', '.join(CLASSICAL_NAMES)}.")
    found = json.loads(output.read_text()) if output.is_file() else {}
    with Progress() as progress:
        for name in names:
            bar = progress.add_task(name, total=settings)
            found[name] = search(name, samples, settings, seed, partial(progress.advance, bar))
            progress.update(bar, completed=settings)
            with atomic_write(output) as part:
                part.write_text(json.dumps(found, indent=1) + "\n")
            typer.echo(f"{name}: mean Dice {found[name]['score']} with {found[name]['setting']}")
