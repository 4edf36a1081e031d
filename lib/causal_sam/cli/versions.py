"""`causal-sam versions …`: what training made of the model, and going back to an earlier version."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from causal_sam.cli.options import AsJson
from causal_sam.errors import InputError, NotFoundError
from causal_sam.site.versions import Comparison, DamagedVersionError, Version, version_name

if TYPE_CHECKING:
    from causal_sam.site.adapter_store import AdapterStore

app = typer.Typer(
    name="versions", no_args_is_help=True, help="List and compare the versions of the adapters, and roll back."
)

Store = Annotated[Path, typer.Option("--store", metavar="FOLDER", help="Folder of the versions.", show_default=False)]
DIGEST_SHOWN = 12


def _number(text: str) -> int:
    match = re.fullmatch(r"v?(\d{1,9})", text)
    if match is None:
        raise InputError(f"A version is given by its number, such as 3 or v0003, not {text!r}.")
    return int(match[1])


Number = Annotated[str, typer.Argument(metavar="VERSION", help="Version: 3 or v0003.", show_default=False)]


@app.command("list")
def list_versions(store: Store, as_json: AsJson = False) -> None:
    """List all versions, the oldest first, after a check of their files."""
    versions = _store(store)
    current = versions.current()
    listed = [_read(versions, number) for number in versions.numbers()]
    if as_json:
        described = [_described(number, version, current) for number, version in listed]
        typer.echo(json.dumps({"current": current, "versions": described}, ensure_ascii=False, indent=1))
        return
    for number, version in listed:
        typer.echo(_summary(number, version, current))
    if not listed:
        typer.echo("There are no versions yet.")


@app.command()
def show(number: Number, store: Store, as_json: AsJson = False) -> None:
    """Show what a version was made from, and how good it is."""
    versions = _store(store)
    current = versions.current()
    with versions.lease(_number(number)) as version:
        if as_json:
            typer.echo(json.dumps(_described(version.number, version, current), ensure_ascii=False, indent=1))
            return
        for line in _details(version, current):
            typer.echo(line)


@app.command()
def compare(first: Number, second: Number, store: Store, as_json: AsJson = False) -> None:
    """Put two versions side by side: each label on the cases that were measured, and what was gained and lost."""
    one, two = _number(first), _number(second)
    versions = _store(store)
    comparison = Comparison.between(versions.version(one), versions.version(two))
    if as_json:
        typer.echo(json.dumps(asdict(comparison), ensure_ascii=False, indent=1))
        return
    width = max(map(len, comparison.metrics), default=0)
    typer.echo(f"{'':{width}}  {version_name(one):>6}  {version_name(two):>6}")
    for label, (before, after) in comparison.metrics.items():
        change = f"  {after - before:+.3f}" if before is not None and after is not None else ""
        typer.echo(f"{label:{width}}  {_figure(before):>6}  {_figure(after):>6}{change}")
    if not comparison.same_cases:
        typer.echo("Neither was trained from the other, so they may have been measured on different cases.")
    for said, names in (("gained", comparison.names_gained), ("lost", comparison.names_lost)):
        if names:
            typer.echo(f"labels {said}: {', '.join(names)}")
    for said, labels in (("more", comparison.labels_gained), ("fewer", comparison.labels_lost)):
        if labels:
            typer.echo(f"trained on {said} accepted labels: {', '.join(label.image for label in labels)}")


@app.command()
def rollback(number: Number, store: Store, as_json: AsJson = False) -> None:
    """Use a version again that was published before. Later versions stay, and can be rolled back to as well."""
    event = _store(store).roll_back(_number(number))
    if as_json:
        typer.echo(json.dumps(asdict(event)))
    else:
        typer.echo(f"{version_name(event.number)} is current again; it was {version_name(event.before)}.")


def _store(folder: Path) -> AdapterStore:
    from causal_sam.site.adapter_store import AdapterStore

    if not folder.is_dir():
        raise NotFoundError(f"There is no folder {folder}: give that of an adapter store.")
    return AdapterStore(folder)


def _read(store: AdapterStore, number: int) -> tuple[int, Version | DamagedVersionError]:
    try:
        with store.lease(number) as version:
            return number, version
    except DamagedVersionError as error:
        return number, error


def _described(number: int, version: Version | DamagedVersionError, current: int | None) -> dict[str, Any]:
    if isinstance(version, Exception):
        return {"number": number, "current": number == current, "status": "damaged", "reason": str(version)}
    return {
        "number": number,
        "current": number == current,
        "status": version.status,
        "reason": version.reason,
        "adapter": str(version.adapter),
        "manifest": asdict(version.manifest),
    }


def _summary(number: int, version: Version | DamagedVersionError, current: int | None) -> str:
    name = f"{version_name(number)}{' *' if number == current else '  '}"
    if isinstance(version, Exception):
        return f"{name}  damaged    {version}"
    manifest, training = version.manifest, version.manifest.training
    said = f"{name}  {version.status:9}  {manifest.time[:16]}  labels {len(training.labels)}"
    if training.metrics:
        said += f"  mean {sum(training.metrics.values()) / len(training.metrics):.3f}"
    return said if version.reason is None else f"{said}  {version.reason}"


def _details(version: Version, current: int | None) -> Iterator[str]:
    manifest, training = version.manifest, version.manifest.training
    yield f"{version_name(version.number)}: {'current' if version.number == current else version.status}"
    if version.reason is not None:
        yield f"why: {version.reason}"
    yield f"added: {manifest.time}"
    yield f"trained from: {version_name(training.parent)}"
    yield f"model: {training.encoder_hash}"
    yield f"labels: {', '.join(training.names)}"
    yield f"Dice on {_measured_on(training.config)}:"
    for name, value in training.metrics.items():
        before = training.parent_metrics.get(name)
        parent = "" if before is None else f" ({version_name(training.parent)} {_figure(before)})"
        yield f"  {name}: {_figure(value)}{parent}"
    yield f"trained on accepted labels ({len(training.labels)}):"
    for label in training.labels:
        yield f"  {label.image} [{label.tag}] {label.sha256[:DIGEST_SHOWN]}"
    yield f"configuration: {json.dumps(training.config, ensure_ascii=False)}"
    yield f"packages: {', '.join(f'{name} {number}' for name, number in manifest.packages.items())}"
    yield f"file: {version.adapter}"


def _measured_on(config: Mapping[str, Any]) -> str:
    """Name the cases that a version was measured on; versions of earlier releases say it in their own way."""
    if "measured_on_learnt_cases" not in config:
        return "accepted labels"
    measured_on_training = config["measured_on_learnt_cases"]
    earlier = "cases that it was trained on, since none was held out" if measured_on_training else "held-out cases"
    return config.get("measured_on", earlier)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
