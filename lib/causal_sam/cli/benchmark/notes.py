"""`causal-sam benchmark notes`: how well notes are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from causal_sam.cli.options import AsJson, ChatConsent, ChatModel


def notes(
    file: Annotated[
        Path,
        typer.Argument(help='One JSON object a line: note, labels, expect (interventions or "question").'),
    ],
    llm: ChatModel = None,
    llm_consent: ChatConsent = False,
    as_json: AsJson = False,
) -> None:
    """Read notes whose meaning is known, and compare.

    A note is exact if all its interventions are found with all their fields, and no other; a question counts where
    one is expected.
    """
    from causal_sam.benchmark.notes import read_notes, score
    from causal_sam.notes import load_interpreter

    cases = read_notes(file)
    report = score(load_interpreter(llm, llm_consent).invoke, cases).to_dict()
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False, indent=1))
        return
    typer.echo(f"exact: {report['exact']} of {report['notes']} notes, {report['exact_share']:.1%}")
    for name, share in report["fields"].items():
        typer.echo(f"  {name}: {share:.1%}")
    if report["not_read"]:
        typer.echo(f"not read by {llm}, but by the embedded interpreter: {report['not_read']}")
        for notice in report["notices"]:
            typer.echo(f"  {notice}")
    for miss in report["misses"]:
        typer.echo(f"missed: {miss['note']} [{', '.join(miss['labels'])}]")
        typer.echo(f"  expected: {_listed(miss['expected'])}")
        typer.echo(f"  found: {_listed(miss['found'])}")


def _listed(said: object) -> str:
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
