"""`causal-sam segment`: clicks and a box on one image, a mask file back, no server."""

from __future__ import annotations

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from causal_sam.cli.options import AsJson, Checkpoint, Frame, ImageFile, Model, Plane, slice_progress
from causal_sam.errors import InputError


class Extent(StrEnum):
    """Part of the volume that is segmented."""

    SLICE = "slice"
    VOLUME = "volume"


POINT, BOX = 3, 6  # count of numbers in each


def segment(
    image: ImageFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Mask to write: .nii.gz, .nii or .nrrd.")],
    point: Annotated[
        list[str] | None, typer.Option(metavar="X,Y,Z", help="A voxel inside the structure; may be repeated.")
    ] = None,
    negative: Annotated[
        list[str] | None, typer.Option(metavar="X,Y,Z", help="A voxel outside the structure; may be repeated.")
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="X0,X1,Y0,Y1,Z0,Z1", help="First and last voxel along each axis, both inside the box."),
    ] = None,
    label: Annotated[str, typer.Option(help="Name of the structure, for the report.")] = "structure",
    model: Model = "compact",
    checkpoint: Checkpoint = None,
    plane: Plane = "auto",
    frame: Frame = 0,
    extent: Annotated[
        Extent, typer.Option(help="Segment the prompted slices alone, or follow the whole structure from them.")
    ] = Extent.VOLUME,
    as_json: AsJson = False,
) -> None:
    """Segment a structure that has a point inside it, or that lies in a box.

    Points and boxes are voxel indices of the file, counted from 0. A box of several slices is the limit of the
    structure.
    """
    begin = time.perf_counter()
    foreground = [parse_numbers(text, "--point", POINT) for text in point or []]
    background = [parse_numbers(text, "--negative", POINT) for text in negative or []]
    limits = None if box is None else parse_numbers(box, "--box", BOX)
    if output.resolve() == image.resolve():
        raise InputError(f"The mask would replace its image {image}: give another file with -o.")

    from causal_sam.imaging import nonempty_slices, read_volume, slice_axis, write_mask
    from causal_sam.prompting.prompts import Prompts

    volume = read_volume(image, frame)
    axis = slice_axis(volume, plane)
    # Before the model is loaded, or even downloaded: mistakes should cost no time.
    prompts = Prompts.checked(volume.shape, foreground, background, limits)
    prompts.slices(axis, {})

    from causal_sam.prompting import InteractiveSession, predictor_with_context
    from causal_sam.prompting.prompt_set import PromptSet
    from causal_sam.sam import load_model

    predictor = predictor_with_context(load_model(model, checkpoint), prefetch_slices=0)
    predictor.set_volume(volume, plane)
    ready = time.perf_counter()
    with slice_progress("following the structure") as on_slice:
        session = InteractiveSession(predictor, on_slice=on_slice)
        refinement = session.set_prompts(PromptSet(label, {label: prompts}), follow=extent is Extent.VOLUME)[label]
    decided = time.perf_counter()
    write_mask(refinement.mask, volume, output)
    voxels = int(refinement.mask.sum())
    estimates = [record.predicted_iou for record in refinement.state.slices.values()]
    report = {
        "image": str(image),
        "output": str(output),
        "label": label,
        "model": model,
        "frame": volume.frame,
        "frames": volume.frames,
        "axis": "ijk"[axis],
        "slices": sorted({*refinement.decided, *nonempty_slices(refinement.mask, axis)}),
        "voxels": voxels,
        "volume_ml": round(voxels * volume.voxel_ml, 3),
        "predicted_iou": round(sum(estimates) / len(estimates), 4),
        "seconds": {
            "prepare": round(ready - begin, 3),
            "predict": round(decided - ready, 3),
            "total": round(time.perf_counter() - begin, 3),
        },
    }
    typer.echo(json.dumps(report) if as_json else _in_words(report))
    if voxels == 0:
        typer.echo("The mask is empty: try a point nearer to the middle of the structure, or a box.", err=True)


def parse_numbers(text: str, option: str, count: int) -> list[float]:
    """Read comma-separated numbers.

    >>> parse_numbers("10,20,5", "--point", 3)
    [10.0, 20.0, 5.0]

    Raises:
        InputError: they are not numbers, or not ``count`` of them.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        example = "96,120,64" if count == POINT else "64,96,80,120,60,64"
        raise InputError(f"{option} takes {count} numbers with commas between them, such as {example}, not {text!r}.")
    return numbers


def _in_words(report: dict) -> str:
    seconds = report["seconds"]
    in_frame = f", in frame {report['frame']} of 0 to {report['frames'] - 1}" if report["frames"] > 1 else ""
    return (
        f"{report['label']}: {report['volume_ml']} ml ({report['voxels']} voxels) "
        f"on {report['axis']} = {', '.join(map(str, report['slices']))}{in_frame}\n"
        f"predicted IoU {report['predicted_iou']}, {seconds['total']} s, of which {seconds['predict']} s to predict\n"
        f"written to {report['output']}"
    )
