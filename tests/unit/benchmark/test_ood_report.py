"""Runs in a file, statistics against closed cases, and the report of a benchmark across domains."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from causal_sam.benchmark.ood.plots import Example, FeatureSet, principal_components
from causal_sam.benchmark.ood.report import score_table, summarise_protocol, write_ood_report
from causal_sam.benchmark.ood.results import Probe, Run, Score, append_run, read_runs
from causal_sam.benchmark.statistics import mean, median, paired_differences
from causal_sam.errors import InputError

DOMAINS = {"T1 3 T": "none", "T1 7 T": "scanner", "T2 3 T": "modality"}
METHODS = {"+ LAD": 0.05, "SAM + adapters": 0.0, "U-Net": -0.1}


def difficulty(seed: int, domain: str, case: int) -> float:
    return float(np.random.default_rng([seed, list(DOMAINS).index(domain), case]).uniform(0.4, 0.9))


def a_run(method: str, seed: int = 0, cases: int = 3, **changes) -> Run:
    scores = tuple(
        Score(domain, shift, f"p{case}", structure, difficulty(seed, domain, case) + METHODS[method], 2.0, 0.9)
        for domain, shift in DOMAINS.items()
        for case in range(cases)
        for structure in ("liver", "aorta")
    )
    probes = (Probe("seen styles", 0.5, 0.25, 40, 4),)
    return replace(Run("brain", seed, method, scores, probes, 0.2 * (1 + seed), 0.04), **changes)


def every_run(seeds: int = 3, **changes) -> list[Run]:
    return [a_run(method, seed, **changes) for seed in range(seeds) for method in METHODS]


def rows_of(groups: dict[tuple[int, str], list[float]]) -> pd.DataFrame:
    """Return a table of values by (seed, case)."""
    rows = [(seed, case, value) for (seed, case), values in groups.items() for value in values]
    return pd.DataFrame(rows, columns=["seed", "case", "value"])


def row(table: pd.DataFrame, **key: str) -> pd.Series:
    """Return the only row of a table with these cells."""
    (found,) = table[np.logical_and.reduce([table[name] == cell for name, cell in key.items()])].itertuples()
    return found


# Runs in a file


def test_runs_read_back_the_same(tmp_path):
    path = tmp_path / "new" / "runs.jsonl"
    assert read_runs(path) == []
    empty = Score("T1", "none", "p", "liver", 0.0, float("inf"), 0.0)
    runs = [a_run("U-Net"), replace(a_run("+ LAD"), scores=(empty,), protocol="a → b")]
    for run in runs:
        append_run(path, run)
    assert read_runs(path) == runs
    assert all(json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines())


def test_interrupted_benchmark_goes_on(tmp_path):
    path = tmp_path / "runs.jsonl"
    append_run(path, a_run("U-Net"))
    whole = path.read_bytes()
    # Even the end of a line of which only the line break is missing may have been the middle of a longer one.
    for end in (1, 20, len(whole) - 1):
        path.write_bytes(whole + whole[:end])
        assert read_runs(path) == [a_run("U-Net")]
    append_run(path, a_run("+ LAD"))
    assert read_runs(path) == [a_run("U-Net"), a_run("+ LAD")]


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '"a"', '{"scores": [1], "probes": []}', "\xff"])
def test_other_damage_is_said(tmp_path, damage):
    path = tmp_path / "runs.jsonl"
    append_run(path, a_run("U-Net"))
    path.write_bytes(path.read_bytes() + damage.encode("latin-1") + b"\n")
    append_run(path, a_run("+ LAD"))
    with pytest.raises(InputError, match="line 2"):
        read_runs(path)


# Statistics


def test_no_variation_has_no_width():
    estimate = mean(rows_of({(seed, case): [0.7, 0.7] for seed in range(3) for case in "abc"}), "value")
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.7, 0.7, 0.7))
    assert (estimate.seeds, estimate.cases, estimate.values, estimate.few) == (3, 3, 18, False)


def test_seeds_and_cases_weigh_the_same_however_many_values_they_have():
    groups = {(0, "a"): [0.0], (0, "b"): [1.0, 1.0, 1.0], (1, "a"): [0.1]}
    estimate = mean(rows_of(groups), "value")
    assert (estimate.value, estimate.cases, estimate.few) == (pytest.approx((0.5 + 0.1) / 2), 1, True)


def test_interval_agrees_with_drawing_one_by_one():
    rng = np.random.default_rng(3)
    groups = {(seed, str(case)): [rng.normal(seed, 1)] for seed in range(4) for case in range(3 + seed)}
    draws = []
    for _ in range(4000):
        means = []
        for seed in rng.integers(4, size=4):
            cases = rng.integers(3 + seed, size=3 + seed)
            means.append(np.mean([groups[seed, str(case)][0] for case in cases]))
        draws.append(np.mean(means))
    rows = rows_of(groups)
    estimate = mean(rows, "value")
    assert (estimate.low, estimate.high) == pytest.approx(np.percentile(draws, (2.5, 97.5)), abs=0.1)
    assert mean(rows, "value") == estimate
    assert mean(rows, "value", seed=1) != estimate


def test_interval_knows_that_cases_of_a_seed_belong_together():
    """Many cases do not make up for few seeds that differ."""
    between = {(seed, str(case)): [float(seed)] for seed in range(3) for case in range(50)}
    within = {(seed, str(case)): [float(case % 3)] for seed in range(3) for case in range(50)}
    wide, narrow = mean(rows_of(between), "value"), mean(rows_of(within), "value")
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


def test_median_agrees_with_numpy_and_takes_infinite_values():
    rng = np.random.default_rng(0)
    for count in (5, 6):
        values = rng.normal(size=(2, count))
        groups = {(seed, str(case)): [values[seed, case]] for seed in range(2) for case in range(count)}
        assert median(rows_of(groups), "value").value == pytest.approx(np.median(values))
    groups = {(0, str(case)): [value] for case, value in enumerate([1.0, 2.0, 3.0, np.inf, np.inf])}
    estimate = median(rows_of(groups), "value")
    assert (estimate.value, estimate.high) == (3.0, np.inf)


def test_nothing_repeated_needs_no_seeds_and_no_rows_give_no_estimate():
    rows = rows_of({(0, case): [n] for n, case in enumerate("abc")})
    estimate = mean(rows.drop(columns="seed"), "value")
    assert (estimate.seeds, estimate.cases, estimate.few) == (None, 3, False)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(mean_values(mean(rows, "value")))
    assert mean(rows[:0], "value") is None
    assert median(rows[:0], "value") is None


def mean_values(estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def test_known_shift_is_found_exactly_whatever_the_cases_are():
    ours, others = (score_table([a_run(method, seed) for seed in range(3)]) for method in ("+ LAD", "SAM + adapters"))
    estimate = mean(paired_differences(ours, others, "dice"), "dice")
    assert mean_values(estimate) == pytest.approx((0.05, 0.05, 0.05))
    assert estimate.excludes_zero
    # Without pairs, the difficulty of the cases hides the shift.
    alone = mean(ours, "dice")
    assert alone.high - alone.low > 0.05


def test_pairs_are_found_in_any_order_and_others_left_out():
    run, other = a_run("+ LAD"), a_run("SAM + adapters")
    shuffled = replace(other, scores=(Score("T1 9 T", "scanner", "p0", "liver", 0, 0, 0), *other.scores[:0:-1]))
    pairs = paired_differences(score_table([run, a_run("+ LAD", 1)]), score_table([shuffled]), "dice")
    assert set(pairs["seed"]) == {0}
    assert pairs["dice"].tolist() == pytest.approx([0.05] * (len(run.scores) - 1))
    assert paired_differences(score_table([run]), score_table([a_run("U-Net", 1)]), "dice").empty


def test_several_scores_of_one_structure_are_averaged_before_they_are_paired():
    score = Score("T1", "none", "p", "liver", 0.5, 1.0, 1.0)
    ours = a_run("+ LAD", scores=(replace(score, dice=0.9), replace(score, dice=0.7)))
    others = a_run("U-Net", scores=(replace(score, dice=0.6), replace(score, dice=0.4)))
    pairs = paired_differences(score_table([ours]), score_table([others]), "dice")
    assert pairs.to_dict("records") == [{"seed": 0, "case": "p", "dice": pytest.approx(0.3)}]


# Report


def test_summary_in_numbers():
    runs = every_run()
    summary = summarise_protocol(runs)
    assert list(summary["shifts"]["shift"].unique()) == ["in domain", "scanner", "modality", "out of domain"]
    assert list(summary["training"]["method"]) == ["U-Net", "SAM + adapters", "+ LAD"]
    expected = [s.dice for run in runs if run.method == "U-Net" for s in run.scores if s.shift != "none"]
    outside = {"method": "U-Net", "where": "out of domain"}
    assert row(summary["shifts"], method="U-Net", shift="out of domain").dice.value == pytest.approx(np.mean(expected))
    assert row(summary["structures"], structure="aorta", **outside).dice.value == pytest.approx(np.mean(expected))
    assert row(summary["domains"], domain="T1 7 T", method="U-Net").nsd.value == pytest.approx(0.9)
    assert row(summary["shifts"], method="U-Net", shift="scanner").hd95.value == pytest.approx(2.0)
    training = row(summary["training"], method="U-Net")
    assert (training.relative_step, training.step_seconds, training.seeds) == (pytest.approx(1), pytest.approx(0.4), 3)
    probe = row(summary["probes"], method="U-Net")
    assert (probe.ratio, probe.seeds, probe.images) == (pytest.approx(2), 3, [40])
    differences = summary["differences"]
    assert len(differences) == 2 * 4
    assert row(differences, against="U-Net", shift="modality").dice.value == pytest.approx(15)
    assert row(differences, against="SAM + adapters", shift="in domain").dice.low == pytest.approx(5)


def test_infinite_distances_give_medians_for_all_methods_of_that_column():
    runs = every_run()
    first, *others = runs[0].scores
    runs[0] = replace(runs[0], scores=(replace(first, hd95=float("inf")), *others))
    shifts = summarise_protocol(runs)["shifts"]
    assert (shifts["central"] == "median").equals(shifts["shift"] == "in domain")
    infinite = shifts[shifts["shift"] == "in domain"].set_index("method")["infinite"]
    assert infinite.to_dict() == {"U-Net": 0, "SAM + adapters": 0, "+ LAD": 1}


def test_one_shift_alone_needs_no_union_and_missing_parts_are_no_error():
    scores = tuple(s for s in a_run("U-Net").scores if s.shift == "modality")
    summary = summarise_protocol([a_run("U-Net", scores=scores, probes=())])
    assert list(summary["shifts"]["shift"]) == ["modality"]
    assert summary["differences"].empty
    assert summary["probes"].empty
    assert np.isnan(row(summary["training"], method="U-Net").relative_step)
    assert set(summary["structures"]["where"]) == {"out of domain"}


def test_report_is_written_and_replaced(tmp_path):
    rng = np.random.default_rng(0)
    features = {
        method: FeatureSet(rng.normal(size=(20, 6)), ["T1", "T2"] * 10, ["liver"] * 10 + ["aorta"] * 10)
        for method in METHODS
    }
    truth = np.zeros((24, 20), int)
    truth[4:12, 4:12], truth[14:20, 6:16] = 1, 2
    blank = np.zeros_like(truth)
    examples = [
        Example("T1 3 T", "p0", rng.random(truth.shape), truth, {"U-Net": blank, "+ LAD": truth}),
        Example("T2 3 T", "p1", rng.random((20, 20)), blank[:20], {"+ LAD": blank[:20]}),
    ]
    runs = every_run() + [replace(run, protocol="amos/*/CT | MR") for run in every_run(seeds=2, cases=1)]
    runs[0] = replace(runs[0], scores=(replace(runs[0].scores[0], hd95=float("inf")), *runs[0].scores[1:]))
    folder = tmp_path / "report"
    write_ood_report(folder, [a_run("U-Net", protocol="older")], {}, {}, [])
    assert {path.name for path in folder.iterdir()} == {"report.md", "report.json", "scores.csv", "dice-1.png"}
    write_ood_report(folder, runs, {"steps": "300"}, features, examples)  # replaces the other one
    assert [path.name for path in tmp_path.iterdir()] == ["report"]

    text = (folder / "report.md").read_text()
    pictures = {path.name for path in folder.glob("*.png")}
    assert pictures == {"dice-1.png", "dice-2.png", "features.png", "examples.png"}
    assert all(f"({name})" in text for name in pictures)
    assert "* steps: 300" in text
    assert "older" not in text
    assert "## amos/\\*/CT \\| MR" in text
    assert "1 of 18 infinite" in text
    enough, few = text.split("## amos")
    assert "| SAM + adapters | modality | 3 | 18 | +5.0 (+5.0 to +5.0) | yes | +0.0 (+0.0 to +0.0) | no |" in enough
    assert "* Dice, against U-Net: in domain (+15.0), scanner (+15.0)" in enough
    assert "NSD, against" not in text
    assert "| SAM + adapters | modality | 2 | 4 | +5.0 (+5.0 to +5.0) † | yes † |" in few
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert not any("nan" in line or "inf " in line for line in tables)

    rows = list(csv.DictReader((folder / "scores.csv").open()))
    assert len(rows) == sum(len(run.scores) for run in runs)
    assert rows[0]["hd95_mm"] == "inf"
    assert float(rows[1]["dice"]) == pytest.approx(runs[0].scores[1].dice, abs=1e-5)
    record = json.loads((folder / "report.json").read_text(), parse_constant=pytest.fail)
    ours = [r for r in record["protocols"]["brain"]["shifts"] if r["method"] == "+ LAD"]
    assert f"{ours[0]['dice']['value']:.3f} (" in text
    assert ours[0]["hd95"]["high"] is None or ours[0]["infinite"] == 1


def test_mistakes_are_said_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="Nothing was measured"):
        write_ood_report(tmp_path / "r", [], {}, {}, [])
    with pytest.raises(InputError, match="U-Net was run twice on brain with seed 0"):
        write_ood_report(tmp_path / "r", [a_run("U-Net")] * 2, {}, {}, [])
    append_run(tmp_path / "mine" / "runs.jsonl", a_run("U-Net"))
    with pytest.raises(InputError, match="something other than a report"):
        write_ood_report(tmp_path / "mine", [a_run("U-Net")], {}, {}, [])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_principal_components_keep_the_plane_that_points_lie_in():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(30, 2)) * [5, 1]
    axes = np.linalg.qr(rng.normal(size=(6, 2)))[0]
    points, shares = principal_components(7 + plane @ axes.T)
    between = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert between == pytest.approx(np.linalg.norm(plane[:, None] - plane[None], axis=-1))
    assert shares.sum() == pytest.approx(1)
    assert shares[0] > shares[1]
    alone, shares = principal_components(np.ones((1, 4)))
    assert alone.tolist() == [[0, 0]]
    assert shares.tolist() == [0, 0]
