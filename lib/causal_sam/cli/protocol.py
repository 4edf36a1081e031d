"""`causal-sam protocol …`: checks accepted labels against standing rules, and proposes rules from notes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from causal_sam.cli.options import AsJson, BundleFile, ChatConsent, ChatModel, Checkpoint, Model, Plane
from causal_sam.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from causal_sam.protocol.cases import AcceptedCase, ProtocolTools
    from causal_sam.protocol.proposals import Proposal
    from causal_sam.protocol.rules import Protocol
    from causal_sam.site.accepted import AcceptedLabel

BROKEN = 1

app = typer.Typer(
    name="protocol",
    no_args_is_help=True,
    help="Check accepted labels against the rules in protocol.md, and propose rules from notes that recur.",
)

Studies = Annotated[
    Path, typer.Argument(help="Folder of MONAI Label's data store, with protocol.md in it.", show_default=False)
]
Cases = Annotated[
    list[str] | None,
    typer.Option("--case", metavar="ID", help="Image to check; may be repeated.", show_default="all with a label"),
]


@app.command()
def check(
    studies: Studies,
    case: Cases = None,
    apply: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Carry out the rules that do not hold, and write the label maps there; accepted labels stay.",
            show_default=False,
        ),
    ] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Make changes also if they are larger than is plausible.")
    ] = False,
    model: Model = "compact",
    checkpoint: Checkpoint = None,
    adapter_bundle: BundleFile = None,
    plane: Plane = "auto",
    llm: ChatModel = None,
    llm_consent: ChatConsent = False,
    as_json: AsJson = False,
) -> None:
    """Check accepted labels (tag final) against the rules of the protocol; nothing in STUDIES is changed.

    Exit code 0 if all rules hold that concern a label, 1 if one does not or could not be read, 2 for wrong input.
    """
    protocol, labels = _protocol(studies), _accepted(studies, case)
    tools = _tools(model, checkpoint, adapter_bundle, plane, llm, llm_consent)
    is_broken = False
    for report in _checked(protocol, labels, tools, apply, confirm):
        typer.echo(json.dumps(report, ensure_ascii=False) if as_json else _in_words(report))
        statuses = {rule["status"] for rule in report.get("rules", [])}
        is_broken |= "problem" in report or not statuses <= {"holds", "no mask"}
    if is_broken:
        raise typer.Exit(BROKEN)


@app.command()
def propose(
    studies: Studies,
    cases: Annotated[int, typer.Option(min=1, help="Number of images on which a note must have been carried out.")] = 3,
    validation: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the studies that is held out, as in training.")
    ] = 0.2,
    write: Annotated[bool, typer.Option("--write", help="Add the rules that are taken to protocol.md.")] = False,
    model: Model = "compact",
    checkpoint: Checkpoint = None,
    adapter_bundle: BundleFile = None,
    plane: Plane = "auto",
    llm: ChatModel = None,
    llm_consent: ChatConsent = False,
    as_json: AsJson = False,
) -> None:
    """Propose rules from notes that recur, and measure them and those of the protocol on held-out accepted labels.

    A rule is carried out on labels that people accepted. If their mean Dice falls by more than 0.005, or if no held-out
    label has its labels, it is not taken. Rules of the protocol are measured too, and stay as they are.
    """
    from causal_sam.correction.journal import Journal
    from causal_sam.protocol.proposals import propose as propose_rules
    from causal_sam.protocol.rules import PROTOCOL_FILE, append_rules, read_protocol
    from causal_sam.site.paths import JOURNAL_FOLDER

    labels, path = _accepted(studies, None), studies / PROTOCOL_FILE
    tools = _tools(model, checkpoint, adapter_bundle, plane, llm, llm_consent)
    proposals, unusable = propose_rules(
        read_protocol(path),
        Journal(studies / JOURNAL_FOLDER).entries(),
        labels,
        tools,
        min_cases=cases,
        validation=validation,
        on_case=lambda image_id: typer.echo(f"measuring on {image_id}", err=True),
    )
    taken = [each.rule.text for each in proposals if not each.rule.line and each.reason is None]
    if write and taken:
        append_rules(path, taken)
    if as_json:
        content = {"proposals": [each.to_dict() for each in proposals], "unusable": unusable}
        typer.echo(json.dumps(content | {"written": taken if write else []}, ensure_ascii=False, indent=1))
        return
    for proposal in proposals:
        typer.echo(_proposal_in_words(proposal))
    if not proposals:
        typer.echo(f"There is no rule, and no note was carried out on {cases} images or more.")
    for image_id, why in unusable.items():
        typer.echo(f"{image_id}: not measured: {why}")
    if write:
        typer.echo(f"added to {path}: {len(taken)}" if taken else "nothing was written")


def _protocol(studies: Path) -> Protocol:
    from causal_sam.protocol.rules import PROTOCOL_FILE, read_protocol

    path = studies / PROTOCOL_FILE
    protocol = read_protocol(path)
    if not protocol.rules:
        raise NotFoundError(f"There is no rule in {path}: write rules as items of a list, one a line.")
    return protocol


def _accepted(studies: Path, cases: list[str] | None) -> list[AcceptedLabel]:
    from causal_sam.site.accepted import accepted_labels

    if not studies.is_dir():
        raise InputError(f"There is no folder {studies}: give that of a data store of MONAI Label.")
    labels = accepted_labels(studies)
    missing = set(cases or ()) - {label.image_id for label in labels}
    if missing:
        raise NotFoundError(f"The image {min(missing)} has no accepted label in {studies}.")
    return [label for label in labels if not cases or label.image_id in cases]


def _tools(
    model: str, checkpoint: Path | None, bundle: Path | None, plane: str, llm: str | None, consent: bool
) -> ProtocolTools:
    from causal_sam.correction.corrector import load_corrector
    from causal_sam.notes import load_interpreter
    from causal_sam.prompting import Predictor
    from causal_sam.protocol.cases import ProtocolTools
    from causal_sam.protocol.reading import RuleReader
    from causal_sam.sam import load_model
    from causal_sam.sam.adapter_bundle import AdapterBundle

    reader = RuleReader(load_interpreter(llm, consent))
    predictor = Predictor(load_model(model, checkpoint), prefetch_slices=0)
    film = None if bundle is None else AdapterBundle.read(bundle).film
    return ProtocolTools(reader, predictor, load_corrector(predictor.encoder, film), plane)


def _checked(
    protocol: Protocol, labels: list[AcceptedLabel], tools: ProtocolTools, apply: Path | None, confirm: bool
) -> Iterator[dict[str, Any]]:
    """Check labels one after the other; a label that cannot be used is a problem of its own."""
    for label in labels:
        try:
            case = tools.open(label)
            report: dict[str, Any] = {"image": label.image_id, **case.check(protocol).to_dict()}
            if apply is not None:
                report["applied"] = _apply(protocol, case, apply, confirm)
        except InputError as error:
            report = {"image": label.image_id, "protocol": protocol.version, "problem": str(error)}
        yield report


def _apply(protocol: Protocol, case: AcceptedCase, folder: Path, confirm: bool) -> dict[str, Any]:
    """Carry out the rules one after the other, and write the label map if it changed."""
    from causal_sam.imaging import write_mask

    before, questions = case.session.masks(), []
    for rule in protocol.rules:
        _, question = case.carry_out(rule, case.read(rule), confirm=confirm)
        if question is not None:
            questions.append(question)
    changed = [name for name, mask in before.items() if (mask != case.session.mask(name)).any()]
    if not changed:
        return {"output": None, "values": {}, "changed": [], "questions": questions}
    folder.mkdir(parents=True, exist_ok=True)
    label_map, values = case.session.label_map()
    output = write_mask(label_map, case.volume, folder / f"{case.image_id}.nii.gz")
    return {"output": str(output), "values": values, "changed": changed, "questions": questions}


def _in_words(report: dict[str, Any]) -> str:
    if "problem" in report:
        return f"{report['image']}: not checked: {report['problem']}"
    lines = [f"{report['image']} (protocol {report['protocol']})"]
    for rule in report["rules"]:
        lines.append(f"  line {rule['line']}: {rule['status']}: {rule['text']}")
        if rule["question"] is not None:
            lines.append(f"    {rule['question']}")
        for act in rule["acts"]:
            by = "" if act["exact"] else ", as the model sees it"
            change = act["problem"] or f"+{act['gained_ml']:.2f} ml, -{act['lost_ml']:.2f} ml{by}"
            lines.append(f"    {act['sentence']}: {'holds' if act['holds'] else change}")
    if applied := report.get("applied"):
        lines += [f"  not done: {question}" for question in applied["questions"]]
        named = ", ".join(f"{value} {name}" for name, value in applied["values"].items())
        lines.append(f"  written to {applied['output']}: {named}" if applied["output"] else "  nothing was written")
    return "\n".join(lines)


def _proposal_in_words(proposal: Proposal) -> str:
    where = f"line {proposal.rule.line}" if proposal.rule.line else f"new, from {len(proposal.images)} images"
    loss = (
        ""
        if proposal.loss is None
        else f"\n  loss of Dice on {len(proposal.dice)} held-out labels: {proposal.loss:.4f}"
    )
    said = "taken" if proposal.reason is None else f"not taken: {proposal.reason}"
    return f"{proposal.rule.text} ({where}){loss}\n  {said}"
