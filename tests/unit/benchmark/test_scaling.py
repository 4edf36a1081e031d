"""The benchmark of processes that train together."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from causal_sam.cli import app


def run(*arguments: str):
    return CliRunner().invoke(app, ["benchmark", "scaling", "--image-size", "64", "--steps", "5", *arguments])


@pytest.mark.slow
def test_one_process_and_two_are_timed() -> None:
    result = run("--batch", "8", "--pairs", "4", "--json")
    assert result.exit_code == 0, result.output
    one, two = json.loads(result.stdout.splitlines()[-1])
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["speedup"] == 1
    assert two["speedup"] == one["step_seconds"] / two["step_seconds"]
    assert two["step_seconds"] > 0


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    result = run("--processes", "3")
    assert result.exit_code == 2
    assert "3 processes cannot share 16 images" in result.output
