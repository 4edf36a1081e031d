"""`causal-sam style`: how an image was made and looks, in a few words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def style(
    image: Annotated[
        Path, typer.Argument(help="NIfTI, NRRD, MHA, PNG, a DICOM file, or the folder of a DICOM series.")
    ],
    frame: Annotated[
        int, typer.Option(help="Which frame of an image with several: points in time, or MR sequences; from 0.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the structured form as JSON.")] = False,
) -> None:
    """Describe the imaging style: what the header says, and what is measured. Nothing of the patient is in it."""
    from causal_sam.imaging import read_volume
    from causal_sam.style import describe

    described = describe(read_volume(image, frame))
    if as_json:
        typer.echo(json.dumps(described.to_dict(), indent=1))
        return
    typer.echo(described.sentence)
    found = described.measured
    rows = {
        "noise": f"{found.noise:.3f} of the signal"
        + (f", {found.noise_hu:.1f} HU" if found.noise_hu is not None else ""),
        "blur": "no clear edge" if found.blur is None else f"{found.blur:.2f} pixels, {found.blur_mm:.2f} mm",
        "bias field": "not measured" if found.bias_field is None else f"{found.bias_field:.3f} of the signal",
        "contrast": f"{found.contrast:.2f}",
        **{artefact.name: f"{artefact.score:.2f}. {artefact.evidence}" for artefact in found.artefacts},
    }
    for name, value in rows.items():
        typer.echo(f"  {name}: {value}")
