"""Scores of accepted labels: Dice by label, and what they cost in clicks, notes and time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

from causal_sam.correction.journal import Journal
from causal_sam.errors import InputError
from causal_sam.prompting.prompt_set import PromptSet
from causal_sam.prompting.prompts import Prompts
from scorings.dice import DiceScoring
from scorings.effort import PAUSE_SECONDS, Act, EffortScoring, effort_of
from serving.data.folder_store import FolderStore
from serving.data.label_set import LabelSet
from serving.sessions.click_log import ClickLog

SHAPE = (10, 8, 4)
AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])
LABELS = LabelSet(["liver", "spleen", "left kidney"])


def block(first: int, last: int, value: int = 1) -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[first:last] = value
    return array


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in ("one", "two", "three"):
        nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE), folder / f"{name}.nii.gz")
    return FolderStore(str(folder), auto_reload=False)


@pytest.fixture
def scoring(tmp_path: Path) -> DiceScoring:
    return DiceScoring(LABELS, tmp_path / "results" / "dice.json")


def save(store: FolderStore, image: str, tag: str, array: np.ndarray, info: dict, affine: np.ndarray = AFFINE) -> None:
    path = Path(store._datastore_path).parent / "label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    store.store_label(image, path, tag, info)  # unchecked, as other programs do


def by_server(**names: int) -> dict:
    """What the server says of a label that one of its tasks saved."""
    return {"model": "causal_sam_organs", "params": {"label_names": names, "untaught": ["left kidney"]}}


def test_dice_is_by_label_and_name_not_by_value(store: FolderStore, scoring: DiceScoring, tmp_path: Path) -> None:
    save(store, "one", "original", block(0, 4, 1) + block(6, 10, 2), by_server(liver=1, spleen=2))
    # Slicer numbers as it likes, and spells as people do.
    info = {"label_info": [{"name": "Splenic", "idx": 7}, {"name": "liver", "idx": 9}]}
    save(store, "one", "final", block(0, 4, 9) + block(8, 10, 7), info)
    result = scoring({"method": "dice"}, store)
    assert result["images"] == {"one": {"liver": 1.0, "spleen": pytest.approx(2 / 3, abs=1e-4)}}
    assert result["labels"] == result["images"]["one"]
    assert result["mean"] == pytest.approx(5 / 6, abs=1e-3)
    assert result["skipped"] == {}
    assert json.loads((tmp_path / "results" / "dice.json").read_bytes()) == result


def test_means_are_over_images_and_labels(store: FolderStore, scoring: DiceScoring) -> None:
    for image, end in (("one", 4), ("two", 2)):
        save(store, image, "original", block(0, 4), by_server(liver=1))
        save(store, image, "final", block(0, end), {"label_info": [{"name": "liver", "idx": 1}]})
    save(store, "three", "final", block(0, 4), {"label_info": [{"name": "liver", "idx": 1}]})  # no task was run
    result = scoring({}, store)
    assert set(result["images"]) == {"one", "two"}
    assert result["labels"] == {"liver": pytest.approx((1 + 2 / 3) / 2, abs=1e-4)}


def test_what_was_erased_or_drawn_by_hand_counts_and_what_was_never_taught_does_not(
    store: FolderStore, scoring: DiceScoring
) -> None:
    save(store, "one", "original", block(0, 4, 1), by_server(liver=1, spleen=2))
    info = {"label_info": [{"name": "spleen", "idx": 2}, {"name": "left kidney", "idx": 3}]}
    save(store, "one", "final", block(0, 4, 2) + block(6, 8, 3), info)
    assert scoring({}, store)["images"] == {"one": {"liver": 0.0, "spleen": 0.0}}


def test_values_without_names_are_not_guessed(store: FolderStore, scoring: DiceScoring) -> None:
    save(store, "one", "original", block(0, 4, 2), by_server(spleen=2))
    save(store, "one", "final", block(0, 4, 2), {})
    result = scoring({}, store)
    assert result["images"] == {}
    assert "Nothing says which structures the values of the label final are" in result["skipped"]["one"]


def test_what_cannot_be_compared_is_said(store: FolderStore, scoring: DiceScoring) -> None:
    good = {"label_info": [{"name": "liver", "idx": 1}]}
    save(store, "one", "original", block(0, 4), by_server(liver=1))
    save(store, "one", "final", block(0, 4), good, affine=np.diag([-1.0, -2.0, 4.0, 1.0]))
    save(store, "two", "original", block(0, 4, 77), {})
    save(store, "two", "final", block(0, 4), good)
    save(store, "three", "original", block(0, 4), by_server(liver=1))
    save(store, "three", "final", block(0, 4), good)
    Path(store.get_label_uri("three", "final")).write_bytes(b"no image")
    result = scoring({}, store)
    assert result["images"] == {}
    assert result["mean"] is None
    assert "not on the same grid" in result["skipped"]["one"]
    assert "Nothing says which structures" in result["skipped"]["two"]
    assert "not a readable NIfTI file" in result["skipped"]["three"]


def test_other_tags_can_be_compared(store: FolderStore, scoring: DiceScoring) -> None:
    save(store, "one", "final", block(0, 4), {"label_info": [{"name": "liver", "idx": 1}]})
    save(store, "one", "second reader", block(0, 2), {"label_info": [{"name": "liver", "idx": 1}]})
    assert scoring({"y_pred": "second reader"}, store)["labels"] == {"liver": pytest.approx(2 / 3, abs=1e-4)}


def test_scoring_leaves_the_data_store_alone(store: FolderStore, scoring: DiceScoring) -> None:
    save(store, "one", "original", block(0, 4), by_server(liver=1))
    save(store, "one", "final", block(0, 4), {"label_info": [{"name": "liver", "idx": 1}]})
    path = Path(store._datastore_config_path)
    before = path.read_bytes(), path.stat().st_mtime_ns
    scoring({}, store)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_other_data_stores_are_refused(scoring: DiceScoring) -> None:
    with pytest.raises(InputError, match="not in this data store"):
        scoring({}, object())


def points(*foreground: tuple, background: tuple = (), box: tuple | None = None) -> Prompts:
    return Prompts(tuple(foreground), tuple(background), box)


def counts(log: ClickLog) -> list[dict]:
    kinds = ("foreground", "background", "boxes", "strokes")
    return [{kind: entry[kind] for kind in kinds if kind in entry} for entry in log.entries()]


def test_only_new_clicks_are_counted(tmp_path: Path) -> None:
    log, a, b, c = ClickLog(tmp_path / "new"), (1, 1, 1), (2, 2, 1), (3, 3, 1)
    log.clicked("one", "me", 0, PromptSet("liver", {"liver": points(a)}))
    log.clicked("one", "me", 0, PromptSet("liver", {"liver": points(a, b, background=(c,))}))
    log.clicked("one", "me", 0, PromptSet("liver", {"liver": points(a, b, background=(c,))}))
    assert counts(log) == [{"foreground": 1}, {"foreground": 1, "background": 1}]
    log.clicked("one", "you", 0, PromptSet("liver", {"liver": points(a)}))
    log.clicked("two", "me", 0, PromptSet("liver", {"liver": points(a)}))
    assert counts(log)[2:] == [{"foreground": 1}, {"foreground": 1}]
    first = next(log.entries())
    assert (first["image"], first["user"], first["label"], first["frame"]) == ("one", "me", "liver", 0)
    assert str(a) not in json.dumps(first)


def test_a_click_in_one_label_is_no_second_click_of_the_others(tmp_path: Path) -> None:
    log, a, b, c = ClickLog(tmp_path), (1, 1, 1), (2, 2, 1), (3, 3, 1)
    prompts = {"liver": points(a, background=(c, b)), "spleen": points(b, background=(c, a))}
    log.clicked("one", "me", 0, PromptSet("spleen", prompts, shares_background=True))
    assert counts(log) == [{"foreground": 2, "background": 1}]


def test_boxes_and_scribbles_count_and_files_that_are_no_images_of_the_store_do_not(tmp_path: Path) -> None:
    log, box = ClickLog(tmp_path), (1, 4, 1, 4, 1, 1)
    for _ in range(2):
        log.clicked("one", "me", 0, PromptSet("liver", {"liver": points(box=box)}))
    log.painted("one", "me", 0, "liver")
    log.painted("one", "me", 0, "liver")
    log.painted(None, "me", 0, "liver")
    log.clicked(None, "me", 0, PromptSet("liver", {"liver": points((1, 1, 1))}))
    assert counts(log) == [{"boxes": 1}, {"strokes": 1}, {"strokes": 1}]


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    log = ClickLog(tmp_path)
    log.painted("one", "me", 0, "liver")
    with (tmp_path / "clicks.jsonl").open("ab") as file:
        file.write(b'\n{"time": "2026-')
    log.painted("two", "me", 0, "liver")
    assert [entry["image"] for entry in log.entries()] == ["one", "two"]


def test_a_click_is_answered_though_it_cannot_be_counted(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    ClickLog(tmp_path / "file").painted("one", "me", 0, "liver")
    assert "Clicks on one are not counted" in caplog.text


def test_effort_is_up_to_the_acceptance_and_without_long_pauses() -> None:
    acts = [Act(1000, clicks=2), Act(1030, notes=1), Act(1030 + PAUSE_SECONDS + 1, clicks=1), Act(9999, clicks=50)]
    accepted = 1030 + PAUSE_SECONDS + 21
    assert effort_of(acts, accepted) == {"clicks": 3, "notes": 1, "seconds": 50.0}
    assert effort_of([], accepted) == {"clicks": 0, "notes": 0, "seconds": None}
    # MONAI Label cuts the fraction of a second off.
    assert effort_of([Act(1000.9, clicks=1)], 1000) == {"clicks": 1, "notes": 0, "seconds": 0.0}
    assert effort_of([Act(1000, clicks=1)], None) == {"clicks": 1, "notes": 0, "seconds": None}


def test_effort_of_a_data_store(store: FolderStore, tmp_path: Path) -> None:
    log, journal = ClickLog(tmp_path / "journal"), Journal(tmp_path / "journal")
    scoring = EffortScoring(log, journal, tmp_path / "journal" / "effort.json")
    assert scoring({}, store) == {
        "cases": 0, "untouched": 0, "clicks": None, "notes": None, "seconds": None, "images": {},
    }  # fmt: skip
    log.clicked("one", "me", 0, PromptSet("liver", {"liver": points((1, 1, 1), (2, 2, 1))}))
    log.clicked("three", "me", 0, PromptSet("liver", {"liver": points((1, 1, 1))}))
    now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    for act in ("note", "refused", "undo"):
        journal.append({"time": now, "image": "one", "act": act})
    for image in ("one", "two"):
        save(store, image, "final", block(0, 4), {"label_info": [{"name": "liver", "idx": 1}]})
    result = scoring({"method": "effort"}, store)
    assert {name: (each["clicks"], each["notes"]) for name, each in result["images"].items()} == {
        "one": (2, 2),
        "two": (0, 0),
    }
    assert (result["cases"], result["untouched"], result["clicks"], result["notes"]) == (2, 1, 1.0, 1.0)
    assert result["images"]["two"]["seconds"] is None
    assert result["images"]["one"]["seconds"] == result["seconds"]
    assert json.loads((tmp_path / "journal" / "effort.json").read_bytes()) == result
    assert os.stat(tmp_path / "journal" / "clicks.jsonl").st_mode & 0o077 == 0
