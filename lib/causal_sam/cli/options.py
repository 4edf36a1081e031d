"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ImageFile = Annotated[
    Path, typer.Argument(help="NIfTI, NRRD, MHA, PNG, a DICOM file, or the folder of a DICOM series.")
]
Frame = Annotated[
    int, typer.Option(help="Which frame of an image with several: points in time, or MR sequences; from 0.")
]
Plane = Annotated[
    str, typer.Option(help="axial, coronal, sagittal, or auto for the plane that the image was acquired in.")
]
Model = Annotated[str, typer.Option(help="compact, vit_b, vit_l, vit_h or medsam.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Weights to use instead of the model's own.", show_default=False)]
FilmFile = Annotated[
    Path | None,
    typer.Option("--film", help="Weights of the modulation, of training/train_tci.py.", show_default="the model's own"),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        help="Side of the model's input in pixels; only compact takes another than its own.",
        show_default="the model's own",
    ),
]
Current = Annotated[str | None, typer.Option(help="The label that a note without a name is about.", show_default=False)]
Sides = Annotated[
    list[str] | None,
    typer.Option("--side", metavar="LABEL=SIDE", help="Side of the body of a label, left or right; may be repeated."),
]
ChatModel = Annotated[
    str | None,
    typer.Option("--llm", metavar="PROVIDER:MODEL", help="A chat model that reads notes.", show_default=False),
]
ChatConsent = Annotated[bool, typer.Option("--llm-consent", help="Notes may be sent to a remote chat model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
