"""Interventions change masks, with the shipped model and an untrained modulation."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scripted_context import ScriptedContext
from segment_anything import build_sam_vit_b

from causal_sam.correction.corrector import Corrector, load_corrector
from causal_sam.correction.decoding import restrict_to_region
from causal_sam.correction.evidence import evidence
from causal_sam.correction.operators import apply_exact_operator
from causal_sam.correction.region import kept_part, region_gate
from causal_sam.errors import InputError
from causal_sam.imaging import DIRECTIONS, Volume
from causal_sam.notes.schema import Action, Intervention, Plan, Strength
from causal_sam.prompting.cache import EmbeddingCache
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam import CausalSam, load_model
from causal_sam.sam.embedding import Embedding
from causal_sam.sam.film import Film, film_channels, make_modulable
from causal_sam.text import TextEncoder, load_text_encoder

SHAPE = (72, 72, 16)
AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])


def ellipsoid(centre: tuple[float, ...], radii: tuple[float, ...]) -> NDArray[np.bool_]:
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"))
    return (((grid - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(radii, (3, 1, 1, 1))) ** 2).sum(0) <= 1


TRUTH = ellipsoid((30, 36, 8), (14, 12, 6))
BODY = ellipsoid((36, 36, 8), (33, 30, 60))
VOXELS = np.where(TRUTH, 120.0, np.where(BODY, 40.0, 0.0)) + np.random.default_rng(0).normal(0, 4, SHAPE)
VOLUME = Volume(VOXELS.astype(np.float32), AFFINE, "MR")


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return load_text_encoder()


@pytest.fixture(scope="module")
def corrector(text: TextEncoder) -> Corrector:
    model = load_model("compact", image_size=128, device="cpu")
    make_modulable(model)
    return Corrector(SliceEncoder(model, EmbeddingCache(2**28)), Film(text.dimension, film_channels(model)), text)


def correct(corrector: Corrector, mask: NDArray[np.bool_], act: Intervention, **others: NDArray[np.bool_]):
    return corrector.correct(VolumeSlices(VOLUME, "auto", 128), mask, act, others)


def dice(mask: NDArray[np.bool_]) -> float:
    return 2 * (mask & TRUTH).sum() / (mask.sum() + TRUTH.sum())


def test_a_missing_pole_is_found_again_slice_by_slice(corrector: Corrector) -> None:
    mask = TRUTH.copy()
    mask[:, :, 10:] = False
    act = Intervention(label="liver", action="expand", direction="superior")
    found = correct(corrector, mask, act)
    assert found.objection is None
    assert dice(found.mask) > dice(mask) + 0.05
    assert found.mask[:, :, 11].any()  # a slice that had nothing of it, beside one that had nothing either
    assert max(found.effect.gained_towards_ml, key=found.effect.gained_towards_ml.get) == "superior"
    region = region_gate(act, VOLUME, mask, {}).in_volume(SHAPE)
    assert not (found.mask ^ mask)[region == 0].any()


def test_too_large_a_mask_shrinks_to_its_border(corrector: Corrector) -> None:
    mask = ellipsoid((30, 36, 8), (18, 16, 6.5))
    found = correct(corrector, mask, Intervention(label="liver", action="shrink", strength="strong"))
    assert found.objection is None
    assert dice(found.mask) > dice(mask) + 0.05
    assert found.effect.gained_ml == 0


def test_what_the_guard_refuses_leaves_the_mask(corrector: Corrector) -> None:
    act = Intervention(label="liver", action="remove")
    found = correct(corrector, TRUTH, act)
    assert "nothing to change" in found.objection
    assert found.mask is TRUTH
    assert found.effect.lost_ml == 0


def test_exact_acts(corrector: Corrector) -> None:
    island, hole = ellipsoid((60, 36, 8), (4, 4, 2)), ellipsoid((30, 36, 8), (4, 4, 2))
    assert np.array_equal(correct(corrector, TRUTH | island, Intervention(label="a", action="remove")).mask, TRUTH)
    assert np.array_equal(
        correct(corrector, TRUTH | island, Intervention(label="a", action="keep_largest")).mask, TRUTH
    )
    assert np.array_equal(correct(corrector, TRUTH & ~hole, Intervention(label="a", action="fill")).mask, TRUTH)
    rough = TRUTH ^ (np.random.default_rng(1).random(SHAPE) < 0.3) & ellipsoid((30, 36, 8), (15, 13, 6.5)) & ~ellipsoid(
        (30, 36, 8), (13, 11, 5.5)
    )
    act = Intervention(label="a", action="smooth")
    region, smooth = region_gate(act, VOLUME, rough, {}), rough.copy()
    smooth[region.box] = apply_exact_operator(act, region, VOLUME, rough[region.box])
    assert dice(smooth) > dice(rough)
    kept = correct(corrector, TRUTH, Intervention(label="a", action="keep"))
    assert kept.objection is None
    assert np.array_equal(kept.mask, TRUTH)


def test_composition_never_goes_the_wrong_way() -> None:
    before, proposed = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    allowed = np.array([1, 1, 1, 1], bool)
    results = {
        action: restrict_to_region(Intervention(label="a", action=action, near="b"), allowed, before, proposed).tolist()
        for action in ("expand", "shrink", "exclude", "restyle")
    }
    assert results["expand"] == [1, 1, 1, 0]
    assert results["shrink"] == results["exclude"] == [0, 1, 0, 0]
    assert results["restyle"] == [0, 1, 1, 0]
    nowhere = np.zeros(4, bool)
    for action in ("expand", "shrink", "exclude", "restyle"):
        act = Intervention(label="a", action=action, near="b")
        assert np.array_equal(restrict_to_region(act, nowhere, before, proposed), before)


def test_models_whose_decoder_takes_one_slice_at_a_time(text: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CausalSam(build_sam_vit_b(), "vit_b").eval()
    make_modulable(model)
    # Encoding takes many seconds a slice, and is not what is looked at.
    monkeypatch.setattr(model, "encode", lambda images: Embedding(torch.zeros(1, 256, 64, 64)))
    corrector = Corrector(SliceEncoder(model, EmbeddingCache(2**28)), Film(text.dimension, film_channels(model)), text)
    act = Intervention(label="liver", action="shrink", slices=(7, 10))
    found = corrector.correct(VolumeSlices(VOLUME, "auto", 1024), TRUTH, act, {})
    assert not (found.mask ^ TRUTH)[:, :, :6].any()


def plan(*acts: Intervention) -> Plan:
    return Plan(interventions=acts)


WHOLE = tuple(slice(0, size) for size in SHAPE)
ISLAND = ellipsoid((60, 36, 8), (4, 4, 2))


def test_a_plan_is_carried_out_act_by_act(corrector: Corrector) -> None:
    acts = (Intervention(label="liver", action="remove"), Intervention(label="liver", action="expand"))
    small = ellipsoid((30, 36, 8), (11, 9, 5))
    seen = []
    outcome = corrector.carry_out(
        plan(*acts), VolumeSlices(VOLUME, "auto", 128), {"liver": small | ISLAND}, seen.append
    )
    assert [each.intervention for each in outcome.corrections] == list(acts)
    assert np.array_equal(outcome.corrections[0].mask, small)
    assert dice(outcome.masks["liver"]) > dice(small)
    assert seen[0] == 0
    assert seen == sorted(seen)


def test_what_a_label_gains_another_loses_unless_it_is_kept(corrector: Corrector) -> None:
    slices = VolumeSlices(VOLUME, "auto", 128)
    small = TRUTH & (np.arange(72)[:, None, None] < 36)  # i grows towards the left of the patient
    masks = {"liver": small, "stomach": TRUTH & ~small, "spleen": ISLAND}
    grow = Intervention(label="liver", action="expand", direction="left", strength="strong")
    asked = corrector.carry_out(plan(grow), slices, masks)
    assert "of stomach" in asked.question
    assert asked.masks == {}
    outcome = corrector.carry_out(plan(grow), slices, masks, confirm=True)
    assert outcome.question is None
    gained = outcome.masks["liver"] & ~small
    assert gained.any()
    assert np.array_equal(outcome.masks["stomach"], masks["stomach"] & ~gained)
    assert "spleen" not in outcome.masks
    voxel_ml = VOLUME.voxel_ml
    (correction,) = outcome.corrections
    assert correction.effect.taken_ml == pytest.approx({"stomach": (gained & masks["stomach"]).sum() * voxel_ml})
    assert "of it were stomach" in str(correction.effect)

    kept = corrector.carry_out(plan(grow, Intervention(label="stomach", action="keep")), slices, masks)
    assert "stomach" not in kept.masks
    assert not (kept.masks.get("liver", small) & masks["stomach"]).any()


def test_a_label_that_another_act_has_swallowed_is_told_of(corrector: Corrector) -> None:
    hole = ellipsoid((30, 36, 8), (2, 2, 1))
    masks = {"liver": TRUTH & ~hole, "cyst": hole}
    acts = Intervention(label="liver", action="fill"), Intervention(label="cyst", action="expand")
    outcome = corrector.carry_out(plan(*acts), VolumeSlices(VOLUME, "auto", 128), masks, confirm=True)
    assert not outcome.masks["cyst"].any()
    assert "Nothing of cyst is left" in outcome.corrections[1].objection


def test_what_has_no_mask_can_be_kept_and_nothing_else(corrector: Corrector) -> None:
    slices = VolumeSlices(VOLUME, "auto", 128)
    outcome = corrector.carry_out(plan(Intervention(label="spleen", action="keep")), slices, {"liver": TRUTH})
    assert outcome.masks == {}
    assert outcome.corrections[0].objection is None
    with pytest.raises(InputError, match="no mask of spleen yet"):
        corrector.carry_out(plan(Intervention(label="spleen", action="fill")), slices, {"liver": TRUTH})


def test_work_can_be_stopped(corrector: Corrector) -> None:
    def stop(done: int) -> None:
        raise InterruptedError

    act = Intervention(label="liver", action="expand")
    with pytest.raises(InterruptedError):
        corrector.carry_out(plan(act), VolumeSlices(VOLUME, "auto", 128), {"liver": TRUTH}, stop)


def test_a_model_that_was_not_trained_for_notes_does_exact_acts_alone(text: TextEncoder) -> None:
    model = load_model("compact", image_size=64, device="cpu")
    with torch.no_grad():  # not the decoder that the shipped modulation belongs to
        model.sam.mask_decoder.refine2.bias += 1
    corrector = load_corrector(SliceEncoder(model, EmbeddingCache(2**28)))
    slices = VolumeSlices(VOLUME, "auto", 64)
    act = Intervention(label="a", action="remove")
    assert np.array_equal(corrector.correct(slices, TRUTH | ISLAND, act, {}).mask, TRUTH)
    with pytest.raises(InputError, match=r"not trained to shrink masks by notes: train it with training/train_tci.py"):
        corrector.correct(slices, TRUTH, Intervention(label="a", action="shrink"), {})


def test_the_shipped_modulation_fits_the_shipped_model() -> None:
    model = load_model("compact", device="cpu")
    corrector = load_corrector(SliceEncoder(model, EmbeddingCache(2**28)))
    slices = VolumeSlices(VOLUME, "auto", model.image_size)
    cut = TRUTH & (np.arange(72)[:, None, None] < 36)
    found = corrector.correct(slices, cut, Intervention(label="liver", action="expand", direction="left"), {})
    assert found.objection is None
    assert dice(found.mask) > dice(cut) + 0.05


def test_what_is_thin_is_smoothed_less(corrector: Corrector, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"))
    tube = ((grid[0] - 30) ** 2 + (grid[1] - 36) ** 2 <= 6) & (abs(grid[2] - 8) <= 6)
    rough = tube.copy()
    rough[33, 36, 3:14:3] = True
    smooth = Intervention(label="aorta", action="smooth")
    done = correct(corrector, rough, smooth)
    assert done.objection is None
    assert (done.mask ^ tube).sum() < (rough ^ tube).sum()
    monkeypatch.setattr("causal_sam.correction.operators.SMOOTHING", (1.0,))
    assert "too thin" in correct(corrector, rough, smooth).objection


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_what_is_kept_or_locked_never_changes(corrector: Corrector, data: st.DataObject) -> None:
    """Random plans on labels that touch: by exact acts and by the decoder, confirmed."""
    left = TRUTH & (np.arange(72)[:, None, None] < 30)
    hole = ellipsoid((22, 36, 8), (3, 3, 2))
    masks = {"liver": left & ~hole, "stomach": TRUTH & ~left, "spleen": ISLAND, "gallbladder": hole}
    names = st.sampled_from(sorted(masks))
    act = st.builds(
        Intervention,
        label=names,
        action=st.sampled_from(get_args(Action)),
        direction=st.sampled_from([None, *DIRECTIONS]),
        near=names,
        slices=st.sampled_from([None, (4, 9)]),
        extent_mm=st.sampled_from([None, 6.0, 40.0]),
        strength=st.sampled_from(get_args(Strength)),
    )
    acts = data.draw(st.lists(act, min_size=1, max_size=3))
    locked = data.draw(st.sets(names, max_size=2))
    outcome = corrector.carry_out(plan(*acts), VolumeSlices(VOLUME, "auto", 128), masks, locked=locked, confirm=True)
    whole = {each.label for each in acts if each.action == "keep" and not (each.direction or each.slices)}
    assert not outcome.masks.keys() & (locked | whole)
    for each in acts:
        if each.action == "keep" and each.label in outcome.masks:
            lost = masks[each.label] & ~outcome.masks[each.label]
            assert not (lost & kept_part(each, VOLUME, masks[each.label], WHOLE)).any()
    after = masks | outcome.masks
    assert sum(mask.astype(int) for mask in after.values()).max() == 1


def test_a_label_that_is_kept_is_changed_by_no_act(corrector: Corrector) -> None:
    acts = Intervention(label="liver", action="shrink"), Intervention(label="liver", action="keep")
    outcome = corrector.carry_out(plan(*acts), VolumeSlices(VOLUME, "auto", 128), {"liver": TRUTH})
    assert outcome.masks == {}
    assert "is to stay as it is" in outcome.corrections[0].objection


def test_a_mask_that_fills_the_image_can_be_corrected(corrector: Corrector) -> None:
    found = correct(corrector, np.ones(SHAPE, bool), Intervention(label="liver", action="exclude", near="stomach"))
    assert found.mask.any()
    assert found.effect.gained_ml == 0


def test_a_side_that_is_kept_is_that_of_the_mask_before_the_plan(corrector: Corrector) -> None:
    keep = Intervention(label="liver", action="keep", direction="superior")
    below = Intervention(label="liver", action="shrink", direction="inferior", extent_mm=30)
    around = Intervention(label="liver", action="shrink", extent_mm=4)
    slices = VolumeSlices(VOLUME, "auto", 128)
    outcome = corrector.carry_out(plan(keep, below, around), slices, {"liver": TRUTH}, confirm=True)
    lost = TRUTH & ~outcome.masks["liver"]
    assert lost.any()
    assert not (lost & kept_part(keep, VOLUME, TRUTH, WHOLE)).any()


def test_a_label_is_deleted_once_it_is_confirmed(corrector: Corrector) -> None:
    slices, masks = VolumeSlices(VOLUME, "auto", 128), {"liver": TRUTH, "spleen": ISLAND}
    deletion = plan(Intervention(label="spleen", action="remove", slices=(1, 16)))
    asked = corrector.carry_out(deletion, slices, masks)
    assert asked.masks == {}
    assert "100% of its" in asked.question
    outcome = corrector.carry_out(deletion, slices, masks, confirm=True)
    assert outcome.question is None
    assert outcome.masks.keys() == {"spleen"}
    assert not outcome.masks["spleen"].any()


def test_millimetres_move_the_border_exactly(corrector: Corrector) -> None:
    slices = VolumeSlices(VOLUME, "auto", 128)
    shrink = Intervention(label="liver", action="shrink", direction="left", extent_mm=6)
    (found,) = corrector.carry_out(plan(shrink), slices, {"liver": TRUTH}).corrections
    assert np.flatnonzero(found.mask[:, 36, 8]).tolist() == list(range(16, 42))  # of 16 to 44: three voxels of 2 mm
    cut = TRUTH & (np.arange(16) < 10)
    grow = Intervention(label="liver", action="expand", direction="superior", extent_mm=15)
    (found,) = corrector.carry_out(plan(grow), slices, {"liver": cut}).corrections
    gained = found.mask & ~cut
    assert np.flatnonzero(gained.any((0, 1))).tolist() == [10, 11, 12]  # three slices of 5 mm, and nothing below
    assert np.diff(gained.sum((0, 1))[9:13])[1:].max() < 0


def test_a_mask_grows_where_the_context_expects_its_label(corrector: Corrector) -> None:
    noise = Volume((40 + np.random.default_rng(0).normal(0, 4, SHAPE)).astype(np.float32), AFFINE, "MR")
    slices = VolumeSlices(noise, "auto", 128)
    cut, act = TRUTH & (np.arange(16) < 9), Intervention(label="liver", action="expand", direction="superior")
    (expected,) = ScriptedContext(slices, None, {"liver": TRUTH}).segment_named(["liver"]).values()
    alone, informed = (corrector.correct(slices, cut, act, {}, expected=each).mask for each in (None, expected))
    assert dice(informed) > dice(alone) + 0.02
    assert not (informed & ~cut)[..., :9].any()


def test_other_labels_are_grown_into_only_if_the_note_names_them(corrector: Corrector) -> None:
    left = np.arange(72)[:, None, None] < 36
    masks, grow = {"stomach": TRUTH & ~left}, Intervention(label="liver", action="expand", direction="left")
    taken = [
        (corrector.correct(VolumeSlices(VOLUME, "auto", 128), TRUTH & left, act, masks).mask & masks["stomach"]).sum()
        for act in (grow, grow.model_copy(update={"near": "stomach"}))
    ]
    assert taken[0] < taken[1]


def test_several_acts_on_a_label_are_judged_in_all(corrector: Corrector) -> None:
    slices, small = VolumeSlices(VOLUME, "auto", 128), ellipsoid((30, 36, 8), (11, 9, 5))
    grow = [Intervention(label="liver", action="expand", extent_mm=3, direction=each) for each in DIRECTIONS]
    outcome = corrector.carry_out(plan(*grow), slices, {"liver": small})
    assert [each.doubt for each in outcome.corrections] == [None] * len(grow)
    assert outcome.masks == {}
    assert "In all, liver would gain" in outcome.question
    confirmed = corrector.carry_out(plan(*grow), slices, {"liver": small}, confirm=True)
    gained = (confirmed.masks["liver"] & ~small).sum() * VOLUME.voxel_ml
    assert confirmed.totals["liver"].gained_ml == pytest.approx(gained)
    one = corrector.carry_out(plan(grow[0]), slices, {"liver": small})
    assert (one.question, one.totals) == (None, {})


def test_large_boxes_are_decided_like_small_ones(corrector: Corrector, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = VolumeSlices(VOLUME, "auto", 128)
    cases = (
        (ellipsoid((30, 36, 8), (11, 9, 5)), Intervention(label="liver", action="expand")),
        (ellipsoid((30, 36, 8), (18, 16, 6.5)), Intervention(label="liver", action="shrink", strength="strong")),
    )
    for mask, act in cases:
        found = []
        for voxels, step_mm in ((10**9, 5.0), (1, 10.0)):
            for module in ("region", "evidence"):
                monkeypatch.setattr(f"causal_sam.correction.{module}.MAX_FULL_VOXELS", voxels)
            monkeypatch.setattr("causal_sam.correction.decoding.MAX_WHOLE_SLICES", 1)
            monkeypatch.setattr("causal_sam.correction.decoding.MAX_STEP_MM", step_mm)
            found.append(corrector.correct(slices, mask, act, {}).mask)
        assert dice(found[1]) > dice(found[0]) - 0.02
        assert dice(found[1]) > dice(mask) + 0.05


def test_a_leak_that_is_larger_than_the_organ_goes_where_somebody_clicked_the_organ(corrector: Corrector) -> None:
    organ, leak = ellipsoid((52, 36, 8), (8, 8, 4)), ellipsoid((26, 36, 8), (19, 15, 7))
    mask, act = organ | leak, Intervention(label="spleen", action="exclude", near="kidney")
    slices = VolumeSlices(VOLUME, "auto", 128)
    beside = evidence(act, region_gate(act, VOLUME, mask, {}), VOLUME, slices.window, mask, {}, [(52, 36, 8)])
    box = region_gate(act, VOLUME, mask, {}).box
    assert (beside[organ[box] & ~leak[box]] > 0).all()
    assert (beside[ellipsoid((22, 36, 8), (10, 8, 4))[box]] < 0).mean() > 0.5
    neighbour = {"kidney": leak & ~organ}
    informed = evidence(
        act, region_gate(act, VOLUME, mask, neighbour), VOLUME, slices.window, mask, neighbour, [(52, 36, 8)]
    )
    alone = evidence(act, region_gate(act, VOLUME, mask, neighbour), VOLUME, slices.window, mask, neighbour)
    assert informed[organ[box] & ~leak[box]].mean() > alone[organ[box] & ~leak[box]].mean()


def test_a_note_that_removes_a_clicked_place_has_to_be_confirmed(corrector: Corrector) -> None:
    slices = VolumeSlices(VOLUME, "auto", 128)
    act = Intervention(label="liver", action="remove", slices=(1, 16))
    voxel = tuple(int(v) for v in np.argwhere(TRUTH)[0])
    asked = corrector.carry_out(plan(act), slices, {"liver": TRUTH}, clicked={"liver": [voxel]})
    assert "lose a place that you clicked as part of it" in asked.question
    # A stray part that was clicked too may go: the note is plain, and the rest was clicked as well.
    stray = Intervention(label="liver", action="remove")
    clicks = {"liver": [voxel, (60, 36, 8)]}
    outcome = corrector.carry_out(plan(stray), slices, {"liver": TRUTH | ISLAND}, clicked=clicks)
    assert outcome.question is None
    assert not (outcome.masks["liver"] & ISLAND).any()
