"""From a clinician's note to validated interventions: schema, laterality, and interpreters."""

from causal_sam.notes.interpreter import EmbeddedInterpreter, load_interpreter
from causal_sam.notes.laterality import direction_of, side_of
from causal_sam.notes.request import NoteContext, NoteRequest, Reading
from causal_sam.notes.schema import (
    ACTIONS,
    Action,
    Direction,
    Intervention,
    Plan,
    Strength,
    parse_plan,
    plan_schema,
)

__all__ = [
    "ACTIONS",
    "Action",
    "Direction",
    "EmbeddedInterpreter",
    "Intervention",
    "NoteContext",
    "NoteRequest",
    "Plan",
    "Reading",
    "Strength",
    "direction_of",
    "load_interpreter",
    "parse_plan",
    "plan_schema",
    "side_of",
]
