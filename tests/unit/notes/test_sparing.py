"""Places that a note denies, protects or approves: no act changes them."""

from __future__ import annotations

import pytest

from causal_sam.notes import EmbeddedInterpreter, Intervention, NoteRequest

LABELS = ("liver", "spleen", "right kidney", "left kidney", "stomach")


@pytest.fixture(scope="module")
def interpreter() -> EmbeddedInterpreter:
    return EmbeddedInterpreter()


@pytest.mark.parametrize(
    "note",
    [
        *("Liver too large, leave the dome alone", "Liver 3 mm too large, dome ok"),
        *("Shrink the liver, but not at the dome", "Liver too small, but do not change the left part"),
        *("The liver is too large but not on the left", "The liver is too large, on the left not"),
        *("Liver is 5 mm too large all around except the dome", "Extend the spleen, except at the tip"),
        *("Trim the spleen everywhere but at the top", "The dome of the liver is fine, the rest is 3 mm too large"),
        *("Smooth the liver, not its dome", "Liver too small at the dome, but not at the dome"),
        "The liver is a bit too large as far as I can see on these images, but please do not touch its dome",
    ],
)
def test_an_act_on_the_whole_label_would_change_them(interpreter, note):
    assert interpreter.invoke(NoteRequest(note, LABELS)).plan.question is not None


def act(label: str, action: str, **fields) -> Intervention:
    return Intervention(label=label, action=action, **fields)


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("Left kidney too large, on the right fine", {act("left kidney", "shrink")}),
        ("reduce the liver in front, leave the back", {act("liver", "shrink", direction="anterior")}),
        ("Liver too small at the top, not at the bottom", {act("liver", "expand", direction="superior")}),
        ("Liver too large on the left, fine on the right", {act("liver", "shrink", direction="left")}),
        ("The liver is fine except at the dome, which is too small", {act("liver", "expand", direction="superior")}),
        ("Liver too large, spleen ok at the tip", {act("liver", "shrink"), act("spleen", "keep")}),
        ("Holes in the liver, dome ok", {act("liver", "fill")}),
        ("Liver not low enough. Spleen perfect", {act("liver", "expand", direction="inferior"), act("spleen", "keep")}),
        ("The liver is too large on slices 30-36, dome ok", {act("liver", "shrink", slices=(30, 36))}),
        (
            "Kidneys: the left is too large, the right is fine",
            {act("left kidney", "shrink"), act("right kidney", "keep")},
        ),
    ],
)
def test_an_act_elsewhere_is_carried_out(interpreter, note, expected):
    assert set(interpreter.invoke(NoteRequest(note, LABELS)).plan.interventions) == expected
