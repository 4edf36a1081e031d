"""Arguments and options that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from causal_sam.errors import InputError, join_limited

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
ValueNames = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VALUE=NAME",
        help="Name of a value of the mask; may be repeated. For a mask with one value, the name alone is enough.",
        show_default=False,
    ),
]
NamesInOrder = Annotated[
    str | None,
    typer.Option(help="Names of the values 1, 2, …, with commas between them.", show_default=False),
]
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


def name_values(label: list[str], labels: str | None, values: list[int]) -> dict[str, int]:
    """Say what the values of a mask are.

    Args:
        label: texts VALUE=NAME, or one name alone.
        labels: names of the values 1, 2, …, with commas between them; None if ``label`` says it.
        values: values in the mask, without 0.

    Returns:
        Name -> value.

    Raises:
        InputError: the mask is empty, nothing or too much is said, or something is said twice.

    >>> name_values(["2=spleen", "5=liver"], None, [2, 5]), name_values(["liver"], None, [255])
    ({'spleen': 2, 'liver': 5}, {'liver': 255})
    """
    if not values:
        raise InputError("The mask is empty: it holds no label.")
    there = join_limited(values)
    if bool(label) == (labels is not None):
        raise InputError(
            f"Say what the values of the mask are ({there}), either by --label VALUE=NAME for each or by --labels with "
            "the names of 1, 2, …."
        )
    if labels is not None:
        named = [(str(value), name.strip()) for value, name in enumerate(labels.split(","), start=1) if name.strip()]
    elif len(label) == 1 and "=" not in label[0]:
        if len(values) > 1:
            raise InputError(f"The mask holds {there}: say which is {label[0]}, as in --label {values[0]}={label[0]}.")
        named = [(str(values[0]), label[0].strip())]
    else:
        named = [read_pair(text, "--label", "1=liver") for text in label]
    if wrong := [value for value, _ in named if not value.isdecimal() or int(value) == 0]:
        raise InputError(f"The value of a label is a whole number from 1, not {wrong[0]!r}; the mask holds {there}.")
    names = {name: int(value) for value, name in named}
    if len(names) < len(named) or len(set(names.values())) < len(named):
        raise InputError("Each value of the mask has one name, and each name one value: one is given twice.")
    return names
