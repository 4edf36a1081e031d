"""The database of scores: one row for each change, and never more than a loss of time when it is damaged."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from causal_sam.site.scores import Score, Scores, Stamp

FULL = Score(Stamp(17, 4), "An MR image.", "d1", 0.25)
BROKEN = Score(Stamp(1, 2), failure="it is no image.")


def test_scores_are_there_again_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.sqlite"
    scores = Scores(path)
    assert scores.get("a") is None
    scores.put("a", FULL)
    scores.put("b", BROKEN)
    again = Scores(path)
    assert again.all() == {"a": FULL, "b": BROKEN}
    scores.put("a", BROKEN)
    assert Scores(path).get("a") == BROKEN


def test_a_database_that_cannot_be_used_is_begun_anew(tmp_path: Path, caplog) -> None:
    whole = tmp_path / "whole.sqlite"
    Scores(whole).put("a", FULL)
    other, odd = tmp_path / "other.sqlite", tmp_path / "odd.sqlite"
    for path, statement in ((other, "PRAGMA user_version = 99"), (odd, "UPDATE scores SET score = '{}'")):
        path.write_bytes(whole.read_bytes())
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(statement)
    contents = [b"{}", b"x" * 5000, whole.read_bytes()[:4100], other.read_bytes(), odd.read_bytes()]
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.sqlite"
        path.write_bytes(content)
        caplog.clear()
        scores = Scores(path)
        assert scores.all() == {}, number
        assert "computed again" in caplog.text or not number
        scores.put("a", FULL)
        assert Scores(path).all() == {"a": FULL}


def test_a_change_writes_what_changed(tmp_path: Path) -> None:
    scores = Scores(tmp_path / "scores.sqlite")
    pages = []
    for number in range(400):
        scores.put(f"image {number}", FULL)
        if number in (10, 399):
            pages.append(scores._database.total_changes)
    assert pages == [11, 400]  # one row for each, however many there are


def test_what_cannot_be_written_is_kept_in_memory(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    scores = Scores(tmp_path / "file" / "scores.sqlite")
    scores.put("a", FULL)
    assert scores.get("a") == FULL
    assert "memory alone" in caplog.text


def test_several_threads_lose_nothing(tmp_path: Path) -> None:
    scores = Scores(tmp_path / "scores.sqlite")
    threads = [threading.Thread(target=lambda n=n: scores.put(f"image {n}", FULL)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Scores(tmp_path / "scores.sqlite").all()) == 20


def test_a_stamp_changes_with_the_image(tmp_path: Path) -> None:
    path = tmp_path / "image.nii"
    assert Stamp.of(path) == Stamp()
    path.write_bytes(b"voxels")
    before = Stamp.of(path)
    assert before.size == 6
    path.write_bytes(b"others")
    os.utime(path, ns=(before.modified_ns + 1, before.modified_ns + 1))
    assert Stamp.of(path) != before
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "1.dcm").write_bytes(b"123")
    one = Stamp.of(folder)
    (folder / "2.dcm").write_bytes(b"45")
    assert Stamp.of(folder) != one
    assert Stamp.of(folder).size == 5
