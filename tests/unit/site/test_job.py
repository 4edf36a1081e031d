"""Training sets of updates: new, held-out, replayed and omitted cases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kill_store import training, weights
from tiny_site import LEFT, PLACES, RIGHT, SHAPE, TinySite, quick

from causal_sam.sam.loading import load_model
from causal_sam.site import training_set as jobs
from causal_sam.site.adapter_store import AdapterStore
from causal_sam.site.case_files import load_case, load_slices
from causal_sam.site.paths import UpdateError
from causal_sam.site.publish_gate import is_held_out
from causal_sam.site.training_set import Nothing, TrainingSet, load_training_set, prepare
from causal_sam.site.versions import UsedLabel

SWAPPED = {RIGHT: RIGHT, LEFT: LEFT}


@pytest.fixture
def tiny(tmp_path: Path) -> TinySite:
    return TinySite(tmp_path)


@pytest.fixture(scope="module")
def encoder_hash() -> str:
    return load_model("compact", image_size=64, device="cpu").encoder_hash()


def prepared(tiny: TinySite, values: Mapping[str, int] | None = None, **changes: Any) -> TrainingSet | Nothing:
    folder = tiny.store / "job"
    tiny.store.mkdir(exist_ok=True)
    return prepare(tiny.site(values=values or {}), quick(**changes), folder, lambda *_, **__: None)


def learn(tiny: TinySite, job: TrainingSet, encoder_hash: str, **changes: Any) -> None:
    """Publish a version as an update does, but without training."""
    cases = {
        case.image_id: {"names": list(case.names), "style": case.style, "others": list(case.others)}
        for case in job.earlier
    }
    made = {"labels": job.used, "names": job.names, "encoder_hash": encoder_hash, "config": {"cases": cases}} | changes
    store = AdapterStore(tiny.store)
    store.publish(store.add(weights(), training(store.current(), **made)).number)


def ids(job: TrainingSet) -> list[str]:
    return [case.record.image_id for case in job.cases]


def slices_of(tiny: TinySite, job: TrainingSet, number: int):
    case = job.cases[number]
    return load_slices(tiny.store / "job", case.files, [name in case.record.names for name in job.names])


def test_the_first_update_learns_all_that_was_accepted(tiny: TinySite) -> None:
    for number in range(3):
        tiny.accept(number)
    job = prepared(tiny)
    assert ids(job) == ["case00", "case01", "case02"]
    assert (job.parent, job.continues, job.names) == (None, False, (LEFT, RIGHT))
    assert [case.weight for case in job.cases] == [pytest.approx(1 / 3)] * 3
    assert [case.slices for case in job.cases] == [{LEFT: SHAPE[2], RIGHT: SHAPE[2]}] * 3
    assert (job.held_out, len(job.measured_training), job.skipped) == ((), 3, ())
    assert {label.image for label in job.used} == set(ids(job))
    assert load_training_set(tiny.store / "job") == job
    case = slices_of(tiny, job, 0)
    assert case.slices.array.shape == case.label_map.shape == (SHAPE[2], 58, 64)
    assert np.unique(case.label_map).tolist() == [0, 1, 2]
    assert case.known.tolist() == [True, True]
    volume, structures = load_case(tiny.store / "job", job.measured_training[0])
    assert volume.shape == SHAPE
    assert {name: bool(mask.any()) for name, mask in structures.items()} == {LEFT: True, RIGHT: True}


def test_names_of_one_meaning_are_one_label_under_the_spelling_that_came_first(tiny: TinySite) -> None:
    tiny.accept(0, {LEFT: "hepar"})
    tiny.accept(1, {LEFT: "Liver", RIGHT: "spleen"})
    tiny.accept(2, {RIGHT: "liver", LEFT: "LIVER"})  # two segments that mean the same
    job = prepared(tiny)
    assert job.names == ("hepar", "spleen")
    assert [case.record.names for case in job.cases] == [("hepar",), ("hepar", "spleen"), ("hepar",)]
    assert [slices_of(tiny, job, n).known.tolist() for n in range(3)] == [[True, False], [True, True], [True, False]]
    both = slices_of(tiny, job, 2).label_map > 0
    assert both.sum() > 1.5 * (slices_of(tiny, job, 0).label_map > 0).sum()


def test_a_study_is_on_one_side_as_a_whole(tiny: TinySite) -> None:
    patients = [f"patient {n}" for n in range(12)]
    for number in range(24):
        tiny.accept(number, PatientID=patients[number // 2])
    job = prepared(tiny, validation=0.4)
    apart = [n for n in range(24) if is_held_out(patients[n // 2], 0.4)]
    assert 0 < len(apart) < 24
    assert ids(job) == [f"case{n:02d}" for n in range(24) if n not in apart]
    assert not job.measured_training
    assert len(job.held_out) == min(len(apart), jobs.MAX_MEASURED)
    assert {label.image for label in job.used} == set(ids(job))


def test_what_is_never_learnt_is_not_measured(tiny: TinySite) -> None:
    learned, apart = (
        [n for n in range(40) if is_held_out(f"case{n:02d}", 0.4) == held_out][:2] for held_out in (False, True)
    )
    for number in learned:
        tiny.accept(number, {LEFT: LEFT})
    tiny.accept(apart[0], {RIGHT: RIGHT})
    job = prepared(tiny, validation=0.4)
    assert (job.names, len(job.measured_training), len(job.held_out)) == ((LEFT,), 2, 0)
    tiny.accept(apart[1])
    job = prepared(tiny, validation=0.4)
    assert (job.names, len(job.measured_training), len(job.held_out)) == ((LEFT,), 0, 1)
    assert set(load_case(tiny.store / "job", job.held_out[0])[1]) == {LEFT}


def test_a_label_that_no_held_out_case_has_is_measured_on_learnt_ones(tiny: TinySite) -> None:
    learned, apart = ([n for n in range(40) if is_held_out(f"case{n:02d}", 0.4) == side][:3] for side in (False, True))
    tiny.accept(learned[0])
    tiny.accept(learned[1], {LEFT: LEFT})
    tiny.accept(learned[2], {RIGHT: RIGHT})
    tiny.accept(apart[0], {LEFT: LEFT})
    job = prepared(tiny, validation=0.4)
    assert (len(job.held_out), len(job.measured_training)) == (1, 2)
    measured = [set(load_case(tiny.store / "job", files)[1]) for files in (*job.held_out, *job.measured_training)]
    assert measured == [{LEFT}, {RIGHT}, {RIGHT}]


def test_only_what_is_new_is_learnt_and_some_of_the_rest_shown_again(tiny: TinySite, encoder_hash: str) -> None:
    for number in range(6):
        tiny.accept(number)
    learn(tiny, prepared(tiny), encoder_hash)
    nothing = prepared(tiny)
    assert isinstance(nothing, Nothing)
    assert nothing.why == "No label was accepted since v0001 that can be learned from: it stays in use."
    tiny.accept(6, {RIGHT: "third"})
    job = prepared(tiny, replay=0.6)
    assert (job.parent, job.continues, job.names) == (1, True, (LEFT, RIGHT, "third"))
    assert ids(job)[0] == "case06"
    assert len(job.cases) == 5  # the new one, and the fewest that are shown again
    assert [case.weight for case in job.cases] == [pytest.approx(0.4), *[pytest.approx(0.15)] * 4]
    assert slices_of(tiny, job, 0).known.tolist() == [False, False, True]
    assert slices_of(tiny, job, 1).known.tolist() == [True, True, False]
    assert len(job.used) == len(job.earlier) == 7
    assert len(prepared(tiny, replay=0.0).cases) == 1


def test_a_label_that_was_saved_anew_is_new(tiny: TinySite, encoder_hash: str) -> None:
    for number in range(2):
        tiny.accept(number)
    first = prepared(tiny)
    learn(tiny, first, encoder_hash)
    tiny.accept(1, SWAPPED)
    job = prepared(tiny)
    assert ids(job) == ["case01", "case00"]
    assert {label.image: label.sha256 for label in job.used} != {label.image: label.sha256 for label in first.used}
    assert len(job.used) == 2


def test_a_version_of_another_model_is_no_parent_but_is_replaced(tiny: TinySite) -> None:
    tiny.accept(0)
    learn(tiny, prepared(tiny), "0" * 64)
    job = prepared(tiny)
    assert (job.parent, job.continues, ids(job)) == (1, False, ["case00"])


def test_a_version_that_does_not_say_what_it_has_seen_is_gone_on_from(tiny: TinySite, encoder_hash: str) -> None:
    tiny.accept(0)
    learn(tiny, prepared(tiny), encoder_hash, config={})
    tiny.accept(1)
    assert ids(prepared(tiny)) == ["case01"]


def test_chosen_labels_are_learnt_and_the_others_later(tiny: TinySite, encoder_hash: str) -> None:
    for number in range(2):
        tiny.accept(number)
    job = prepared(tiny, labels=(LEFT.upper(),))
    assert job.names == (LEFT,)
    assert job.cases[0].record.others == (RIGHT,)
    learn(tiny, job, encoder_hash)
    assert isinstance(prepared(tiny, labels=(LEFT,)), Nothing)
    later = prepared(tiny, labels=(RIGHT,))
    # Labels of earlier versions are still learned and measured, or they would be forgotten.
    assert (later.names, ids(later)) == ((LEFT, RIGHT), ["case00", "case01"])
    assert set(load_case(tiny.store / "job", later.measured_training[0])[1]) == {LEFT, RIGHT}
    assert prepared(tiny).names == (LEFT, RIGHT)
    learn(tiny, later, encoder_hash)
    assert isinstance(prepared(tiny), Nothing)


def test_chosen_labels_that_nobody_drew(tiny: TinySite) -> None:
    tiny.accept(0)
    nothing = prepared(tiny, labels=("aorta",))
    assert isinstance(nothing, Nothing)
    assert "None of the labels that are to be learned was drawn in case00." in nothing.why


def test_what_cannot_be_used_is_left_out_and_comes_again(tiny: TinySite, encoder_hash: str) -> None:
    for number in range(3):
        tiny.accept(number)
    good = (tiny.labels / "case01.nii.gz").read_bytes()
    (tiny.labels / "case01.nii.gz").write_bytes(good[:50])
    (tiny.data / "case02.nii.gz").unlink()
    job = prepared(tiny)
    assert ids(job) == ["case00"]
    assert {skip.image_id for skip in job.skipped} == {"case01", "case02"}
    assert {label.image for label in job.used} == {"case00"}
    learn(tiny, job, encoder_hash)
    nothing = prepared(tiny)
    assert "None of the new labels can be learned from. The first of them: " in nothing.why
    (tiny.labels / "case01.nii.gz").write_bytes(good)
    assert ids(prepared(tiny))[0] == "case01"


def test_why_there_is_nothing_to_learn(tiny: TinySite) -> None:
    assert prepared(tiny).why == "No label has been accepted yet: save one with the tag final."
    apart = next(n for n in range(40) if is_held_out(f"case{n:02d}", 0.2))
    tiny.accept(apart)
    assert prepared(tiny, validation=0.2).why.startswith("Of 1 accepted labels 1 are held out to measure, and 0 cannot")


def test_too_many_labels_are_said_to_be_too_many(tiny: TinySite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_LABELS", 1)
    tiny.accept(0)
    with pytest.raises(UpdateError, match=r"At most 1 labels can be learned: choose some of them with labels\."):
        prepared(tiny)


def test_what_a_killed_update_left_is_used_if_it_would_learn_the_same(tiny: TinySite) -> None:
    tiny.accept(0)
    job = prepared(tiny)
    (tiny.store / "job" / "checkpoint.pt").write_bytes(b"far")

    def is_used(**changes: Any) -> bool:
        prepared(tiny, **changes)
        return (tiny.store / "job" / "checkpoint.pt").exists()

    assert is_used()
    assert prepared(tiny) == job
    assert not is_used(learning_rate=1e-4)
    for change in (
        lambda: tiny.accept(1),
        lambda: tiny.accept(0, SWAPPED),
        lambda: (tiny.data / "case01.nii.gz").unlink(),
    ):
        prepared(tiny)
        (tiny.store / "job" / "checkpoint.pt").write_bytes(b"far")
        assert is_used()
        change()
        assert not is_used()
    prepared(tiny)
    (tiny.store / "job" / "checkpoint.pt").write_bytes(b"far")
    assert not is_used(values={LEFT: 3})


def test_a_description_that_was_cut_off_is_no_job(tiny: TinySite) -> None:
    tiny.accept(0)
    job = prepared(tiny)
    path = tiny.store / "job" / jobs.DESCRIPTION
    path.write_bytes(path.read_bytes()[:100])
    (tiny.store / "job" / "checkpoint.pt").write_bytes(b"far")
    assert prepared(tiny) == job
    assert not (tiny.store / "job" / "checkpoint.pt").exists()


def test_values_are_those_of_the_label_set_where_the_client_did_not_say_them(tiny: TinySite) -> None:
    tiny.accept(0)
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[PLACES[LEFT]] = 7
    tiny.save("case00", drawn, {})
    assert prepared(tiny, values={"liver": 7}).names == ("liver",)
    told = json.loads((tiny.store / "job" / f"{load_training_set(tiny.store / 'job').cases[0].files}.json").read_text())
    assert told["spacing"][0] == 6.0


def test_used_labels_are_those_of_the_files(tiny: TinySite) -> None:
    tiny.accept(0)
    digest = tiny.digests()["labels/final/case00.nii.gz"]
    assert prepared(tiny).used == (UsedLabel("case00", "final", digest),)
