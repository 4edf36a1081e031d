"""`causal-sam interpret` and `causal-sam benchmark notes`: what they print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from causal_sam.cli import app


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_json_has_all_fields():
    code, said = run("interpret", "spleen spills over laterally by 5 mm", "--labels", "liver, spleen", "--json")
    assert code == 0
    assert json.loads(said) == {
        "interventions": [
            {
                "label": "spleen",
                "action": "shrink",
                "direction": "left",
                "near": None,
                "slices": None,
                "extent_mm": 5.0,
                "strength": "moderate",
            }
        ],
        "question": None,
    }


def test_a_question_in_json_and_in_words():
    arguments = ("interpret", "too big", "--labels", "liver,spleen")
    question = json.loads(run(*arguments, "--json")[1])
    assert question == {"interventions": [], "question": "Which label is meant? Present are liver, spleen."}
    code, said = run(*arguments)
    assert code == 0
    assert said == f"question: {question['question']}\n"


def test_words_say_each_act():
    code, said = run("interpret", "fill the holes, smooth", "--labels", "liver")
    assert code == 0
    assert said.splitlines() == ["fill the holes of the liver", "smooth the boundary of the liver"]


def test_sides_and_the_current_label():
    code, said = run(
        *("interpret", "medial part missing", "--labels", "tumor,edema", "--current", "tumor", "--side", "tumor=left")
    )
    assert code == 0
    assert said == "expand the tumor on its right side\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("too big", "--labels", ","), "A note needs 1 to 500 labels"),
        (("too big", "--labels", "tumor", "--side", "tumor"), "A side is given as LABEL=left"),
        ((" ", "--labels", "tumor"), "The note is empty"),
    ],
)
def test_mistakes_are_said_in_a_sentence(arguments, sentence):
    code, said = run("interpret", *arguments)
    assert code == 2
    assert sentence in " ".join(said.split())


def test_the_benchmark_prints_shares_and_misses(tmp_path: Path):
    path = tmp_path / "notes.jsonl"
    right = {"note": "too big", "labels": ["liver"], "expect": [{"label": "liver", "action": "shrink"}]}
    path.write_text(f"{json.dumps(right)}\n{json.dumps({**right, 'note': 'too small'})}\n")
    code, said = run("benchmark", "notes", str(path))
    assert code == 0
    first, *rest = said.splitlines()
    assert first == "exact: 1 of 2 notes, 50.0%"
    assert "  action: 50.0%" in rest
    assert "missed: too small [liver]" in rest
    report = json.loads(run("benchmark", "notes", str(path), "--json")[1])
    assert (report["exact"], report["notes"], len(report["misses"])) == (1, 2, 1)
