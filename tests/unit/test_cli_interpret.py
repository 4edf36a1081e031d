"""`causal-sam interpret` and `causal-sam benchmark notes`: what they print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_chat import ToolModel, plan
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
        (("too big", "--labels", "tumor", "--side", "tumor"), "--side is given as in spleen=left"),
        (("too big", "--labels", "tumor", "--side", "tumor=up"), "--side is given as in spleen=left"),
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
    assert "wrong: too small [liver]" in rest
    report = json.loads(run("benchmark", "notes", str(path), "--json")[1])
    assert (report["exact"], report["notes"], len(report["misses"])) == (1, 2, 1)
    assert (report["not_read"], report["notices"]) == (0, [])


def test_a_chat_model_reads_the_note(monkeypatch: pytest.MonkeyPatch):
    model = ToolModel(answers=[plan({"label": "liver", "action": "smooth"}), RuntimeError("no route")])
    monkeypatch.setattr("langchain.chat_models.init_chat_model", lambda name: model)
    arguments = ("interpret", "Smith: too big", "--labels", "liver", "--llm", "someone:model")
    code, said = run(*arguments)
    assert code == 2
    assert "notes leave it only with consent: give --llm-consent" in " ".join(said.split())
    result = CliRunner().invoke(app, [*arguments, "--llm-consent"])
    assert (result.stdout, result.stderr) == ("smooth the boundary of the liver\n", "")
    assert "Smith" not in model.everything
    result = CliRunner().invoke(app, [*arguments, "--llm-consent", "--json"])
    assert json.loads(result.stdout)["interventions"][0]["action"] == "shrink"
    notice = "causal-sam: someone:model could not be used (no route), so the embedded interpreter read it."
    assert result.stderr == f"{notice}\n"


def test_the_benchmark_says_which_notes_a_chat_model_did_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "notes.jsonl"
    note = {"note": "too big", "labels": ["liver"], "expect": [{"label": "liver", "action": "shrink"}]}
    path.write_text(f"{json.dumps(note)}\n" * 3)
    answers = [RuntimeError("no route"), plan({"label": "liver", "action": "smooth"}), RuntimeError("no route")]
    model = ToolModel(answers=answers)
    monkeypatch.setattr("langchain.chat_models.init_chat_model", lambda name: model)
    code, said = run("benchmark", "notes", str(path), "--llm", "someone:model", "--llm-consent")
    assert code == 0
    lines = said.splitlines()
    assert lines[0] == "exact: 2 of 3 notes, 66.7%"
    place = lines.index("not read by someone:model, but by the embedded interpreter: 2")
    assert lines[place + 1].startswith("  someone:model could not be used (no route)")
    assert sum("no route" in line for line in lines) == 1
