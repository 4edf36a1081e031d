"""From the drafts of a note to interventions: which labels, neighbours and directions their words mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from causal_sam.errors import InputError
from causal_sam.notes.drafts import WITHOUT_AMOUNT, Details, Draft, Unclear
from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.grammar import says
from causal_sam.notes.items import Item
from causal_sam.notes.laterality import direction_by, side_of
from causal_sam.notes.mentions import Mention, Names
from causal_sam.notes.places import Place
from causal_sam.notes.schema import Direction, Intervention
from causal_sam.notes.vocabulary import Vocabulary

LISTED = 8  # names in a question


# "Left lung misses its apex, as does the right": what begins a fragment that says of what else it is so.
AGAIN_SO = frozenset(
    f"{word} {auxiliary}"
    for word in ("as", "so", "nor", "neither")
    for auxiliary in ("is", "are", "was", "were", "does", "do", "did", "has", "have")
)


class Resolver:
    """Finds what the words of one note mean, for the labels that are present.

    Args:
        names: of structures, for these labels.
        vocabulary: of notes.
        sides: of the body on which labels are, where their names do not say it.
        current: the label that a note without a name is about.

    Attributes:
        labels: that are present.
        default: what a note without a name is about, if that is certain.
    """

    def __init__(
        self, names: Names, vocabulary: Vocabulary, sides: Mapping[str, Direction], current: str | None
    ) -> None:
        self._names, self._vocabulary, self._sides = names, vocabulary, sides
        self.labels = names.labels
        self.default = (current,) if current else names.labels if len(names.labels) == 1 else ()

    def with_side(self, fragment: Fragment, topic: Sequence[str]) -> Fragment:
        """Return a fragment with a name for "the left one", or "the left" that is something.

        Args:
            fragment: of the note.
            topic: labels that the note was about before.
        """
        marks = fragment.marks
        for at, mark in enumerate(marks):
            following = marks[at + 1 : at + 2]
            is_one = bool(following) and following[0].kind == "one"
            is_first = all(each.kind == "plain" for each in marks[:at])
            is_told = is_first and bool(following) and says(following[0], "copulas")
            is_told = is_told or (not following and any(says(each, "same") for each in marks))
            is_so_too = _is_so_too(marks[:at], marks[at + 1 :])
            label = self._of_side(mark.values[0], topic) if mark.values and (is_one or is_told or is_so_too) else None
            if is_so_too and label and self._names.kind(label) not in {self._names.kind(each) for each in topic}:
                continue
            if mark.kind == "place" and label:
                name = Mark("name", mark.text, mention=Mention(f"{mark.text} one", (label,)))
                return replace(fragment, marks=(*marks[:at], name, *marks[at + 1 + is_one :]))
        return fragment

    def _of_side(self, side: str, topic: Sequence[str]) -> str | None:
        """The one label on a side that has a counterpart; of several, that of what the note is about."""
        sides = {label: self._names.said_side(label) for label in self._names.labels}
        own = [label for label, said in sides.items() if said == side]
        if len(own) > 1:
            topics = {self._names.kind(label) for label in topic}
            own = [label for label in own if self._names.kind(label) in topics]
        return own[0] if len(own) == 1 and {*sides.values()} >= {"left", "right"} else None

    def check_member(self, fragment: Fragment, draft: Draft) -> None:
        """Ask which one is meant, if a note says it of one of several: "one of the kidneys"."""
        for mark in fragment.all("name"):
            words = [each for each in fragment.before(mark) if not says(each, "determiners")]
            is_member = len(words) > 1 and words[-1].kind == "of" and says(words[-2], "uncertain_members")
            if is_member and len(mark.mention.labels) > 1 and mark.mention in draft.subjects:
                raise Unclear(self.ask_which(replace(mark.mention, candidates=mark.mention.labels)))

    def items(self, draft: Draft) -> list[Item]:
        """Return the interventions of a draft: on each label, beside each neighbour, in each direction and range.

        Raises:
            Unclear: it is not certain on which label, or where.
        """
        action = draft.act.action
        labels = self._labels(draft)
        items = []
        for label in labels:
            for near in self._nears(draft, label) or [None]:
                for direction in self._directions(draft, label) or [None]:
                    for slices in draft.slices or [None]:
                        takes_amount = action not in WITHOUT_AMOUNT
                        what = Intervention(
                            label=label,
                            action=action,
                            direction=direction,
                            near=near,
                            slices=slices,
                            extent_mm=draft.mm if takes_amount and action != "smooth" else None,
                            strength=(draft.strength if takes_amount else None) or "moderate",
                        )
                        items.append(Item(what, draft))
        return items

    def _labels(self, draft: Draft) -> tuple[str, ...]:
        """The labels that an act is on, but for those that are to be spared.

        Raises:
            Unclear: it is not certain which.
        """
        return tuple(label for label in self._meant(draft) if label not in draft.spared)

    def _meant(self, draft: Draft) -> tuple[str, ...]:
        if draft.absent is not None:
            raise Unclear(f"There is no label {draft.absent.text} here. {self.which()}")
        if draft.subjects:
            labels: list[str] = []
            for mention in draft.subjects:
                chosen = self.chosen(mention, draft.places)
                if not chosen:
                    raise Unclear(self.ask_which(mention))
                labels += chosen
            return tuple(dict.fromkeys(labels))
        if draft.has_other and len(self._names.labels) == 2 and len(draft.topic) == 1:
            return tuple(label for label in self._names.labels if label not in draft.topic)
        on_side = self._on_side(draft)
        if on_side:
            return on_side
        if draft.has_all or (draft.has_both and len(self._names.labels) == 2):
            return self._names.labels
        labels_ = self.default or draft.topic
        if not labels_:
            raise Unclear(self.which())
        return labels_

    def _on_side(self, draft: Draft) -> tuple[str, ...]:
        """The one label of a side, where "the right one" or "on the left" tells it from its counterpart."""
        if len(self._names.labels) < 2 or (draft.topic and not draft.has_one):
            return ()
        for side in self._sides_in(draft.places):
            own = [label for label in self._names.labels if self._names.said_side(label) == side]
            others = [label for label in self._names.labels if self._names.said_side(label) not in (None, side)]
            if len(own) == 1 and others:
                _drop_side(draft.places, side)
                return (own[0],)
        return ()

    def labels_of(self, names: Iterable[Mark], details: Details) -> list[str]:
        """Return the labels of names; none of those that are of no label.

        Raises:
            Unclear: a name may be that of several labels.
        """
        found: list[str] = []
        for name in names:
            labels = self.chosen(name.mention, [details.places])
            if name.mention.candidates and not labels:
                raise Unclear(self.ask_which(name.mention))
            found += labels
        return found

    def chosen(
        self,
        mention: Mention,
        places: Sequence[list[Place]],
        context: Sequence[list[Place]] = (),
    ) -> tuple[str, ...]:
        """The labels of a name; of several candidates, the one on a side that is said, if need be in the context."""
        if mention.labels:
            return mention.labels
        both = next((place for group in places for place in group if {"left", "right"} == set(place.values)), None)
        if both and {self._names.said_side(label) for label in mention.candidates} == {"left", "right"}:
            for group in places:
                group[:] = [place for place in group if place is not both]
            return mention.candidates
        beside = [[place for place in group if place.owner and place.owner.text == mention.text] for group in places]
        for side in self._sides_in([*beside, *places, *context]):
            own = [label for label in mention.candidates if self._names.said_side(label) == side]
            if len(own) == 1:
                _drop_side(places, side)
                return (own[0],)
        return ()

    def _sides_in(self, places: Iterable[list[Place]]) -> list[str]:
        return [value for group in places for place in group for value in place.values if value in ("left", "right")]

    def _nears(self, draft: Draft, label: str) -> list[str]:
        found = []
        for mention in draft.nears:
            side = self._sides.get(label) or side_of(label)
            same_side = [name for name in mention.candidates if self._names.said_side(name) == side]
            near = same_side[0] if len(same_side) == 1 else mention.neighbour
            several = mention.labels if len(mention.labels) > 1 else (near,)
            found += [name for name in several if name != label and name not in found]
        is_of_itself = draft.act.action == "remove" and draft.act.says_what and bool(draft.nears)
        if (draft.act.action == "exclude" or is_of_itself) and not found:
            raise Unclear(f"What does the {label} run into? Say it as in: {label} leaks into the stomach.")
        return found

    def _directions(self, draft: Draft, label: str) -> list[Direction]:
        """The directions of a draft on a label, without repetition; of several in one phrase, the first."""
        found: list[Direction] = []
        for group in draft.places_on(label):
            values = [value for place in group for value in place.values]
            is_quadrant = "quadrant" in values and {"superior", "inferior"} & set(values)
            for place in sorted(group, key=lambda place: _vagueness(place, group)):
                if is_quadrant and place.values[0] in ("left", "right"):
                    continue
                directions = [self._direction(value, label, self._sides_in([group])) for value in place.values]
                known = [direction for direction in directions if direction is not None]
                if known:
                    found += [direction for direction in known if direction not in found]
                    break
        return found

    def _direction(self, value: str, label: str, sides: Sequence[str]) -> Direction | None:
        try:
            return direction_by(value, label, self._sides.get(label), self._vocabulary)
        except InputError:
            if sides:
                return None  # "the lateral wall on the left"
            raise Unclear(f"On which side of the {label}? Say left or right instead of {value}.") from None

    def example(self, label: str | None = None) -> str:
        """How to say what is wrong."""
        label = label or self._names.labels[0]
        return f"Say what is wrong with a mask, as in: {label} is too small inferiorly, {label} leaks into the colon."

    def which(self) -> str:
        """The question to a note that leaves open which label is meant."""
        return f"Which label is meant? Present are {_some(self._names.labels, ', ')}."

    def ask_which(self, mention: Mention) -> str:
        """The question to a name that leaves it open."""
        if mention.candidates:
            return f"Which {mention.text} is meant, {_some(mention.candidates, ' or ')}?"
        return f"There is no label {mention.text} here. {self.which()}"


def _some(names: Sequence[str], join: str) -> str:
    """The first few names, and that there are more."""
    return join.join((*names[:LISTED], *(["others"] if len(names) > LISTED else [])))


def _vagueness(place: Place, group: Sequence[Place]) -> int:
    """How much better other places say where: the tip of the left lobe is on the left, and its bottom is not."""
    is_of_lobe = place.values in (("left",), ("right",)) and any(other.values == ("lobe",) for other in group)
    return 2 * (place.values == ("tip",)) + is_of_lobe


def _is_so_too(before: Sequence[Mark], after: Sequence[Mark]) -> bool:
    """Whether the words around a side only say that it is so there too: "as does the right", "the right as well"."""
    words = [mark.text for mark in before if not says(mark, "determiners")]
    rest = " ".join(mark.text for mark in after)
    is_inverted = " ".join(words) in AGAIN_SO and rest in ("", "one")
    return is_inverted or (not words and rest in ("too", "also", "as well", "likewise"))


def _drop_side(places: Sequence[list[Place]], side: str) -> None:
    """Take a side away that told which label is meant."""
    for group in places:
        for place in group:
            if place.values == (side,):
                group.remove(place)
                return
