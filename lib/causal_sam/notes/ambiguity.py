"""Check that each act concerns what the note says: several labels or opposite sides only if the note lists them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from causal_sam.errors import InputError
from causal_sam.notes.drafts import ClarificationNeeded
from causal_sam.notes.fragments import STATEMENT_KINDS, Fragment, Mark
from causal_sam.notes.items import Item
from causal_sam.notes.laterality import OPPOSITES, resolve_direction
from causal_sam.notes.vocabulary import Vocabulary

# Kinds that may stand between the members of a list of names.
_IN_LISTS = frozenset({"plain", "both", "also", "masks", "place", "all", "one", "strength", "name", "of", "edges"})
_LIST_JOINS = frozenset({"and", ",", "or", "/", "&", "nor"})
# Kinds in a fragment that only adds a place to an act.
_IN_PLACES = frozenset({"plain", "place", "in", "of", "edges", "strength", "mm", "also", "both", "name"})


def check_labels(items: Sequence[Item], fragments: Sequence[Fragment]) -> None:
    """Check that an act concerns several labels only if the note lists them, not where one locates the other.

    Args:
        items: interventions with the drafts that they come from.
        fragments: fragments of the note.

    Raises:
        ClarificationNeeded: the note names another label between other words: "heart overshoots on the liver side".
    """
    for group in _by_act(items):
        drafts = [item.draft for item in group]
        if any(draft.has_all or draft.has_both or draft.has_other or not draft.subjects for draft in drafts):
            continue
        labels = dict.fromkeys(item.intervention.label for item in group)
        sentences = {draft.sentence for draft in drafts}
        named = [
            (fragment, mark)
            for fragment in fragments
            if fragment.sentence in sentences
            for mark in fragment.names
            if not labels.keys().isdisjoint(mark.mention.all_labels)
        ]
        for (first, one), (second, other) in itertools.pairwise(named):
            if set(one.mention.all_labels) & set(other.mention.all_labels):
                continue
            if not _are_listed(first, one, second, other):
                raise ClarificationNeeded(
                    f"What is to change, the {one.mention.all_labels[0]}, the {other.mention.all_labels[0]} or both?"
                )


def check_directions(items: Sequence[Item], fragments: Sequence[Fragment], vocabulary: Vocabulary) -> None:
    """Check that an act concerns opposite sides of a label only if the note lists them.

    Raises:
        ClarificationNeeded: one of them may say where something else is: "under the dome".
    """
    for group in _by_act(items):
        for one, other in itertools.combinations([item.intervention for item in group], 2):
            is_opposite = one.direction is not None and OPPOSITES[one.direction] == other.direction
            if one.label != other.label or not is_opposite or one.extent_mm != other.extent_mm:
                continue
            own = [each for each in fragments if each.sentence == group[0].draft.sentence]
            first, second = (_place(own, act.direction or "", act.label, vocabulary) for act in (one, other))
            if first is None or second is None or first[1] is second[1]:
                continue
            later = max(first[0], second[0], key=own.index)
            if first[0] is second[0] or not all(mark.kind in _IN_PLACES for mark in later.marks):
                raise ClarificationNeeded(
                    f'On which side of the {one.label}, "{first[1].text}" or "{second[1].text}"? Say only this one.'
                )


def _by_act(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Yield the items of each act but `keep`; copies of a draft for other labels or places share their act."""
    groups: dict[int, list[Item]] = {}
    for item in items:
        if item.intervention.action != "keep":
            groups.setdefault(id(item.draft.act), []).append(item)
    yield from groups.values()


def _are_listed(first: Fragment, one: Mark, second: Fragment, other: Mark) -> bool:
    if first is second:
        between = first.marks[first.index(one) + 1 : first.index(other)]
        return all(mark.kind in _IN_LISTS for mark in between)
    before = second.before(other)
    if second.has_word("same") or second.has("also", "other") or second.repeats_statement():
        return True
    if second.join not in _LIST_JOINS or second.preposition(other) not in ("", "of"):
        return False
    is_plain = all(mark.kind in _IN_LISTS for mark in (*first.after(one), *before))
    # "the liver at the dome and the spleen at the tip"
    has_own_place = second.join == "and" and not any(mark.kind in STATEMENT_KINDS for mark in before)
    return is_plain or has_own_place


def _place(
    fragments: Sequence[Fragment], direction: str, label: str, vocabulary: Vocabulary
) -> tuple[Fragment, Mark] | None:
    """Return the first mark that is this direction of a label, with its fragment."""
    for fragment in fragments:
        for mark in fragment.all("place"):
            for value in mark.values:
                try:
                    if resolve_direction(value, label, None, vocabulary) == direction:
                        return fragment, mark
                except InputError:
                    continue
    return None
