"""`causal-sam correct`: a note about a mask in, the corrected mask out, no server."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from causal_sam.cli.options import (
    AsJson,
    BundleFile,
    ChatConsent,
    ChatModel,
    Checkpoint,
    Current,
    Frame,
    ImageFile,
    Model,
    NamesInOrder,
    Plane,
    Sides,
    ValueNames,
    name_values,
    read_sides,
    slice_progress,
)
from causal_sam.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from causal_sam.correction.corrector import Correction, Corrector
    from causal_sam.imaging import Volume
    from causal_sam.prompting import Predictor

NOTHING_DONE = 2


def correct(
    image: ImageFile,
    mask: Annotated[Path, typer.Argument(help="Mask or label map on the grid of the image: NIfTI, NRRD or MHA.")],
    note: Annotated[str, typer.Option(help="What is wrong, in your words: spleen leaks into the stomach.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Label map to write: .nii.gz, .nii or .nrrd.", show_default=False),
    ] = None,
    label: ValueNames = None,
    labels: NamesInOrder = None,
    current: Current = None,
    side: Sides = None,
    model: Model = "compact",
    checkpoint: Checkpoint = None,
    adapter_bundle: BundleFile = None,
    plane: Plane = "auto",
    frame: Frame = 0,
    llm: ChatModel = None,
    llm_consent: ChatConsent = False,
    preview: Annotated[bool, typer.Option("--preview", help="Report the changes, and write nothing.")] = False,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Make changes also if they are larger than is plausible.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Correct a mask by a note that says what is wrong with it.

    Voxels that a label gains are taken from the label that had them; the report lists how many ml. If the note is not
    clear, or a change is larger than is plausible, the answer is a question; then, and if no act could be done, nothing
    is written and the exit code is 2.
    """
    begin = time.perf_counter()
    if output is None and not preview:
        raise InputError("Say with -o which file to write, or ask with --preview what would change.")
    if output is not None and output.resolve() == image.resolve():
        raise InputError(f"The label map would replace its image {image}: give another file with -o.")
    said = read_sides(side)

    import numpy as np

    from causal_sam.correction.context import ImageContext, sides_in, slices_in
    from causal_sam.imaging import read_label_map, read_volume, write_mask
    from causal_sam.notes import NoteRequest, load_interpreter
    from causal_sam.prompting import InteractiveSession
    from causal_sam.style import describe

    volume = read_volume(image, frame)
    values = read_label_map(mask, volume)
    names = name_values(label or [], labels, np.unique(values[values != 0]).tolist())
    masks = {name: found for name, value in names.items() if (found := values == value).any()}
    request = NoteRequest(note, tuple(names), current, sides_in(volume, masks) | said, slices_in(volume, masks))
    interpreter = load_interpreter(llm, llm_consent)
    # When it is needed: a question should cost no time.
    prepare = cache(partial(_prepare, volume, plane, model, checkpoint, adapter_bundle))
    if llm is not None:  # it may ask what an act would change
        corrector, predictor = prepare()
        context = ImageContext(corrector, predictor.slices, masks, lambda image: describe(image).sentence)
        request = replace(request, context=context)
    reading = interpreter.invoke(request)
    report: dict[str, Any] = {
        "image": str(image),
        "mask": str(mask),
        "output": None,
        "note": note,
        "model": model,
        "plan": reading.plan.model_dump(mode="json"),
        "interpreter": reading.interpreter,
        "notice": reading.notice,
        "preview": preview,
    }
    if reading.notice is not None:
        typer.secho(f"causal-sam: {reading.notice}", err=True, fg="yellow")
    if reading.plan.question is not None:
        typer.echo(json.dumps(report, ensure_ascii=False) if as_json else f"question: {reading.plan.question}")
        raise typer.Exit(NOTHING_DONE)

    corrector, predictor = prepare()
    ready = time.perf_counter()
    with slice_progress("correcting") as on_slice:
        session = InteractiveSession(predictor, on_slice=on_slice)
        for name, found in masks.items():
            session.set_mask(name, found)
        outcome = session.apply_note(note, reading.plan, corrector, confirm=confirm)
    done, corrections = time.perf_counter(), outcome.corrections
    corrected, taken = put_back(values, names, outcome.masks)
    is_done = outcome.question is None and any(correction.objection is None for correction in corrections)
    if is_done and not preview and output is not None:
        report["output"] = str(write_mask(corrected, volume, output))
    report["question"] = outcome.question
    report["effects"] = [correction.to_dict() for correction in corrections]
    report["totals"] = {
        name: {"gained_ml": round(effect.gained_ml, 3), "lost_ml": round(effect.lost_ml, 3)}
        for name, effect in outcome.totals.items()
    }
    report["taken_ml"] = {
        name: {other: round(voxels * volume.voxel_ml, 3) for other, voxels in others.items()}
        for name, others in taken.items()
    }
    report["seconds"] = {
        "prepare": round(ready - begin, 3),
        "correct": round(done - ready, 3),
        "total": round(time.perf_counter() - begin, 3),
    }
    typer.echo(json.dumps(report, ensure_ascii=False) if as_json else _in_words(report, corrections))
    if not is_done:
        raise typer.Exit(NOTHING_DONE)


def put_back(
    values: NDArray[np.integer],
    names: Mapping[str, int],
    masks: Mapping[str, NDArray[np.bool_]],
) -> tuple[NDArray[np.integer], dict[str, dict[str, int]]]:
    """Write corrected masks into a label map.

    Voxels that a label gains are taken from the label that had them; voxels that it loses become background.

    Args:
        values: (I, J, K) label map.
        names: label -> its value.
        masks: name -> corrected mask (I, J, K), of the labels that changed.

    Returns:
        The label map, and label -> other label, or "value 7" where it has no name -> voxels that it was taken.
    """
    import numpy as np

    labels = {value: name for name, value in names.items()}
    corrected = values.copy()
    corrected[np.isin(values, [names[name] for name in masks])] = 0
    taken: dict[str, dict[str, int]] = {}
    for name, mask in masks.items():
        corrected[mask] = names[name]
        others, counts = np.unique(values[mask & (values != 0) & (values != names[name])], return_counts=True)
        if len(others):
            named = [labels.get(value, f"value {value}") for value in others.tolist()]
            taken[name] = dict(zip(named, counts.tolist(), strict=True))
    return corrected, taken


def _prepare(
    volume: Volume, plane: str, model: str, checkpoint: Path | None, bundle: Path | None
) -> tuple[Corrector, Predictor]:
    from causal_sam.correction.corrector import load_corrector
    from causal_sam.prompting import Predictor
    from causal_sam.sam import load_model
    from causal_sam.sam.adapter_bundle import AdapterBundle

    predictor = Predictor(load_model(model, checkpoint), prefetch_slices=0)
    predictor.set_volume(volume, plane)
    film = None if bundle is None else AdapterBundle.read(bundle).film
    return load_corrector(predictor.encoder, film), predictor


def _in_words(report: Mapping[str, Any], corrections: Sequence[Correction]) -> str:
    lines = []
    for correction in corrections:
        what = f"not done: {correction.objection}" if correction.objection else str(correction.effect)
        lines += [correction.intervention.sentence, f"  {what}"]
    lines += [f"{name} in all: +{ml['gained_ml']} ml, -{ml['lost_ml']} ml" for name, ml in report["totals"].items()]
    for name, others in report["taken_ml"].items():
        lines += [f"{name} took {ml} ml of {other}" for other, ml in others.items()]
    if report["question"] is not None:
        lines.append(f"question: {report['question']}")
    seconds = report["seconds"]
    written = "nothing was written" if report["output"] is None else f"written to {report['output']}"
    times = f"{seconds['total']} s, of which {seconds['correct']} s to correct"
    return "\n".join([*lines, f"read by {report['interpreter']}; {times}", written])
