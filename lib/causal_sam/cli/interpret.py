"""`causal-sam interpret`: what a note asks for."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from causal_sam.cli.options import AsJson, ChatConsent, ChatModel, Current, Sides, read_sides


def interpret(
    note: Annotated[str, typer.Argument(help="What is wrong, in your words: spleen leaks into the stomach.")],
    labels: Annotated[str, typer.Option(help="Labels that are present, with commas between them.")],
    current: Current = None,
    side: Sides = None,
    llm: ChatModel = None,
    llm_consent: ChatConsent = False,
    as_json: AsJson = False,
) -> None:
    """Read a note about masks: what is to be done to which label, where and how much, or a question back.

    No language model and no network is needed. Nothing is changed.

    A chat model, named as LangChain names it (ollama:llama3.1), may read it instead. A remote one sees the names of the
    labels, and the note without names, dates and numbers of persons.
    """
    from causal_sam.notes import NoteRequest, load_interpreter

    present = tuple(filter(None, (name.strip() for name in labels.split(","))))
    request = NoteRequest(note, present, current, read_sides(side))
    reading = load_interpreter(llm, llm_consent).invoke(request)
    if reading.notice is not None:
        typer.secho(f"causal-sam: {reading.notice}", err=True, fg="yellow")
    plan = reading.plan
    if as_json:
        typer.echo(json.dumps(plan.model_dump(mode="json"), ensure_ascii=False))
    elif plan.question is not None:
        typer.echo(f"question: {plan.question}")
    else:
        for intervention in plan.interventions:
            typer.echo(intervention.sentence)
