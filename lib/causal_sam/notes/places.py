"""Where a fragment says that something is, on what, and how far."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.grammar import is_known, says
from causal_sam.notes.mentions import Mention
from causal_sam.notes.vocabulary import load_vocabulary

# Between a place and the name that it is on: "the upper part of the border of".
_IN_PLACES = frozenset({"plain", "edges", "pieces", "place", "masks", "both", "small", "large"})


@dataclass(frozen=True)
class Place:
    """Words for where.

    Attributes:
        values: directions or parts.
        owner: the name that they belong to, as in "the dome of the liver".
        is_part: whether they are a part of the owner, and not a direction that only stands beside it.
    """

    values: tuple[str, ...]
    owner: Mention | None = None
    is_part: bool = False

    def is_on(self, label: str, owners: Mapping[str, tuple[str, ...]]) -> bool:
        """Whether it is a place on a label.

        Args:
            label: on which.
            owners: texts of the names that an act is on -> labels.
        """
        if self.owner is None:
            return True
        if self.owner.text in owners:
            return label in owners[self.owner.text]
        return label in (*self.owner.labels, *self.owner.candidates) or not self.is_part

    def without(self, owners: Set[str]) -> Place:
        """The same place on another label, if it is one of these names that it is on."""
        return replace(self, owner=None, is_part=False) if self.owner and self.owner.text in owners else self


def places_of(fragment: Fragment) -> list[Place]:
    """Words for where, in their order; not those that only say on which side of a neighbour, or what is compared."""
    than = fragment.all("than")
    found: list[Place] = []
    for mark in fragment.all("place"):
        after = fragment.after(mark)
        following = next((each for each in after if each.kind not in ("plain", "in")), None)
        is_relative = says(mark, "about_place") or (says(mark, "relative") and after and after[0].text == "to")
        is_of_neighbour = is_relative and following and following.mention and not is_known(following.mention)
        if not is_of_neighbour and not (than and mark in fragment.after(than[0])):
            owner, is_part = _owner(fragment, mark)
            found.append(Place(mark.values, owner, is_part))
    return found


def _owner(fragment: Fragment, place: Mark) -> tuple[Mention | None, bool]:
    """The name that a place belongs to, and whether the place is a part of it."""
    owner, is_part = _owner_said(fragment, place)
    is_body = owner is not None and owner.text in load_vocabulary().sets["body"] and not is_known(owner)
    return (None, False) if is_body else (owner, is_part)


def _owner_said(fragment: Fragment, place: Mark) -> tuple[Mention | None, bool]:
    after = fragment.after(place)
    is_adverb = place.text.endswith(("ly", "wards", "ward"))
    is_of = False
    for mark in after:
        if mark.mention:
            is_own = is_of or (mark is after[0] and not is_adverb)
            return (mark.mention, is_of) if is_own else (None, False)
        if mark.kind == "of" and not is_adverb:
            is_of = True
        elif mark.kind not in _IN_PLACES or (mark.kind == "plain" and not says(mark, "determiners")):
            break
    before = [mark for mark in fragment.before(place) if not says(mark, "determiners")]
    while before and before[-1].kind == "place":
        before.pop()
    is_side = place.values in (("left",), ("right",))
    if is_side and len(before) > 1 and says(before[-1], "sideways") and before[-2].mention:
        return before[-2].mention, False  # "the kidney on the left"
    if not before or before[-1].mention is None or is_adverb:
        return None, False
    is_own = is_part(place) or bool(after and (after[0].kind in ("edges", "pieces") or is_part(after[0])))
    return (before[-1].mention, True) if is_own else (None, False)


def is_part(mark: Mark) -> bool:
    """Whether a word is a part of an organ, and not only a direction."""
    return mark.kind == "place" and mark.values[0] in load_vocabulary().parts


def amounts(fragment: Fragment) -> list[float]:
    """Lengths in millimetres that say how far; not the sizes of things, as in "the 12 mm cyst"."""
    return [mark.mm for mark in fragment.all("mm") if not _is_size(fragment, mark)]


def _is_size(fragment: Fragment, length: Mark) -> bool:
    before, after = fragment.before(length), fragment.after(length)
    if before and says(before[-1], "measuring"):
        return True
    if after and says(after[0], "scanned"):
        return True  # "3 mm recon"
    if after and after[0].mention:
        is_definite = bool(before) and says(before[-1], "determiners")
        return is_definite or not is_known(after[0].mention)
    if [mark.text for mark in after[:2]] in (["in", "size"], ["in", "diameter"], ["in", "length"]):
        return True
    is_of = len(before) > 1 and before[-1].kind == "of" and before[-2].mention is not None
    return is_of and not is_known(before[-2].mention)
