"""The history of the page in words, and slices as viewers and notes count them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from causal_sam.correction.context import slices_in
from causal_sam.imaging import PackedMask, Volume
from causal_sam.prompting.history import Step, StepKind
from causal_sam.prompting.label_state import LabelState, SliceRecord
from causal_sam.prompting.prompts import Lasso
from serving.page.steps import MINUS, describe_steps

SHAPE = (20, 20, 8)
VOLUME = Volume(np.zeros(SHAPE, np.int16), np.diag([10.0, 10, 10, 1]), "CT", {}, Path("image"))


def state(size: int, *inside: tuple[int, int, int], outside: tuple[int, int, int] | None = None, **more) -> LabelState:
    """A label of ``size`` ml, decided on slice 3 from points."""
    mask = np.zeros(SHAPE, bool)
    mask.reshape(-1)[:size] = True
    background = frozenset() if outside is None else frozenset({outside})
    records = {3: SliceRecord(frozenset(inside), background, more.pop("box", None), None, 0.9)}
    return LabelState(PackedMask.pack(mask), 2, records, **more)


def text(kind: StepKind, about: str, after: dict[str, LabelState], before: dict[str, LabelState], **more) -> str:
    return describe_steps([Step(labels=before), Step(kind, about, after, **more)], VOLUME)[1]


def test_steps_say_what_was_done_where_and_how_much_it_changed() -> None:
    liver, spleen = state(400, (4, 4, 3)), state(348, (9, 9, 3))
    prompts = StepKind.PROMPTS
    assert text(prompts, "spleen", {"spleen": spleen}, {}) == "+ point, slice 5: spleen +348 ml"
    less = state(340, (9, 9, 3), outside=(9, 2, 3))
    assert (
        text(prompts, "spleen", {"spleen": less}, {"spleen": spleen}) == f"{MINUS} point, slice 5: spleen {MINUS}8.0 ml"
    )
    both, was = {"liver": state(200, (4, 4, 3)), "spleen": spleen}, {"liver": liver}
    assert text(prompts, "spleen", both, was) == f"+ point, slice 5: spleen +348 ml, liver {MINUS}200 ml"
    box = state(10, box=(1, 3, 1, 3, 3, 3))
    assert text(prompts, "cyst", {"cyst": box}, {}) == "box, slice 5: cyst +10 ml"
    lasso = state(10, box=(1, 3, 1, 3, 3, 3), lasso=Lasso(((1, 1, 3), (3, 1, 3), (3, 3, 3))))
    assert text(prompts, "cyst", {"cyst": lasso}, {}) == "lasso, slice 5: cyst +10 ml"
    assert text(StepKind.NOTE, "too big", {"liver": state(390)}, was) == f"note “too big”: liver {MINUS}10 ml"
    assert text(StepKind.RESET, "liver", {}, was) == f"emptied: liver {MINUS}400 ml"
    assert text(StepKind.MASK, "liver", {"liver": state(401)}, was) == "drawing: liver +1.0 ml"
    assert text(StepKind.LOCK, "liver", was, was, locked=frozenset({"liver"})) == "locked liver"
    five = {name: state(n + 1) for n, name in enumerate("abcde")}
    assert text(StepKind.NAME, "a, b, c, d, e", five, {}) == "found by name: a +1.0 ml, b +2.0 ml, c +3.0 ml and 2 more"


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_slices_are_counted_as_notes_count_them(signs: tuple[int, int, int]) -> None:
    volume = Volume(np.zeros(SHAPE, np.int16), np.diag([2.0 * signs[0], 2 * signs[1], 5 * signs[2], 1]), "CT", {}, None)
    mask = np.zeros(SHAPE, bool)
    mask[..., 3] = True
    ((number, last),) = slices_in(volume, {"liver": mask}).nonempty.values()
    assert number == last
    step = Step(StepKind.PROMPTS, "liver", {"liver": state(10, (1, 1, 3))})
    assert describe_steps([Step(labels={}), step], volume)[1].startswith(f"+ point, slice {number}:")
