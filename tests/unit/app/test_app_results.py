"""Results have a folder, whatever cleans up the temporary directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from serving.results import ResultsFolder


def test_the_folder_is_made_again_when_it_was_removed(caplog: pytest.LogCaptureFixture) -> None:
    results = ResultsFolder()
    first = results.new_path(".nrrd")
    first.write_bytes(b"mask")
    assert results.new_path(".nii.gz").parent == first.parent
    shutil.rmtree(first.parent)
    second = results.new_path(".nrrd")
    second.write_bytes(b"mask")
    assert second.parent != first.parent
    assert second.parent.stat().st_mode & 0o077 == 0
    assert str(first.parent) in caplog.text


def test_a_folder_of_somebody_else_with_its_name_is_not_used(tmp_path: Path) -> None:
    results = ResultsFolder()
    folder = results.new_path(".nrrd").parent
    folder.rename(tmp_path / "moved")
    folder.mkdir()
    try:
        assert results.new_path(".nrrd").parent != folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
