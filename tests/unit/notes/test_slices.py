"""Notes that count slices."""

from __future__ import annotations

import pytest

from causal_sam.notes import EmbeddedInterpreter, ImageSlices, Intervention, NoteRequest

LABELS = ("spleen", "bladder")
IMAGE = ImageSlices(60, 3.0, True, {"spleen": (10, 30), "bladder": (50, 58)})


@pytest.fixture(scope="module")
def interpreter() -> EmbeddedInterpreter:
    return EmbeddedInterpreter()


def act(label: str, action: str, **fields) -> Intervention:
    return Intervention(label=label, action=action, **fields)


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("spleen is two slices short at the top", act("spleen", "expand", direction="superior", extent_mm=6)),
        ("trim 2 slices off the bottom of the spleen", act("spleen", "shrink", direction="inferior", extent_mm=6)),
        ("on the last three slices erase the bladder", act("bladder", "remove", slices=(56, 58))),
        ("the first 2 slices of the spleen are too large", act("spleen", "shrink", slices=(10, 11))),
        ("bladder too small above slice 52", act("bladder", "expand", slices=(1, 51))),
        ("from slice 20 on the spleen is too large", act("spleen", "shrink", slices=(20, 60))),
        ("spleen too large on slice 12 and below", act("spleen", "shrink", slices=(12, 60))),
        ("delete the bladder", act("bladder", "remove", slices=(50, 58))),
        ("delete the whole bladder", act("bladder", "remove", slices=(50, 58))),
        ("smooth the spleen on images 11 to 13", act("spleen", "smooth", slices=(11, 13))),
        ("slice 25/60: the spleen is too large", act("spleen", "shrink", slices=(25, 25))),
        ("Trim the spleen by 3 mm slice 20", act("spleen", "shrink", slices=(20, 20), extent_mm=3)),
        ("Extend the bladder down to slice 60", act("bladder", "expand", direction="inferior", slices=(59, 60))),
        ("Extend the spleen up to slice 5", act("spleen", "expand", direction="superior", slices=(5, 9))),
        ("The spleen should be extended to slice 35", act("spleen", "expand", direction="inferior", slices=(31, 35))),
        ("spleen slice 20 2-3 mm too large", act("spleen", "shrink", slices=(20, 20), extent_mm=2.5)),
        ("spleen slice 20 2 mm too large", act("spleen", "shrink", slices=(20, 20), extent_mm=2)),
        ("fill the spleen on slices 20-22 2 large holes there", act("spleen", "fill", slices=(20, 22))),
        ("Spleen too small up to slice 15", act("spleen", "expand", slices=(1, 15))),
        ("Spleen too large on axial slices 12-14", act("spleen", "shrink", slices=(12, 14))),
    ],
)
def test_slices_are_counted_on_the_image(interpreter, note, expected):
    assert interpreter.invoke(NoteRequest(note, LABELS, slices=IMAGE)).plan.interventions == (expected,)


@pytest.mark.parametrize(
    ("note", "quoted"),
    [
        ("spleen is two slices short at the top", "two slices"),
        ("bladder too small above slice 52", "above slice 52"),
        ("bladder too large on two slices", "on two slices"),
        ("erase the spleen on the last 3 slices", "slices of the spleen"),
        ("delete the bladder", "slices of the bladder"),
    ],
)
def test_without_the_image_slices_are_asked_for(interpreter, note, quoted):
    assert quoted in (interpreter.invoke(NoteRequest(note, LABELS)).plan.question or "")


def test_a_note_can_state_the_distance_of_slices(interpreter):
    plan = interpreter.invoke(NoteRequest("Thickness 2 mm. Spleen 2 slices short at the lower pole.", LABELS)).plan
    assert plan.interventions == (act("spleen", "expand", direction="inferior", extent_mm=4),)


@pytest.mark.parametrize("note", ["first slice and the last slice", "first and last slice", "first and the last slice"])
def test_both_ends_of_a_mask_are_meant(interpreter, note):
    plan = interpreter.invoke(NoteRequest(f"Delete the spleen on the {note}", LABELS, slices=IMAGE)).plan
    assert plan.interventions == (act("spleen", "remove", slices=(10, 10)), act("spleen", "remove", slices=(30, 30)))


@pytest.mark.parametrize(
    "note",
    [
        *("spleen too large on slices 12 15 20", "Extend the spleen down to slice 20"),
        *("Extend the spleen superiorly down to slice 40", "Extend the spleen down to slice 40 on slices 10-12"),
        *("Spleen too large on coronal slices 30-36", "sagittal slice 20: spleen too large"),
    ],
)
def test_slices_that_are_not_clear_are_asked_for(interpreter, note):
    assert "slices" in (interpreter.invoke(NoteRequest(note, LABELS, slices=IMAGE)).plan.question or "")


SAGITTAL = ImageSlices(60, 3.0, False, {"spleen": (10, 30)}, "sagittal")


@pytest.mark.parametrize(
    ("note", "quoted"),
    [
        *(
            ("spleen too small above slice 17", "above slice 17"),
            ("Delete the spleen on the top two slices", "top two"),
        ),
        *(("Spleen two slices short at the top", "How many mm"), ("spleen too large on axial slices 3-5", "axial")),
        ("spleen too large on coronal slices 3-5", "sagittal slices"),
    ],
)
def test_slices_of_another_plane_have_no_top(interpreter, note, quoted):
    assert quoted in (interpreter.invoke(NoteRequest(note, LABELS, slices=SAGITTAL)).plan.question or "")


def test_slices_of_another_plane_have_numbers_and_a_first_one(interpreter):
    for note, slices in (
        ("spleen too large on sagittal slices 3-5", (3, 5)),
        ("the first 2 slices of the spleen are too large", (10, 11)),
    ):
        plan = interpreter.invoke(NoteRequest(note, LABELS, slices=SAGITTAL)).plan
        assert plan.interventions == (act("spleen", "shrink", slices=slices),)


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        (
            "Delete the spleen on the last two slices and the bladder on the first slice",
            {act("spleen", "remove", slices=(29, 30)), act("bladder", "remove", slices=(50, 50))},
        ),
        (
            "Extend the spleen down to slice 35 and the bladder by 5 mm",
            {
                act("spleen", "expand", direction="inferior", slices=(31, 35)),
                act("bladder", "expand", extent_mm=5),
            },
        ),
    ],
)
def test_slices_of_one_label_are_not_those_of_the_next(interpreter, note, expected):
    assert {*interpreter.invoke(NoteRequest(note, LABELS, slices=IMAGE)).plan.interventions} == expected
