"""The guard rejects masks that contradict the intervention, and measures changes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from causal_sam.correction.guard import Effect, find_doubt, find_objection, measure_effect
from causal_sam.correction.region import Region
from causal_sam.imaging import Volume
from causal_sam.notes.schema import Intervention

SHAPE = (12, 12, 12)
# The first axis runs to the patient's left, and voxels have 2 x 1 x 1 mm.
VOLUME = Volume(np.zeros(SHAPE, np.float32), np.diag([-2.0, 1.0, 1.0, 1.0]), "CT")
REGION = Region((slice(6, 12), slice(0, 12), slice(0, 12)), np.ones((6, 12, 12), np.float32))


def block(*sides: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


BEFORE = block((3, 8), (3, 9), (3, 9))
LARGER = block((3, 10), (3, 9), (3, 9))
SMALLER = block((3, 7), (3, 9), (3, 9))


def act(action: str, near: str | None = None) -> Intervention:
    return Intervention(label="spleen", action=action, near=near)


@pytest.mark.parametrize(
    ("intervention", "after"),
    [
        (act("expand"), LARGER),
        (act("fill"), LARGER),
        (act("shrink"), SMALLER),
        (act("exclude", "stomach"), SMALLER),
        (act("remove"), SMALLER),
        (act("keep_largest"), SMALLER),
        (act("restyle"), LARGER),
        (act("restyle"), SMALLER),
        (act("keep"), BEFORE),
    ],
)
def test_what_was_asked_for_is_taken(intervention: Intervention, after: NDArray[np.bool_]) -> None:
    assert find_objection(intervention, REGION, VOLUME, BEFORE, after) is None


@pytest.mark.parametrize(
    ("intervention", "after", "reason"),
    [
        (act("expand"), SMALLER, "only to gain"),
        (act("shrink"), LARGER, "only to lose"),
        (act("exclude", "stomach"), LARGER, "only to lose"),
        (act("expand"), BEFORE, "nothing to change"),
        (act("expand"), LARGER | block((2, 3), (3, 9), (3, 9)), "outside of the place"),
        (act("shrink"), block((4, 8), (3, 9), (3, 9)), "outside of the place"),
        (act("keep"), LARGER, "was to stay as it is"),
        (act("smooth"), SMALLER, "too thin"),
    ],
)
def test_what_was_not_asked_for_is_refused(intervention: Intervention, after: NDArray[np.bool_], reason: str) -> None:
    said = find_objection(intervention, REGION, VOLUME, BEFORE, after)
    assert reason in said
    assert said.endswith(".")


def test_what_finds_nothing_says_where_it_looked_and_how_sure_it_is() -> None:
    left = Intervention(label="spleen", action="shrink", direction="left", near="stomach")
    said = find_objection(left, REGION, VOLUME, BEFORE, BEFORE, 0.934)
    # A box of 6 x 12 x 12 voxels; the slices are sagittal, and counted from the right.
    looked = "It looked at 1.7 ml on its left side near stomach, in slices 7 to 12, and is 93% sure: click what"
    assert looked in said
    assert "sure" not in find_objection(left, REGION, VOLUME, BEFORE, BEFORE)
    nowhere = Region(REGION.box, np.zeros_like(REGION.weight))
    for intervention, reason in (
        (act("exclude", "stomach"), "it is not near stomach"),
        (act("fill"), "it has no holes"),
        (act("remove"), "it is in one part"),
        (act("expand"), "it has nothing in that place"),
    ):
        assert f"nothing to change in spleen: {reason}." in find_objection(
            intervention, nowhere, VOLUME, BEFORE, BEFORE
        )


@pytest.mark.parametrize("action", ["fill", "remove", "keep_largest"])
@pytest.mark.parametrize("place", [{"direction": "left"}, {"near": "stomach"}, {"slices": (1, 3)}])
def test_a_mask_without_holes_in_a_place_may_have_them_elsewhere(action: str, place: dict) -> None:
    nowhere = Region(REGION.box, np.zeros_like(REGION.weight))
    intervention = Intervention(label="spleen", action=action, **place)
    said = find_objection(intervention, nowhere, VOLUME, BEFORE, BEFORE)
    assert "nothing to change in spleen: it has nothing in that place." in said


def test_a_mask_is_emptied_only_by_a_deletion_on_all_slices() -> None:
    whole, nothing = Region((slice(0, 12),) * 3, np.ones(SHAPE, np.float32)), np.zeros(SHAPE, bool)
    for intervention in (act("shrink"), act("exclude", "stomach"), act("remove")):
        assert "would be left" in find_objection(intervention, whole, VOLUME, BEFORE, nothing)
    deletion = Intervention(label="spleen", action="remove", slices=(1, 12))
    assert find_objection(deletion, whole, VOLUME, BEFORE, nothing) is None
    effect = measure_effect("spleen", VOLUME, BEFORE, nothing)
    assert f"spleen would lose {effect.lost_ml:.1f} ml, 100% of" in find_doubt(
        deletion, effect, {"spleen": effect.lost_ml}
    )


def test_no_weight_is_outside() -> None:
    none = Region(REGION.box, np.zeros_like(REGION.weight))
    assert "outside of the place" in find_objection(act("expand"), none, VOLUME, BEFORE, LARGER)


def test_the_effect_is_in_millilitres_and_towards_the_patients_sides() -> None:
    effect = measure_effect("spleen", VOLUME, BEFORE, LARGER)
    assert effect.gained_ml == pytest.approx(2 * 6 * 6 * 2 / 1000)
    assert effect.lost_ml == 0
    assert effect.gained_towards_ml == {"left": pytest.approx(effect.gained_ml)}
    assert effect.lost_towards_ml == {}
    assert str(effect) == "spleen: +0.14 ml, mostly left"
    back = measure_effect("spleen", VOLUME, LARGER, block((3, 10), (3, 9), (3, 8)))
    assert max(back.lost_towards_ml, key=back.lost_towards_ml.get) == "superior"
    assert sum(back.lost_towards_ml.values()) == pytest.approx(back.lost_ml)
    assert str(measure_effect("spleen", VOLUME, BEFORE, BEFORE)) == "spleen: nothing changes"


def test_the_effect_is_divided_by_direction() -> None:
    both = BEFORE | block((8, 9), (3, 9), (3, 9)) | block((3, 8), (3, 9), (9, 10))
    effect = measure_effect("spleen", VOLUME, BEFORE, both)
    assert effect.gained_towards_ml.keys() == {"left", "superior"}
    assert sum(effect.gained_towards_ml.values()) == pytest.approx(effect.gained_ml)


VOLUMES = {"spleen": 200.0, "stomach": 300.0}


@pytest.mark.parametrize(
    ("intervention", "effect", "unexpected", "doubt"),
    [
        (act("expand"), Effect("spleen", 100.0, 0.0), 0.0, None),
        (act("expand"), Effect("spleen", 300.0, 0.0), 0.0, "spleen would gain 300.0 ml, 150% of its 200.0 ml."),
        (act("shrink"), Effect("spleen", 0.0, 190.0), 0.0, "spleen would lose 190.0 ml"),
        (act("exclude", "stomach"), Effect("spleen", 0.0, 100.0), 0.0, "spleen would lose 100.0 ml"),
        (act("expand"), Effect("spleen", 80.0, 0.0, taken_ml={"stomach": 29.0}), 0.0, None),
        (
            act("expand"),
            Effect("spleen", 80.0, 0.0, taken_ml={"stomach": 60.0}),
            0.0,
            "take 60.0 ml of stomach, 20% of",
        ),
        (act("expand", "stomach"), Effect("spleen", 80.0, 0.0, taken_ml={"stomach": 60.0}), 0.0, None),
        (act("expand"), Effect("spleen", 80.0, 0.0), 30.0, None),
        (act("expand"), Effect("spleen", 80.0, 0.0), 70.0, "spleen would gain 70.0 ml where the image shows"),
    ],
)
def test_what_is_not_plausible_has_to_be_confirmed(
    intervention: Intervention, effect: Effect, unexpected: float, doubt: str | None
) -> None:
    found = find_doubt(intervention, effect, VOLUMES, unexpected)
    assert found is None if doubt is None else doubt in found


def test_millimetres_are_no_excuse_for_a_large_change() -> None:
    strong = Intervention(label="spleen", action="expand", strength="strong")
    effect = Effect("spleen", 150.0, 0.0)
    assert find_doubt(strong, effect, VOLUMES) is None
    assert "150.0 ml, 75%" in find_doubt(strong.model_copy(update={"extent_mm": 15.0}), effect, VOLUMES)
