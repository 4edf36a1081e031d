"""Merging of interventions: repetitions become one, and causes or remedies of another one are dropped."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from causal_sam.notes.drafts import WITHOUT_AMOUNT, Draft
from causal_sam.notes.schema import Intervention

_DETAILS = ("direction", "near", "slices", "extent_mm")
_SUPERSEDED_BY_RESTYLE = frozenset({"expand", "shrink", "exclude"})


@dataclass(frozen=True)
class Item:
    """An intervention and the draft that it comes from."""

    intervention: Intervention
    draft: Draft

    @property
    def is_bare(self) -> bool:
        """Return whether the intervention has neither place nor extent."""
        return all(getattr(self.intervention, name) is None for name in _DETAILS)

    def completed_by(self, other: Intervention) -> Item:
        """Return the item with missing details taken from another intervention."""
        own = self.intervention
        more = {name: getattr(other, name) for name in _DETAILS if getattr(own, name) is None}
        if own.action in WITHOUT_AMOUNT:
            more.pop("extent_mm", None)
        elif own.strength == "moderate":
            more["strength"] = other.strength
        return replace(self, intervention=own.model_copy(update=more))


def merge_items(items: Sequence[Item]) -> list[Item]:
    """Merge repeated items of a label, and drop those that another item of the label supersedes."""
    labels = dict.fromkeys(item.intervention.label for item in items)
    by_label = ([item for item in items if item.intervention.label == label] for label in labels)
    return list(itertools.chain.from_iterable(map(_merge_label_items, by_label)))


def without_protected_remarks(items: Sequence[Item], protected: Collection[str]) -> list[Item]:
    """Drop the remarks about the style on labels that the note protects: "motion blurs the liver, leave it alone"."""
    return [
        item
        for item in items
        if not (
            item.intervention.action == "restyle" and item.draft.act.is_weak and item.intervention.label in protected
        )
    ]


def contradictory_label(items: Sequence[Item]) -> str | None:
    """Return a label that is to be expanded and shrunk at the same place, if any."""
    acts = [item.intervention for item in items]
    places = {_place(act) for act in acts if act.action == "expand"}
    return next((act.label for act in acts if act.action == "shrink" and _place(act) in places), None)


def _is_same(first: Item, second: Item) -> bool:
    """Return whether two items describe the same intervention, each in part."""
    one, two = first.intervention, second.intervention
    if (one.label, one.action) != (two.label, two.action):
        return False
    pairs = [(getattr(one, name), getattr(two, name)) for name in _DETAILS]
    if any(a != b and a is not None and b is not None for a, b in pairs):
        return False
    if first.draft.number == second.draft.number or (second.draft.is_additional and not second.is_bare):
        return all(a == b for a, b in pairs)
    steps = second.draft.sentence - first.draft.sentence
    is_amount = not second.draft.subjects and two.direction is None  # "left kidney too big laterally. 3 mm less."
    is_near_by = steps == 0 or (steps <= 2 and is_amount)
    return is_near_by or first.is_bare or second.is_bare or one.direction == two.direction is not None


def _merge_label_items(items: Sequence[Item]) -> list[Item]:
    """Merge the items of one label."""
    joined: list[Item] = []
    for item in items:
        same = [place for place, other in enumerate(joined) if _is_same(other, item)]
        for place in same:
            joined[place] = joined[place].completed_by(item.intervention)
        if not same:
            joined.append(item)
    return list({item.intervention: item for item in _drop_superseded(joined)}.values())


def _drop_superseded(items: Sequence[Item]) -> list[Item]:
    """Drop the items that another item supersedes."""
    found: list[Item | None] = list(items)
    for i, j in itertools.permutations(range(len(found)), 2):
        item, other = found[i], found[j]
        if item is not None and other is not None and _supersedes(item, other):
            found[i], found[j] = _with_details(item, other.intervention), None
    return [item for item in found if item is not None]


def _with_details(item: Item, other: Intervention) -> Item:
    if other.action == "keep":
        return item
    if item.intervention.action in ("remove", "exclude", "restyle"):
        taken = item.completed_by(other)
        # A neighbour makes no sense beside an imaging artefact.
        return item if item.intervention.action == "restyle" and other.near else taken
    return item


def _supersedes(item: Item, other: Item) -> bool:
    """Return whether an item makes another one redundant, as its remedy or its cause."""
    intervention, second = item.intervention, other.intervention
    if second.action == "keep":
        return intervention.action != "restyle" or not item.draft.act.is_weak
    if intervention.action == "keep":
        return second.action == "restyle" and other.draft.act.is_weak
    is_near_by = abs(item.draft.sentence - other.draft.sentence) <= 2
    is_together = item.draft.sentence == other.draft.sentence
    if intervention.action == "restyle":
        return is_together and second.action in _SUPERSEDED_BY_RESTYLE
    if intervention.action == "keep_largest":
        is_piece = second.action == "remove" and second.slices is None and second.direction is None
        is_bare = second.action in ("remove", "shrink") and other.is_bare
        return is_near_by and (is_piece or is_bare or second.action == "exclude")
    if intervention.action == "remove" and second.action == "restyle":
        return is_together and other.draft.act.is_weak  # "delete it on 12-17, that is an artefact"
    if intervention.action == "remove":
        # "remove the island, that is colon"
        return second.action == "exclude" and other.draft.act.neighbour_is_content and is_near_by
    if intervention.action == "exclude" and second.action == "remove":
        return is_together and other.is_bare and other.draft.refers_back  # "leaks into the fat, remove that part"
    if intervention.action == "exclude" and second.action == "shrink":
        is_remedy = is_near_by and not (other.draft.is_additional or item.draft.is_additional)
        is_cause = is_together and (other.is_bare or not (item.draft.is_additional or item.draft.is_listed))
        same_place = None in (intervention.direction, second.direction) or intervention.direction == second.direction
        return same_place and (is_remedy or is_cause)
    if intervention.action == "smooth" and second.action == "restyle":
        return is_together and other.draft.act.is_weak  # "steps from thick slices"
    return intervention.action == "fill" and second.action == "expand" and is_together and other.is_bare


def _place(intervention: Intervention) -> tuple[object, ...]:
    return intervention.label, intervention.direction, intervention.slices, intervention.near
