"""Draft interventions, and the places, slices, extents and strengths that fragments add to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast, get_args

from causal_sam.notes.clarification import ClarificationNeeded
from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.mentions import Mention
from causal_sam.notes.places import Place, lengths_of, places_of
from causal_sam.notes.request import ImageSlices, Plane
from causal_sam.notes.schema import MAX_EXTENT_MM, Action, Strength
from causal_sam.notes.tokens import Ranges

# Acts without strength and extent: beside them, a word such as "severe" describes the image or the hole.
WITHOUT_AMOUNT = frozenset({"restyle", "keep", "fill", "remove", "keep_largest"})


_UP_TO = re.compile(r"(?:up |down )?to ")
# Ends of axial slices alone.
_VERTICAL_ENDS = frozenset({"top", "bottom", "uppermost", "lowermost", "highest", "lowest"})


@dataclass(frozen=True)
class Act:
    """An act that a fragment requests.

    Attributes:
        action: kind of the act.
        subjects: structures to correct; none if the fragment names none.
        nears: neighbours.
        unknown_subject: name in the position of the subject that is not a label.
        places: directions or parts; None for all places of the fragment.
        is_weak: whether any other act takes precedence.
        names_owner_only: whether the owner of a part is known, but not the label to take it from.
        is_whole: True if the act concerns the whole mask: "delete the bladder".
        neighbour_is_content: whether the neighbours are the true identity of a part of the mask.
    """

    action: Action
    subjects: tuple[Mention, ...] = ()
    nears: tuple[Mention, ...] = ()
    unknown_subject: Mention | None = None
    places: tuple[str, ...] | None = None
    is_weak: bool = False
    names_owner_only: bool = False
    is_whole: bool = False
    neighbour_is_content: bool = False


@dataclass(frozen=True)
class Details:
    """Places, slices, extent, strength and names in a fragment.

    Attributes:
        end_slices: numbers of slices at the beginning of a mask, and negative ones at its end.
        target: slice up to which a mask is to be extended.
    """

    places: list[Place]
    slices: Ranges
    end_slices: tuple[int, ...]
    target: int | None
    mm: float | None
    strength: Strength | None
    names: tuple[Mark, ...]

    @classmethod
    def of(cls, fragment: Fragment, image: ImageSlices | None = None) -> Details:
        """Collect the details of a fragment.

        Args:
            fragment: fragment of a note.
            image: slices of the image, if they are known.

        Raises:
            ClarificationNeeded: the extent is out of range or no length, or it is not clear which slices are meant.
        """
        lengths = [mark.mm for mark in lengths_of(fragment)]
        if not all(0 < length <= MAX_EXTENT_MM for length in lengths):
            raise ClarificationNeeded(f"How far is that? A correction reaches {MAX_EXTENT_MM:g} mm at most.")
        counted = fragment.all("slice count", "amount")
        if counted:
            raise ClarificationNeeded(f'How many mm are "{counted[0].text}"? Say it as in: by 6 mm.')
        if image is not None:
            _check_plane(fragment, image)
        numbered = fragment.all("slices", "open slices")
        targets = [mark for mark in numbered if _is_target(fragment, mark)]
        strengths = [mark.values[0] for mark in fragment.all("strength")]
        return cls(
            places_of(fragment),
            tuple(each for mark in numbered if mark not in targets for each in _ranges(mark, image)),
            tuple(mark.count for mark in fragment.all("end slices")),
            targets[0].open_range[1] if targets else None,
            lengths[-1] if lengths else None,
            cast(Strength, strengths[0]) if strengths else None,
            tuple(mark for mark in fragment.marks if mark.mention),
        )

    @property
    def has_details(self) -> bool:
        """Return whether there is a place, slice range, extent or strength."""
        return bool(self.places or self.slices or self.end_slices or self.target or self.mm or self.strength)

    @property
    def is_empty(self) -> bool:
        """Return whether there are neither details nor names."""
        return not (self.has_details or self.names)


@dataclass
class Draft:
    """An act that later fragments may still complete.

    Attributes:
        places: one list per fragment with places, in the order of the note.
        end_slices: numbers of slices at the beginning of the mask, and negative ones at its end.
        target: slice up to which the mask is to be extended.
        excluded_labels: labels that the act must not change.
        refers_back: True if a pronoun stands for the label.
        is_general_approval: whether it approves of the masks without naming one.
    """

    act: Act
    sentence: int
    number: int
    is_additional: bool = False
    is_listed: bool = False
    subjects: list[Mention] = field(default_factory=list)
    unknown_subject: Mention | None = None
    nears: list[Mention] = field(default_factory=list)
    excluded_labels: list[str] = field(default_factory=list)
    places: list[list[Place]] = field(default_factory=list)
    slices: Ranges = ()
    end_slices: tuple[int, ...] = ()
    target: int | None = None
    mm: float | None = None
    strength: Strength | None = None
    has_one: bool = False
    has_both: bool = False
    has_all: bool = False
    has_other: bool = False
    refers_back: bool = False
    is_general_approval: bool = False
    topic: tuple[str, ...] = ()

    @property
    def has_details(self) -> bool:
        """Return whether there is a place, slice range, extent or strength."""
        return bool(self.places or self.slices or self.end_slices or self.target or self.mm or self.strength)

    def add(self, details: Details) -> None:
        """Add the details of another fragment."""
        if details.places and self.act.places is None:
            self.places.append(details.places)
        self.slices += tuple(each for each in details.slices if each not in self.slices)
        self.end_slices += tuple(each for each in details.end_slices if each not in self.end_slices)
        self.target = details.target or self.target
        self.mm = self.mm if details.mm is None else details.mm
        self.strength = details.strength or self.strength

    def places_on(self, label: str) -> list[list[Place]]:
        """Return the places that apply to a label, without those of other subjects or of neighbours."""
        owners = {mention.text: mention.labels for mention in self.subjects}
        return [[place for place in group if place.applies_to(label, owners)] for group in self.places]


def _is_target(fragment: Fragment, mark: Mark) -> bool:
    """Return whether slices say how far a mask is to be extended: "extend it down to slice 50"."""
    is_end = mark.kind == "open slices" and _UP_TO.match(mark.text) is not None
    return is_end and any(each.is_in("extending") and fragment.is_order(each) for each in fragment.before(mark))


def _check_plane(fragment: Fragment, image: ImageSlices) -> None:
    """Check that the slices that a fragment names are those of the image: "coronal slices 30-36", "the top slice".

    Raises:
        ClarificationNeeded: they are in another plane, or at an end that slices of this plane do not have.
    """
    numbered, ends = fragment.all("slices", "open slices", "end slices"), fragment.all("end slices")
    words = {word for mark in fragment.marks for word in mark.text.split()} if numbered else set()
    plane = image.plane or ("axial" if image.is_axial else None)
    is_other_plane = bool(words & set(get_args(Plane)) - {plane})
    vertical = [mark for mark in ends if mark.text.split()[0] in _VERTICAL_ENDS and not image.is_axial]
    if is_other_plane or vertical:
        quoted = (vertical or numbered)[0].text
        slices = f"{plane} slices" if plane else "slices in which it was acquired"
        raise ClarificationNeeded(f'Which slices are "{quoted}"? Say them in the {slices}, as in: slices 30-36.')


def _ranges(mark: Mark, image: ImageSlices | None) -> Ranges:
    """Return the slice ranges of a mark, with open ones up to the first or last slice of the image.

    Raises:
        ClarificationNeeded: the range is open, and the slices of the image are not known or not axial.
    """
    if mark.kind == "slices":
        return mark.slices
    first, last = mark.open_range
    if image is None or first is last or not image.is_axial or not 0 < (first or 1) <= (last or image.count):
        raise ClarificationNeeded(f'Which slices are "{mark.text}"? Say the first and the last, as in: slices 30-36.')
    return ((first or 1, last or image.count),)


def names_in(pending: Sequence[tuple[Fragment, Details]]) -> tuple[list[Mention], list[Mention]]:
    """Return the subjects and neighbours of an act that the fragments before it name."""
    subjects: list[Mention] = []
    nears: list[Mention] = []
    for loose, details in pending:
        for mark in details.names:
            where = loose.preposition(mark)
            if where == "of" and subjects and not mark.mention.is_label:
                continue  # "consolidation of the lower lobe"
            if where in ("near", "place"):
                nears.append(mark.mention)
            elif where == "in" and subjects:
                continue  # "tumour in the right kidney"
            elif mark.mention.is_label or where in ("", "of"):
                subjects.append(mark.mention)
    return subjects, nears


def without_redundant_approvals(drafts: Sequence[Draft], topic: tuple[str, ...]) -> list[Draft]:
    """Drop approvals of no label, and weak style remarks, if other drafts request a correction."""
    # "Motion artefacts, but the mask is fine."
    done = [draft for draft in drafts if draft.act.action != "keep"]
    is_done = any(draft.act.action != "restyle" or not draft.act.is_weak for draft in done)
    found = [draft for draft in drafts if not (draft.is_general_approval and is_done)]
    sentences = {draft.sentence for draft in found if draft.act.action not in ("keep", "restyle")}
    if sentences:
        # "Noisy scan. Liver too small." gives a cause and then the correction.
        found = [d for d in found if d.sentence in sentences or d.subjects or not d.act.is_weak]
    for draft in found:
        if draft.act.action == "restyle" and draft.act.is_weak and not draft.topic and len(topic) == 1:
            draft.topic = topic  # "Low dose scan. The liver border is lost in the noise."
    return found
