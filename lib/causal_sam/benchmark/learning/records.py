"""Measurements of the benchmark of learning: annotated structures, automatic masks and adapter updates."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from causal_sam.benchmark.json_lines import append_line, read_lines


@dataclass(frozen=True)
class AnnotatedStructure:
    """A structure of a case that the simulated annotator corrected until it reached the target Dice.

    Attributes:
        order: strategy that chose the cases.
        seed: seed of the repetition.
        accepted: number of cases accepted before.
        version: adapter version that made the automatic mask; None if there was none.
        held_out: True if the case is never trained on.
        case: name of the image.
        domain: style or data set of the image.
        label: name of the structure.
        automatic: Dice of the automatic mask.
        clicks: number of clicks.
        by_hand: True if clicks did not reach the target and the structure was drawn by hand.
    """

    order: str
    seed: int
    accepted: int
    version: int | None
    held_out: bool
    case: str
    domain: str
    label: str
    automatic: float
    clicks: int
    by_hand: bool


@dataclass(frozen=True)
class AutomaticScore:
    """Dice of the automatic mask of a structure of a held-out case.

    Attributes:
        order: strategy that chose the cases.
        seed: seed of the repetition.
        accepted: number of accepted cases.
        version: adapter version in use; None if there was none.
        case: name of the image.
        domain: style or data set of the image.
        label: name of the structure.
        dice: Dice coefficient, 0 to 1.
    """

    order: str
    seed: int
    accepted: int
    version: int | None
    case: str
    domain: str
    label: str
    dice: float


@dataclass(frozen=True)
class AdapterUpdate:
    """An update of the adapters.

    Attributes:
        order: strategy that chose the cases.
        seed: seed of the repetition.
        accepted: number of accepted cases.
        version: new adapter version; None if there is none.
        status: outcome of the update, such as "published" or "rejected".
        seconds: duration, including reading and validation.
    """

    order: str
    seed: int
    accepted: int
    version: int | None
    status: str
    seconds: float


Record = AnnotatedStructure | AutomaticScore | AdapterUpdate
# Names in the file, which stay readable when classes are renamed.
_KINDS = {"Structure": AnnotatedStructure, "Found": AutomaticScore, "Made": AdapterUpdate}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def append_record(path: Path, record: Record) -> None:
    """Append a record to a file as one line of JSON."""
    append_line(path, json.dumps({"record": _NAMES[type(record)], **asdict(record)}).encode())


def read_records(path: Path) -> list[Record]:
    """Read the records of a file in order; see `read_lines`."""
    return read_lines(path, _parse)


def _parse(line: bytes) -> Record:
    fields = json.loads(line)
    kind = _KINDS.get(fields.pop("record", None)) if isinstance(fields, dict) else None
    if kind is None:
        raise ValueError('"record" must be ' + " or ".join(_KINDS))
    return TypeAdapter(kind).validate_python(fields)
