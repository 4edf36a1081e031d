"""The benchmark of learning: the annotator, the training cases, and the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from causal_sam.benchmark.learning.pools import data_pool, divide, phantom_pool
from causal_sam.benchmark.learning.records import (
    AdapterUpdate,
    AnnotatedStructure,
    AutomaticScore,
    append_record,
    read_records,
)
from causal_sam.benchmark.learning.report import summarise_learning
from causal_sam.benchmark.learning.simulated_site import SimulatedSite
from causal_sam.benchmark.ood.protocols import Scan
from causal_sam.cli import app
from causal_sam.errors import InputError
from causal_sam.imaging.overlap import dice
from causal_sam.prompting import InteractiveSession, Predictor
from causal_sam.prompting.refinement import Refinement
from causal_sam.sam.loading import load_model
from causal_sam.simulation.annotator import annotate
from causal_sam.site.accepted import accepted_labels, read_accepted


@pytest.fixture(scope="module")
def scans(images: Path) -> list[Scan]:
    return data_pool(images, "auto", ["blocks/*/T1"], [], {})[0]


@pytest.fixture(scope="module")
def predictor(scans: list[Scan]) -> Predictor:
    model = load_model("compact", image_size=64, device="cpu")
    return Predictor(model, prefetch_slices=0).for_volume(scans[0].volume)


def test_an_annotator_clicks_until_it_is_right_and_then_no_more(predictor: Predictor, scans: list[Scan]) -> None:
    truth, spacing = scans[0].structures["block"], scans[0].volume.spacing
    session = InteractiveSession(predictor)
    clicks = annotate(session, "block", truth, spacing, 0.8, 20)
    assert 1 <= clicks < 20
    assert len(session.history.steps) == 1 + clicks
    assert dice(session.mask("block"), truth) >= 0.8
    assert annotate(session, "block", truth, spacing, 0.8, 20) == 0


class RecordedSession(InteractiveSession):
    """Keeps its clicks."""

    def add_point(self, label: str, voxel: Sequence[float], **options: bool) -> Refinement:
        self.__dict__.setdefault("clicks", []).append((voxel, options))
        return super().add_point(label, voxel, **options)


def test_masks_of_the_annotator_follow_from_the_clicks_alone(predictor: Predictor, scans: list[Scan]) -> None:
    truth = scans[0].structures["block"]
    session, repeated = RecordedSession(predictor), InteractiveSession(predictor)
    for each in (session, repeated):
        each.set_mask("block", np.roll(truth, 4, axis=0), automatic=True)
    assert annotate(session, "block", truth, scans[0].volume.spacing, 0.999, 3) is None
    assert all(options.keys() == {"positive"} for _, options in session.clicks)
    assert len({voxel for voxel, _ in session.clicks}) == 3
    for voxel, options in session.clicks:
        repeated.add_point("block", voxel, **options)
    assert np.array_equal(repeated.mask("block"), session.mask("block"))


def test_an_annotator_gives_up_after_the_last_click(predictor: Predictor, scans: list[Scan]) -> None:
    truth = np.zeros(scans[0].volume.shape, bool)
    truth[::2, ::2] = True  # nothing that a model would find
    session = InteractiveSession(predictor)
    assert annotate(session, "block", truth, scans[0].volume.spacing, 0.99, 2) is None
    assert not np.array_equal(session.mask("block"), truth)


def test_a_simulated_site_is_a_data_store_as_updates_read_it(tmp_path: Path, scans: list[Scan]) -> None:
    site = SimulatedSite(tmp_path / "site", scans)
    assert accepted_labels(site.folder) == []
    site.accept(1, {"block": scans[1].structures["block"]})
    (label,) = accepted_labels(site.folder)
    assert label.study == scans[1].patient
    volume, structures = read_accepted(label, {})
    np.testing.assert_allclose(volume.array, scans[1].volume.array, rtol=1e-5)
    np.testing.assert_allclose(volume.affine, scans[1].volume.affine)
    assert np.array_equal(structures["block"], scans[1].structures["block"])


def test_each_case_is_held_out_once_before_any_is_again(scans: list[Scan]) -> None:
    held = []
    for seed in range(3):
        others, apart = divide(scans, 1, seed)
        assert {s.patient for s in others} | {s.patient for s in apart} == {s.patient for s in scans}
        held += [scan.patient for scan in apart]
    assert len(set(held)) == 3
    with pytest.raises(InputError, match="at most 2 can be held out"):
        divide(scans, 3, 0)


def structure(accepted: int, case: str, label: str, clicks: int, *, held_out: bool = False) -> AnnotatedStructure:
    return AnnotatedStructure("random", 0, accepted, None, held_out, case, "d", label, 0.5, clicks, False)


def test_clicks_are_counted_by_case_and_forgetting_by_label(tmp_path: Path) -> None:
    records = [
        structure(0, "a", "liver", 5),
        structure(0, "a", "spleen", 3),
        structure(1, "b", "liver", 2),
        structure(0, "h", "liver", 8, held_out=True),
        structure(0, "h", "spleen", 4, held_out=True),
        structure(2, "h", "liver", 2, held_out=True),
        structure(2, "h", "spleen", 1, held_out=True),
        AutomaticScore("random", 0, 1, 1, "h", "d", "liver", 0.7),
        AutomaticScore("random", 0, 1, 1, "h", "d", "spleen", 0.8),
        AutomaticScore("random", 0, 2, 2, "h", "d", "liver", 0.9),
        AutomaticScore("random", 0, 2, 2, "h", "d", "spleen", 0.75),
        AdapterUpdate("random", 0, 1, 1, "published", 3.0),
        AdapterUpdate("random", 0, 2, 2, "rejected", 4.0),
    ]
    for record in records:
        append_record(tmp_path / "records.jsonl", record)
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"record": "Made", "ord')  # cut off
    assert read_records(tmp_path / "records.jsonl") == records
    found = summarise_learning(records, ["liver"])
    steps = found["steps"].set_index("accepted")
    assert [clicks.value for clicks in steps["clicks"].dropna()] == [8, 2]
    assert steps.loc[2, "dice"].value == pytest.approx((0.9 + 0.75) / 2)
    assert found["total"].value == 10
    assert found["ratio"] == pytest.approx(3 / 12)
    assert found["labels"].set_index("label").loc["spleen", "dice"].value == pytest.approx(0.75)
    assert found["forgotten"].value == pytest.approx(0.05)
    assert found["rejected"] == 1
    unmeasured = summarise_learning([record for record in records if isinstance(record, AnnotatedStructure)])
    assert (unmeasured["steps"]["clicks"].map(lambda clicks: clicks.value).tolist(), unmeasured["ratio"]) == ([8, 2], 1)


def run(images: Path, folder: Path, *more: str):
    pool = ["--data", str(images), "--source", "blocks/*/T1", "--held-out", "1", "--accept", "2", "--target", "0.8"]
    how = ["--epochs", "1", "--image-size", "64", "--most-clicks", "3"]
    return CliRunner().invoke(app, ["benchmark", "learning", *pool, *how, "-o", str(folder), *more])


@pytest.mark.slow
def test_a_whole_repetition_is_run_and_told(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    orders = ["--order", "random", "--order", "style_aware"]
    result = run(images, folder, *orders)
    assert result.exit_code == 0, result.output
    every = read_records(folder / "records.jsonl")
    assert {r.order for r in every} == {"random", "style_aware"}
    records = [r for r in every if r.order == "random"]
    assert [r.accepted for r in records if isinstance(r, AdapterUpdate)] == [1, 2]
    apart = [r for r in records if isinstance(r, AnnotatedStructure) and r.held_out]
    assert [r.accepted for r in apart] == [0, 2]
    worked = [r for r in records if isinstance(r, AnnotatedStructure) and not r.held_out]
    assert {r.case for r in worked}.isdisjoint({r.case for r in apart})
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["orders"]["random"]["structures"] == summary["orders"]["style_aware"]["structures"] == 2
    clicks = dict.fromkeys(summary["orders"], 0)
    for record in every:
        if isinstance(record, AnnotatedStructure) and not record.held_out:
            clicks[record.order] += record.clicks
    saved = summary["fewer clicks than random"]["of a repetition"]["style_aware"]["value"]
    assert saved == clicks["random"] - clicks["style_aware"]
    for name in ("report.md", "structures.csv", "found.csv", "updates.csv", "learning.png"):
        assert (folder / name).stat().st_size > 0
    assert not any((folder / "sites").iterdir())
    again = run(images, folder, *orders)  # nothing is done twice
    assert again.exit_code == 0
    assert read_records(folder / "records.jsonl") == every
    other = run(images, folder, "--target", "0.7")
    assert other.exit_code == 2
    assert "was begun with target" in other.output


def test_generated_patients_differ_and_are_scanned_in_the_styles_in_turn() -> None:
    scans, labels = phantom_pool(3, ["mr-t2", "ct-low-dose"])
    assert [scan.domain for scan in scans] == ["mr-t2", "ct-low-dose", "mr-t2"]
    assert [scan.acquisition.modality for scan in scans] == ["MR", "CT", "MR"]
    assert len({scan.patient for scan in scans}) == 3
    assert all(scan.structures[name].any() for scan in scans for name in labels)
    assert (scans[0].structures["liver"] != scans[2].structures["liver"]).any()
    with pytest.raises(InputError, match="no style 'mr-t3'; there are ct-portal-venous, ct-low-dose, mr-t1, mr-t2"):
        phantom_pool(3, ["ct-low-dose", "mr-t3"])


def test_without_images_it_is_said_how_to_get_some(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["benchmark", "learning", "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "Say with --data where the images are, or generate some with --pool phantom" in " ".join(
        result.output.split()
    )
    assert not (tmp_path / "out").exists()


def test_more_cases_than_there_are_cannot_be_asked_for(images: Path, tmp_path: Path) -> None:
    result = run(images, tmp_path / "out", "--accept", "3")
    assert result.exit_code == 2
    assert "3 cases to accept and 1 held out are more than the 3 there are" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()
