"""Scores of an interpreter on notes with known plans: exact matches, effects, fields, harm and protection."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from causal_sam.benchmark.note_effects import Verdict, is_justified, judge
from causal_sam.errors import InputError, NotFoundError
from causal_sam.notes import ImageSlices, Interpretation, Intervention, NoteRequest, Plan, parse_plan

QUESTION = "question"
FIELDS = ("label", "action", "direction", "near", "slices", "extent_mm", "strength")
# Two acts that agree in these change the same part of the same mask in the same way.
_EFFECT = ("label", "action", "direction", "slices")
Half = Literal["tune", "judge"]
MAX_SLICES = 10_000  # of the image that a note with a distance of slices is about


@dataclass(frozen=True)
class NoteCase:
    """A note with its expected plan.

    Attributes:
        request: the note and its labels.
        expected: the requested interventions; None if a question is expected.
    """

    request: NoteRequest
    expected: tuple[Intervention, ...] | None


@dataclass(frozen=True)
class Reading:
    """A note with the plan that an interpreter gave, and the choices that its question offers.

    Attributes:
        verdict: judgement of the plan's effect; see `causal_sam.benchmark.note_effects.judge`.
    """

    case: NoteCase
    plan: Plan
    choices: tuple[Plan, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Return whether the plan has the expected set of interventions, or is a question where one is expected."""
        expected, plan = self.case.expected, self.plan
        if expected is None or plan.question is not None:
            return expected is None and plan.question is not None
        return len(expected) == len(plan.interventions) and set(expected) == set(plan.interventions)

    @cached_property
    def verdict(self) -> Verdict:
        return judge(self.case.request.labels, self.case.expected, self.plan)

    @property
    def is_justified_question(self) -> bool:
        """Return whether the plan asks although acts are expected, and its question names what is unclear."""
        request = self.case.request
        return self.verdict == QUESTION and is_justified(self.plan.question or "", request.note, request.labels)

    @property
    def offers_expected(self) -> bool:
        """Return whether the plan asks although acts are expected, and one of the choices has their effect."""
        labels, expected = self.case.request.labels, self.case.expected
        return self.verdict == QUESTION and any(judge(labels, expected, each) == "right" for each in self.choices)

    def to_dict(self) -> dict[str, Any]:
        """Return the note with the expected and the found plan, for JSON."""
        expected, plan = self.case.expected, self.plan
        return {
            "note": self.case.request.note,
            "labels": list(self.case.request.labels),
            "expected": QUESTION if expected is None else [_to_dict(each) for each in expected],
            "verdict": self.verdict,
            "found": {QUESTION: plan.question} if plan.question else [_to_dict(each) for each in plan.interventions],
        }


@dataclass(frozen=True)
class NoteScores:
    """Scores over notes.

    Attributes:
        readings: notes with their plans.
        fields: field -> share of expected and found interventions in which it is right; each intervention is paired
            with the most similar one. "question" -> share of notes with a question exactly where one is expected.
        harmful: number of found acts, except `keep`, that the note does not request: no expected act has the same
            label, action, direction and slices.
        protected: share of the expected `keep` interventions that were found; 1 if there are none.
        notices: one notice for each note that the requested interpreter could not read.
    """

    readings: tuple[Reading, ...]
    fields: dict[str, float]
    harmful: int = 0
    protected: float = 1.0
    notices: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of notes."""
        return len(self.readings)

    @property
    def misses(self) -> tuple[Reading, ...]:
        """Notes whose plan differs from the expected one."""
        return tuple(reading for reading in self.readings if not reading.is_exact)

    @property
    def exact(self) -> int:
        """Number of notes with the same set of interventions, or a question where one is expected."""
        return self.count - len(self.misses)

    @property
    def exact_share(self) -> float:
        """Share of exact notes, in [0, 1]."""
        return self.exact / self.count

    def to_dict(self) -> dict[str, Any]:
        """Return all scores for JSON."""
        verdicts = dict.fromkeys(get_args(Verdict), 0)
        for reading in self.readings:
            verdicts[reading.verdict] += 1
        justified = sum(reading.is_justified_question for reading in self.readings)
        return {
            "notes": self.count,
            "exact": self.exact,
            "exact_share": round(self.exact_share, 4),
            "verdicts": verdicts,
            "justified": justified,
            "questions_offering_expected": sum(reading.offers_expected for reading in self.readings),
            "right_share": round(verdicts["right"] / self.count, 4),
            "right_or_justified_share": round((verdicts["right"] + justified) / self.count, 4),
            "harmful": self.harmful,
            "protected": round(self.protected, 4),
            "fields": {name: round(share, 4) for name, share in self.fields.items()},
            "not_read": len(self.notices),
            "notices": sorted(set(self.notices)),
            "misses": [miss.to_dict() for miss in self.misses],
        }


def half_of(note: str) -> Half:
    """Return the half that a note belongs to: "tune" to improve an interpreter, "judge" to measure it.

    The SHA-256 of the text decides, so a note stays in its half wherever it is stored.
    """
    return "judge" if int(hashlib.sha256(note.encode()).hexdigest(), 16) % 2 else "tune"


def read_notes(path: Path, half: Half | None = None) -> list[NoteCase]:
    """Read notes with their expected plans.

    Args:
        path: a file with one JSON object a line, with `note`, `labels`, and `expect`, which is a list of interventions
            or "question", and possibly `slice_mm`, the distance of slices in mm; or a folder of such files, named
            `*.jsonl`.
        half: "tune" or "judge" for the notes of this half; None for all.

    Raises:
        NotFoundError: the path does not exist.
        InputError: a line is invalid, or there is no note.
    """
    if path.is_dir():
        cases = [case for file in sorted(path.glob("*.jsonl")) for case in _cases(file)]
    elif path.is_file():
        cases = _cases(path)
    else:
        raise NotFoundError(f"There is no file {path.name} of notes.")
    cases = [case for case in cases if half in (None, half_of(case.request.note))]
    if not cases:
        raise InputError(f"{path.name} holds no note.")
    return cases


def _cases(path: Path) -> list[NoteCase]:
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
    return cases


def score(interpret: Callable[[NoteRequest], Interpretation], cases: Sequence[NoteCase]) -> NoteScores:
    """Score an interpreter on notes.

    Args:
        interpret: the `invoke` of an interpreter.
        cases: notes, at least one.
    """
    interpretations = [interpret(case.request) for case in cases]
    pairs = [(case, interpretation.plan) for case, interpretation in zip(cases, interpretations, strict=True)]
    right, total = dict.fromkeys(FIELDS, 0), 0
    found_keeps = []
    for case, plan in pairs:
        expected = case.expected or ()
        total += max(len(expected), len(plan.interventions))
        for one, other in _pairs(expected, plan.interventions):
            for name in FIELDS:
                right[name] += getattr(one, name) == getattr(other, name)
        found_keeps += [each in plan.interventions for each in expected if each.action == "keep"]
    asked = sum((case.expected is None) == (plan.question is not None) for case, plan in pairs)
    fields = {name: count / total if total else 1.0 for name, count in right.items()}
    return NoteScores(
        tuple(Reading(case, each.plan, each.choices) for case, each in zip(cases, interpretations, strict=True)),
        {**fields, QUESTION: asked / len(cases)},
        sum(_harmful(case, plan) for case, plan in pairs),
        sum(found_keeps) / len(found_keeps) if found_keeps else 1.0,
        tuple(each.notice for each in interpretations if each.notice is not None),
    )


def _case(content: dict[str, Any]) -> NoteCase:
    note, labels, slice_mm = content["note"], tuple(content["labels"]), content.get("slice_mm")
    slices = None if slice_mm is None else ImageSlices(MAX_SLICES, float(slice_mm), True, {})
    request = NoteRequest(note, labels, slices=slices)
    if content["expect"] == QUESTION:
        return NoteCase(request, None)
    return NoteCase(request, parse_plan({"interventions": content["expect"]}).interventions)


def _harmful(case: NoteCase, plan: Plan) -> int:
    """Count the acts of a plan that the note does not request."""
    expected = {_effect(each) for each in case.expected or ()}
    return sum(each.action != "keep" and _effect(each) not in expected for each in plan.interventions)


def _effect(intervention: Intervention) -> tuple[object, ...]:
    return tuple(getattr(intervention, name) for name in _EFFECT)


def _pairs(expected: Sequence[Intervention], found: Sequence[Intervention]) -> list[tuple[Intervention, Intervention]]:
    """Pair the most similar interventions, each at most once; label and action take precedence."""
    alike = sorted(
        ((_similarity(one, other), i, j) for i, one in enumerate(expected) for j, other in enumerate(found)),
        key=lambda each: (tuple(-value for value in each[0]), each[1:]),
    )
    pairs: dict[int, int] = {}
    for _, i, j in alike:
        if i not in pairs and j not in pairs.values():
            pairs[i] = j
    return [(expected[i], found[j]) for i, j in pairs.items()]


def _similarity(one: Intervention, other: Intervention) -> tuple[int, ...]:
    same = [int(getattr(one, name) == getattr(other, name)) for name in FIELDS]
    return (same[0], same[1], sum(same))


def _to_dict(intervention: Intervention) -> dict[str, Any]:
    return intervention.model_dump(exclude_none=True)
