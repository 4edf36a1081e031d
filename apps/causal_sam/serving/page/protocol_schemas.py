"""Bodies of requests and answers about the protocol."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from causal_sam.notes import Plan
from serving.page.schemas import StepRequest


class ProtocolRule(BaseModel):
    """A rule of the protocol.

    Attributes:
        rule: version of the rule, which depends on its words.
        line: line of the file, from 1.
        text: the rule as people wrote it.
    """

    rule: str
    line: int
    text: str


class ProtocolRules(BaseModel):
    """The rules of the protocol, and the version of all of them together."""

    protocol: str
    rules: list[ProtocolRule]


class ActCheck(BaseModel):
    """Check of one act of a rule on one label.

    Attributes:
        sentence: the act, in plain words.
        holds: the mask does not need the act.
        exact: the mask alone decides, and no model.
        gained_ml: volume that the mask would gain by it.
        lost_ml: volume that the mask would lose by it.
        problem: sentence why it cannot be done.
    """

    sentence: str
    label: str
    holds: bool
    exact: bool
    gained_ml: float
    lost_ml: float
    problem: str | None


class RuleCheck(ProtocolRule):
    """Check of a rule on the masks of a session.

    Attributes:
        missing: labels of the rule without a mask.
        question: sentence why the rule could not be read.
        acts: what it was read as, for the labels with masks.
    """

    status: Literal["holds", "fails", "no mask", "question"]
    question: str | None
    missing: list[str]
    acts: list[ActCheck]


class ProtocolCheck(BaseModel):
    """Check of all rules; ``message`` says which do not hold."""

    protocol: str
    rules: list[RuleCheck]
    message: str


class RuleRequest(StepRequest):
    """A rule to carry out by its version; ``plan`` is that of its preview, or None to check it again."""

    rule: str
    plan: Plan | None = None
