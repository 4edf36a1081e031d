"""The file of scores: whole or not at all, and never more than a loss of time when it is damaged."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from causal_sam.learning.scores import Score, Scores, Stamp

FULL = Score(Stamp(17, 4), "An MR image.", "d1", 0.25)
BROKEN = Score(Stamp(1, 2), failure="it is no image.")


def test_scores_are_there_again_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.json"
    scores = Scores(path)
    assert scores.get("a") is None
    scores.put("a", FULL)
    scores.put("b", BROKEN)
    again = Scores(path)
    assert again.all() == {"a": FULL, "b": BROKEN}
    assert [file.name for file in path.parent.iterdir()] == ["scores.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 99, "images": {}}', b'{"format": 1, "images": {"a": {"x": 1}}}'],
)
def test_a_file_that_cannot_be_used_is_begun_anew(tmp_path: Path, content: bytes, caplog) -> None:
    path = tmp_path / "scores.json"
    path.write_bytes(content)
    scores = Scores(path)
    assert scores.all() == {}
    assert "computed again" in caplog.text
    scores.put("a", FULL)
    assert Scores(path).all() == {"a": FULL}


def test_what_cannot_be_written_is_kept_in_memory(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    scores = Scores(tmp_path / "file" / "scores.json")
    scores.put("a", FULL)
    assert scores.get("a") == FULL
    assert "memory alone" in caplog.text


def test_several_threads_lose_nothing(tmp_path: Path) -> None:
    scores = Scores(tmp_path / "scores.json")
    threads = [threading.Thread(target=lambda n=n: scores.put(f"image {n}", FULL)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads((tmp_path / "scores.json").read_bytes())["images"]) == 20


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
