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


def test_above_needs_axial_slices(interpreter):
    sagittal = ImageSlices(60, 3.0, False, {"spleen": (10, 30)})
    assert interpreter.invoke(NoteRequest("spleen too small above slice 17", LABELS, slices=sagittal)).plan.question
