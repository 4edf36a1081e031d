from __future__ import annotations

import pytest

from causal_sam.atomic import PART_PREFIX, atomic_write


def test_new_content_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "weights.nii.gz"
    path.write_text("old")
    with atomic_write(path) as part:
        assert part.parent == tmp_path
        assert part.name.endswith(".nii.gz")
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_content_alone(tmp_path):
    path = tmp_path / "state.json"
    path.write_text("old")

    def fail():
        with atomic_write(path) as part:
            part.write_text("ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_written_over(tmp_path):
    path = tmp_path / "state.json"
    (tmp_path / f"{PART_PREFIX}{path.name}").write_text("half of something longer")
    with atomic_write(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
