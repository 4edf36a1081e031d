"""Plans: what can be in one, what it says in words, and how wrong ones are refused."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from pydantic import ValidationError

from causal_sam.errors import InputError
from causal_sam.notes import Action, Intervention, Plan, parse_plan

LIVER = {"label": "liver", "action": "expand"}


def test_the_plan_of_an_answer_in_json():
    plan = parse_plan({"interventions": [{**LIVER, "direction": "superior", "slices": [3, 9], "extent_mm": 5}]})
    assert plan.interventions == (
        Intervention(label="liver", action="expand", direction="superior", slices=(3, 9), extent_mm=5.0),
    )
    assert plan.question is None
    assert parse_plan(plan.model_dump(mode="json")) == plan


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"interventions": [{**LIVER, "action": "explode"}]}, "interventions.0.action"),
        ({"interventions": [{**LIVER, "direction": "lateral"}]}, "interventions.0.direction"),
        ({"interventions": [{**LIVER, "slices": [9, 3]}]}, "the first and the last slice"),
        ({"interventions": [{**LIVER, "slices": [-1, 3]}]}, "the first and the last slice"),
        ({"interventions": [{**LIVER, "extent_mm": 0}]}, "interventions.0.extent_mm"),
        ({"interventions": [{**LIVER, "extent_mm": float("nan")}]}, "interventions.0.extent_mm"),
        ({"interventions": [{**LIVER, "extent_mm": 5000}]}, "interventions.0.extent_mm"),
        ({"interventions": [{**LIVER, "code": "import os"}]}, "interventions.0.code"),
        ({"interventions": [{**LIVER, "label": " "}]}, "interventions.0.label"),
        ({"interventions": [{**LIVER, "near": "a\nb"}]}, "control characters"),
        ({"interventions": [{"label": "liver", "action": "exclude"}]}, "exclude needs the neighbour"),
        ({"interventions": []}, "either interventions or a question"),
        ({"interventions": [LIVER], "question": "Which?"}, "either interventions or a question"),
    ],
)
def test_wrong_plans_are_refused_in_a_sentence(content, said):
    with pytest.raises(InputError) as refused:
        parse_plan(content)
    message = str(refused.value)
    assert said in message
    assert message.startswith("The plan cannot be used: ")
    assert "\n" not in message


def test_plans_cannot_be_changed():
    plan = Plan(interventions=(Intervention(**LIVER),))
    with pytest.raises(ValidationError):
        plan.question = "?"
    with pytest.raises(ValidationError):
        plan.interventions[0].action = "remove"


def test_different_interventions_have_different_sentences():
    choices = itertools.product(
        get_args(Action), (None, "left"), (None, (1, 2), (1, 1)), (None, 3.0), ("slight", "strong")
    )
    all_of_them = [
        Intervention(
            label="liver",
            action=action,
            near="colon",
            direction=direction,
            slices=slices,
            extent_mm=extent,
            strength=strength,
        )
        for action, direction, slices, extent, strength in choices
    ]
    assert len({each.sentence for each in all_of_them}) == len(all_of_them)


def test_names_of_the_same_structure_give_the_same_sentence():
    sentences = {
        Intervention(label=label, action="exclude", near=near).sentence
        for label in ("LK", "left_kidney", "kidney left")
        for near in ("GB", "gall bladder")
    }
    assert sentences == {"exclude the gallbladder from the left kidney"}


def test_the_schema_names_all_acts_and_forbids_other_fields():
    schema = Plan.model_json_schema()
    intervention = schema["$defs"]["Intervention"]
    assert tuple(intervention["properties"]["action"]["enum"]) == get_args(Action)
    assert intervention["additionalProperties"] is False
    assert schema["properties"].keys() == {"interventions", "question"}
