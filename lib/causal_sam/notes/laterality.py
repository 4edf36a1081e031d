"""From the words of anatomy to patient directions: "lateral" of the liver is right, the "tail" of the pancreas left."""

from __future__ import annotations

from collections.abc import Mapping

from causal_sam.errors import InputError
from causal_sam.notes.schema import Direction
from causal_sam.notes.vocabulary import Vocabulary, load_vocabulary
from causal_sam.text import Reading, load_lexicon

OPPOSITES: dict[str, Direction] = {
    "superior": "inferior",
    "inferior": "superior",
    "anterior": "posterior",
    "posterior": "anterior",
    "left": "right",
    "right": "left",
}


def side_of(label: str) -> Direction | None:
    """Return the side of the body that a label is on, by its name; None for the midline, or if the name leaves it open.

    >>> side_of("LK"), side_of("spleen"), side_of("hepatic mets"), side_of("prostate")
    ('left', 'left', 'right', None)
    """
    readings = load_lexicon().readings(label)
    said = {side for reading in readings for side in reading.sides}
    if said:
        return said.pop() if len(said) == 1 else None
    sides = {side for reading in readings for side in _sides_of(reading)}
    return sides.pop() if len(sides) == 1 else None


def direction_of(word: str, label: str, side: Direction | None = None) -> Direction | None:
    """Return the patient direction that a word of anatomy means on a label.

    Args:
        word: a direction, "lateral" or "medial" with their synonyms, or a part of an organ ("dome", "tail").
        label: on which.
        side: of the body that the label is on, if its name does not say it.

    Returns:
        None for a part that is in no one direction, such as the "pole".

    Raises:
        InputError: the word is none of these, or "lateral" of a label whose side is not known.

    >>> direction_of("lateral", "liver"), direction_of("medial", "left kidney"), direction_of("tail", "pancreas")
    ('right', 'right', 'left')
    """
    vocabulary = load_vocabulary()
    meaning = vocabulary.direction(word)
    if meaning is None:
        raise InputError(f"{word!r} is no direction and no part of an organ; say it as in superior, lateral or dome.")
    return direction_by(meaning, label, side, vocabulary)


def direction_by(meaning: str, label: str, side: Direction | None, vocabulary: Vocabulary) -> Direction | None:
    """As `direction_of`, for a word whose meaning was looked up.

    Raises:
        InputError: the side of the label is not known, and matters.
    """
    if meaning in vocabulary.parts:
        meaning = _of_part(vocabulary.parts[meaning], label)
    if meaning not in ("lateral", "medial"):
        return meaning or None
    side = side or side_of(label)
    if side is None:
        raise InputError(f"The {label} has no {meaning} side unless it is known on which side of the body it is.")
    return side if meaning == "lateral" else OPPOSITES[side]


def structures_of(label: str) -> set[str]:
    """The structures that a label is, or is a part of, such as the lung for its lower lobe."""
    parts = {part for reading in load_lexicon().readings(label) for part in reading.parts}
    return parts | {part.partition(" of the ")[2] for part in parts}


def side_of_part(value: str) -> str:
    """The direction that a part of an organ is in, if it is the same on all of them, or the direction itself.

    >>> side_of_part("dome"), side_of_part("apex"), side_of_part("left")
    ('superior', 'apex', 'left')
    """
    places = set(load_vocabulary().parts.get(value, {}).values()) - {""}
    return places.pop() if len(places) == 1 else value


def _of_part(places: Mapping[str, str], label: str) -> str:
    structures = structures_of(label)
    return next((place for name, place in places.items() if name in structures), places.get("any", ""))


def _sides_of(reading: Reading) -> set[Direction]:
    sides = load_vocabulary().sides
    return {sides[part] for part in reading.parts if part in sides}
