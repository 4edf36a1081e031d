"""Bounds on the Dice of automatic masks: the guarantee holds, and is made only where there is enough to make it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causal_sam.imaging import PackedMask
from causal_sam.prompting.named import NamedPrediction
from causal_sam.site.automatic_masks import CASE, AutomaticMasks
from causal_sam.site.calibration import DiceBound, case_score
from causal_sam.site.scores import Stamp

SHAPE = (6, 5, 4)
SCORES = st.lists(st.floats(-1, 1), max_size=60)


def test_the_guarantee_holds_for_cases_like_those_before() -> None:
    """For any model: here one that is too sure, by an amount that differs from case to case and label to label."""
    rng = np.random.default_rng(0)
    trials, structures = 4000, 3
    for count, level in ((9, 0.9), (20, 0.9), (19, 0.95)):
        certainty = rng.uniform(0.5, 1, (trials, count + 1, structures))
        dice = np.clip(certainty - rng.gamma(1.0, 0.1, certainty.shape), 0, 1)
        scores = (certainty - dice).max(axis=-1)
        held = 0
        for n in range(trials):
            bound = DiceBound.of(scores[n, :count], level)
            held += all(
                bound.lower(sure) <= true for sure, true in zip(certainty[n, count], dice[n, count], strict=True)
            )
        spread = 4 * np.sqrt(level * (1 - level) / trials)
        assert level - spread <= held / trials <= level + 1 / (count + 1) + spread


@given(SCORES, st.floats(0, 1))
def test_a_bound_is_a_dice_and_needs_enough_accepted_labels(scores: list[float], certainty: float) -> None:
    bound = DiceBound.of(scores)
    assert bound.needed == 9
    lower = bound.lower(certainty)
    assert (lower is None) == (len(scores) < 9)
    assert lower is None or 0 <= lower <= 1
    guaranteed = str(bound).startswith("In 90 %")
    assert guaranteed == (lower is not None)
    assert guaranteed or f"{len(scores)} of 9" in str(bound)


@given(SCORES.filter(lambda scores: len(scores) >= 9), st.floats(0, 1))
def test_a_worse_case_never_raises_the_bound(scores: list[float], certainty: float) -> None:
    with_worse = DiceBound.of([*scores, max(scores)])
    assert with_worse.lower(certainty) <= DiceBound.of(scores).lower(certainty)


def test_the_smallest_number_of_labels_gives_the_worst_of_them() -> None:
    for level, needed in ((0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)):
        scores = list(np.linspace(0.5, 0, needed))
        assert DiceBound.of(scores, level).excess == 0.5
        assert DiceBound.of(scores[1:], level).excess is None
        assert DiceBound.of(scores, level).needed == needed


def test_a_case_is_as_wrong_as_its_worst_mask() -> None:
    certainty = {"liver": 0.9, "spleen": 0.8}
    assert case_score(certainty, {"liver": 0.95, "spleen": 0.5}) == pytest.approx(0.3)
    assert case_score(certainty, {"liver": 0.95}) == pytest.approx(-0.05)
    assert case_score(certainty, {}) is None


def prediction(*certainties: float) -> NamedPrediction:
    """Liver and spleen side by side."""
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[:2], label_map[3:] = 1, 2
    return NamedPrediction(label_map, dict(zip(("liver", "spleen"), certainties, strict=False)))


def test_masks_are_compared_with_what_was_accepted_of_what_was_seen(tmp_path: Path) -> None:
    kept = AutomaticMasks(tmp_path / "automatic")
    names = ["liver", "spleen", "left kidney"]
    case = kept.put("ct", Stamp(1, 2), "first", names, prediction(0.9, 0.8), 0.5)
    assert (case.missing, case.volume_ml) == (["left kidney"], {"liver": 20.0, "spleen": 30.0})
    again = AutomaticMasks(tmp_path / "automatic")
    assert again.get("ct", "first") == case
    assert again.get("ct", "second") is None
    assert again.masks("ct", "second") == {}
    assert again.masks("ct", "first")["liver"].same_as(PackedMask.pack(prediction(1).label_map == 1))
    assert again.scores("first") == {}
    half = np.zeros(SHAPE, bool)
    half[:1] = True
    again.compare("ct", {"liver"}, lambda name: half)
    assert again.scores("first") == {"ct": pytest.approx(0.9 - 2 / 3)}
    # A structure that the annotator removed was wrong.
    again.compare("ct", {"liver", "spleen"}, lambda name: np.zeros(SHAPE, bool))
    assert again.scores("first") == {"ct": 0.9}
    assert again.scores("second") == {}
    assert {path.stat().st_mode & 0o077 for path in tmp_path.rglob("*")} == {0}


def test_masks_of_earlier_models_stay_if_they_were_compared(tmp_path: Path) -> None:
    kept = AutomaticMasks(tmp_path)
    for image in ("compared", "not"):
        kept.put(image, Stamp(), "first", ["liver"], prediction(0.9), 1.0)
    kept.compare("compared", {"liver"}, lambda name: np.zeros(SHAPE, bool))
    for image in ("compared", "not"):
        kept.put(image, Stamp(), "second", ["liver"], prediction(0.7), 1.0)
    assert sorted(kept.models("compared")) == ["first", "second"]
    assert kept.models("not") == ["second"]
    assert kept.scores("first") == {"compared": 0.9}


def test_damaged_files_count_as_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = AutomaticMasks(tmp_path)
    kept.put("ct", Stamp(), "first", ["liver"], prediction(0.9), 1.0)
    for path in tmp_path.glob("*/*"):
        path.write_text("{")
    assert kept.get("ct", "first") is None
    assert "computed again" in caplog.text
    assert kept.masks("ct", "first") == {}
    kept.put("ct", Stamp(), "first", ["liver"], prediction(0.9), 1.0)
    assert kept.get("ct", "first") is not None
    assert list(tmp_path.glob(f"*/{CASE}"))
