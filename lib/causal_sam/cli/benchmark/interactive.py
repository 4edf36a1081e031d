"""`causal-sam benchmark interactive`: Dice against clicks on labelled images, for our models and for baselines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from causal_sam.benchmark.interactive.options import Mode, Prompt, Protocol
from causal_sam.data_sets.layouts import Kind
from causal_sam.errors import InputError

if TYPE_CHECKING:
    from causal_sam.benchmark.interactive.methods import Method

CHALLENGE_CLICKS = 5
# Clicks by default after each first prompt, the prompt itself included if it is one.
CLICKS = {Prompt.CLICK: 10, Prompt.BOX: 5, Prompt.SCRIBBLE: 0, Prompt.NAME: 0}


def interactive(
    data: Annotated[Path, typer.Option(help="Folder with labelled images; see below for the supported data sets.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report; an older report is replaced.")],
    kind: Annotated[Kind, typer.Option(help="Type of the data set in the folder.")] = Kind.AUTO,
    model: Annotated[list[str] | None, typer.Option(help="A model; may be repeated. Default: compact.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights instead of the model's own; for one model.", show_default=False)
    ] = None,
    adapter_bundle: Annotated[
        Path | None,
        typer.Option(help="Adapter bundle with the labels that are known by name; for one model.", show_default=False),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="A baseline for comparison, 'all' for the classical ones, or nninteractive; may be repeated.",
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(help="Segment slices one by one, or structures as a whole.", show_default="slices for clicks"),
    ] = None,
    protocol: Annotated[
        Protocol, typer.Option(help="Rules of the annotator: ours, or those of the CVPR 2025 challenge.")
    ] = Protocol.OWN,
    prompt: Annotated[
        Prompt | None,
        typer.Option(
            help="First prompt: a click, a box on the middle slice, what a person drew, or the name of the structure.",
            show_default="click; box in the challenge",
        ),
    ] = None,
    clicks: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Clicks on each slice or structure.",
            show_default="10; 5 after a box; none after a scribble or a name",
        ),
    ] = None,
    slices: Annotated[int, typer.Option(min=0, help="Slices of each structure, evenly spread; 0 for all.")] = 10,
    min_voxels: Annotated[int, typer.Option(min=1, help="Leave out structures with fewer voxels.")] = 50,
    case: Annotated[
        list[str] | None,
        typer.Option(help="Only cases like this, as SET/CASE/SEQUENCE with * and ?.", show_default=False),
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only structures of this name.", show_default=False)] = None,
    join: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=A+B",
            help="Also the union of structures, where a case has them; names may have * and ?, as in 'lungs=* lung *'.",
            show_default=False,
        ),
    ] = None,
    jitter: Annotated[
        int,
        typer.Option(min=0, help="Random first clicks anywhere in each structure; 0 for one at its deepest point."),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the first clicks.")] = 0,
    save_masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the last masks of whole structures by the first method, for benchmark tci --masks.",
            show_default=False,
        ),
    ] = None,
    say_name: Annotated[
        bool, typer.Option(help="Send the structure's name with each prompt, as all clients do.")
    ] = True,
    context: Annotated[
        bool, typer.Option(help="Use the volume context; without it, structures are followed from slice to slice.")
    ] = True,
    pictures: Annotated[int, typer.Option(min=0, help="Pictures of the worst masks, and as many of the best.")] = 3,
) -> None:
    """Let a simulated annotator prompt labelled structures, and report Dice, clicks needed, HD95, harm done and time.

    The first click is at the deepest point of the structure, each next one at the deepest point of the largest error.
    """
    joins = parse_joins(join or [])
    if (checkpoint is not None or adapter_bundle is not None) and len(model or ["compact"]) != 1:
        raise InputError("A checkpoint or an adapter bundle belongs to one model: give one --model with it.")
    is_challenge = protocol is Protocol.CVPR2025
    prompt = prompt or (Prompt.BOX if is_challenge else Prompt.CLICK)
    mode = mode or (Mode.VOLUME if is_challenge or prompt is not Prompt.CLICK else Mode.SLICES)
    count = clicks if clicks is not None else CHALLENGE_CLICKS if is_challenge else CLICKS[prompt]
    if problem := _contradiction(mode, prompt, count, jitter, is_challenge=is_challenge):
        raise InputError(problem)
    if save_masks is not None and mode is not Mode.VOLUME:
        raise InputError("--save-masks is about whole structures: give --mode volume with it.")

    from causal_sam.benchmark.cases import real_cases
    from causal_sam.benchmark.interactive.cvpr2025 import TOLERANCE_MM
    from causal_sam.benchmark.interactive.pictures import Gallery
    from causal_sam.benchmark.interactive.report import write_interactive_report
    from causal_sam.benchmark.interactive.run import Selection, run_trials
    from causal_sam.benchmark.interactive.trials import Annotator
    from causal_sam.benchmark.masks import save_mask
    from causal_sam.benchmark.report import check_folder
    from causal_sam.cli.progress import case_progress

    check_folder(output)
    cases = real_cases(data, kind, case or (), label or (), joins)
    methods = [
        *_models(model or ["compact"], checkpoint, adapter_bundle, says_name=say_name, with_context=context),
        *_baselines(baseline or [], prompt),
    ]
    annotator = Annotator(prompt, count, seed if jitter else None, is_challenge, TOLERANCE_MM if is_challenge else None)
    selection = Selection(mode, slices, min_voxels, repeats=max(jitter, 1))
    gallery = Gallery(pictures)
    with case_progress(len(cases)) as progress:
        keep = () if save_masks is None else (partial(save_mask, save_masks),)
        trials = list(run_trials(cases, methods, annotator, selection, gallery, progress, *keep))
    settings = {
        "command": "causal-sam benchmark interactive",
        "data": data.name,
        "cases": len(cases),
        "targets": len({id(trial.target) for trial in trials}),
        "mode": mode.value,
        "protocol": protocol.value,
        "first prompt": prompt.value,
        "clicks": count,
        "slices": (slices or "all") if mode is Mode.SLICES else "whole structures",
        "smallest target": f"{min_voxels} voxels",
        "first click": f"{jitter} random ones on each target, seed {seed}" if jitter else "at the deepest point",
        "name": "sent with each prompt" if say_name else "not sent",
        "volume context": "used" if context else "not used",
        "labels known by name": adapter_bundle.name if adapter_bundle else "none",
        "baselines": _baseline_settings(baseline or []),
    }
    write_interactive_report(output, trials, settings, gallery, is_challenge=is_challenge)
    typer.echo(f"{output / 'report.md'}: {len(trials)} trials on {settings['targets']} targets.")


def parse_joins(texts: list[str]) -> dict[str, list[str]]:
    """Read unions of structures from texts NAME=A+B.

    Raises:
        InputError: a text is of another form.
    """
    joins = {}
    for text in texts:
        name, _, right = text.partition("=")
        parts = [part.strip() for part in right.split("+")]
        is_one_name = len(parts) == 1 and not {"*", "?"} & set(right)
        if not name.strip() or is_one_name or not all(parts):
            raise InputError(f"--join {text!r} must be NAME=A+B, such as 'whole tumor=edema+tumor core'.")
        joins[name.strip()] = parts
    return joins


def _contradiction(mode: Mode, prompt: Prompt, clicks: int, jitter: int, *, is_challenge: bool) -> str | None:
    """Return what is wrong with a combination of options, in a sentence; None if nothing is."""
    if is_challenge and (mode is not Mode.VOLUME or clicks != CHALLENGE_CLICKS or jitter):
        return f"The protocol cvpr2025 is about volumes, with {CHALLENGE_CLICKS} clicks and no --jitter."
    if is_challenge and prompt not in (Prompt.BOX, Prompt.CLICK):
        return "The protocol cvpr2025 begins with --prompt box or --prompt click."
    if prompt is not Prompt.CLICK and mode is not Mode.VOLUME:
        return f"--prompt {prompt.value} is for --mode volume."
    if prompt is not Prompt.CLICK and jitter:
        return f"--jitter is about first clicks: leave it out with --prompt {prompt.value}."
    if prompt is Prompt.NAME and clicks:
        return "By name, nothing is clicked: leave --clicks out with --prompt name."
    if prompt is Prompt.CLICK and not clicks:
        return "Without a click there is nothing to measure: give --clicks of 1 or more."
    return None


def _models(
    models: Sequence[str],
    checkpoint: Path | None,
    adapter_bundle: Path | None,
    *,
    says_name: bool,
    with_context: bool,
) -> Iterator[Method]:
    from causal_sam.benchmark.interactive.methods import ModelMethod
    from causal_sam.prompting import LabelPrompter, Predictor, predictor_with_context
    from causal_sam.sam import load_model
    from causal_sam.sam.adapter_bundle import AdapterBundle

    for name in models:
        loaded = load_model(name, checkpoint)
        labels = None
        if adapter_bundle is not None:
            labels = LabelPrompter.from_bundle(AdapterBundle.read(adapter_bundle), loaded)
        make = predictor_with_context if with_context else Predictor
        # Prefetching would compete with what is timed.
        yield ModelMethod(name, make(loaded, prefetch_slices=0), labels, says_name=says_name)


def _baselines(baselines: Sequence[str], prompt: Prompt) -> list[Method]:
    from causal_sam.benchmark.baselines import CLASSICAL_NAMES, load_baseline
    from causal_sam.benchmark.interactive.methods import BaselineMethod

    names = dict.fromkeys(name for each in baselines for name in (CLASSICAL_NAMES if each == "all" else (each,)))
    others: list[Method] = [BaselineMethod(load_baseline(name)) for name in names]
    if wrong := [other.name for other in others if prompt not in other.prompts]:
        raise InputError(f"The baseline {wrong[0]} takes no --prompt {prompt.value}: leave it out.")
    return others


def _baseline_settings(baselines: Sequence[str]) -> str:
    from causal_sam.benchmark.baselines import CLASSICAL_NAMES

    if not baselines:
        return "none"
    tuned = " with the best setting of each on generated images (causal-sam benchmark tune)"
    return ", ".join(baselines) + (tuned if {"all", *CLASSICAL_NAMES}.intersection(baselines) else "")
