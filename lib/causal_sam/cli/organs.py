"""`causal-sam organs`: label names in, a label map out, no clicks and no server."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from causal_sam.cli.options import AsJson, Checkpoint, Frame, ImageFile, Plane, slice_progress
from causal_sam.errors import InputError


def organs(
    image: ImageFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Label map to write: .nii.gz, .nii or .nrrd.")],
    adapter_bundle: Annotated[
        Path | None,
        typer.Option(help="Adapter bundle with labels, which come before the names that the package knows."),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(help="Labels to find, with commas between them.", show_default="all of the adapter bundle"),
    ] = None,
    model: Annotated[str, typer.Option(help="The model that the bundle was trained with.")] = "compact",
    checkpoint: Checkpoint = None,
    plane: Plane = "auto",
    frame: Frame = 0,
    as_json: AsJson = False,
) -> None:
    """Segment structures by their names: the labels of an adapter bundle, or those that the volume context knows.

    The values of the label map are the positions of the names, counted from 1.
    """
    begin = time.perf_counter()
    if output.resolve() == image.resolve():
        raise InputError(f"The label map would replace its image {image}: give another file with -o.")
    if adapter_bundle is None and not names:
        raise InputError("Give the labels to find with --names, or an adapter bundle with labels.")

    import numpy as np

    from causal_sam.imaging import read_volume, write_mask
    from causal_sam.prompting import InteractiveSession, LabelPrompter, predictor_with_context
    from causal_sam.sam import load_model
    from causal_sam.sam.adapter_bundle import AdapterBundle

    volume = read_volume(image, frame)
    loaded = load_model(model, checkpoint)
    labels = None if adapter_bundle is None else LabelPrompter.from_bundle(AdapterBundle.read(adapter_bundle), loaded)
    wanted = [name.strip() for name in names.split(",") if name.strip()] if names else []
    if labels is not None:
        wanted = list(dict.fromkeys(labels.find(name) or name for name in wanted or labels.metadata.names))
    predictor = predictor_with_context(loaded, prefetch_slices=0)
    predictor.set_volume(volume, plane)
    with slice_progress("slices", predictor.slices.frame.count) as on_slice:
        session = InteractiveSession(predictor, wanted, on_slice=on_slice)
        found, _ = session.segment_by_name(wanted, labels)
    label_map, values = session.label_map()
    write_mask(label_map, volume, output)
    counts = np.bincount(label_map.ravel(order="K"), minlength=len(wanted) + 1)
    report: dict[str, Any] = {
        "image": str(image),
        "output": str(output),
        "labels": {
            name: {
                "value": value,
                "volume_ml": round(int(counts[value]) * volume.voxel_ml, 3),
                "predicted_iou": round(found.predicted_iou[name], 4) if name in found.predicted_iou else None,
            }
            for name, value in values.items()
        },
        "seconds": round(time.perf_counter() - begin, 3),
    }
    if as_json:
        typer.echo(json.dumps(report))
        return
    for name, label in report["labels"].items():
        typer.echo(f"{label['value']} {name}: {label['volume_ml']} ml" if label["volume_ml"] else f"{name}: not found")
    typer.echo(f"written to {output} in {report['seconds']} s")
