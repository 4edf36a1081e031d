"""Patient directions of anatomical words: "lateral" on the liver is right, the "tail" of the pancreas is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

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
    """Return the side of the body of a label by its name; None for the midline, or if the name does not determine it.

    >>> side_of("LK"), side_of("spleen"), side_of("hepatic mets"), side_of("prostate")
    ('left', 'left', 'right', None)
    """
    readings = load_lexicon().readings(label)
    named_sides = {side for reading in readings for side in reading.sides}
    if named_sides:
        return named_sides.pop() if len(named_sides) == 1 else None
    sides = {side for reading in readings for side in _sides_of(reading)}
    return sides.pop() if len(sides) == 1 else None


def has_side_in_name(label: str) -> bool:
    """Return whether the name of a label says on which side of the body it is.

    >>> has_side_in_name("LK"), has_side_in_name("spleen")
    (True, False)
    """
    return any(reading.sides for reading in load_lexicon().readings(label))


def direction_of(word: str, label: str, side: Direction | None = None) -> Direction | None:
    """Return the patient direction of an anatomical word on a label.

    Args:
        word: direction, "lateral" or "medial" with their synonyms, or part of an organ ("dome", "tail").
        label: name of the label.
        side: side of the body of the label, if its name does not determine it.

    Returns:
        The direction; None for a part without a single direction, such as the "pole".

    Raises:
        InputError: the word is none of these, or it is "lateral" or "medial" and the side of the label is unknown.

    >>> direction_of("lateral", "liver"), direction_of("medial", "left kidney"), direction_of("tail", "pancreas")
    ('right', 'right', 'left')
    """
    vocabulary = load_vocabulary()
    meaning = vocabulary.direction_of_word(word)
    if meaning is None:
        raise InputError(f"{word!r} is no direction and no part of an organ; say it as in superior, lateral or dome.")
    return resolve_direction(meaning, label, side, vocabulary)


def resolve_direction(meaning: str, label: str, side: Direction | None, vocabulary: Vocabulary) -> Direction | None:
    """Resolve a direction or part of the vocabulary on a label, as in `direction_of`.

    Raises:
        InputError: the direction depends on the side of the label, which is unknown.
    """
    if meaning in vocabulary.parts:
        meaning = _direction_of_part(vocabulary.parts[meaning], label)
    if meaning not in ("lateral", "medial"):
        return cast(Direction, meaning) if meaning else None
    side = side or side_of(label)
    if side is None:
        raise InputError(f"The {label} has no {meaning} side unless it is known on which side of the body it is.")
    return side if meaning == "lateral" else OPPOSITES[side]


def structures_of(label: str) -> set[str]:
    """Return the structures of a label and those that it is a part of, such as the lung for its lower lobe."""
    parts = {part for reading in load_lexicon().readings(label) for part in reading.parts}
    return parts | {part.partition(" of the ")[2] for part in parts}


def direction_of_part(value: str) -> str:
    """Return the direction of a part if it is the same on all organs; any other value is returned unchanged.

    >>> direction_of_part("dome"), direction_of_part("apex"), direction_of_part("left")
    ('superior', 'apex', 'left')
    """
    places = set(load_vocabulary().parts.get(value, {}).values()) - {""}
    return places.pop() if len(places) == 1 else value


def _direction_of_part(places: Mapping[str, str], label: str) -> str:
    structures = structures_of(label)
    return next((place for name, place in places.items() if name in structures), places.get("any", ""))


def _sides_of(reading: Reading) -> set[Direction]:
    sides = load_vocabulary().sides
    return {sides[part] for part in reading.parts if part in sides}
