"""Acts while a note is read, and what the fragments of the note say of where and how much."""

from __future__ import annotations

from dataclasses import dataclass, field

from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.grammar import Act
from causal_sam.notes.mentions import Mention
from causal_sam.notes.places import Place, amounts, places_of
from causal_sam.notes.schema import FARTHEST_MM
from causal_sam.notes.tokens import Ranges

# Acts whose strength and extent nobody says: a word such as "severe" is about the image or the hole then.
WITHOUT_AMOUNT = frozenset({"restyle", "keep", "fill", "remove", "keep_largest"})


class Unclear(Exception):
    """The note cannot be acted on; the message is the question to ask."""


@dataclass(frozen=True)
class Details:
    """What a fragment says besides its act."""

    places: list[Place]
    slices: Ranges
    mm: float | None
    strength: str | None
    names: tuple[Mark, ...]

    @classmethod
    def of(cls, fragment: Fragment) -> Details:
        """What a fragment says.

        Raises:
            Unclear: it says how far or in which slices, but nothing that can be done.
        """
        lengths = amounts(fragment)
        if not all(0 < length <= FARTHEST_MM for length in lengths):
            raise Unclear(f"How far is that? A correction reaches {FARTHEST_MM:g} mm at most.")
        if fragment.has("open slices"):
            raise Unclear("Which slices are meant? Say the first and the last, as in: slices 30-36.")
        strengths = [mark.values[0] for mark in fragment.all("strength")]
        return cls(
            places_of(fragment),
            tuple(each for mark in fragment.all("slices") for each in mark.slices),
            lengths[-1] if lengths else None,
            strengths[0] if strengths else None,
            tuple(mark for mark in fragment.marks if mark.mention),
        )

    @property
    def says_how(self) -> bool:
        """Whether it says where or how much."""
        return bool(self.places or self.slices or self.mm or self.strength)

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing at all."""
        return not (self.says_how or self.names)


@dataclass
class Draft:
    """An act while the note is read.

    Attributes:
        places: for each fragment that says where, its words in their order.
        spared: labels that the act is not on.
        is_praise: whether it says of nothing in particular that it is right.
    """

    act: Act
    sentence: int
    number: int
    is_also: bool = False
    is_listed: bool = False
    subjects: list[Mention] = field(default_factory=list)
    absent: Mention | None = None
    nears: list[Mention] = field(default_factory=list)
    spared: list[str] = field(default_factory=list)
    places: list[list[Place]] = field(default_factory=list)
    slices: Ranges = ()
    mm: float | None = None
    strength: str | None = None
    has_one: bool = False
    has_both: bool = False
    has_all: bool = False
    has_other: bool = False
    is_praise: bool = False
    topic: tuple[str, ...] = ()

    @property
    def says_how(self) -> bool:
        """Whether it says where or how much."""
        return bool(self.places or self.slices or self.mm or self.strength)

    def add(self, details: Details) -> None:
        """Add what another fragment says of where and how much."""
        if details.places and self.act.places is None:
            self.places.append(details.places)
        self.slices += tuple(each for each in details.slices if each not in self.slices)
        self.mm = self.mm if details.mm is None else details.mm
        self.strength = details.strength or self.strength

    def places_on(self, label: str) -> list[list[Place]]:
        """The places that are on a label: not those of other subjects, or of neighbours."""
        owners = {mention.text: mention.labels for mention in self.subjects}
        return [[place for place in group if place.is_on(label, owners)] for group in self.places]
