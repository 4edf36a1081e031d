"""What a note may ask for: a plan of interventions, each one of a few acts, or a question back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from causal_sam.errors import InputError
from causal_sam.text import canonical

Action = Literal["expand", "shrink", "exclude", "remove", "fill", "smooth", "keep_largest", "restyle", "keep"]
Direction = Literal["superior", "inferior", "left", "right", "anterior", "posterior"]
Strength = Literal["slight", "moderate", "strong"]
ACTIONS: tuple[Action, ...] = get_args(Action)

LONGEST_NAME = 100  # characters of a label or a neighbour
LONGEST_QUESTION = 600  # characters
FARTHEST_MM = 200.0  # no correction of a mask reaches farther
MOST_INTERVENTIONS = 1000

_SENTENCES: dict[Action, str] = {
    "expand": "expand the {label}",
    "shrink": "shrink the {label}",
    "exclude": "exclude the {near} from the {label}",
    "remove": "remove the stray part of the {label}",
    "fill": "fill the holes of the {label}",
    "smooth": "smooth the boundary of the {label}",
    "keep_largest": "keep only the largest component of the {label}",
    "restyle": "decide the {label} again in spite of how the image looks",
    "keep": "keep the {label} as it is",
}
_ADVERBS: dict[Strength, str] = {"slight": " slightly", "moderate": "", "strong": " strongly"}
_NAME = re.compile(r"[^\x00-\x1f\x7f{}<>]+")

Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class Intervention(BaseModel):
    """One act on one label.

    Attributes:
        label: as the site calls it.
        action: what to do; `exclude` needs ``near``.
        direction: where on the label, towards which side of the patient; None for everywhere.
        near: the neighbour that the mask runs into, or beside which the act is.
        slices: first and last slice, both included, as the viewer numbers them; None for all.
        extent_mm: how far, in millimetres; None if the note does not say.
        strength: how much.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    label: Name
    action: Action
    direction: Direction | None = None
    near: Name | None = None
    slices: tuple[int, int] | None = None
    extent_mm: float | None = Field(default=None, gt=0, le=FARTHEST_MM, allow_inf_nan=False)
    strength: Strength = "moderate"

    @field_validator("label", "near")
    @classmethod
    def _is_name(cls, name: str | None) -> str | None:
        if name is not None and not is_name(name):
            raise ValueError("is no name, since it holds control characters or brackets, or is too long")
        return name

    @field_validator("slices")
    @classmethod
    def _is_range(cls, slices: tuple[int, int] | None) -> tuple[int, int] | None:
        if slices is not None and not 0 <= slices[0] <= slices[1]:
            raise ValueError("must be the first and the last slice, counted from 0")
        return slices

    @model_validator(mode="after")
    def _says_what_to_exclude(self) -> Intervention:
        if self.action == "exclude" and self.near is None:
            raise ValueError("exclude needs the neighbour, as near")
        return self

    @property
    def sentence(self) -> str:
        """The intervention in controlled English: the same act always is the same text.

        >>> Intervention(label="LK", action="shrink", direction="left", extent_mm=5, strength="slight").sentence
        'shrink the left kidney slightly on its left side by 5 mm'
        """
        near = canonical(self.near) if self.near else ""
        text = _SENTENCES[self.action].format(label=canonical(self.label), near=near) + _ADVERBS[self.strength]
        if self.direction:
            text += f" on its {self.direction} side"
        if near and self.action != "exclude":
            text += f" near the {near}"
        if self.slices:
            first, last = self.slices
            text += f" in slice {first}" if first == last else f" in slices {first} to {last}"
        return f"{text} by {self.extent_mm:g} mm" if self.extent_mm else text


class Plan(BaseModel):
    """What a note asks for: interventions in the order of the note, or a question.

    Attributes:
        interventions: none if there is a question.
        question: to the clinician, if the note cannot be acted on; then nothing may be done.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    interventions: tuple[Intervention, ...] = Field(default=(), max_length=MOST_INTERVENTIONS)
    question: Annotated[str, Field(min_length=1, max_length=LONGEST_QUESTION)] | None = None

    @model_validator(mode="after")
    def _is_either(self) -> Plan:
        if bool(self.interventions) == (self.question is not None):
            raise ValueError("a plan has either interventions or a question")
        return self

    @property
    def sentence(self) -> str:
        """All interventions in controlled English, or the question."""
        return self.question or "; ".join(each.sentence for each in self.interventions)


def is_name(text: str) -> bool:
    """Whether a text can be the name of a label or neighbour."""
    return bool(text.strip()) and len(text) <= LONGEST_NAME and _NAME.fullmatch(text) is not None


def parse_plan(content: Mapping[str, Any]) -> Plan:
    """Make a plan of what was read from JSON, such as the answer of a chat model.

    Args:
        content: fields as in `Plan`.

    Raises:
        InputError: a field is missing, unknown or has a wrong value.
    """
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the plan"
        raise InputError(f"The plan cannot be used: {where}: {first['msg'].removeprefix('Value error, ')}.") from error


def plan_schema() -> dict[str, Any]:
    """Return the JSON schema of a plan, as structured output of a chat model takes it."""
    return Plan.model_json_schema()
