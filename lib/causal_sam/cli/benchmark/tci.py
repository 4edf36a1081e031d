"""`causal-sam benchmark tci`: how well notes correct masks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from causal_sam.cli.benchmark.interactive import parse_joins
from causal_sam.cli.options import BundleFile, ChatConsent, ChatModel, Checkpoint, ImageSize
from causal_sam.data_sets.layouts import Kind
from causal_sam.errors import InputError

CACHE_BYTES = 2 * 2**30


def tci(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report; an older report is replaced.")],
    cases: Annotated[int, typer.Option(min=0, help="Generated abdomens, CT and MR in turn.")] = 8,
    data: Annotated[Path | None, typer.Option(help="Folder with more labelled images.", show_default=False)] = None,
    kind: Annotated[Kind, typer.Option(help="Type of the data set in the folder.")] = Kind.AUTO,
    case: Annotated[
        list[str] | None,
        typer.Option(help="Only cases of the folder like this, as SET/CASE/SEQUENCE with * and ?.", show_default=False),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only structures of the folder of this name.", show_default=False)
    ] = None,
    join: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=A+B", help="Also the union of structures, where a case has them.", show_default=False
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder of masks SET/CASE/STRUCTURE.nii.gz, made by benchmark interactive --save-masks or otherwise: "
            "also write a note about the largest error of each.",
            show_default=False,
        ),
    ] = None,
    errors: Annotated[int, typer.Option(min=0, help="Errors of each structure; their kinds take turns.")] = 3,
    min_voxels: Annotated[int, typer.Option(min=1, help="Leave out structures with fewer voxels.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of patients, errors and notes.")] = 0,
    model: Annotated[str, typer.Option(help="Model that corrects the masks.")] = "compact",
    checkpoint: Checkpoint = None,
    adapter_bundle: BundleFile = None,
    image_size: ImageSize = None,
    llm: ChatModel = None,
    llm_consent: ChatConsent = False,
) -> None:
    """Simulate wrong masks on images that were not trained on, write a note about each, and let it be corrected.

    The report says how many notes were read rightly, how many raised Dice and by how much, what the guard refused,
    whether anything changed outside of the regions, and how long it took next to a click. As controls the decoder sees
    the sentence of another act, or none.
    """
    joins = parse_joins(join or [])
    if data is None and (case or label or join or kind is not Kind.AUTO):
        raise InputError(
            "--case, --label, --join and --kind are about images of people: give their folder with --data."
        )
    if masks is not None and data is None:
        raise InputError("--masks is about labelled images: give their folder with --data.")
    if not errors and masks is None:
        raise InputError("There is nothing to correct: give --errors of 1 or more, or --masks.")
    if not cases and data is None:
        raise InputError("There is nothing to measure on: give --cases of 1 or more, or --data.")

    from rich.console import Console
    from rich.progress import Progress

    from causal_sam.benchmark.cases import real_cases
    from causal_sam.benchmark.masks import check_masks, saved_masks
    from causal_sam.benchmark.report import check_folder
    from causal_sam.benchmark.tci.cases import generated_cases
    from causal_sam.benchmark.tci.report import write_tci_report
    from causal_sam.benchmark.tci.trials import Trial, TrialRunner
    from causal_sam.notes import load_interpreter
    from causal_sam.prompting import EmbeddingCache, Predictor
    from causal_sam.sam import load_model
    from causal_sam.sam.adapter_bundle import AdapterBundle, shipped_film
    from causal_sam.sam.film import make_modulable
    from causal_sam.text import load_text_encoder

    check_folder(output)
    if masks is not None:
        check_masks(masks)
    readers = generated_cases(cases, seed)
    if data is not None:
        readers += real_cases(data, kind, case or (), label or (), joins)
    loaded, text = load_model(model, checkpoint, image_size=image_size), load_text_encoder()
    own = None if adapter_bundle is None else AdapterBundle.read(adapter_bundle).film
    film = own or shipped_film(loaded)
    if film is None:
        raise InputError(f"The model {model} comes without a modulation: train one with training/train_tci.py.")
    make_modulable(loaded)
    modulation = film.load(loaded, text.fingerprint)
    # Prefetching would compete with what is timed.
    predictor = Predictor(loaded, EmbeddingCache(CACHE_BYTES), prefetch_slices=0)
    bench = TrialRunner(predictor, modulation, text, load_interpreter(llm, llm_consent).invoke)
    trials: list[Trial] = []
    tried = 0
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("notes", total=len(readers))
        for read in readers:
            labelled = read()
            found = {} if masks is None else saved_masks(masks, labelled)
            for trial in bench.trials(labelled, errors, min_voxels, tried, seed, found):
                tried += 1
                trials += [] if trial is None else [trial]
                progress.update(bar, description=f"{labelled.case}: note {tried}")
            progress.advance(bar)
    options = {
        "--cases": cases,
        "--data": data and data.name,
        "--kind": None if kind is Kind.AUTO else kind.value,
        "--case": case,
        "--label": label,
        "--join": join,
        "--masks": masks and masks.name,
        "--errors": errors,
        "--min-voxels": min_voxels,
        "--seed": seed,
        "--model": model,
        "--checkpoint": checkpoint and checkpoint.name,
        "--adapter-bundle": adapter_bundle and adapter_bundle.name,
        "--image-size": image_size,
        "--llm": llm,
    }
    settings = {
        "command": f"causal-sam benchmark tci {_as_typed(options)}",
        "cases": len(readers),
        "errors": f"{len(trials)}; {tried - len(trials)} more of a kind that did not suit the structure",
        "input": f"{loaded.image_size} pixels",
    }
    write_tci_report(output, trials, settings)
    typer.echo(f"{output / 'report.md'}: {len(trials)} notes on {len(readers)} cases.")


def _as_typed(options: Mapping[str, object]) -> str:
    """Options as on the command line; those that were not given are left out, and lists repeat theirs.

    >>> _as_typed({"--cases": 2, "--adapter-bundle": None, "--label": ["liver", "left kidney"]})
    "--cases 2 --label liver --label 'left kidney'"
    """
    words = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [] if one is None else [name, str(one)]
    return shlex.join(words)
