"""`causal-sam benchmark ood`: how well methods hold out of the domain that they were trained on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from causal_sam.cli.benchmark.interactive import parse_joins
from causal_sam.cli.benchmark.settings import check_settings
from causal_sam.cli.options import ImageSize
from causal_sam.data_sets.layouts import Kind
from causal_sam.errors import InputError

if TYPE_CHECKING:
    from causal_sam.benchmark.ood.run import DomainProtocol

REPORT = "report"


class Domains(StrEnum):
    """Data for training and testing."""

    BRAIN = "brain"
    PHANTOM = "phantom"
    DATA = "data"


class Prompt(StrEnum):
    """Prompt that the methods get for a structure."""

    NAME = "name"
    CLICK = "click"


def ood(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of the runs and their report; one interrupted goes on."),
    ],
    protocol: Annotated[
        Domains,
        typer.Option(
            help="data: --source and --target of labelled images in --data. brain: label maps of brains in --data, "
            "scanned in generated styles. phantom: generated abdomens, CT to MR."
        ),
    ] = Domains.DATA,
    data: Annotated[Path | None, typer.Option(help="Folder of the images or label maps.", show_default=False)] = None,
    kind: Annotated[Kind, typer.Option(help="Type of the data set.")] = Kind.AUTO,
    source: Annotated[
        list[str] | None,
        typer.Option(help="Training images: SET/CASE/SEQUENCE with * and ?; may be repeated.", show_default=False),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="More test images, as --source; may be repeated.", show_default=False),
    ] = None,
    shift: Annotated[
        str, typer.Option(help="Difference of the targets: scanner, modality, anatomy or 'data set'.")
    ] = "modality",
    label: Annotated[
        list[str] | None,
        typer.Option(help="Only structures of this name.", show_default="those that sources and targets share"),
    ] = None,
    join: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=A+B", help="Also the union of structures.", show_default=False),
    ] = None,
    prompt: Annotated[
        Prompt, typer.Option(help="name: whole images by names. click: one click in each structure of a slice.")
    ] = Prompt.NAME,
    method: Annotated[
        list[str] | None,
        typer.Option(help="unet, adapters, augmented, random or lad; may be repeated.", show_default="all of them"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions, each with its own division of the patients.")] = 3,
    steps: Annotated[int, typer.Option(min=2, help="Training steps of each method.")] = 600,
    batch: Annotated[int, typer.Option(min=4, help="Images per step.")] = 8,
    pairs: Annotated[int, typer.Option(min=2, help="Anatomies per step that are shown in two styles.")] = 3,
    image_size: ImageSize = None,
    model: Annotated[str, typer.Option(help="The model that gets the adapters.")] = "compact",
) -> None:
    """Train methods on source domains alone and test them in and out of these, with intervals over seeds and cases.

    Compared are MONAI's U-Net, the model with adapters, the same with style augmentation alone, with LAD on random
    vectors in the place of style descriptions, and with LAD. A linear probe says how much of the style is left in the
    features of held-out images.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from causal_sam.benchmark.ood.methods import METHODS, Setup
    from causal_sam.benchmark.ood.report import write_ood_report
    from causal_sam.benchmark.ood.results import read_runs
    from causal_sam.benchmark.ood.run import RUNS, TOLERANCE_MM, compare, read_shown
    from causal_sam.sam.loading import has_bfloat16_units
    from causal_sam.text import load_text_encoder
    from causal_sam.training.adapters import TrainingConfig

    wanted = method or list(METHODS)
    if unknown := [name for name in wanted if name not in METHODS]:
        raise InputError(f"There is no method {unknown[0]!r}; there are {', '.join(METHODS)}.")
    domains = _domains(protocol, data, kind, source, target, shift, label, parse_joins(join or []), prompt)
    amp = torch.cuda.is_available() or has_bfloat16_units()
    settings = {
        "protocol": protocol.value,
        "data": "none" if data is None else data.resolve().name,
        "sources": " ".join(source or ()) or "of the protocol",
        "targets": " ".join(target or ()) or "of the protocol",
        "prompt": domains.prompt,
        "model": model,
        "image size": str(image_size or "the model's own"),
        "steps": str(steps),
        "batch": f"{batch} images; with style augmentation {pairs} anatomies of them under two styles",
        "mixed precision": "yes" if amp else "no",
        "surface Dice": f"borders closer than {TOLERANCE_MM:g} mm agree",
    }
    check_settings(output, settings)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("training", total=1.0)
        setup = Setup(
            model,
            image_size,
            load_text_encoder(),
            TrainingConfig(steps=steps, batch=batch, pairs=pairs, amp=amp),
            domains.prompt,
            lambda done: progress.update(bar, completed=done),
        )
        compare(
            domains,
            setup,
            wanted,
            range(seeds),
            output,
            lambda text: progress.update(bar, description=text, completed=0),
        )
    runs = read_runs(output / RUNS)
    write_ood_report(output / REPORT, runs, settings, *read_shown(output))
    typer.echo(f"{output / REPORT / 'report.md'}: {len(runs)} trained models.")


def _domains(
    protocol: Domains,
    data: Path | None,
    kind: Kind,
    source: list[str] | None,
    target: list[str] | None,
    shift: str,
    label: list[str] | None,
    joins: dict[str, list[str]],
    prompt: Prompt,
) -> DomainProtocol:
    from causal_sam.benchmark.ood.protocols import SHIFTS, BrainProtocol, DataProtocol, PhantomProtocol

    if (data is None) != (protocol is Domains.PHANTOM):
        raise InputError("Give --data with the protocols data and brain, and leave it out with phantom.")
    if data is None or protocol is not Domains.DATA:
        if source or target or label or joins or prompt is not Prompt.NAME:
            raise InputError(f"The protocol {protocol.value} has its own sources, targets, structures and prompt.")
        return PhantomProtocol() if data is None else BrainProtocol(data)
    if not source or not target:
        raise InputError("Say with --source and --target which images to train on and which to test on.")
    if shift not in SHIFTS:
        raise InputError(f"--shift must be one of {', '.join(SHIFTS)}, not {shift!r}.")
    return DataProtocol(data, kind, source, target, shift, label or (), joins, prompt.value)
