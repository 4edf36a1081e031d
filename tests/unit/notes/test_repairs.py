"""Notes that correct themselves, that report findings, and that say of one label what is so of another."""

from __future__ import annotations

import pytest

from causal_sam.notes import EmbeddedInterpreter, NoteRequest

FIELDS = ("label", "action", "direction", "near", "slices", "extent_mm")


@pytest.fixture(scope="module")
def acts():
    interpreter = EmbeddedInterpreter()

    def acts(note: str, *labels: str) -> set[tuple]:
        plan = interpreter.invoke(NoteRequest(note, labels)).plan
        told = ([getattr(each, field) for field in FIELDS] for each in plan.interventions)
        return {tuple(value for value in values if value is not None) for values in told}

    return acts


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("Extend the liver cranially, sorry, caudally", ("liver", "expand", "inferior")),
        ("Extend the liver upwards. Sorry, downwards.", ("liver", "expand", "inferior")),
        ("Liver too small in slices 20-26, scratch that, slices 30-36", ("liver", "expand", (30, 36))),
        ("Spleen, no, I mean the liver, is too small on the right", ("liver", "expand", "right")),
        ("Trim the liver anteriorly by 3 mm, make that 5 mm", ("liver", "shrink", "anterior", 5.0)),
        ("Trim the liver by 5 mm (correction: 3 mm) at the front", ("liver", "shrink", "anterior", 3.0)),
        ("The liver is too small, no wait, too large", ("liver", "shrink")),
        ("The liver leaks into the stomach, I mean the colon", ("liver", "exclude", "colon")),
        ("Liver dome is missing, scratch that, the spleen leaks into the colon", ("spleen", "exclude", "colon")),
        ("Smooth the liver, or rather fill its holes", ("liver", "fill")),
    ],
)
def test_what_is_taken_back_is_replaced(acts, note, expected):
    assert acts(note, "liver", "spleen") == {expected}


@pytest.mark.parametrize("note", [*("Smooth the liver, scratch that",)])
def test_it_is_asked_what_is_taken_back(acts, note):
    assert acts(note, "liver", "spleen") == set()


@pytest.mark.parametrize(
    "note", ["Sorry, the liver is too small", "Liver too small, sorry about that", "I mean, the liver is too small"]
)
def test_courtesies_take_nothing_back(acts, note):
    assert acts(note, "liver", "spleen") == {("liver", "expand")}


@pytest.mark.parametrize(("note", "label"), [("Portal venous phase", "liver")])
def test_findings_are_no_acts(acts, note, label):
    assert acts(note, label) == set()


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("The tumour mask invades the liver", ("tumor", "exclude", "liver")),
        ("The contour is irregular due to fibrosis", ("tumor", "smooth")),
        ("3 mm recon, portal venous phase. Tumour oversegmented.", ("tumor", "shrink")),
    ],
)
def test_what_is_said_of_masks_is_an_act(acts, note, expected):
    assert acts(note, "tumor") == {expected}


@pytest.mark.parametrize("note", ["The left kidney misses its upper pole and so does the right kidney"])
def test_neither_is_both(acts, note):
    labels = ("left kidney", "right kidney")
    assert acts(note, *labels) == {(label, "expand", "superior") for label in labels}


@pytest.mark.parametrize("again", ["as does the right", "and so does the right one", "and the right as well"])
def test_the_same_is_said_of_the_other_side(acts, again):
    labels = ("left lung", "right lung", "heart")
    found = acts(f"Left lung misses its apex, {again}", *labels)
    assert found == {(label, "expand", "superior") for label in labels[:2]}


def test_what_is_told_as_the_cause_is_no_act_of_its_own(acts):
    assert acts("Noisy scan. Liver too small.", "liver", "spleen") == {("liver", "expand")}
    assert acts("Low dose scan. The liver border is lost in the noise.", "liver", "spleen") == {("liver", "restyle")}


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("Someone trimmed the lower edge", ("left femur", "expand", "inferior")),
        ("The resident has cut back the lower edge", ("left femur", "expand", "inferior")),
        ("Extend it to slice 88 from slice 80", ("left femur", "expand", (80, 88))),
    ],
)
def test_parts_remedies_and_reports(acts, note, expected):
    assert acts(note, "left femur") == {expected}


@pytest.mark.parametrize("note", ["Someone enlarged the liver", "Extend the liver to slice 60"])
def test_what_is_no_order_or_open_is_asked(acts, note):
    assert acts(note, "liver") == set()
