"""Checks of a protocol on the masks of a case: each rule is carried out on trial, and a mask that keeps it stays.

A rule never takes a voxel from a label that it is not about: a tumor in the liver is no hole of the liver.

Some acts are checked exactly, others by the model. Whether a mask has holes, stray parts or several pieces, and how
rough its border is, follows from the mask alone. Whether it runs into a neighbour is decided by the modulated mask
decoder: a voxel belongs to one label of a session, so the overlap of two masks says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.correction.context import sides_in
from causal_sam.correction.corrector import MODULATED, Corrector
from causal_sam.imaging import Volume
from causal_sam.imaging.shape import bounding_box
from causal_sam.notes import Intervention, Plan
from causal_sam.prompting import InteractiveSession
from causal_sam.protocol.reading import RuleReader
from causal_sam.protocol.rules import Protocol, Rule

# Side in voxels of a cube that must be among what the decoder gives back. It draws each border a voxel or two
# elsewhere, so that a thin rind says nothing. In 17 generated organs it found 12 of 17 leaks so, and 2 where there was
# none.
MIN_THICKNESS = 3
# Voxels that smoothing may change, as a share of those at the border: it also changes some of a smooth border. Of 24
# generated organs one is above it as drawn, and 19 once their border is rough by about a voxel.
MAX_ROUGHNESS = 0.15

Status = Literal["holds", "fails", "no mask", "question"]


@dataclass(frozen=True)
class ActCheck:
    """Check of one act of a rule on one label.

    Attributes:
        act: the act.
        holds: whether the mask does not need it.
        gained_ml: volume in ml that the mask would gain by it.
        lost_ml: volume in ml that the mask would lose by it.
        problem: sentence why it cannot be done; None if it can.
    """

    act: Intervention
    holds: bool
    gained_ml: float = 0.0
    lost_ml: float = 0.0
    problem: str | None = None

    @property
    def is_exact(self) -> bool:
        """Whether the mask alone decides, and no model."""
        return self.act.action not in MODULATED

    def __str__(self) -> str:
        """Describe the result in words."""
        if self.problem is not None:
            return self.problem
        by = "" if self.is_exact else ", as the model sees it"
        return f"{self.act.label}: " + (
            f"holds{by}" if self.holds else f"would change by +{self.gained_ml:.2f} ml, -{self.lost_ml:.2f} ml{by}"
        )


@dataclass(frozen=True)
class RuleCheck:
    """Check of one rule on a case.

    Attributes:
        rule: the rule.
        plan: what the rule was read as; None if there is a question.
        acts: checks of the acts of the plan on labels that have masks.
        missing: labels of the plan without a mask on this case.
        question: sentence why the rule could not be read; None if it could.
    """

    rule: Rule
    plan: Plan | None = None
    acts: tuple[ActCheck, ...] = ()
    missing: tuple[str, ...] = ()
    question: str | None = None

    @property
    def status(self) -> Status:
        """Result of the rule."""
        if self.question is not None:
            return "question"
        if not self.acts:
            return "no mask"
        return "holds" if all(each.holds for each in self.acts) else "fails"

    @property
    def repair(self) -> Plan | None:
        """Plan with the acts that the masks need; None if they need none that can be done."""
        needed = tuple(each.act for each in self.acts if not each.holds and each.problem is None)
        return Plan(interventions=needed) if needed else None

    def __str__(self) -> str:
        """Describe the result in words, with the line of the rule."""
        if self.question is not None:
            said = self.question.rstrip(".")
        elif not self.acts:
            said = f"there is no mask of {', '.join(self.missing)}"
        else:
            shown = [each for each in self.acts if not each.holds] or self.acts
            said = "; ".join(str(each).rstrip(".") for each in shown)
        return f'Line {self.rule.line}, "{self.rule.text}": {said}'

    def to_dict(self) -> dict[str, Any]:
        """Return the record for JSON."""
        return {
            "rule": self.rule.identity,
            "line": self.rule.line,
            "text": self.rule.text,
            "status": self.status,
            "question": self.question,
            "plan": None if self.plan is None else self.plan.model_dump(mode="json"),
            "missing": list(self.missing),
            "acts": [
                {
                    "sentence": each.act.sentence,
                    "label": each.act.label,
                    "holds": each.holds,
                    "exact": each.is_exact,
                    "gained_ml": round(each.gained_ml, 3),
                    "lost_ml": round(each.lost_ml, 3),
                    "problem": each.problem,
                }
                for each in self.acts
            ],
        }


@dataclass(frozen=True)
class ProtocolReport:
    """Check of a protocol on a case.

    Attributes:
        version: version of the protocol.
        checks: one check per rule, in the order of the file.
    """

    version: str
    checks: tuple[RuleCheck, ...]

    def __str__(self) -> str:
        """Describe the result in words: how many rules hold, each one that does not, and lines that were not read."""
        checked = [each for each in self.checks if each.status in ("holds", "fails")]
        held = sum(each.status == "holds" for each in checked)
        others = [f"{each}." for each in self.checks if each.status == "fails"]
        if unread := [str(each.rule.line) for each in self.checks if each.status == "question"]:
            others.append(f"Not understood: line {', '.join(unread)}.")
        concern, hold = ("rule that concerns", "holds") if len(checked) == 1 else ("rules that concern", "hold")
        count = f"{held} of {len(checked)} {concern} these masks {hold}."
        return " ".join([f"Protocol {self.version}: {count}", *others])

    def to_dict(self) -> dict[str, Any]:
        """Return the record for JSON."""
        return {"protocol": self.version, "rules": [each.to_dict() for each in self.checks]}


def check_protocol(
    protocol: Protocol,
    reader: RuleReader,
    session: InteractiveSession,
    volume: Volume,
    corrector: Corrector,
    names: Sequence[str] = (),
) -> ProtocolReport:
    """Check all rules on the masks of a session, which stays as it is.

    Args:
        protocol: the rules.
        reader: reads them.
        session: session with the masks; locks do not matter, since nothing is changed.
        volume: image of the session.
        corrector: carries acts out on trial.
        names: names of labels that rules may be about besides those of the session.

    Raises:
        InputError: as `causal_sam.prompting.InteractiveSession.apply_note`.
    """
    checks = [
        check_rule(rule, read_rule(rule, reader, session, volume, names), session, corrector) for rule in protocol.rules
    ]
    return ProtocolReport(protocol.version, tuple(checks))


def read_rule(
    rule: Rule, reader: RuleReader, session: InteractiveSession, volume: Volume, names: Sequence[str] = ()
) -> Plan:
    """Return the plan of a rule on a case, or a question why it has none.

    Args:
        rule: the rule.
        reader: reads it.
        session: session with the masks.
        volume: image of the session.
        names: names of labels that the rule may be about besides those of the session.
    """
    masks = session.masks()
    labels = tuple(dict.fromkeys([*masks, *names]))
    if not labels:
        return Plan(question="There is no label yet that it could be about.")
    return reader.read(rule, labels, sides_in(volume, masks))


def check_rule(rule: Rule, plan: Plan, session: InteractiveSession, corrector: Corrector) -> RuleCheck:
    """Check one rule on the masks of a session, which stays as it is.

    Args:
        rule: the rule.
        plan: its plan, or a question.
        session: session with the masks.
        corrector: carries acts out on trial.

    Raises:
        InputError: as `causal_sam.prompting.InteractiveSession.apply_note`.
    """
    if plan.question is not None:
        return RuleCheck(rule, question=plan.question)
    masks = session.masks()
    acts = [act for act in plan.interventions if act.label in masks]
    missing = dict.fromkeys(act.label for act in plan.interventions if act.label not in masks)
    checks = [_check_act(act, rule, masks[act.label], session, corrector) for act in acts]
    return RuleCheck(rule, plan, tuple(checks), tuple(missing))


def _check_act(
    act: Intervention,
    rule: Rule,
    mask: NDArray[np.bool_],
    session: InteractiveSession,
    corrector: Corrector,
) -> ActCheck:
    """Carry an act out on trial, and compare the masks."""
    if act.action in MODULATED and not corrector.is_trained:
        return ActCheck(act, holds=False, problem=f"The model was not trained to {act.action} by notes.")
    with _on_trial(session):
        plan = Plan(interventions=(act,))
        outcome = session.apply_note(rule.text, plan, corrector, confirm=True, spare_others=True)
    (correction,) = outcome.corrections
    effect = correction.effect
    if not effect.gained_ml and not effect.lost_ml:
        return ActCheck(act, holds=True)
    if correction.objection is not None:
        return ActCheck(act, holds=False, problem=correction.objection)
    holds = _is_within_tolerance(act, mask, mask ^ correction.mask)
    return ActCheck(act, holds, effect.gained_ml, effect.lost_ml)


@contextmanager
def _on_trial(session: InteractiveSession) -> Iterator[None]:
    """Forget all steps of the block; nothing is locked in it."""
    before = session.history
    try:
        session.lock(only=True)
        yield
    finally:
        session.history = before


def _is_within_tolerance(act: Intervention, mask: NDArray[np.bool_], changed: NDArray[np.bool_]) -> bool:
    """Return whether a mask keeps a rule although its act would change some voxels."""
    box = bounding_box(mask | changed)
    mask, changed = np.pad(mask[box], 1), np.pad(changed[box], 1)
    if act.action == "smooth":
        border = mask & ~ndimage.binary_erosion(mask)
        return bool(changed.sum() <= MAX_ROUGHNESS * border.sum())
    if act.action in MODULATED:
        return not ndimage.binary_erosion(changed, np.ones((MIN_THICKNESS,) * 3)).any()
    return False
