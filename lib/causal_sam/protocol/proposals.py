"""Rules that a site could take: notes that recur in its journal, measured on held-out accepted labels.

A rule is carried out on the labels that people accepted and that no adapters were trained on. If that lowers the mean
Dice with these labels, people accepted what the rule forbids, and it is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

from causal_sam.errors import InputError
from causal_sam.imaging.overlap import dice
from causal_sam.notes import Intervention
from causal_sam.notes.schema import parse_plan
from causal_sam.protocol.cases import AcceptedCase, ProtocolTools
from causal_sam.protocol.reading import STATES
from causal_sam.protocol.rules import Protocol, Rule
from causal_sam.site.accepted import AcceptedLabel
from causal_sam.site.publish_gate import is_held_out, study_digest
from causal_sam.site.training_set import MAX_MEASURED

# Largest loss of mean Dice on held-out accepted labels. Dice of one mask drawn twice differs by more.
MAX_LOSS = 0.005
MIN_CASES = 3
_Key = tuple[Any, ...]


@dataclass(frozen=True)
class Proposal:
    """A rule, with what it does to held-out accepted labels.

    Attributes:
        rule: the rule; line 0 if it is new.
        images: ids of the images on which the note recurred; none for a rule of the protocol.
        dice: id of a held-out image -> mean Dice of the masks after the rule was carried out with the accepted ones,
            over the labels that the rule is about or changes; without any change it is 1.
        problem: sentence why it cannot be a rule or could not be measured; None if it could.
    """

    rule: Rule
    images: tuple[str, ...] = ()
    dice: Mapping[str, float] = field(default_factory=dict)
    problem: str | None = None

    @property
    def loss(self) -> float | None:
        """Mean loss of Dice over the held-out cases that have its labels; None if there are none."""
        return mean(1 - value for value in self.dice.values()) if self.dice else None

    @property
    def reason(self) -> str | None:
        """Sentence why it is not taken; None if it is."""
        if self.problem is not None:
            return self.problem
        if self.loss is None:
            return "No held-out accepted label has its labels, so it could not be measured."
        if self.loss > MAX_LOSS:
            worst = min(self.dice, key=lambda image: self.dice[image])
            return (
                f"It changes what people accepted: the mean Dice on {len(self.dice)} held-out accepted labels falls by "
                f"{self.loss:.4f}, by more than {MAX_LOSS:g}, most on {worst} (to {self.dice[worst]:.3f})."
            )
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return the record for JSON."""
        return {
            "rule": self.rule.identity,
            "text": self.rule.text,
            "line": self.rule.line or None,
            "images": list(self.images),
            "dice": {image: round(value, 5) for image, value in self.dice.items()},
            "loss": None if self.loss is None else round(self.loss, 5),
            "taken": self.reason is None,
            "reason": self.reason,
        }


def propose(
    protocol: Protocol,
    entries: Iterable[Mapping[str, Any]],
    accepted: Sequence[AcceptedLabel],
    tools: ProtocolTools,
    *,
    min_cases: int = MIN_CASES,
    validation: float = 0.2,
    on_case: Callable[[str], object] = lambda image_id: None,
) -> tuple[list[Proposal], dict[str, str]]:
    """Measure the rules of a protocol, and notes that recur and could be rules.

    Args:
        protocol: rules of the site.
        entries: journal of notes, the oldest entry first.
        accepted: accepted labels of the site.
        tools: what checks need.
        min_cases: number of images on which a note must have been carried out to count as recurring.
        validation: share of the studies that is held out, as in updates.
        on_case: called with the id of each held-out image before it is measured.

    Returns:
        The rules of the protocol, and new ones behind them; and the ids of held-out labels that could not be used,
        with the reasons.
    """
    done = list(notes_carried_out(entries))
    names = tuple(dict.fromkeys(act.label for _, acts in done for act in acts))
    plans = [tools.reader.read(rule, names, {}) for rule in protocol.rules] if names else []
    covered = {act.sentence for plan in plans for act in plan.interventions}
    proposals = [Proposal(rule) for rule in protocol.rules]
    for act, images in _recurring(done, min_cases):
        if act.sentence not in covered:
            proposals.append(_candidate(act, images, names, tools))
    held_out = [label for label in accepted if is_held_out(label.study, validation)]
    held_out.sort(key=lambda label: study_digest(label.study))
    unusable = {}
    for label in held_out[:MAX_MEASURED]:
        on_case(label.image_id)
        try:
            case = tools.open(label)
            proposals = [_measured(each, case, names) for each in proposals]
        except InputError as error:
            unusable[label.image_id] = str(error)
    return proposals, unusable


def notes_carried_out(entries: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, tuple[Intervention, ...]]]:
    """Yield the id of the image and the acts of each note in a journal that was carried out and not undone.

    Rules that were carried out are left out, as are entries that cannot be read.

    Args:
        entries: journal of notes, the oldest entry first.
    """
    done: dict[_Key, tuple[Intervention, ...]] = {}
    undone: dict[_Key, tuple[Intervention, ...]] = {}
    for entry in entries:
        key = tuple(entry.get(name) for name in ("image", "frame", "user", "note"))
        act = entry.get("act")
        if act == "note" and "rule" not in entry and isinstance(entry.get("image"), str):
            try:
                done[key] = parse_plan(entry["plan"]).interventions
            except (InputError, KeyError, TypeError):  # of another version, or damaged
                continue
        elif act == "undo" and key in done:
            undone[key] = done.pop(key)
        elif act == "redo" and key in undone:
            done[key] = undone.pop(key)
    for (image_id, *_), acts in done.items():
        yield str(image_id), acts


def _recurring(
    done: Iterable[tuple[str, tuple[Intervention, ...]]], min_cases: int
) -> list[tuple[Intervention, tuple[str, ...]]]:
    """Return the acts that recur, without slices and amounts, with the ids of their images, the most frequent first."""
    images: dict[str, set[str]] = {}
    acts: dict[str, Intervention] = {}
    for image_id, interventions in done:
        for act in interventions:
            if act.action != "keep":
                plain = act.model_copy(update={"slices": None, "extent_mm": None, "strength": "moderate"})
                acts.setdefault(plain.sentence, plain)
                images.setdefault(plain.sentence, set()).add(image_id)
    found = [(acts[sentence], tuple(sorted(ids))) for sentence, ids in images.items() if len(ids) >= min_cases]
    return sorted(found, key=lambda pair: -len(pair[1]))


def _candidate(act: Intervention, images: tuple[str, ...], names: tuple[str, ...], tools: ProtocolTools) -> Proposal:
    """Put an act into words as a rule, if it is a state and the words are read as the act."""
    text = f"{act.sentence[0].upper()}{act.sentence[1:]}."
    rule = Rule(text, 0)
    if act.action not in STATES:
        return Proposal(rule, images, problem="It is no state that every mask can be in, so it stays a note.")
    plan = tools.reader.read(rule, names, {})
    if plan.question is not None:
        return Proposal(rule, images, problem=plan.question)
    if [each.sentence for each in plan.interventions] != [act.sentence]:
        return Proposal(rule, images, problem=f"In these words it would be read as: {plan.sentence}.")
    return Proposal(rule, images)


def _measured(proposal: Proposal, case: AcceptedCase, names: tuple[str, ...]) -> Proposal:
    """Carry a rule out on a held-out accepted label, compare, and take it back."""
    if proposal.problem is not None:
        return proposal
    session = case.session
    accepted = session.masks()
    plan = case.read(proposal.rule, names)
    check, _ = case.carry_out(proposal.rule, plan, confirm=True)
    if check.question is not None:
        return replace(proposal, problem=check.question)
    if not check.acts:
        return proposal
    after = {name: session.mask(name) for name in accepted}
    if check.repair is not None:
        session.undo()
    about = {each.act.label for each in check.acts}
    about |= {name for name, mask in accepted.items() if (mask != after[name]).any()}
    score = mean(dice(after[name], accepted[name]) for name in sorted(about))
    return replace(proposal, dice={**proposal.dice, case.image_id: score})
