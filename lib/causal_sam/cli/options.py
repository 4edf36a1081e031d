"""Arguments and options that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from causal_sam.errors import InputError

ImageFile = Annotated[
    Path, typer.Argument(help="NIfTI, NRRD, MHA, PNG, a DICOM file, or the folder of a DICOM series.")
]
Frame = Annotated[
    int, typer.Option(help="Frame of an image with several (points in time, or MR sequences), counted from 0.")
]
Plane = Annotated[
    str, typer.Option(help="axial, coronal, sagittal, or auto for the plane that the image was acquired in.")
]
Model = Annotated[str, typer.Option(help="compact, vit_b, vit_l, vit_h or medsam.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Weights to use instead of the model's own.", show_default=False)]
BundleFile = Annotated[
    Path | None,
    typer.Option(
        "--adapter-bundle",
        help="Adapter bundle whose FiLM part modulates the mask decoder for notes.",
        show_default="the model's own",
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        help="Side of the model's input in pixels; only compact supports other sizes than its own.",
        show_default="the model's own",
    ),
]
Current = Annotated[str | None, typer.Option(help="Label of a note that names none.", show_default=False)]
Sides = Annotated[
    list[str] | None,
    typer.Option("--side", metavar="LABEL=SIDE", help="Side of the body of a label, left or right; may be repeated."),
]
ChatModel = Annotated[
    str | None,
    typer.Option("--llm", metavar="PROVIDER:MODEL", help="Chat model that reads notes.", show_default=False),
]
ChatConsent = Annotated[bool, typer.Option("--llm-consent", help="Notes may be sent to a remote chat model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@contextmanager
def slice_progress(text: str, total: int | None = None) -> Iterator[Callable[[int], object]]:
    """Show a progress bar where a person can see it; yields what to call with the number of slices done."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(text, total=total)
        yield lambda done: progress.update(bar, completed=done)


def read_sides(texts: Sequence[str] | None) -> dict[str, Literal["left", "right"]]:
    """Read the values of `Sides`: label -> side.

    Raises:
        InputError: a text is of another form, or names no side.
    """
    sides: dict[str, Literal["left", "right"]] = {}
    for text in texts or ():
        label, side = read_pair(text, "--side", "spleen=left")
        if side not in ("left", "right"):
            raise InputError(f"--side is given as in spleen=left, left or right, not {text!r}.")
        sides[label] = "left" if side == "left" else "right"
    return sides


def read_pair(text: str, option: str, example: str) -> tuple[str, str]:
    """Read the two parts of an option's value with "=" between them; the last one counts.

    Args:
        text: value as given.
        option: name of the option, for the error.
        example: an example of the option with a value, for the error.

    Raises:
        InputError: there is no "=", or nothing before or after it.
    """
    first, equals, second = (part.strip() for part in text.rpartition("="))
    if not (equals and first and second):
        raise InputError(f"{option} is given as in {example}, not {text!r}.")
    return first, second
