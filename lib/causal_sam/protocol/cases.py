"""Accepted labels of a data store as sessions, on which rules are checked and carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from causal_sam.correction.corrector import Corrector
from causal_sam.imaging import Volume
from causal_sam.notes import Plan
from causal_sam.prompting import InteractiveSession, Predictor
from causal_sam.protocol.checks import ProtocolReport, RuleCheck, check_protocol, check_rule, read_rule
from causal_sam.protocol.reading import RuleReader
from causal_sam.protocol.rules import Protocol, Rule
from causal_sam.site.accepted import AcceptedLabel, read_accepted


@dataclass(frozen=True)
class ProtocolTools:
    """What checks of accepted labels need.

    Attributes:
        reader: reads rules.
        predictor: predictor with the model.
        corrector: carries acts out.
        plane: plane of the slices.
        values: label name -> value, for label maps without names.
    """

    reader: RuleReader
    predictor: Predictor
    corrector: Corrector
    plane: str = "auto"
    values: Mapping[str, int] = field(default_factory=dict)

    def open(self, label: AcceptedLabel) -> AcceptedCase:
        """Open an accepted label.

        Raises:
            InputError: its image or its label map cannot be used.
        """
        volume, masks = read_accepted(label, self.values)
        session = InteractiveSession(self.predictor.for_volume(volume, self.plane), list(masks))
        for name, mask in masks.items():
            session.set_mask(name, mask)
        return AcceptedCase(label.image_id, volume, session, self)


@dataclass(frozen=True)
class AcceptedCase:
    """An accepted label in a session.

    Attributes:
        image_id: id of the image.
        volume: image.
        session: session with the masks.
        tools: what checks need.
    """

    image_id: str
    volume: Volume
    session: InteractiveSession
    tools: ProtocolTools

    def check(self, protocol: Protocol, names: Sequence[str] = ()) -> ProtocolReport:
        """Check all rules, which may be about labels with the given names too; nothing is changed."""
        return check_protocol(protocol, self.tools.reader, self.session, self.volume, self.tools.corrector, names)

    def read(self, rule: Rule, names: Sequence[str] = ()) -> Plan:
        """Return the plan of a rule on this case; see `causal_sam.protocol.checks.read_rule`."""
        return read_rule(rule, self.tools.reader, self.session, self.volume, names)

    def carry_out(self, rule: Rule, plan: Plan, *, confirm: bool = False) -> tuple[RuleCheck, str | None]:
        """Carry out what a rule asks of the masks.

        Args:
            rule: the rule.
            plan: its plan, or a question.
            confirm: make changes also if they are larger than is plausible.

        Returns:
            The check of the rule before, and a question if a change has to be confirmed, so that nothing was done.
        """
        check = check_rule(rule, plan, self.session, self.tools.corrector)
        if check.repair is None:
            return check, None
        outcome = self.session.apply_note(
            rule.text, check.repair, self.tools.corrector, confirm=confirm, spare_others=True
        )
        return check, outcome.question
