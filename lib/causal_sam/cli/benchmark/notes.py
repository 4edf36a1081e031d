"""`causal-sam benchmark notes`: scores of an interpreter on notes with known plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from causal_sam.cli.options import AsJson, ChatConsent, ChatModel


def notes(
    file: Annotated[
        Path,
        typer.Argument(help='Lines of JSON with note, labels, expect (interventions or "question"), or a folder.'),
    ],
    half: Annotated[
        Literal["tune", "judge"] | None,
        typer.Option(help="Use only one half of the notes; judge shows totals only.", show_default=False),
    ] = None,
    llm: ChatModel = None,
    llm_consent: ChatConsent = False,
    as_json: AsJson = False,
) -> None:
    """Score an interpreter on notes with known plans.

    A note is exact if the plan holds all expected interventions with all their fields, and no other, or if the note is
    answered with a question where one is expected. It is right if the plan changes the same voxels as the expected one
    on a set of label maps, and keeps the same labels. Harmful are acts that no expected intervention asks for.
    """
    from causal_sam.benchmark.notes import read_notes, score
    from causal_sam.notes import load_interpreter

    report = score(load_interpreter(llm, llm_consent).invoke, read_notes(file, half)).to_dict()
    if half == "judge":
        report["misses"] = []  # who reads them tunes on them
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False, indent=1))
        return
    typer.echo(f"exact: {report['exact']} of {report['notes']} notes, {report['exact_share']:.1%}")
    verdicts = ", ".join(f"{verdict} {count}" for verdict, count in report["verdicts"].items())
    typer.echo(f"right: {report['right_share']:.1%}, with justified questions {report['right_or_justified_share']:.1%}")
    typer.echo(f"  by effect: {verdicts}; justified questions {report['justified']}")
    typer.echo(f"needless questions that offer what is expected: {report['questions_offering_expected']}")
    typer.echo(f"harmful acts: {report['harmful']}; protected labels: {report['protected']:.1%}")
    for name, share in report["fields"].items():
        typer.echo(f"  {name}: {share:.1%}")
    if report["not_read"]:
        typer.echo(f"not read by {llm}, but by the embedded interpreter: {report['not_read']}")
        for notice in report["notices"]:
            typer.echo(f"  {notice}")
    for miss in report["misses"]:
        typer.echo(f"{miss['verdict']}: {miss['note']} [{', '.join(miss['labels'])}]")
        typer.echo(f"  expected: {_listed(miss['expected'])}")
        typer.echo(f"  found: {_listed(miss['found'])}")


def _listed(said: object) -> str:
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
