"""`causal-sam benchmark interactive`: Dice against clicks on labelled images, for our models and for baselines."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from causal_sam.data_sets.layouts import Kind
from causal_sam.errors import InputError

if TYPE_CHECKING:
    from causal_sam.benchmark.interactive import Method

PICTURES = 3  # of the worst slices, and as many of the best


class Mode(StrEnum):
    """Images that are segmented by clicks: single slices, or whole volumes."""

    SLICES = "slices"
    VOLUME = "volume"


def interactive(
    data: Annotated[Path, typer.Option(help="Folder with labelled images; see below for the supported data sets.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report; an older report is replaced.")],
    kind: Annotated[Kind, typer.Option(help="Type of the data set in the folder.")] = Kind.AUTO,
    model: Annotated[list[str] | None, typer.Option(help="A model; may be repeated. Default: compact.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights instead of the model's own; for one model.", show_default=False)
    ] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="A baseline for comparison, or 'all'; may be repeated.", show_default=False)
    ] = None,
    mode: Annotated[Mode, typer.Option(help="Click slices one by one, or structures as a whole.")] = Mode.SLICES,
    clicks: Annotated[int, typer.Option(min=1, help="Clicks on each slice or structure.")] = 10,
    slices: Annotated[int, typer.Option(min=0, help="Slices of each structure, evenly spread; 0 for all.")] = 10,
    min_voxels: Annotated[int, typer.Option(min=1, help="Leave out structures with fewer voxels.")] = 50,
    case: Annotated[
        list[str] | None,
        typer.Option(help="Only cases like this, as SET/CASE/SEQUENCE with * and ?.", show_default=False),
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only structures of this name.", show_default=False)] = None,
    join: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=A+B", help="Also the union of structures, where a case has them.", show_default=False
        ),
    ] = None,
    jitter: Annotated[
        bool, typer.Option(help="Click somewhere inside the error instead of its deepest point.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Annotators with jitter, each with their own aim.")] = 1,
    seed: Annotated[int, typer.Option(help="Random seed of the jitter.")] = 0,
) -> None:
    """Let a simulated annotator click labelled structures, and report Dice, clicks needed, HD95 and time.

    The first click is at the deepest point of the structure, each next one at the deepest point of the largest error.
    """
    joins = parse_joins(join or [])
    if checkpoint is not None and len(model or ["compact"]) != 1:
        raise InputError("A checkpoint belongs to one model: give one --model with it.")
    if repeats > 1 and not jitter:
        raise InputError("Without --jitter all repeats are the same: add it, or leave --repeats out.")

    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from causal_sam.benchmark.interactive import click_through, draw_example, slice_targets, volume_targets
    from causal_sam.benchmark.interactive_report import write_interactive_report
    from causal_sam.benchmark.report import check_folder
    from causal_sam.benchmark.tci.cases import real_cases

    check_folder(output)
    cases = real_cases(data, kind, case or (), label or (), joins)
    methods = _methods(model or ["compact"], checkpoint, baseline or [])

    jobs = []
    for read in cases:
        labelled = read()
        structures = {name: labelled.structures[name] for name in labelled.tested}
        targets = (
            slice_targets(labelled.group, labelled.case, labelled.volume, structures, slices, min_voxels)
            if mode is Mode.SLICES
            else volume_targets(labelled.group, labelled.case, structures, min_voxels)
        )
        jobs += [(labelled.volume, target) for target in targets]
    trials = []
    annotators = range(repeats)
    aim = seed if jitter else None
    with Progress(*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("clicking", total=len(jobs) * len(methods) * repeats)
        for volume, target in jobs:
            for method in methods:
                for repeat in annotators:
                    trial = click_through(method, volume, target, clicks, repeat, aim)
                    trials += [] if trial is None else [trial]
                    progress.advance(bar)

    pictures = []
    if mode is Mode.SLICES:
        volumes = {id(target): volume for volume, target in jobs}
        ranked = sorted((t for t in trials if t.method == methods[0].name), key=lambda t: t.dice[min(2, clicks - 1)])
        chosen = [("worst", n, t) for n, t in enumerate(ranked[:PICTURES], 1)]
        chosen += [("best", n, t) for n, t in enumerate(ranked[: -PICTURES - 1 : -1], 1)]
        pictures = [
            (
                f"{kind}-{n} {t.target.case} {t.target.structure} {t.target.index}".replace(" ", "-"),
                draw_example(methods[0], volumes[id(t.target)], t.target, clicks, t.repeat, aim),
            )
            for kind, n, t in chosen
        ]
    settings = {
        "command": "causal-sam benchmark interactive",
        "data": data.name,
        "cases": len(cases),
        "targets": len(jobs),
        "mode": mode.value,
        "clicks": clicks,
        "slices": slices or "all",
        "smallest target": f"{min_voxels} voxels",
        "annotator": f"jittered, seed {seed}, {repeats} repeats" if jitter else "at the deepest point",
        "baselines": _baseline_settings(baseline or []),
    }
    write_interactive_report(output, trials, settings, pictures)
    typer.echo(f"{output / 'report.md'}: {len(trials)} trials on {len(jobs)} targets.")


def parse_joins(texts: list[str]) -> dict[str, list[str]]:
    """Read unions of structures from texts NAME=A+B.

    Raises:
        InputError: a text is of another form.
    """
    joins = {}
    for text in texts:
        name, _, parts = text.partition("=")
        if not name.strip() or len(parts.split("+")) < 2 or not all(part.strip() for part in parts.split("+")):
            raise InputError(f"--join {text!r} must be NAME=A+B, such as 'whole tumor=edema+tumor core'.")
        joins[name.strip()] = [part.strip() for part in parts.split("+")]
    return joins


def _methods(models: list[str], checkpoint: Path | None, baselines: list[str]) -> list[Method]:
    from causal_sam.benchmark.baselines import BASELINE_NAMES, load_baseline
    from causal_sam.benchmark.interactive import BaselineMethod, ModelMethod
    from causal_sam.prompting import Predictor
    from causal_sam.sam import load_model

    names = list(BASELINE_NAMES) if "all" in baselines else baselines
    classical = [BaselineMethod(load_baseline(name)) for name in names]
    # Prefetching would compete with what is timed.
    ours = [ModelMethod(name, Predictor(load_model(name, checkpoint), prefetch_slices=0)) for name in models]
    return [*ours, *classical]


def _baseline_settings(baselines: list[str]) -> str:
    if not baselines:
        return "none"
    return "each with its best setting on generated images (causal-sam benchmark tune)"
