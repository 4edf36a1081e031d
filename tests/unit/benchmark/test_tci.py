"""Notes about simulated errors: how they are written, what is measured, and the whole command on a small image."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from causal_sam.benchmark.cases import LabelledVolume
from causal_sam.benchmark.interactive.targets import Target
from causal_sam.benchmark.masks import save_mask
from causal_sam.benchmark.tci import trials
from causal_sam.benchmark.tci.cases import generated_cases
from causal_sam.benchmark.tci.report import summarise_trials, trial_table, write_tci_report
from causal_sam.benchmark.tci.trials import Trial, TrialRunner, another_act, changed_outside, with_other_texts
from causal_sam.cli import app
from causal_sam.correction.corrector import MODULATED, Correction
from causal_sam.correction.guard import Effect
from causal_sam.errors import InputError
from causal_sam.imaging import DIRECTIONS, Volume
from causal_sam.notes import Intervention, NoteRequest, load_interpreter
from causal_sam.prompting import EmbeddingCache, Predictor
from causal_sam.sam import CausalSam, load_model
from causal_sam.sam.adapter_bundle import AdapterBundle, FilmPart
from causal_sam.sam.film import Film, film_channels, make_modulable
from causal_sam.simulation.errors import KINDS
from causal_sam.simulation.notes import notes_for, write_note
from causal_sam.text import TextEncoder, load_text_encoder

SHAPE = (64, 56, 10)
AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])
KIND_NUMBER = {kind: number for number, kind in enumerate(KINDS)}
STRENGTHS = ("slight", "moderate", "strong")


def ellipsoid(centre: tuple[float, ...], radii: tuple[float, ...]) -> NDArray[np.bool_]:
    grid = np.stack(np.mgrid[tuple(map(slice, SHAPE))])
    return (((grid - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(radii, (3, 1, 1, 1))) ** 2).sum(0) <= 1


LIVER = ellipsoid((22, 28, 5), (14, 16, 4))
SPLEEN = ellipsoid((44, 30, 5), (10, 11, 3)) & ~LIVER
VOXELS = np.where(LIVER, 130.0, np.where(SPLEEN, 90.0, 40.0)) + np.random.default_rng(0).normal(0, 4, SHAPE)
CASE = LabelledVolume(
    "test",
    "one",
    Volume(VOXELS.astype(np.float32), AFFINE, "MR"),
    {"liver": LIVER, "spleen": SPLEEN},
    ("liver", "spleen"),
)


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return load_text_encoder()


@pytest.fixture(scope="module")
def model() -> CausalSam:
    model = load_model("compact", image_size=128, device="cpu")
    make_modulable(model)
    return model


def trials_of(model: CausalSam, film: Film, text: TextEncoder, kind: str, errors: int = 1) -> list[Trial]:
    predictor = Predictor(model, EmbeddingCache(2**28), prefetch_slices=0)
    bench = TrialRunner(predictor, film.eval(), text, load_interpreter().invoke)
    return list(bench.trials(CASE, errors, SPLEEN.sum() + 1, KIND_NUMBER[kind], 0))


def acts_of(label: str) -> list[Intervention]:
    """Return the interventions that simulated errors of a label may need."""
    sized = [
        Intervention(label=label, action=action, strength=strength, direction=direction)
        for action in ("expand", "shrink")
        for strength in STRENGTHS
        for direction in (None, *DIRECTIONS)
    ]
    exact = [Intervention(label=label, action=each) for each in ("remove", "keep_largest", "fill", "smooth", "restyle")]
    return [*sized, *exact, Intervention(label=label, action="exclude", near="stomach")]


@pytest.mark.parametrize("label", ["liver", "left kidney", "tumor core"])
def test_every_act_has_notes_that_are_read_rightly(label):
    interpreter = load_interpreter()
    right = total = 0
    for act in acts_of(label):
        notes = notes_for(act)
        assert act.sentence not in notes  # what the modulation was trained with
        read = [interpreter.invoke(NoteRequest(note, (label,))).plan.interventions == (act,) for note in notes]
        assert any(read), act.sentence
        right, total = right + sum(read), total + len(read)
    assert right / total > 0.85


def test_notes_are_drawn_and_say_lateral_where_it_is_known():
    act = Intervention(label="left kidney", action="shrink", direction="left")
    notes = notes_for(act)
    assert write_note(act, np.random.default_rng(0)) in notes
    assert {write_note(act, np.random.default_rng(seed)) for seed in range(50)} > {notes[0]}
    assert any("lateral" in note for note in notes)
    assert not any("medial" in note for note in notes)
    assert not any("lateral" in note for note in notes_for(act.model_copy(update={"label": "tumor"})))


def test_the_control_encodes_other_texts(text):
    swapped = with_other_texts(text, {"expand the liver": "smooth the boundary of the spleen"})
    found = swapped.encode(["expand the liver", "shrink the liver"])
    expected = text.encode(["smooth the boundary of the spleen", "shrink the liver"])
    torch.testing.assert_close(found, expected)
    assert (swapped.dimension, swapped.fingerprint) == (text.dimension, text.fingerprint)


@pytest.mark.parametrize("action", sorted(MODULATED))
def test_the_control_is_another_act_on_the_same_label(action):
    act = Intervention(label="liver", action=action, near="spleen")
    rng = np.random.default_rng(0)
    drawn = [another_act(act, ["spleen"], rng) for _ in range(40)]
    assert {each.action for each in drawn} == MODULATED - {action}
    assert {each.label for each in drawn} == {"liver"}
    assert "exclude" not in {another_act(act, [], rng).action for _ in range(40)}


def test_voxels_outside_of_the_region_are_counted():
    act = Intervention(label="liver", action="expand", direction="superior")
    grown = LIVER.copy()
    grown[22, 28, 9] = True  # above it
    far = grown.copy()
    far[60, 50, :3] = True

    def done(mask: NDArray[np.bool_]) -> Correction:
        return Correction(act, mask, Effect("liver", 0, 0), None)

    masks = {"liver": LIVER, "spleen": SPLEEN}
    assert changed_outside([done(LIVER), done(grown)], CASE.volume, masks) == 0
    assert changed_outside([done(grown), done(far)], CASE.volume, masks) == 3


def test_exact_acts_are_undone_to_the_voxel_and_have_no_controls(model, text, monkeypatch):
    monkeypatch.setattr(trials, "write_note", lambda act, rng: act.sentence)
    film = Film(text.dimension, film_channels(model))
    island, hole = (trials_of(model, film, text, kind)[0] for kind in ("island", "hole"))
    for trial, kind in ((island, "island"), (hole, "hole")):
        assert (trial.kind, trial.structure, trial.modulated) == (kind, "liver", False)
        assert trial.read == trial.wanted, (trial.note, trial.read)
        assert trial.before < trial.after == 1
        assert (trial.acts, trial.refused, trial.objection, trial.outside) == (1, 0, "", 0)
        assert trial.after_other_text is None
        assert trial.after_no_text is None
        assert trial.seconds > 0
        assert trial.click_seconds > 0


def test_the_decoder_sees_the_text_that_the_trial_says(model, text):
    """Without training no text does anything; with another generator the control differs."""
    untrained = Film(text.dimension, film_channels(model))
    (same,) = trials_of(model, untrained, text, "missing pole")
    assert same.after == same.after_other_text == same.after_no_text
    assert same.after > same.before
    assert same.outside == 0
    torch.manual_seed(0)
    other = Film(text.dimension, film_channels(model))
    torch.nn.init.normal_(other.to_levels.weight, std=0.3)
    (differs,) = trials_of(model, other, text, "missing pole")
    assert (differs.note, differs.before, differs.after_no_text) == (same.note, same.before, same.after_no_text)
    assert len({differs.after, differs.after_other_text, differs.after_no_text}) == 3


def test_kinds_take_turns_and_small_structures_are_left_out(model, text):
    found = trials_of(model, Film(text.dimension, film_channels(model)), text, "island", errors=2)
    assert [trial and (trial.structure, trial.kind) for trial in found] == [("liver", "island"), ("liver", "hole")]


def test_a_note_that_cannot_be_carried_out_changes_nothing(model, text, monkeypatch):
    monkeypatch.setattr(trials, "write_note", lambda act, rng: "liver undersegmented in slices 70 to 80")
    (trial,) = trials_of(model, Film(text.dimension, film_channels(model)), text, "under")
    assert "slices 1 to 10" in trial.objection
    assert (trial.acts, trial.refused, trial.after, trial.after_other_text) == (1, 1, trial.before, None)
    assert trial.read != trial.wanted


def test_islands_and_holes_need_structures_that_have_none_by_nature():
    two_parts, hollow = LIVER | SPLEEN, LIVER & ~ellipsoid((22, 28, 5), (4, 4, 1))
    two_parts[34:38] = False
    assert [trials.is_applicable(kind, two_parts) for kind in ("island", "hole", "under")] == [False, True, True]
    assert [trials.is_applicable(kind, hollow) for kind in ("island", "hole", "under")] == [True, False, True]


TRIAL = Trial(
    group="g",
    case="a",
    structure="liver",
    kind="under",
    neighbours_known=True,
    note="too small",
    wanted="expand the liver",
    read="expand the liver",
    modulated=True,
    acts=1,
    refused=0,
    objection="",
    doubt="",
    before=0.8,
    after=0.9,
    after_other_text=0.85,
    after_no_text=0.8,
    right=0.9,
    outside=0,
    seconds=0.2,
    click_seconds=0.1,
)


def test_the_summary_says_what_the_trials_say():
    exact = {"modulated": False, "kind": "hole", "after_other_text": None, "after_no_text": None}
    made = [
        TRIAL,
        replace(TRIAL, case="b", after=0.7, after_other_text=0.8, refused=1, seconds=0.4),
        replace(TRIAL, case="c", read="which?", after=0.8, acts=0),
        replace(TRIAL, case="c", after=1.0, outside=2, **exact),
    ]
    records = {record["what"]: record for record in summarise_trials(trial_table(made)).to_dict("records")}
    assert list(records) == ["all", "decided by the model", "exact operators", "g", "under", "hole"]
    every, decided = records["all"], records["decided by the model"]
    assert (every["notes"], every["cases"], every["outside"]) == (4, 3, 2)
    assert (every["read"], every["raised"], every["raised_if_read"]) == (0.75, 0.5, pytest.approx(2 / 3))
    assert (every["acts"], every["refused"]) == (3, pytest.approx(1 / 3))
    # Cases weigh the same: 10, -10, and the mean of 0 and 20.
    assert every["gain"].value == pytest.approx(10 / 3)
    assert decided["gain"].value == pytest.approx(0, abs=1e-9)
    assert decided["own_minus_other"].value == pytest.approx((5 - 10 - 5) / 3)
    assert decided["own_minus_none"].value == pytest.approx(0, abs=1e-9)
    assert records["exact operators"]["own_minus_other"] is None
    assert decided["seconds_median"] == 0.2
    assert every["clicks"] == pytest.approx(2)


def test_a_report_needs_trials(tmp_path):
    with pytest.raises(InputError, match="Nothing was measured"):
        write_tci_report(tmp_path / "report", [], {})


def test_generated_patients_are_none_that_others_use():
    (first,), (second,) = ([read() for read in generated_cases(1, seed)] for seed in (0, 1))
    assert (first.group, first.case) == ("generated CT", "ct-portal-venous 50000")
    assert len(first.structures) == 8
    assert all(mask.any() for mask in first.structures.values())
    assert not np.array_equal(first.structures["liver"], second.structures["liver"])


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["benchmark", "tci", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command_writes_a_report(model, text, tmp_path: Path):
    bundle, data, output = tmp_path / "bundle.safetensors", tmp_path / "set", tmp_path / "report"
    untrained = Film(text.dimension, film_channels(model))
    AdapterBundle(film=FilmPart.from_training(untrained, model, text.fingerprint)).write(bundle)
    data.mkdir()
    nibabel.save(nibabel.Nifti1Image(VOXELS.astype(np.float32), AFFINE), data / "one.nii.gz")
    nibabel.save(nibabel.Nifti1Image((LIVER + 2 * SPLEEN).astype(np.uint8), AFFINE), data / "one_label.nii.gz")
    labels = {"1": "liver", "2": "spleen"}
    entry = {"set": "test", "case": "one", "image": "one.nii.gz", "label": "one_label.nii.gz", "labels": labels}
    (data / "cases.json").write_text(json.dumps([entry]))
    cut = LIVER & (np.arange(SHAPE[2]) < 7)
    save_mask(tmp_path / "masks", CASE.volume, Target("test", "one", "liver", None, LIVER), cut)
    options = ["--cases", 0, "--data", data, "--errors", 10, "--label", "liver", "--image-size", 128]
    options += ["--adapter-bundle", bundle, "--masks", tmp_path / "masks"]
    code, said = run(*options, "-o", output)
    assert code == 0, said
    assert "notes on 1 cases" in said
    with (output / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    simulated = [kind for kind in KINDS if kind != "misled by style"]
    assert [row["kind"] for row in rows] == [*simulated, "real: missing pole"]
    assert rows[-1]["wanted"] == "expand the liver strongly on its superior side"
    assert {row["structure"] for row in rows} == {"liver"}
    assert {row["outside"] for row in rows} == {"0"}
    summary = json.loads((output / "summary.json").read_text())
    expected = "--cases 0 --data set --label liver --masks masks --errors 10 --min-voxels 200 --seed 0 --model compact"
    assert summary["settings"]["command"].startswith(f"causal-sam benchmark tci {expected}")
    (first, *_) = summary["summary"]
    assert (first["what"], first["notes"], first["outside"]) == ("all", 10, 0)
    assert first["gain"]["value"] == pytest.approx(
        100 * np.mean([float(r["after"]) - float(r["before"]) for r in rows])
    )
    report = (output / "report.md").read_text()
    assert "| island | 1 | 1 |" in report
    assert "own minus other" in report
    assert (output / "dice.png").stat().st_size > 1000
    with (output / "summary.csv").open() as file:
        assert next(csv.DictReader(file))["what"] == "all"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--cases", 0], "There is nothing to measure on"),
        (["--label", "liver"], "give their folder with --data"),
        (["--masks", "nowhere"], "give their folder with --data"),
        (["--errors", 0], "There is nothing to correct"),
        (["--cases", 2000], "At most 1000 abdomens"),
        (["--cases", 1, "--model", "vit_x"], "vit_x"),
        (["--cases", 1, "--adapter-bundle", "nowhere"], "There is no adapter bundle nowhere"),
    ],
)
def test_mistakes_are_said_in_a_sentence(tmp_path, options, sentence):
    code, said = run("-o", tmp_path / "report", *options)
    assert code == 2, said
    assert sentence in " ".join(said.split())
    assert not (tmp_path / "report").exists()
