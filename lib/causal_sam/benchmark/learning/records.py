"""What is written down while an annotator works: structures that were annotated, and versions that were made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Structure:
    """A structure of a case that was brought to its target.

    Attributes:
        order: how cases were chosen.
        seed: of the repetition.
        accepted: cases that had been accepted before.
        version: of the adapters that made the automatic mask; None if there was none.
        held_out: the case is one of those that nothing is learnt from.
        case: of the image.
        domain: its style or data set.
        label: name of the structure.
        automatic: Dice of the automatic mask.
        clicks: how many it took.
        by_hand: clicks did not do.
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
class Found:
    """How well a structure of a held-out case is found by its name.

    Attributes:
        order: how cases were chosen.
        seed: of the repetition.
        accepted: cases that had been accepted.
        version: of the adapters in use.
        case: of the image.
        domain: its style or data set.
        label: name of the structure.
        dice: of the automatic mask.
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
class Made:
    """An update.

    Attributes:
        order: how cases were chosen.
        seed: of the repetition.
        accepted: cases that had been accepted.
        version: what was made; None if nothing was.
        status: what became of it.
        seconds: that it took, with reading and measuring.
    """

    order: str
    seed: int
    accepted: int
    version: int | None
    status: str
    seconds: float


Record = Structure | Found | Made
_KINDS = {kind.__name__: TypeAdapter(kind) for kind in (Structure, Found, Made)}


def append_record(path: Path, record: Record) -> None:
    """Add a line to a file of records."""
    with path.open("a") as file:
        file.write(json.dumps({"record": type(record).__name__, **asdict(record)}) + "\n")


def read_records(path: Path) -> Iterator[Record]:
    """Read a file of records; a line that was cut off is left out."""
    for line in path.read_text().splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        yield _KINDS[told.pop("record")].validate_python(told)
