"""From a rule to its plan: the acts that a mask which keeps the rule does not need."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence

from cachetools import LRUCache
from langchain_core.runnables import Runnable

from causal_sam.notes import Interpretation, Intervention, NoteRequest, Plan
from causal_sam.notes.request import MAX_NOTE_LENGTH
from causal_sam.notes.schema import Action, Direction
from causal_sam.protocol.rules import Rule
from causal_sam.protocol.statements import EXAMPLES, as_orders

# Acts that a mask needs no more once they are done, so that a rule can demand their result.
STATES: frozenset[Action] = frozenset({"exclude", "remove", "fill", "smooth", "keep_largest"})
CACHED_PLANS = 1024
_CLAUSE_END = re.compile(r"\s*(?:;|\.(?=\s|$))\s*")


class RuleReader:
    """Reads rules as an interpreter of notes reads orders; thread-safe, and reads the same rule once.

    Args:
        interpreter: interpreter of notes.
    """

    def __init__(self, interpreter: Runnable[NoteRequest, Interpretation]) -> None:
        self._interpreter = interpreter
        self._plans: LRUCache[tuple[object, ...], Plan] = LRUCache(CACHED_PLANS)
        self._lock = threading.Lock()

    def read(self, rule: Rule, labels: Sequence[str], sides: Mapping[str, Direction]) -> Plan:
        """Return the plan of a rule, or a question why it has none.

        Args:
            rule: the rule; clauses with ";" or full stops between them are read one after the other.
            labels: labels that rules may be about, at least one.
            sides: label -> side of the body, where the name does not determine it.
        """
        key = (rule.identity, tuple(labels), tuple(sorted(sides.items())))
        with self._lock:
            plan = self._plans.get(key)
        if plan is None:
            notices: list[str] = []
            plan = self._read(rule, tuple(labels), sides, notices)
            if not notices:  # another interpreter stood in, and next time the requested one may answer
                with self._lock:
                    self._plans[key] = plan
        return plan

    def _read(self, rule: Rule, labels: tuple[str, ...], sides: Mapping[str, Direction], notices: list[str]) -> Plan:
        """Read the clauses of a rule; notices of the interpreter are added to a list."""
        if len(rule.text) > MAX_NOTE_LENGTH:
            return Plan(question=f"The rule has {len(rule.text)} characters, and {MAX_NOTE_LENGTH} is the most.")
        acts: list[Intervention] = []
        for clause in filter(None, _CLAUSE_END.split(rule.text)):
            orders = as_orders(clause)
            if not orders:
                return Plan(question=f'How can "{clause[:100]}" be seen on a mask? {EXAMPLES}')
            about = list(dict.fromkeys(act.label for act in acts))
            current = about[0] if len(about) == 1 else None
            for order in orders:
                request = NoteRequest(order.text, labels, current, {k: v for k, v in sides.items() if k in labels})
                reading = self._interpreter.invoke(request)
                plan = reading.plan
                notices += filter(None, [reading.notice])
                if plan.question is not None:
                    return plan
                acts += [
                    act.model_copy(update={"extent_mm": order.max_gap_mm}) if act.action == "fill" else act
                    for act in plan.interventions
                ]
        wrong = next((act for act in acts if not _is_state(act)), None)
        if wrong is not None:
            return Plan(question=f"This was read as: {wrong.sentence}. No mask can be in that state. {EXAMPLES}")
        return Plan(interventions=tuple(dict.fromkeys(acts))) if acts else Plan(question=EXAMPLES)


def _is_state(act: Intervention) -> bool:
    """Return whether an act leads to a state, the same on all images."""
    return act.action in STATES and act.slices is None and (act.extent_mm is None or act.action == "fill")
