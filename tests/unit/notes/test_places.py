"""Places in notes: sides, parts, neighbours and words that only look like places."""

from __future__ import annotations

import pytest

from causal_sam.notes import EmbeddedInterpreter, NoteRequest

LABELS = ("liver", "spleen", "right kidney", "left kidney", "stomach", "gallbladder")


@pytest.fixture(scope="module")
def interpreter() -> EmbeddedInterpreter:
    return EmbeddedInterpreter()


def said(interpreter: EmbeddedInterpreter, note: str, *labels: str) -> str:
    return interpreter.invoke(NoteRequest(note, labels or LABELS)).plan.sentence


@pytest.mark.parametrize("where", ["left side of the image", "right of the screen", "left in the picture"])
def test_a_side_of_the_screen_may_be_either_of_the_patient(interpreter, where):
    assert "side of the patient?" in said(interpreter, f"Liver too large on the {where}")
    assert "side of the patient?" in said(interpreter, "image left: liver too large")


def test_the_lateral_segment_of_the_liver_is_on_its_left(interpreter):
    for part in ("lateral segment", "lateral sector", "left lateral section"):
        found = said(interpreter, f"The {part} of the liver is missing")
        assert found == "expand the liver on its left side"
    assert "On which side" in said(interpreter, "The medial segment of the liver is missing")
    assert said(interpreter, "The liver is missing laterally") == "expand the liver on its right side"


@pytest.mark.parametrize(
    "where",
    [
        *("in S8", "in S4a", "in segment IV", "in the middle", "in the centre", "centrally", "at 6 o'clock"),
        *("at 6 oclock", "at the level of the bifurcation", "at the level of T4"),
    ],
)
def test_parts_that_no_mask_tells_apart_are_asked_about(interpreter, where):
    assert "No mask tells" in said(interpreter, f"Liver too small {where}")


@pytest.mark.parametrize(
    "note", ["Hole in the middle of the liver", "There is a ring artefact in the middle, ignore it. Liver has holes"]
)
def test_the_middle_is_no_matter_for_what_is_inside(interpreter, note):
    assert "No mask tells" not in said(interpreter, note)


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("Post op. Liver too small", "expand the liver"),
        ("Post-contrast, the liver is too small", "expand the liver"),
        ("Liver too large right next to the stomach", "shrink the liver near the stomach"),
        ("Liver too large on the right at the back", "shrink the liver on its right side"),
        ("The liver is too large right at the back", "shrink the liver on its posterior side"),
        ("On top of that, the spleen is too small", "expand the spleen"),
        ("Bottom line: the liver is too large", "shrink the liver"),
        ("Spleen ok. Back to the liver: too small", "keep the spleen as it is; expand the liver"),
        ("Extend the liver back to the ribs", "expand the liver on its posterior side near the rib"),
        ("High BMI patient, the liver is too small", "expand the liver"),
        ("As far as I can see the liver is too small", "expand the liver"),
        ("Low-attenuation scan, the liver is too small", "expand the liver"),
    ],
)
def test_everyday_words_are_no_directions(interpreter, note, expected):
    assert said(interpreter, note) == expected


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("Spleen too large above the left kidney", "shrink the spleen near the left kidney"),
        ("Liver too small above the right kidney", "expand the liver near the right kidney"),
        ("Liver too large behind the stomach", "shrink the liver near the stomach"),
        ("Smooth the liver next to the stomach", "smooth the boundary of the liver near the stomach"),
        ("Liver too small above", "expand the liver on its superior side"),
    ],
)
def test_a_place_beside_another_label_is_not_that_side_of_the_mask(interpreter, note, expected):
    assert said(interpreter, note) == expected


@pytest.mark.parametrize("where", ["near the gallbladder", "below the diaphragm", "around the inferior vena cava"])
def test_growth_beside_what_has_no_mask_needs_a_side(interpreter, where):
    assert "On which side of the liver is" in said(interpreter, f"Liver too small {where}", "liver", "spleen")
    found = said(interpreter, f"Liver too small laterally, {where}", "liver", "spleen")
    assert found.startswith("expand the liver on its right side")


def test_growth_beside_a_mask_or_around_content_needs_no_side(interpreter):
    assert said(interpreter, "Liver too small near the gallbladder") == "expand the liver near the gallbladder"
    assert said(interpreter, "Include the caudate lobe in the liver") == "expand the liver near the caudate lobe"


@pytest.mark.parametrize("note", ["Fill the 2 large holes in the liver", "The liver has 2 big holes"])
def test_two_large_holes_do_not_make_a_mask_too_large(interpreter, note):
    assert said(interpreter, note) == "fill the holes of the liver"
    for form in ("Liver 2 large at the top", "Liver 2 large superiorly", "Top of liver 2 large"):
        assert said(interpreter, form) == "shrink the liver on its superior side"


@pytest.mark.parametrize(
    ("note", "plan"),
    [
        ("Liver too small in the middle, on slices 30-36", "expand the liver in slices 30 to 36"),
        ("The liver is fine in the middle, but too small at the top", "expand the liver on its superior side"),
        ("The spleen is 5 mm too large on top of it", "shrink the spleen on its superior side by 5 mm"),
    ],
)
def test_a_middle_need_not_be_known_where_nothing_changes_or_slices_are_named(interpreter, note, plan):
    assert said(interpreter, note).startswith(plan)
