"""Rules as plans: what is a demand, what is none, and what an interpreter of notes would get wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.runnables import RunnableLambda

from causal_sam.notes import Interpretation, Intervention, NoteRequest, Plan, load_interpreter
from causal_sam.notes.request import MAX_NOTE_LENGTH
from causal_sam.protocol.reading import RuleReader
from causal_sam.protocol.rules import Rule, read_protocol

LABELS = ("liver", "spleen", "right kidney", "left kidney", "gallbladder", "aorta")
READER = RuleReader(load_interpreter())


def read(text: str) -> Plan:
    return READER.read(Rule(text, 1), LABELS, {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Liver without gallbladder.", "exclude the gallbladder from the liver"),
        ("The liver does not include the gallbladder", "exclude the gallbladder from the liver"),
        ("The liver must never contain the gallbladder", "exclude the gallbladder from the liver"),
        ("The gallbladder is not part of the liver", "exclude the gallbladder from the liver"),
        ("Gallbladder does not belong to the liver", "exclude the gallbladder from the liver"),
        ("no vessels in the liver", "exclude the vessel from the liver"),
        (
            "Exclude the gallbladder and the spleen from the liver",
            "exclude the gallbladder from the liver; exclude the spleen from the liver",
        ),
        ("No holes in the spleen", "fill the holes of the spleen"),
        ("spleen has no holes", "fill the holes of the spleen"),
        ("Fill vessels of the liver", "fill the holes of the liver"),
        ("fill vessels in the liver under 3 mm", "fill the holes of the liver up to 3 mm"),
        ("fill gaps (up to 0,5 cm) in the liver", "fill the holes of the liver up to 5 mm"),
        ("no islands in the spleen", "remove the stray part of the spleen"),
        ("Remove stray parts of the liver", "remove the stray part of the liver"),
        ("The spleen is one piece", "keep only the largest component of the spleen"),
        (
            "Kidneys: one piece each",
            "keep only the largest component of the right kidney; keep only the largest component of the left kidney",
        ),
        ("Smooth the liver", "smooth the boundary of the liver"),
        (
            "liver without gallbladder; fill vessels under 3 mm. Smooth it.",
            "exclude the gallbladder from the liver; fill the holes of the liver up to 3 mm; "
            "smooth the boundary of the liver",
        ),
    ],
)
def test_demands_become_plans(text: str, sentence: str) -> None:
    assert read(text).sentence == sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("aorta down to the bifurcation", 'How can "aorta down to the bifurcation" be seen on a mask?'),
        ("the liver includes the caudate lobe", "How can"),  # a note with these words cuts the lobe off
        ("the aorta ends at the bifurcation", "How can"),
        ("the spleen 2 mm larger", "How can"),
        ("remove islands under 1 ml of the liver", "How can"),
        ("liver without gallbladder under 3 mm", "How can"),
        ("fill vessels of the liver up to 900 mm", "How can"),
        ("keep the aorta", "No mask can be in that state"),
        ("fill the liver in slices 3 to 7", "No mask can be in that state"),
        ("fill vessels under 3 mm", "Which label is meant?"),
        ("kidney without pelvis", "Which kidney is meant"),
        ("smooth " + "very " * MAX_NOTE_LENGTH, "is the most"),
        (";", "Write it as in"),
    ],
)
def test_what_is_no_demand_on_a_mask_is_a_question(text: str, words: str) -> None:
    plan = read(text)
    assert not plan.interventions
    assert words in plan.question


def test_the_sample_is_understood() -> None:
    protocol = read_protocol(Path(__file__).resolve().parents[3] / "sample_configs" / "protocol.md")
    assert len(protocol.rules) == 3
    assert [READER.read(rule, LABELS, {}).question for rule in protocol.rules] == [None] * 3


def test_an_interpreter_reads_each_rule_once_for_the_same_labels() -> None:
    requests: list[NoteRequest] = []

    def interpret(request: NoteRequest) -> Interpretation:
        requests.append(request)
        plan = Plan(interventions=(Intervention(label="liver", action="smooth"),))
        return Interpretation(plan, "scripted", "The chat model failed." if len(requests) == 1 else None)

    reader = RuleReader(RunnableLambda(interpret))
    for line, labels in ((1, LABELS), (2, LABELS), (7, LABELS), (7, LABELS[:1])):
        reader.read(Rule("Smooth the liver", line), labels, {"spleen": "left"})
    # What stands in for the interpreter is asked again.
    assert [(each.note, each.labels, dict(each.sides)) for each in requests] == [
        ("Smooth the liver", LABELS, {"spleen": "left"}),
        ("Smooth the liver", LABELS, {"spleen": "left"}),
        ("Smooth the liver", LABELS[:1], {}),
    ]
