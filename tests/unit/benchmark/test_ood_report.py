"""Runs in a file, statistics against closed cases, and the report of a benchmark across domains."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from causal_sam.benchmark.ood.plots import principal_components
from causal_sam.benchmark.ood.report import Example, FeatureSet, summarise_protocol, write_ood_report
from causal_sam.benchmark.ood.results import Probe, Run, Score, append_run, read_runs
from causal_sam.benchmark.ood.stats import group_values, mean, median, paired_differences
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


def dice_of(score: Score) -> float:
    return score.dice


def everything(score: Score) -> bool:
    return True


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
    estimate = mean({(seed, case): [0.7, 0.7] for seed in range(3) for case in "abc"})
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.7, 0.7, 0.7))
    assert (estimate.seeds, estimate.cases, estimate.values, estimate.few) == (3, 3, 18, False)


def test_seeds_and_cases_weigh_the_same_however_many_values_they_have():
    groups = {(0, "a"): [0.0], (0, "b"): [1.0, 1.0, 1.0], (1, "a"): [0.1]}
    assert mean(groups).value == pytest.approx((0.5 + 0.1) / 2)
    assert mean(groups).cases == 1
    assert mean(groups).few


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
    estimate = mean(groups)
    assert (estimate.low, estimate.high) == pytest.approx(np.percentile(draws, (2.5, 97.5)), abs=0.1)
    assert mean(groups) == estimate
    assert mean(groups, seed=1) != estimate


def test_interval_knows_that_cases_of_a_seed_belong_together():
    """Many cases do not make up for few seeds that differ."""
    between = {(seed, str(case)): [float(seed)] for seed in range(3) for case in range(50)}
    within = {(seed, str(case)): [float(case % 3)] for seed in range(3) for case in range(50)}
    wide, narrow = mean(between), mean(within)
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


def test_median_agrees_with_numpy_and_takes_infinite_values():
    rng = np.random.default_rng(0)
    for count in (5, 6):
        values = rng.normal(size=(2, count))
        groups = {(seed, str(case)): [values[seed, case]] for seed in range(2) for case in range(count)}
        assert median(groups).value == pytest.approx(np.median(values))
    estimate = median({(0, str(case)): [value] for case, value in enumerate([1.0, 2.0, 3.0, np.inf, np.inf])})
    assert (estimate.value, estimate.high) == (3.0, np.inf)


def test_known_shift_is_found_exactly_whatever_the_cases_are():
    ours, others = ([a_run(method, seed) for seed in range(3)] for method in ("+ LAD", "SAM + adapters"))
    estimate = mean(paired_differences(ours, others, dice_of, everything))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.05, 0.05, 0.05))
    assert estimate.excludes_zero
    # Not paired, the cases' own difficulty hides it.
    alone = mean(group_values(ours, dice_of, everything))
    assert alone.high - alone.low > 0.05


def test_pairs_are_found_in_any_order_and_others_left_out():
    run, other = a_run("+ LAD"), a_run("SAM + adapters")
    shuffled = replace(other, scores=(Score("T1 9 T", "scanner", "p0", "liver", 0, 0, 0), *other.scores[:0:-1]))
    groups = paired_differences([run, a_run("+ LAD", 1)], [shuffled], dice_of, everything)
    values = [value for members in groups.values() for value in members]
    assert {seed for seed, _ in groups} == {0}
    assert len(values) == len(run.scores) - 1
    assert values == pytest.approx([0.05] * len(values))
    assert paired_differences([run], [a_run("U-Net", 1)], dice_of, everything) == {}


def test_several_scores_of_one_structure_are_averaged_before_they_are_paired():
    score = Score("T1", "none", "p", "liver", 0.5, 1.0, 1.0)
    ours = a_run("+ LAD", scores=(replace(score, dice=0.9), replace(score, dice=0.7)))
    others = a_run("U-Net", scores=(replace(score, dice=0.6), replace(score, dice=0.4)))
    assert paired_differences([ours], [others], dice_of, everything) == {(0, "p"): [pytest.approx(0.3)]}


# Report


def test_summary_in_numbers():
    runs = every_run()
    summary = summarise_protocol(runs)
    assert summary["shifts"] == ["in domain", "scanner", "modality", "out of domain"]
    assert [record["method"] for record in summary["methods"]] == ["U-Net", "SAM + adapters", "+ LAD"]
    unet = summary["methods"][0]
    expected = [s.dice for run in runs if run.method == "U-Net" for s in run.scores if s.shift != "none"]
    assert unet["shifts"]["out of domain"]["dice"].value == pytest.approx(np.mean(expected))
    assert unet["structures"]["aorta", "out of domain"]["dice"].value == pytest.approx(np.mean(expected))
    assert unet["domains"]["T1 7 T"]["nsd"].value == pytest.approx(0.9)
    assert unet["shifts"]["scanner"]["hd95"].value == pytest.approx(2.0)
    assert unet["relative_step"] == pytest.approx(1)
    assert unet["step_seconds"] == pytest.approx(0.4)
    assert (unet["probes"][0]["ratio"], unet["probes"][0]["seeds"]) == (pytest.approx(2), 3)
    found = {(d["against"], d["shift"]): d["dice"] for d in summary["differences"]}
    assert len(found) == 2 * 4
    assert found["U-Net", "modality"].value == pytest.approx(15)
    assert found["SAM + adapters", "in domain"].low == pytest.approx(5)


def test_infinite_distances_give_medians_for_all_methods_of_that_column():
    runs = every_run()
    first, *others = runs[0].scores
    runs[0] = replace(runs[0], scores=(replace(first, hd95=float("inf")), *others))
    summary = summarise_protocol(runs)
    assert summary["hd95"] == {
        "in domain": "median",
        "scanner": "mean",
        "modality": "mean",
        "out of domain": "mean",
    }
    infinite = {record["method"]: record["shifts"]["in domain"]["infinite"] for record in summary["methods"]}
    assert infinite == {"U-Net": 0, "SAM + adapters": 0, "+ LAD": 1}


def test_one_shift_alone_needs_no_union_and_missing_parts_are_no_error():
    scores = tuple(s for s in a_run("U-Net").scores if s.shift == "modality")
    summary = summarise_protocol([a_run("U-Net", scores=scores, probes=())])
    assert summary["shifts"] == ["modality"]
    assert summary["differences"] == []
    (record,) = summary["methods"]
    assert record["relative_step"] is None
    assert record["structures"]["liver", "in domain"]["dice"] is None


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
    ours = next(r for r in record["protocols"][0]["methods"] if r["method"] == "+ LAD")
    assert f"{ours['shifts']['in domain']['dice']['value']:.3f} (" in text
    assert ours["structures"]["liver, in domain"]["dice"]["values"] == 9


def test_mistakes_are_said_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="Nothing was measured"):
        write_ood_report(tmp_path / "r", [], {}, {}, [])
    with pytest.raises(InputError, match="U-Net was run twice on brain with seed 0"):
        write_ood_report(tmp_path / "r", [a_run("U-Net")] * 2, {}, {}, [])
    append_run(tmp_path / "mine" / "runs.jsonl", a_run("U-Net"))
    with pytest.raises(InputError, match="something else than a report"):
        write_ood_report(tmp_path / "mine", [a_run("U-Net")], {}, {}, [])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(InputError, match=r"must be of one shape HxW, not \(2, 2\) and \(3, 2\)"):
        Example("T1", "p", np.zeros((2, 2)), np.zeros((3, 2), int), {})
    with pytest.raises(InputError, match=r"not \(3, 2\) with 3 styles and 1 structures"):
        FeatureSet(np.zeros((3, 2)), ["a"] * 3, ["b"])


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
