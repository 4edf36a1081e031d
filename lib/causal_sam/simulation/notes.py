"""Notes about simulated errors, worded as by clinicians.

None uses the controlled English that the modulation was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from causal_sam.notes.laterality import OPPOSITES, side_of
from causal_sam.notes.schema import Action, Direction, Intervention, Strength

# (action, strength, has a direction) -> templates, with {where} as an adjective and {at} as an adverb.
SIZES: Mapping[tuple[Action, Strength, bool], tuple[str, ...]] = {
    ("expand", "slight", False): (
        "The {label} is slightly undersegmented.",
        "{label}: a bit too small all around",
        "Please enlarge the {label} a little.",
    ),
    ("expand", "moderate", False): (
        "The {label} mask is too small.",
        "{label} is undersegmented",
        "The contour of the {label} is too tight everywhere.",
    ),
    ("expand", "strong", False): (
        "The {label} is far too small.",
        "{label} grossly undersegmented",
        "Much of the {label} has been missed.",
    ),
    ("expand", "slight", True): (
        "Add a little more of the {label} {at}.",
        "{label}: a bit of the {where} part is missing",
        "The {label} stops slightly short on its {where} aspect.",
    ),
    ("expand", "moderate", True): (
        "The {where} part of the {label} is not included.",
        "{label} cut off {at}",
        "The mask of the {label} does not reach far enough {at}.",
    ),
    ("expand", "strong", True): (
        "The {label} is grossly undersegmented {at}.",
        "{label}: extend it a lot further {at}",
        "The {where} portion of the {label} is far too small.",
    ),
    ("shrink", "slight", False): (
        "The {label} is marginally too large.",
        "trim the {label} a little all the way round",
        "The outline of the {label} is a bit too generous.",
    ),
    ("shrink", "moderate", False): (
        "The {label} is overcalled.",
        "{label} mask too big, tighten it",
        "The outline of the {label} is too generous.",
    ),
    ("shrink", "strong", False): (
        "The {label} is far too large.",
        "grossly oversegmented {label}",
        "Cut the {label} back a lot all around.",
    ),
    ("shrink", "slight", True): (
        "The {label} is a bit too generous {at}.",
        "shave a little off the {where} edge of the {label}",
        "{label}: slightly oversegmented {at}",
    ),
    ("shrink", "moderate", True): (
        "The {label} goes too far {at}.",
        "{label} oversegmented {at}",
        "Pull the {where} border of the {label} back.",
    ),
    ("shrink", "strong", True): (
        "The {label} extends way too far {at}.",
        "{label} far too big {at}",
        "Cut the {label} back a lot on its {where} side.",
    ),
}
OTHERS: Mapping[Action, tuple[str, ...]] = {
    "exclude": (
        "The {label} leaks into the {near}.",
        "part of the {near} is labelled as {label}",
        "The mask of the {label} spills over into the {near}, please take it out.",
        "{label}: {near} is wrongly included",
    ),
    "remove": (
        "There is an isolated blob away from the {label}, get rid of it.",
        "{label}: delete the false positive island",
        "The {label} has a disconnected speck that does not belong to it.",
    ),
    "keep_largest": (
        "Only the main piece of the {label} is real, drop everything else.",
        "{label} is in two pieces, leave only the bigger one",
        "The {label} must be one connected structure.",
    ),
    "fill": (
        "There is a hole inside the {label}.",
        "{label} mask is not solid, fill it in",
        "An inner void was left in the {label}.",
    ),
    "smooth": (
        "The edge of the {label} is jagged.",
        "{label} contour looks rough, pls polish",
        "The surface of the {label} looks like a staircase.",
    ),
    "restyle": (
        "Parts of the {label} were missed because the signal is inhomogeneous.",
        "{label}: the shading fooled the model, disregard it",
        "Do not let the bias field confuse the {label}.",
    ),
}
ADJECTIVES: Mapping[str, tuple[str, ...]] = {
    "superior": ("superior", "upper", "cranial"),
    "inferior": ("inferior", "lower", "caudal"),
    "anterior": ("anterior", "ventral", "front"),
    "posterior": ("posterior", "dorsal", "back"),
    "left": ("left",),
    "right": ("right",),
    "lateral": ("lateral", "outer"),
    "medial": ("medial", "inner"),
}
ADVERBS: Mapping[str, tuple[str, ...]] = {
    "superior": ("superiorly", "cranially", "towards the head", "at the top"),
    "inferior": ("inferiorly", "caudally", "towards the feet", "at the bottom"),
    "anterior": ("anteriorly", "ventrally", "at the front"),
    "posterior": ("posteriorly", "dorsally", "at the back"),
    "left": ("on the left", "towards the patient's left"),
    "right": ("on the right", "towards the patient's right"),
    "lateral": ("laterally",),
    "medial": ("medially",),
}


def write_note(intervention: Intervention, rng: np.random.Generator) -> str:
    """Write a note that requests an intervention.

    Args:
        intervention: intervention of a simulated error; its slices and extent are not expressed.
        rng: source of randomness for the wording.
    """
    return str(rng.choice(notes_for(intervention)))


def notes_for(intervention: Intervention) -> list[str]:
    """Return all notes that `write_note` can draw."""
    if (intervention.action, intervention.strength, False) in SIZES:
        templates = SIZES[intervention.action, intervention.strength, intervention.direction is not None]
    else:
        templates = OTHERS[intervention.action]
    places = [("", "")]
    if intervention.direction is not None:
        ways = _direction_words(intervention.direction, side_of(intervention.label))
        places = [(adjective, adverb) for way in ways for adjective in ADJECTIVES[way] for adverb in ADVERBS[way]]
    names = {"label": intervention.label, "near": intervention.near}
    notes = (text.format(**names, where=where, at=at) for text in templates for where, at in places)
    return list(dict.fromkeys(notes))


def _direction_words(direction: Direction, side: Direction | None) -> list[str]:
    """Return the names of a direction on a label of a side: itself, and "medial" or "lateral"."""
    if side is None or direction not in ("left", "right"):
        return [direction]
    return [direction, "medial" if direction == OPPOSITES[side] else "lateral"]
