"""Interventions while a note is read: what is said twice becomes one, and what explains another one is none."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from causal_sam.notes.drafts import WITHOUT_AMOUNT, Draft
from causal_sam.notes.schema import Intervention

_ABSORBED_BY_STYLE = frozenset({"expand", "shrink", "exclude"})


@dataclass(frozen=True)
class Item:
    """An intervention, and the draft that says it."""

    what: Intervention
    draft: Draft

    @property
    def is_bare(self) -> bool:
        """Whether it says neither where nor how far."""
        what = self.what
        return what.direction is None and what.near is None and what.slices is None and what.extent_mm is None

    def filled(self, other: Intervention) -> Item:
        """With what another one says more."""
        more = {
            name: getattr(other, name)
            for name in ("direction", "near", "slices", "extent_mm")
            if getattr(self.what, name) is None
        }
        if self.what.strength == "moderate" and self.what.action not in WITHOUT_AMOUNT:
            more["strength"] = other.strength
        if self.what.action in WITHOUT_AMOUNT:
            more.pop("extent_mm", None)
        return replace(self, what=self.what.model_copy(update=more))


def merged(items: Sequence[Item]) -> list[Item]:
    """Return items without what is said twice, or explained by another one of the same label."""
    labels = dict.fromkeys(item.what.label for item in items)
    return [each for label in labels for each in _joined([item for item in items if item.what.label == label])]


def in_doubt(items: Sequence[Item]) -> str | None:
    """Return a label that is said to be too small and too large at the same place, if any."""
    places = {_place(item.what) for item in items if item.what.action == "expand"}
    return next((i.what.label for i in items if i.what.action == "shrink" and _place(i.what) in places), None)


def _is_same(first: Item, second: Item) -> bool:
    """Whether two items are one intervention, of which each says a part."""
    if (first.what.label, first.what.action) != (second.what.label, second.what.action):
        return False
    names = ("direction", "near", "slices", "extent_mm")
    pairs = [(getattr(first.what, name), getattr(second.what, name)) for name in names]
    if any(one != two and one is not None and two is not None for one, two in pairs):
        return False
    if first.draft.number == second.draft.number or (second.draft.is_also and not second.is_bare):
        return all(one == two for one, two in pairs)
    is_near_by = first.draft.sentence == second.draft.sentence
    return is_near_by or first.is_bare or second.is_bare or first.what.direction == second.what.direction is not None


def _joined(items: Sequence[Item]) -> list[Item]:
    """The items of one label, of which each says something of its own."""
    joined: list[Item] = []
    for item in items:
        same = [place for place, other in enumerate(joined) if _is_same(other, item)]
        for place in same:
            joined[place] = joined[place].filled(item.what)
        if not same:
            joined.append(item)
    return list({item.what: item for item in _absorbed(joined)}.values())


def _absorbed(items: Sequence[Item]) -> list[Item]:
    """Without the acts that others stand for."""
    found: list[Item | None] = list(items)
    for i, j in itertools.permutations(range(len(found)), 2):
        item, other = found[i], found[j]
        if item is not None and other is not None and _stands_for(item, other):
            found[i], found[j] = _taking_over(item, other.what), None
    return [item for item in found if item is not None]


def _taking_over(item: Item, other: Intervention) -> Item:
    if other.action == "keep":
        return item
    if item.what.action in ("remove", "exclude", "restyle"):
        taken = item.filled(other)
        # An artefact has no neighbour.
        return item if item.what.action == "restyle" and other.near else taken
    return item


def _stands_for(item: Item, other: Item) -> bool:
    """Whether an act is the remedy or the cause of another one, which then is none of its own."""
    what, second = item.what, other.what
    if second.action == "keep":
        return what.action != "restyle" or not item.draft.act.is_weak
    if what.action == "keep":
        return second.action == "restyle" and other.draft.act.is_weak
    is_near_by = abs(item.draft.sentence - other.draft.sentence) <= 1
    is_together = item.draft.sentence == other.draft.sentence
    if what.action == "restyle":
        return is_together and second.action in _ABSORBED_BY_STYLE
    if what.action == "keep_largest":
        return second.action in ("remove", "shrink") and is_near_by and other.is_bare
    if what.action == "remove":
        # "remove the island, that is colon"
        return (
            second.action == "exclude"
            and other.draft.act.says_what
            and is_near_by
            and other.draft.number > item.draft.number
        )
    if what.action == "exclude" and second.action == "shrink":
        is_remedy = other.draft.number > item.draft.number and is_near_by and not other.draft.is_also
        is_cause = is_together and (other.is_bare or not (item.draft.is_also or item.draft.is_listed))
        same_place = None in (what.direction, second.direction) or what.direction == second.direction
        return same_place and (is_remedy or is_cause)
    if what.action == "smooth" and second.action == "restyle":
        return is_together and other.draft.act.is_weak  # "steps from thick slices"
    return what.action == "fill" and second.action == "expand" and is_together and other.is_bare


def _place(what: Intervention) -> tuple[object, ...]:
    return what.label, what.direction, what.slices, what.near
