"""`causal-sam style`: how an image was made and looks, in a few words."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from causal_sam.cli.options import AsJson, Frame, ImageFile


def style(
    image: ImageFile,
    frame: Frame = 0,
    vlm: Annotated[
        str | None,
        typer.Option(metavar="PROVIDER:MODEL", help="Vision-language model for the description.", show_default=False),
    ] = None,
    vlm_consent: Annotated[
        bool, typer.Option("--vlm-consent", help="Slices may be sent to a remote vision model.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Describe the imaging style: what the header says, and what is measured. Nothing of the patient is in it.

    A vision-language model, named as LangChain names it (ollama:llava), is shown a few slices without their header. Its
    description is checked and kept by the image's hash; the measured one stands in if it cannot be used.
    """
    from causal_sam.imaging import read_volume
    from causal_sam.style import describe

    volume = read_volume(image, frame)
    if vlm is None:
        described = describe(volume)
    else:
        from causal_sam.sam.checkpoints import checkpoint_dir
        from causal_sam.style.vision import VisionDescriber, load_vision_model

        loaded = load_vision_model(vlm, vlm_consent)
        described = VisionDescriber(loaded, vlm, checkpoint_dir().parent / "styles").describe(volume)
        if described.failure is not None:
            typer.secho(f"causal-sam: measured only; {described.failure}", err=True, fg="yellow")
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
