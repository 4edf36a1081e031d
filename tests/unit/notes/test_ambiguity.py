"""Acts that the rules read for several labels or opposite sides: done if the note lists them, asked about if not."""

from __future__ import annotations

import pytest

from causal_sam.notes import Intervention, NoteRequest, Plan
from causal_sam.notes.rules import RuleInterpreter


@pytest.fixture(scope="module")
def read():
    interpreter = RuleInterpreter()

    def read(note: str, *labels: str) -> Plan:
        return interpreter.invoke(NoteRequest(note, labels)).plan

    return read


@pytest.mark.parametrize(
    ("note", "labels"),
    [
        ("heart mask overshoots liver side, 4 mm", ("heart", "liver")),
        ("There are bits of left kidney lying in spleen; remove those bits.", ("left kidney", "spleen")),
        (
            "We are 9 mm short at the bottom of the liver, the Riedel lobe carries on past the kidney.",
            ("liver", "kidney"),
        ),
    ],
)
def test_a_label_that_only_says_where_is_asked_about(read, note, labels):
    question = read(note, *labels).question
    assert question is not None
    assert all(label in question for label in labels)


@pytest.mark.parametrize(
    "names",
    ["liver and spleen are", "liver, spleen are both", "the liver and also the spleen are", "liver & spleen are"],
)
def test_listed_labels_all_change(read, names):
    plan = read(f"{names} too small by 3 mm", "liver", "spleen")
    assert set(plan.interventions) == {
        Intervention(label=label, action="expand", extent_mm=3) for label in ("liver", "spleen")
    }


def test_labels_with_their_own_places_all_change(read):
    plan = read("smooth the liver at the dome and the spleen at the tip", "liver", "spleen")
    assert {(each.label, each.direction) for each in plan.interventions} == {
        ("liver", "superior"),
        ("spleen", "inferior"),
    }


def test_opposite_sides_that_are_not_listed_are_asked_about(read):
    note = "Bladder wall in front is over drawn, I would say for like 4 mm, so it goes in fat behind of the symphysis"
    question = read(f"{note}, pls cut it there", "bladder").question
    assert question is not None
    assert '"in front"' in question
    assert '"behind"' in question


def test_listed_opposite_sides_both_change(read):
    for note in (
        "liver too small anteriorly and posteriorly",
        "liver too small in front and 3 mm too small at the back",
    ):
        assert {each.direction for each in read(note, "liver").interventions} == {"anterior", "posterior"}


def test_an_order_deletes_the_slices_that_were_named_before_it(read):
    plan = read("sl 77-80 spleen = wrong, del", "spleen", "left kidney")
    assert plan.interventions == (Intervention(label="spleen", action="remove", slices=(77, 80)),)


@pytest.mark.parametrize("slices", ["31-34", "from 31 to 34", "31..34", "between 31 and 34"])
def test_ranges_need_no_word_for_slices(read, slices):
    plan = read(f"cord missing {slices}", "cord", "liver")
    assert plan.interventions == (Intervention(label="cord", action="expand", slices=(31, 34)),)


@pytest.mark.parametrize("reason", ["says the guideline", "as my supervisor said", "the auto-threshold was wrong"])
def test_everyday_words_are_no_attempts_at_abuse(read, reason):
    plan = read(f"The liver is too small by 3 mm, {reason}.", "liver")
    assert plan.interventions == (Intervention(label="liver", action="expand", extent_mm=3),)


@pytest.mark.parametrize("note", ["Fill liver segment I", "seg i", "liver, segment IV"])
def test_a_segment_at_the_end_of_a_note_is_asked_about(read, note):
    assert "seg" in (read(note, "liver", "spleen").question or "")
