"""`causal-sam train`: learn from accepted labels, and publish a new version of the adapters if it is better."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import typer

from causal_sam.cli.options import AsJson, Checkpoint, ImageSize, Model, Plane
from causal_sam.errors import InputError

REJECTED = 1


def train(
    studies: Annotated[
        Path,
        typer.Argument(help="Folder of MONAI Label's data store: the studies, or its DICOMweb cache."),
    ],
    store: Annotated[
        Path | None,
        typer.Option(help="Folder of the versions.", show_default="causal_sam_adapters in STUDIES, as in the server"),
    ] = None,
    model: Model = "compact",
    checkpoint: Checkpoint = None,
    image_size: ImageSize = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, or auto for a GPU if there is one.")] = "auto",
    processes: Annotated[int, typer.Option(min=0, help="Processes that train; 0 for one on each GPU, else one.")] = 0,
    minutes: Annotated[float, typer.Option(help="Minutes of training; reading and measuring add to it.")] = 10.0,
    epochs: Annotated[int, typer.Option(help="Passes through all slices instead of minutes, if above 0.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of the label prompt.")] = 3e-3,
    adapter_rate: Annotated[float, typer.Option(help="Peak learning rate of the adapters.")] = 1e-3,
    labels: Annotated[
        str, typer.Option(help="Names of the labels to learn, with commas between them.", show_default="all")
    ] = "",
    replay: Annotated[float, typer.Option(help="Share of earlier cases in the training data.")] = 0.5,
    validation: Annotated[float, typer.Option(help="Share of the studies that is held out to measure Dice.")] = 0.2,
    tolerance: Annotated[float, typer.Option(help="Largest drop in the Dice of a label that is accepted.")] = 0.02,
    min_dice: Annotated[float, typer.Option(help="Minimum mean Dice of a version to be published.")] = 0.5,
    min_label_dice: Annotated[float, typer.Option(help="Minimum Dice of each of its labels.")] = 0.2,
    lad: Annotated[bool, typer.Option(help="Show images in other styles too, with LAD.")] = True,
    batch: Annotated[int, typer.Option(help="Images per step in each process.")] = 8,
    pairs: Annotated[int, typer.Option(help="Anatomies per step that are shown in two styles.")] = 3,
    plane: Plane = "auto",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Learn from the labels that were accepted (tag final) since the version in use, and publish what is better.

    Exit code 0 if a version was published or nothing was new, 1 if it was made and rejected, 2 if it could not be made.
    """
    options = dict(locals())
    if not studies.is_dir():
        raise InputError(f"There is no folder {studies}: give that of a data store of MONAI Label.")

    from causal_sam.sam.loading import checked_device
    from causal_sam.site.paths import JOURNAL_FOLDER, STORE_FOLDER, SitePaths, UpdateConfig, processes_for
    from causal_sam.site.update import update

    names = tuple(name.strip() for name in labels.split(",") if name.strip())
    config = UpdateConfig(**{field.name: options[field.name] for field in fields(UpdateConfig)} | {"labels": names})
    site = SitePaths(
        studies,
        store or studies / STORE_FOLDER,
        model,
        checkpoint,
        image_size,
        checked_device(device),
        journal=studies / JOURNAL_FOLDER,
    )
    outcome = update(site, config, processes_for(processes, site.device), lambda line: typer.echo(line, err=as_json))
    if outcome is None:  # another process of torchrun leads
        return
    if as_json:
        typer.echo(json.dumps(asdict(outcome), ensure_ascii=False, indent=1))
    if outcome.status == "rejected":
        raise typer.Exit(REJECTED)
