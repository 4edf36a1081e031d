"""Check that each act concerns what the note says: several labels or opposite sides only if the note lists them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence

from causal_sam.errors import InputError
from causal_sam.notes.clarification import ClarificationNeeded
from causal_sam.notes.fragments import STATEMENT_KINDS, Fragment, Mark
from causal_sam.notes.items import Item, contradictory_label
from causal_sam.notes.laterality import OPPOSITES, resolve_direction
from causal_sam.notes.schema import Intervention
from causal_sam.notes.vocabulary import Vocabulary

# Kinds that may stand between the members of a list of names.
_IN_LISTS = frozenset({"plain", "both", "also", "masks", "place", "all", "one", "strength", "name", "of", "edges"})
_LIST_JOINS = frozenset({"and", ",", "or", "/", "&", "nor"})
# Kinds in a fragment that only adds a place to an act.
_IN_PLACES = frozenset({"plain", "place", "in", "of", "edges", "strength", "mm", "also", "both", "name", "slices"})
_DETAIL_KINDS = ("place", "mm", "slices")


def check_acts(items: Sequence[Item], fragments: Sequence[Fragment], vocabulary: Vocabulary) -> None:
    """Check the labels and directions of acts, and that no two labels are to give way to each other.

    Args:
        items: interventions with the drafts that they come from.
        fragments: fragments of the note.
        vocabulary: vocabulary of notes.

    Raises:
        ClarificationNeeded: a check fails.
    """
    _check_labels(items, fragments)
    _check_directions(items, fragments, vocabulary)
    _check_mutual(items)


def _check_labels(items: Sequence[Item], fragments: Sequence[Fragment]) -> None:
    """Check that an act concerns several labels only if the note lists them, not where one locates the other.

    Args:
        items: interventions with the drafts that they come from.
        fragments: fragments of the note.

    Raises:
        ClarificationNeeded: the note names another label between other words: "heart overshoots on the liver side".
    """
    for group in _by_act(items):
        drafts = [item.draft for item in group]
        if any(draft.has_all or draft.has_both or draft.has_other for draft in drafts):
            continue
        labels = dict.fromkeys(item.intervention.label for item in group)
        # "There are bits of the kidney in the spleen. Remove them."
        sentences = {draft.sentence - (not draft.subjects) for draft in drafts} | {draft.sentence for draft in drafts}
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


def _check_directions(items: Sequence[Item], fragments: Sequence[Fragment], vocabulary: Vocabulary) -> None:
    """Check that opposite sides of a label change alike only if the note lists them, or names the label for each.

    Raises:
        ClarificationNeeded: one of them may say where something else is: "under the dome"; or it may repeat or
            correct the other: "a wedge behind the xiphoid is missing. Extend it anteriorly."
    """
    for one, other in _opposite_pairs(items):
        first, second = one.intervention, other.intervention
        has_own_amount = first.extent_mm != second.extent_mm
        if one.draft.act is not other.draft.act:
            has_own_amount = has_own_amount and None not in (first.extent_mm, second.extent_mm)
            if other.draft.is_additional or not other.draft.refers_back:
                continue
        place, later = (_place(fragments, item, vocabulary) for item in (one, other))
        if has_own_amount or place is None or later is None or _are_listed_places(place, later):
            continue
        raise ClarificationNeeded(
            f'On which side of the {first.label}, "{place[1].text}" or "{later[1].text}"? Say only this one.'
        )


def _check_mutual(items: Sequence[Item]) -> None:
    """Check that no two labels are to give way to each other.

    Raises:
        ClarificationNeeded: two are.
    """
    pair = mutually_excluded([item.intervention for item in items])
    if pair is not None:
        raise ClarificationNeeded(f"Which mask is to give way, that of the {pair[0]} or that of the {pair[1]}?")


def mutually_excluded(acts: Iterable[Intervention]) -> tuple[str, str] | None:
    """Return two labels each of which is to be excluded from the other; None if there are none."""
    pairs = dict.fromkeys((act.label, act.near) for act in acts if act.action == "exclude" and act.near is not None)
    return next((pair for pair in pairs if pair[::-1] in pairs), None)


def check_contradictions(items: Sequence[Item], protected: Collection[str]) -> None:
    """Check that no label is to change and to stay, or to grow and to shrink at the same place.

    Raises:
        ClarificationNeeded: one is.
    """
    changed = [item.intervention.label for item in items if item.intervention.action != "keep"]
    label = next((label for label in changed if label in protected), None)
    if label:
        raise ClarificationNeeded(f"Is the {label} to change, or to stay as it is? The note says both.")
    label = contradictory_label(items)
    if label:
        raise ClarificationNeeded(f"Is the {label} too small or too large? Say which, and where.")


def check_screen_sides(fragment: Fragment) -> None:
    """Check that no side is that of the screen: "on the left side of the image".

    Raises:
        ClarificationNeeded: one is; viewers show the patient's right side on the left.
    """
    for mark in fragment.all("place"):
        if mark.values not in (("left",), ("right",)):
            continue
        after = [each for each in fragment.after(mark) if not (each.kind in ("of", "in") or each.is_in("determiners"))]
        beside = [*fragment.before(mark)[-1:], *after[:1]]
        if any(each.is_in("screens") for each in beside):
            raise ClarificationNeeded(
                f"Is that the {mark.values[0]} side of the patient? Viewers mostly show the patient's right side on "
                "the left. Say left or right of the patient, without the image."
            )


def check_known_places(acts: Iterable[Intervention], fragments: Sequence[Fragment]) -> None:
    """Check that a note names a side or slices where a mask is to grow beside a structure that has no mask.

    Raises:
        ClarificationNeeded: it does not, and the mask would grow on all sides.
    """
    places = {
        name.mention.neighbour
        for fragment in fragments
        for name in fragment.names
        if not name.mention.is_label and fragment.preposition(name) in ("near", "place")
    }
    for act in acts:
        is_located = act.direction is not None or act.slices is not None
        if act.action == "expand" and act.near in places and not is_located:
            raise ClarificationNeeded(
                f"On which side of the {act.label} is the {act.near}? It has no mask. Say the direction or the slices."
            )


def _opposite_pairs(items: Sequence[Item]) -> Iterator[tuple[Item, Item]]:
    """Yield the pairs of items with the same act on opposite sides of a label; a note can have thousands of items."""
    numbers: dict[tuple[str, str, str | None], list[int]] = {}
    for number, item in enumerate(items):
        act = item.intervention
        numbers.setdefault((act.label, act.action, act.direction), []).append(number)
    for number, item in enumerate(items):
        act = item.intervention
        if act.direction is None or act.action == "keep":
            continue
        for other in numbers.get((act.label, act.action, OPPOSITES[act.direction]), ()):
            if other > number:
                yield item, items[other]


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
    is_beginning = all(mark.kind in _IN_LISTS for mark in before)
    if is_beginning and (second.has(*_DETAIL_KINDS) or all(mark.kind in _IN_LISTS for mark in first.after(one))):
        return True  # "the left kidney by 5 mm, the right kidney by 3 mm"
    return second.join == "and" and not any(mark.kind in STATEMENT_KINDS for mark in before)


def _are_listed_places(one: tuple[Fragment, Mark], other: tuple[Fragment, Mark]) -> bool:
    """Return whether a fragment with a place only continues a list of places, or one word means both."""
    if one[1] is other[1]:
        return True
    if one[0].sentence != other[0].sentence or one[0] is other[0]:
        return False
    return all(mark.kind in _IN_PLACES for mark in other[0].marks)


def _place(fragments: Sequence[Fragment], item: Item, vocabulary: Vocabulary) -> tuple[Fragment, Mark] | None:
    """Return the first mark in the sentence of an act that says its direction, with its fragment."""
    act = item.intervention
    for fragment in fragments:
        for mark in fragment.all("place") if fragment.sentence == item.draft.sentence else ():
            for value in mark.values:
                try:
                    if resolve_direction(value, act.label, None, vocabulary) == act.direction:
                        return fragment, mark
                except InputError:
                    continue
    return None
