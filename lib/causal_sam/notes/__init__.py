"""Interpreters that turn a clinician's note into a plan of validated interventions, and the schema of the plan."""

from causal_sam.notes.interpreter import EmbeddedInterpreter, load_interpreter
from causal_sam.notes.laterality import direction_of, side_of
from causal_sam.notes.request import ImageSlices, Interpretation, NoteContext, NoteRequest
from causal_sam.notes.schema import Action, Direction, Intervention, Plan, Strength, parse_plan

__all__ = [
    "Action",
    "Direction",
    "EmbeddedInterpreter",
    "ImageSlices",
    "Interpretation",
    "Intervention",
    "NoteContext",
    "NoteRequest",
    "Plan",
    "Strength",
    "direction_of",
    "load_interpreter",
    "parse_plan",
    "side_of",
]
