"""Scores of interpreters, on notes whose plans are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from causal_sam.benchmark.notes import NoteCase, read_notes, score
from causal_sam.errors import InputError, NotFoundError
from causal_sam.notes import Interpretation, Intervention, NoteRequest, Plan

SMOOTH = Intervention(label="liver", action="smooth")
EXPAND = Intervention(label="liver", action="expand", direction="superior", extent_mm=5)
ASK = Plan(question="Which?")


def case(*expected: Intervention) -> NoteCase:
    return NoteCase(NoteRequest("a note", ("liver",)), expected or None)


def scored(plan: Plan, *expected: Intervention):
    return score(lambda request: Interpretation(plan, "embedded"), [case(*expected)])


def test_order_does_not_count():
    scores = scored(Plan(interventions=(SMOOTH, EXPAND)), EXPAND, SMOOTH)
    assert scores.exact == 1
    assert set(scores.fields.values()) == {1.0}
    assert scores.misses == ()


def test_each_field_counts_by_itself():
    other = EXPAND.model_copy(update={"direction": "inferior"})
    scores = scored(Plan(interventions=(other,)), EXPAND)
    assert scores.exact_share == 0
    assert scores.fields["direction"] == 0
    assert {share for name, share in scores.fields.items() if name != "direction"} == {1.0}


@pytest.mark.parametrize("found", [(EXPAND,), (EXPAND, SMOOTH, EXPAND.model_copy(update={"near": "colon"}))])
def test_what_is_missing_or_too_much_counts(found):
    scores = scored(Plan(interventions=found), EXPAND, SMOOTH)
    assert scores.exact == 0
    assert scores.fields["action"] == pytest.approx(len({EXPAND, SMOOTH} & set(found)) / max(len(found), 2))


def test_questions():
    assert scored(ASK).exact == 1
    assert scored(ASK, EXPAND).fields["question"] == 0
    missed = scored(Plan(interventions=(EXPAND,)))
    assert missed.exact == 0
    assert missed.to_dict()["misses"][0]["expected"] == "question"


def test_questions_that_offer_what_is_expected_are_counted():
    plan, other = (Plan(interventions=(act,)) for act in (EXPAND, SMOOTH))

    def offered(*choices):
        scores = score(lambda request: Interpretation(ASK, "embedded", choices=choices), [case(EXPAND), case()])
        return scores.to_dict()["questions_offering_expected"]

    assert [offered(other, plan), offered(other), offered()] == [1, 0, 0]


def test_notes_that_the_chat_model_did_not_read_are_counted():
    scores = score(lambda request: Interpretation(ASK, "embedded", "The model did not answer."), [case(), case()])
    assert scores.exact == 2
    assert scores.to_dict()["not_read"] == 2
    assert scores.to_dict()["notices"] == ["The model did not answer."]


def test_files_are_read(tmp_path: Path):
    path = tmp_path / "notes.jsonl"
    lines = [
        {"note": "up", "labels": ["liver"], "expect": [{"label": "liver", "action": "expand", "slices": [1, 2]}]},
        {"note": "?", "labels": ["liver"], "expect": "question"},
    ]
    path.write_text("\n\n".join(map(json.dumps, lines)))
    first, second = read_notes(path)
    assert first.expected == (Intervention(label="liver", action="expand", slices=(1, 2)),)
    assert second.expected is None


@pytest.mark.parametrize(
    "line",
    ["no json", "[]", '{"note": "x"}', '{"note": "x", "labels": ["a"], "expect": [{"label": "a", "action": "b"}]}'],
)
def test_wrong_lines_are_named(tmp_path: Path, line: str):
    path = tmp_path / "notes.jsonl"
    path.write_text('{"note": "x", "labels": ["a"], "expect": "question"}\n' + line)
    with pytest.raises(InputError, match=r"Line 2 of notes\.jsonl"):
        read_notes(path)


def test_files_that_hold_nothing(tmp_path: Path):
    with pytest.raises(NotFoundError):
        read_notes(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no note"):
        read_notes(tmp_path / "empty.jsonl")
