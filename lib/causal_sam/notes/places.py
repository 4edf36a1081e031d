"""Places and extents in a fragment, and the names that places belong to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.mentions import Mention
from causal_sam.notes.vocabulary import load_vocabulary

_NUMERAL = re.compile(r"(?:[ivx]+|\d+)[ab]?")
_LIVER_SEGMENT = re.compile(r"s[1-8][ab]?")
# Kinds that may stand between a place and its owner: "the upper part of the border of".
_INSIDE_PLACES = frozenset({"plain", "edges", "pieces", "place", "masks", "both", "small", "large"})


@dataclass(frozen=True)
class Place:
    """A place on a label.

    Attributes:
        values: directions or parts of organs.
        owner: the name that the place belongs to, as in "the dome of the liver".
        is_part: whether the place is a part of the owner, not a direction beside it.
    """

    values: tuple[str, ...]
    owner: Mention | None = None
    is_part: bool = False

    def applies_to(self, label: str, owners: Mapping[str, tuple[str, ...]]) -> bool:
        """Return whether the place applies to a label.

        Args:
            label: name of the label.
            owners: names of the subjects of an act -> their labels.
        """
        if self.owner is None:
            return True
        if self.owner.text in owners:
            return label in owners[self.owner.text]
        return label in (*self.owner.labels, *self.owner.candidates) or not self.is_part

    def detached_from(self, owners: Set[str]) -> Place:
        """Return the place without its owner, if that is one of these names."""
        return replace(self, owner=None, is_part=False) if self.owner and self.owner.text in owners else self


def places_of(fragment: Fragment) -> list[Place]:
    """Return the places of a fragment in their order, without those relative to a neighbour or after "than"."""
    than = fragment.all("than")
    found: list[Place] = []
    for mark in fragment.all("place"):
        after = fragment.after(mark)
        following = next((each for each in after if each.kind not in ("plain", "in")), None)
        is_relative = mark.is_in("about_place") or (mark.is_in("relative") and after and after[0].text == "to")
        is_of_neighbour = is_relative and following is not None and _is_other_structure(fragment, mark, following)
        is_compared = bool(than) and mark in fragment.after(than[0]) and fragment.after(than[0])[0].kind != "it"
        if not is_of_neighbour and not is_compared:
            owner, is_part = _owner(fragment, mark)
            found.append(Place(mark.values, owner, is_part))
    return found


def _is_other_structure(fragment: Fragment, place: Mark, name: Mark) -> bool:
    """Return whether a name after a place is no label, or another one than that before it: "too large above the LK"."""
    before = fragment.names_before(place)[-1:]
    return bool(name.mention) and (
        not name.mention.is_label or any(each.mention.all_labels != name.mention.all_labels for each in before)
    )


def unknown_part(fragment: Fragment, is_located: bool) -> str | None:
    """Return the words for a part that masks do not tell apart: "segment IV", "S8", "at the level of T4".

    Args:
        fragment: fragment of a note.
        is_located: its sentence names slices, so that it need not be known where a middle or a level is.
    """
    marks = fragment.marks
    is_located = is_located or bool(
        # "A hole in the middle", "fine in the middle", "too small in the middle inferiorly".
        fragment.cues("fill", "remove", "keep_largest", "restyle", "exclude")
        or fragment.all("exclude", "delete")
        or fragment.approvals()
        or any(mark.text != "level" for mark in fragment.all("place"))
    )
    for at, mark in enumerate(marks):
        following, after = marks[at + 1 : at + 2], [m for m in marks[at + 1 :] if m.kind not in ("plain", "of")]
        next_text = following[0].text if following else ""
        is_segment = mark.text in ("segment", "segments", "seg", "segs") and _NUMERAL.fullmatch(next_text)
        if is_segment or (mark.text, next_text) == ("o", "clock"):
            return f"{mark.text} {next_text}"
        is_of = bool(following) and following[0].kind == "of" and bool(after)
        is_level = mark.text == "level" and is_of and not is_located
        if is_level and (after[0].mention or after[0].kind == "word"):
            return f"{mark.text} of {after[0].text}"
        before = [each for each in marks[:at] if not each.is_in("determiners")][-1:]
        is_middle = mark.is_in("middles") and (mark.text.endswith("ly") or any(each.kind == "in" for each in before))
        is_number = mark.text == "oclock" or (mark.kind == "word" and _LIVER_SEGMENT.fullmatch(mark.text))
        # "In the middle of the thorax" is no part of a mask.
        is_of_other = is_of and bool(after[0].mention) and not after[0].mention.is_label
        if is_number or (is_middle and not (is_located or is_of_other)):
            return mark.text
    return None


def _owner(fragment: Fragment, place: Mark) -> tuple[Mention | None, bool]:
    """Return the name that a place belongs to, and whether the place is a part of that structure."""
    owner, is_part = _grammatical_owner(fragment, place)
    is_body = owner is not None and owner.text in load_vocabulary().sets["body"] and not owner.is_label
    return (None, False) if is_body else (owner, is_part)


def _grammatical_owner(fragment: Fragment, place: Mark) -> tuple[Mention | None, bool]:
    after = fragment.after(place)
    is_adverb = place.text.endswith(("ly", "wards", "ward"))
    is_of = False
    for mark in after:
        if mark.mention:
            is_own = is_of or (mark is after[0] and not is_adverb)
            return (mark.mention, is_of) if is_own else (None, False)
        if mark.kind == "of" and not is_adverb:
            is_of = True
        elif mark.kind not in _INSIDE_PLACES or (mark.kind == "plain" and not mark.is_in("determiners")):
            break
    before = [mark for mark in fragment.before(place) if not mark.is_in("determiners")]
    while before and before[-1].kind == "place":
        before.pop()
    is_side = place.values in (("left",), ("right",))
    if is_side and len(before) > 1 and before[-1].is_in("sideways") and before[-2].mention:
        return before[-2].mention, False  # "the kidney on the left"
    if not before or not before[-1].mention or is_adverb:
        return None, False
    is_own = is_part(place) or bool(after and (after[0].kind in ("edges", "pieces") or is_part(after[0])))
    return (before[-1].mention, True) if is_own else (None, False)


def is_part(mark: Mark) -> bool:
    """Return whether a mark is a part of an organ, not a direction."""
    return mark.kind == "place" and mark.values[0] in load_vocabulary().parts


def lengths_of(fragment: Fragment) -> list[Mark]:
    """Return the lengths that are extents of a correction, not sizes of things ("the 12 mm cyst")."""
    return [mark for mark in fragment.all("mm") if not _is_size(fragment, mark)]


def _is_size(fragment: Fragment, length: Mark) -> bool:
    before, after = fragment.before(length), fragment.after(length)
    if before and before[-1].is_in("measuring"):
        return True
    if after and after[0].is_in("scanned"):
        return True  # "3 mm recon"
    if after and after[0].mention:
        is_definite = bool(before) and before[-1].is_in("determiners")
        return is_definite or not after[0].mention.is_label
    if [mark.text for mark in after[:2]] in (["in", "size"], ["in", "diameter"], ["in", "length"]):
        return True
    is_of = len(before) > 1 and before[-1].kind == "of" and bool(before[-2].mention)
    return is_of and not before[-2].mention.is_label
