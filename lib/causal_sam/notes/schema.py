"""Schema of a plan: validated interventions, or a question to the clinician."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from causal_sam.errors import InputError
from causal_sam.text import canonical

Action = Literal["expand", "shrink", "exclude", "remove", "fill", "smooth", "keep_largest", "restyle", "keep"]
Direction = Literal["superior", "inferior", "left", "right", "anterior", "posterior"]
Strength = Literal["slight", "moderate", "strong"]

# Version of the plans: a new one if a stored plan means something else than it did.
PLAN_VERSION = 1
MAX_NAME_LENGTH = 100  # characters of a label or neighbour
MAX_QUESTION_LENGTH = 600  # characters
MAX_EXTENT_MM = 200.0  # upper limit of the extent of a correction
MAX_INTERVENTIONS = 1000

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
_STRENGTH_ADVERBS: dict[Strength, str] = {"slight": " slightly", "moderate": "", "strong": " strongly"}
_NAME_PATTERN = re.compile(r"[^\x00-\x1f\x7f{}<>]+")

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]


class Intervention(BaseModel):
    """One act on one label.

    Attributes:
        label: the site's name of the label.
        action: kind of the act; `exclude` needs ``near``, and `remove` with ``slices`` deletes the mask on them.
        direction: part of the label, as a patient direction; None for everywhere.
        near: neighbour that the mask runs into, or beside which the act applies.
        slices: first and last slice, inclusive, in the viewer's numbering; None for all.
        extent_mm: extent in mm, of `fill` the width of the gaps that are filled; None if the note gives none.
        strength: amount, if the note gives no extent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    label: Name
    action: Action
    direction: Direction | None = None
    near: Name | None = None
    slices: tuple[int, int] | None = None
    extent_mm: float | None = Field(default=None, gt=0, le=MAX_EXTENT_MM, allow_inf_nan=False)
    strength: Strength = "moderate"

    @field_validator("label", "near")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        if name is not None and not is_valid_name(name):
            raise ValueError("is no name, since it holds control characters or brackets, or is too long")
        return name

    @field_validator("slices")
    @classmethod
    def _check_slices(cls, slices: tuple[int, int] | None) -> tuple[int, int] | None:
        if slices is not None and not 0 <= slices[0] <= slices[1]:
            raise ValueError("must be the first and the last slice, counted from 0")
        return slices

    @model_validator(mode="after")
    def _check_exclude_has_near(self) -> Intervention:
        if self.action == "exclude" and self.near is None:
            raise ValueError("exclude needs the neighbour, as near")
        return self

    @property
    def sentence(self) -> str:
        """The intervention in controlled English; equal interventions have equal sentences.

        >>> Intervention(label="LK", action="shrink", direction="left", extent_mm=5, strength="slight").sentence
        'shrink the left kidney slightly on its left side by 5 mm'
        """
        near = canonical(self.near) if self.near else ""
        form = _SENTENCES[self.action]
        if self.action == "remove" and self.slices:
            form = "remove the {label}"
        text = form.format(label=canonical(self.label), near=near) + _STRENGTH_ADVERBS[self.strength]
        if self.direction:
            text += f" on its {self.direction} side"
        if near and self.action != "exclude":
            text += f" near the {near}"
        if self.slices:
            first, last = self.slices
            text += f" in slice {first}" if first == last else f" in slices {first} to {last}"
        word = "up to" if self.action == "fill" else "by"
        return f"{text} {word} {self.extent_mm:g} mm" if self.extent_mm else text


class Plan(BaseModel):
    """Interventions in the order of the note, or a question.

    Attributes:
        interventions: acts to apply; empty if there is a question.
        question: question to the clinician; nothing may be changed before it is answered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    interventions: tuple[Intervention, ...] = Field(default=(), max_length=MAX_INTERVENTIONS)
    question: Annotated[str, Field(min_length=1, max_length=MAX_QUESTION_LENGTH)] | None = None

    @model_validator(mode="after")
    def _check_exclusive(self) -> Plan:
        if bool(self.interventions) == (self.question is not None):
            raise ValueError("a plan has either interventions or a question")
        return self

    @property
    def sentence(self) -> str:
        """The interventions in controlled English, or the question."""
        return self.question or "; ".join(each.sentence for each in self.interventions)


def is_valid_name(text: str) -> bool:
    """Return whether a text may be the name of a label or neighbour."""
    return bool(text.strip()) and len(text) <= MAX_NAME_LENGTH and _NAME_PATTERN.fullmatch(text) is not None


def parse_plan(content: Mapping[str, Any]) -> Plan:
    """Validate a plan that was read from JSON, such as the answer of a chat model.

    Args:
        content: fields of `Plan`.

    Raises:
        InputError: a field is missing, unknown or invalid.
    """
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        raise InputError(f"The plan cannot be used: {first_error(error)}.") from error


def first_error(error: ValidationError) -> str:
    """Describe the first error of a validation in a few words."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or "the plan"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"
