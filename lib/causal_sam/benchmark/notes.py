"""How well an interpreter reads notes: exact matches, and the share of each field that is right."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causal_sam.errors import InputError, NotFoundError
from causal_sam.notes import Intervention, NoteRequest, Plan, Reading, parse_plan

QUESTION = "question"
FIELDS = ("label", "action", "direction", "near", "slices", "extent_mm", "strength")


@dataclass(frozen=True)
class NoteCase:
    """A note and what is expected.

    Attributes:
        request: the note and its labels.
        expected: its interventions; None if a question is expected.
    """

    request: NoteRequest
    expected: tuple[Intervention, ...] | None


@dataclass(frozen=True)
class Miss:
    """A note that was not read exactly."""

    case: NoteCase
    plan: Plan

    def to_dict(self) -> dict[str, Any]:
        """Return the note, what was expected and what was found, ready for JSON."""
        expected, plan = self.case.expected, self.plan
        return {
            "note": self.case.request.note,
            "labels": list(self.case.request.labels),
            "expected": QUESTION if expected is None else [_said(each) for each in expected],
            "found": {QUESTION: plan.question} if plan.question else [_said(each) for each in plan.interventions],
        }


@dataclass(frozen=True)
class NoteScores:
    """Scores over notes.

    Attributes:
        count: of notes.
        exact: of notes with the same set of interventions, or a question where one is expected.
        fields: field -> share of expected and found interventions in which it is right, each intervention paired with
            the one most like it; "question" -> share of notes with a question exactly where one is expected.
        misses: the notes that are not exact.
        notices: one for each note that another interpreter read than the one that was asked for.
    """

    count: int
    exact: int
    fields: dict[str, float]
    misses: tuple[Miss, ...]
    notices: tuple[str, ...] = ()

    @property
    def exact_share(self) -> float:
        """Share of exact notes, in [0, 1]."""
        return self.exact / self.count

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {
            "notes": self.count,
            "exact": self.exact,
            "exact_share": round(self.exact_share, 4),
            "fields": {name: round(share, 4) for name, share in self.fields.items()},
            "not_read": len(self.notices),
            "notices": sorted(set(self.notices)),
            "misses": [miss.to_dict() for miss in self.misses],
        }


def read_notes(path: Path) -> list[NoteCase]:
    """Read notes with what is expected of them.

    Args:
        path: one JSON object a line: `note`, `labels`, and `expect`, which is a list of interventions or "question".

    Raises:
        NotFoundError: there is no such file.
        InputError: a line is of another form, or there is none.
    """
    if not path.is_file():
        raise NotFoundError(f"There is no file {path.name} of notes.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is no text in UTF-8: {error}.") from error
    cases = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            cases.append(_case(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"Line {number} of {path.name} cannot be used ({error}); it must be a JSON object with note, labels "
                "and expect."
            ) from error
    if not cases:
        raise InputError(f"{path.name} holds no note.")
    return cases


def score(interpret: Callable[[NoteRequest], Reading], cases: Sequence[NoteCase]) -> NoteScores:
    """Let an interpreter read notes, and compare.

    Args:
        interpret: the `invoke` of an interpreter.
        cases: at least one.
    """
    readings = [interpret(case.request) for case in cases]
    plans = [reading.plan for reading in readings]
    misses = [Miss(case, plan) for case, plan in zip(cases, plans, strict=True) if not _is_exact(case, plan)]
    right = dict.fromkeys(FIELDS, 0)
    total = 0
    for case, plan in zip(cases, plans, strict=True):
        expected = case.expected or ()
        pairs = _paired(expected, plan.interventions)
        total += max(len(expected), len(plan.interventions))
        for one, other in pairs:
            for name in FIELDS:
                right[name] += getattr(one, name) == getattr(other, name)
    asked = sum((case.expected is None) == (plan.question is not None) for case, plan in zip(cases, plans, strict=True))
    fields = {name: count / total if total else 1.0 for name, count in right.items()}
    return NoteScores(
        len(cases),
        len(cases) - len(misses),
        {**fields, QUESTION: asked / len(cases)},
        tuple(misses),
        tuple(reading.notice for reading in readings if reading.notice is not None),
    )


def _case(content: dict[str, Any]) -> NoteCase:
    request = NoteRequest(content["note"], tuple(content["labels"]))
    if content["expect"] == QUESTION:
        return NoteCase(request, None)
    return NoteCase(request, parse_plan({"interventions": content["expect"]}).interventions)


def _is_exact(case: NoteCase, plan: Plan) -> bool:
    if case.expected is None or plan.question is not None:
        return case.expected is None and plan.question is not None
    return len(case.expected) == len(plan.interventions) and set(case.expected) == set(plan.interventions)


def _paired(expected: Sequence[Intervention], found: Sequence[Intervention]) -> list[tuple[Intervention, Intervention]]:
    """Pairs of interventions that are most alike, each in one pair at most; label and action count first."""
    alike = sorted(
        ((_likeness(one, other), i, j) for i, one in enumerate(expected) for j, other in enumerate(found)),
        key=lambda each: (tuple(-value for value in each[0]), each[1:]),
    )
    pairs: dict[int, int] = {}
    for _, i, j in alike:
        if i not in pairs and j not in pairs.values():
            pairs[i] = j
    return [(expected[i], found[j]) for i, j in pairs.items()]


def _likeness(one: Intervention, other: Intervention) -> tuple[int, ...]:
    same = [int(getattr(one, name) == getattr(other, name)) for name in FIELDS]
    return (same[0], same[1], sum(same))


def _said(intervention: Intervention) -> dict[str, Any]:
    return intervention.model_dump(exclude_none=True)
