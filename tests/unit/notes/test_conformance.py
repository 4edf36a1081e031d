"""Conformance of interpreters: notes with the plans that any implementation must give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_chat import ToolModel, call, plan

from causal_sam.notes import EmbeddedInterpreter, ImageSlices, Intervention, NoteRequest, Plan
from causal_sam.notes.chat import ChatInterpreter

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[2] / "notes" / "conformance.json").read_text(encoding="utf-8")
)
EACH = pytest.mark.parametrize("case", CASES, ids=[f"{case['about']}: {case['note']}" for case in CASES])


@pytest.fixture(scope="module")
def embedded() -> EmbeddedInterpreter:
    return EmbeddedInterpreter()


def request_of(case: dict[str, Any]) -> NoteRequest:
    slices = case.get("slices")
    return NoteRequest(
        case["note"],
        tuple(case["labels"]),
        sides=case.get("sides", {}),
        slices=None if slices is None else ImageSlices(**slices),
    )


def check(found: Plan, expected: dict[str, Any]) -> None:
    if "question" in expected:
        assert found.question is not None
        assert [words for words in expected["question"] if words.lower() not in found.question.lower()] == []
    else:
        assert set(found.interventions) == {Intervention(**each) for each in expected["interventions"]}


@EACH
def test_the_embedded_interpreter_conforms(embedded, case):
    check(embedded.invoke(request_of(case)).plan, case["plan"])


@EACH
def test_an_agent_can_give_each_plan(embedded, case):
    expected = case["plan"]
    question = " ".join(expected["question"]) or "What is meant?" if "question" in expected else None
    answer = call("Plan", question=question) if question else plan(*expected["interventions"])
    reading = ChatInterpreter(ToolModel(answers=[answer]), "test:model", embedded, False).invoke(request_of(case))
    assert reading.notice is None
    check(reading.plan, expected)
