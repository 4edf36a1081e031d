"""What the reading network sees of a note: its tokens, and its marks as seen from each label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from causal_sam.errors import InputError
from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.laterality import resolve_direction, side_of
from causal_sam.notes.schema import Action, Direction, Plan
from causal_sam.notes.vocabulary import Vocabulary, load_vocabulary

# A text and N spans -> its tokens TxD and their shares NxT: see `causal_sam.text.loading.load_token_encoder`.
EncodeTokens = Callable[[str, Sequence[tuple[int, int]]], tuple[Tensor, Tensor]]
MAX_MARKS, MAX_SENTENCES = 112, 8
PLACES = ("superior", "inferior", "left", "right", "anterior", "posterior", "lateral", "medial")
# How a mark refers to a label: not at all, to it alone, to it and others, perhaps to it, to others, to no label.
NO_NAME, ITSELF, AMONG, CANDIDATE, OTHER, STRUCTURE = range(6)
# Between two sentences.
STOP = Mark("stop", ".")
FACTS = 3
ACTIONS: tuple[Action, ...] = get_args(Action)
# Number 0 is no direction.
DIRECTIONS: tuple[Direction | None, ...] = (None, *get_args(Direction))
RULED = len(ACTIONS) * len(DIRECTIONS) + 1
# A bit each for a mark that the rules take as neighbour, as length, as slices.
HINTS = 8


@dataclass(frozen=True)
class NoteFeatures:
    """A note of U marks and T tokens about L labels.

    Attributes:
        marks: the marks, with one of kind "stop" between sentences, "comma" between fragments, and "asks?" at the end
            of a question.
        labels: the labels.
        tokens: TxD states of the tokens, from the lower layers of the sentence encoder.
        shares: UxT, shares of the tokens in each mark.
        sentences: number of the sentence of each mark.
        mentions: LxU, how each mark refers to each label.
        places: LxU, direction of each mark on each label: 0 for none, otherwise 1 + its index in `PLACES`.
        sides: side of each label, numbered as its direction.
        facts: LxFACTS: a mark refers to the label; no mark refers to any label; it is the only one.
        ruled: Lx`RULED`, the plan of the rules: 1 for each action and direction on the label; last, 1 if they ask.
        hints: LxU, numbers below `HINTS`, what the rules use of the note for acts on the label.
    """

    marks: tuple[Mark, ...]
    labels: tuple[str, ...]
    tokens: Tensor
    shares: Tensor
    sentences: Tensor
    mentions: Tensor
    places: Tensor
    sides: Tensor
    facts: Tensor
    ruled: Tensor
    hints: Tensor


def note_features(
    fragments: Sequence[Fragment],
    labels: Sequence[str],
    sides: Mapping[str, Direction],
    by_rules: Plan,
    encode: EncodeTokens,
) -> NoteFeatures | None:
    """Return the features of a note.

    Args:
        fragments: the note, divided.
        labels: labels that it may be about.
        sides: sides of labels that their names do not determine.
        by_rules: what the rules read in the note.
        encode: tokens of a text.

    Returns:
        The features; None for a note without words, or one that is too long.
    """
    marks, sentences = _with_ends(fragments)
    if not marks or len(marks) > MAX_MARKS:
        return None
    spans, text = [], ""
    for mark in marks:
        text += " " if text else ""
        spans.append((len(text), len(text) + len(mark.text)))
        text += mark.text
    tokens, shares = encode(text, spans)
    if not shares.any(1).all():  # the encoder did not read to the end
        return None
    label_sides = [sides.get(label) or side_of(label) for label in labels]
    mentions = torch.tensor([[_reference(mark, label) for mark in marks] for label in labels])
    is_mentioned = [bool(((row > NO_NAME) & (row < OTHER)).any()) for row in mentions]
    alone, unnamed = len(labels) == 1, not any(is_mentioned)
    facts = [[is_named, unnamed, alone] for is_named in is_mentioned]
    vocabulary = load_vocabulary()
    places = [
        [_place_number(_place(mark, label, side, vocabulary)) for mark in marks]
        for label, side in zip(labels, label_sides, strict=True)
    ]
    return NoteFeatures(
        marks=tuple(marks),
        labels=tuple(labels),
        tokens=tokens,
        shares=shares,
        sentences=torch.tensor(sentences).clamp(max=MAX_SENTENCES - 1),
        mentions=mentions,
        places=torch.tensor(places),
        sides=torch.tensor([_place_number(side) for side in label_sides]),
        facts=torch.tensor(facts, dtype=torch.float32),
        ruled=torch.stack([_ruled(by_rules, label) for label in labels]),
        hints=torch.tensor([[_hint(by_rules, label, mark) for mark in marks] for label in labels]),
    )


def _with_ends(fragments: Sequence[Fragment]) -> tuple[list[Mark], list[int]]:
    """Return all marks with those of commas, conjunctions and ends of sentences, and the sentence of each."""
    marks: list[Mark] = []
    sentences: list[int] = []
    previous: Fragment | None = None
    for fragment in fragments:
        own: list[Mark] = []
        if previous is not None:
            is_end = fragment.sentence != previous.sentence
            own.append(STOP if is_end else Mark("comma", fragment.join or ";"))
        own += fragment.marks
        if fragment.asks:
            own.append(Mark("asks?", "?"))
        marks += own
        sentences += [fragment.sentence] * len(own)
        previous = fragment
    return marks, sentences


def _reference(mark: Mark, label: str) -> int:
    mention = mark.mention
    if not mention:
        return NO_NAME
    if label in mention.labels:
        return ITSELF if len(mention.labels) == 1 else AMONG
    if label in mention.candidates:
        return CANDIDATE
    return OTHER if mention.is_label else STRUCTURE


def _ruled(by_rules: Plan, label: str) -> Tensor:
    table = torch.zeros(len(ACTIONS), len(DIRECTIONS))
    for act in by_rules.interventions:
        if act.label == label:
            table[ACTIONS.index(act.action), DIRECTIONS.index(act.direction)] = 1
    return torch.cat([table.flatten(), torch.tensor([float(by_rules.question is not None)])])


def _hint(by_rules: Plan, label: str, mark: Mark) -> int:
    acts = [act for act in by_rules.interventions if act.label == label]
    is_near = bool(mark.mention) and any(act.near == mark.mention.neighbour for act in acts)
    is_length = mark.mm > 0 and any(act.extent_mm == mark.mm for act in acts)
    return is_near + 2 * is_length + 4 * any(act.slices in mark.slices for act in acts)


def _place(mark: Mark, label: str, side: Direction | None, vocabulary: Vocabulary) -> str | None:
    if mark.kind != "place":
        return None
    try:
        return resolve_direction(mark.values[0], label, side, vocabulary)
    except InputError:  # lateral or medial, and nobody knows on which side the label is
        return mark.values[0]


def _place_number(place: str | None) -> int:
    return 1 + PLACES.index(place) if place in PLACES else 0


def padded(rows: Sequence[Tensor], length: int) -> Tensor:
    """Stack tensors, padded with 0 along their last axis to a length."""
    return torch.stack([torch.nn.functional.pad(row, (0, length - row.shape[-1])) for row in rows])
