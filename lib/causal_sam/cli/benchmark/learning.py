"""`causal-sam benchmark learning`: what annotators save as the model learns from the labels that they accept."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from causal_sam.cli.benchmark.interactive import parse_joins
from causal_sam.cli.benchmark.settings import check_settings
from causal_sam.cli.options import ImageSize
from causal_sam.data_sets.layouts import Kind
from causal_sam.errors import InputError

RECORDS, SITES = "records.jsonl", "sites"


class Pool(StrEnum):
    """Whose images are annotated."""

    BRAIN = "brain"
    DATA = "data"
    PHANTOM = "phantom"


class Order(StrEnum):
    """Strategy that chooses the next case."""

    RANDOM = "random"
    STYLE_AWARE = "style_aware"


def learning(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the records and their report.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the images or label maps.", show_default=False)] = None,
    pool: Annotated[
        Pool,
        typer.Option(
            help="brain: label maps of brains in --data, scanned in --style. data: labelled images in --data. "
            "phantom: abdomens, generated and scanned in --style."
        ),
    ] = Pool.DATA,
    cases: Annotated[int, typer.Option(min=2, help="Number of generated abdomens.")] = 16,
    kind: Annotated[Kind, typer.Option(help="Type of the data set.")] = Kind.AUTO,
    style: Annotated[
        list[str] | None,
        typer.Option(
            help="Style of brains or abdomens; several take turns. May be repeated.",
            show_default="T1 3 T A, or ct-portal-venous",
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="Images to annotate: SET/CASE/SEQUENCE with * and ?; may be repeated.", show_default="all"),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only structures of this name; may be repeated.", show_default="all")
    ] = None,
    join: Annotated[
        list[str] | None, typer.Option(metavar="NAME=A+B", help="Also the union of structures.", show_default=False)
    ] = None,
    later_label: Annotated[
        list[str] | None,
        typer.Option(help="In the second half only these are annotated; may be repeated.", show_default="all"),
    ] = None,
    order: Annotated[
        list[Order] | None,
        typer.Option(help="Strategy that chooses the next case; may be repeated.", show_default="random"),
    ] = None,
    held_out: Annotated[int, typer.Option(min=1, help="Held-out cases, which are never in the training data.")] = 4,
    click_held_out: Annotated[
        bool, typer.Option(help="Annotate held-out cases too, before the first update and at the end.")
    ] = True,
    accept: Annotated[int, typer.Option(min=1, help="Cases that are annotated and accepted.")] = 8,
    every: Annotated[int, typer.Option(min=1, help="Cases between updates.")] = 1,
    target: Annotated[float, typer.Option(min=0, max=1, help="Dice at which the annotator stops clicking.")] = 0.9,
    most_clicks: Annotated[int, typer.Option(min=1, help="Clicks after which a structure is drawn by hand.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions, each with other held-out cases.")] = 1,
    minutes: Annotated[float, typer.Option(help="Minutes of training in each update.")] = 3.0,
    epochs: Annotated[int, typer.Option(min=0, help="Passes through all slices instead, if above 0.")] = 0,
    lad: Annotated[bool, typer.Option(help="Train with LAD.")] = True,
    image_size: ImageSize = None,
    model: Annotated[str, typer.Option(help="The model that learns.")] = "compact",
) -> None:
    """Let a simulated annotator work through cases and accept each, while the model learns from what was accepted.

    Reported are clicks for each case, what is found by name on held-out cases after each update, what is forgotten of
    labels that are not annotated any more, and how long updates take. One that was interrupted goes on with the next
    repetition.
    """
    from rich.console import Console

    from causal_sam.benchmark.learning.pools import brain_pool, data_pool, divide, phantom_pool
    from causal_sam.benchmark.learning.records import append_record, read_records
    from causal_sam.benchmark.learning.report import write_learning_report
    from causal_sam.benchmark.learning.run import AnnotationSchedule, LearningSite, random_order, style_aware_order
    from causal_sam.sam import load_model
    from causal_sam.site.paths import UpdateConfig

    if pool is Pool.PHANTOM:
        style = style or ["ct-portal-venous"]
        scans, labels = phantom_pool(cases, style)
    elif data is None:
        raise InputError("Say with --data where the images are, or generate some with --pool phantom.")
    elif pool is Pool.BRAIN:
        style = style or ["T1 3 T A"]
        scans, labels = brain_pool(data, style)
    else:
        scans, labels = data_pool(data, kind, source or ["*"], label or [], parse_joins(join or []))
    labels = tuple(name for name in labels if not label or name in label)
    later = tuple(later_label or labels)
    if unknown := [name for name in (*(label or ()), *later) if name not in labels]:
        raise InputError(f"There is no label {unknown[0]!r}; there are {', '.join(labels)}.")
    if accept + held_out > len(scans):
        raise InputError(f"{accept} cases to accept and {held_out} held out are more than the {len(scans)} there are.")
    orders = [each.value for each in order or [Order.RANDOM]]
    settings = {
        "pool": pool.value,
        "data": f"{cases} generated" if data is None else data.resolve().name,
        "styles": "of the images" if pool is Pool.DATA else ", ".join(style or ()),
        "images": " ".join(source or ()) or "all",
        "labels": ", ".join(labels),
        "labels in the second half": ", ".join(later),
        "held out": str(held_out),
        "accepted": str(accept),
        "cases between updates": str(every),
        "target": f"Dice {target:g}, or {most_clicks} clicks and then by hand",
        "training": f"{epochs} epochs" if epochs else f"{minutes:g} minutes",
        "LAD": "yes" if lad else "no",
        "model": model,
        "image size": str(image_size or "the model's own"),
    }
    check_settings(output, settings)
    console = Console(stderr=True)
    records = output / RECORDS
    finished = {(record.order, record.seed) for record in read_records(records) if record.accepted == accept}
    loaded = load_model(model, image_size=image_size)
    for seed in range(seeds):
        for name in orders:
            if (name, seed) in finished:
                continue
            site = output / SITES / f"{name}-{seed}"
            shutil.rmtree(site, ignore_errors=True)
            site.mkdir(parents=True)
            divided = divide(scans, held_out, seed)
            config = UpdateConfig(
                minutes=minutes,
                epochs=epochs,
                lad=lad,
                seed=seed,
                min_dice=0.0,  # also what a site would not publish yet is measured
                min_label_dice=0.0,
            )
            schedule = AnnotationSchedule(accept, every, target, most_clicks, labels, later, config)
            made: list[Any] = []
            runner = LearningSite(site, loaded, *divided, schedule, name, seed, made.append, console.print)
            choose = random_order(seed) if name == Order.RANDOM else style_aware_order(loaded)
            runner.run(choose, click_held_out=click_held_out)
            for record in made:
                append_record(records, record)
            shutil.rmtree(site)
    write_learning_report(output, read_records(records), settings, later)
    typer.echo(f"The report is {output / 'report.md'}.")
