"""Resolution of drafts into interventions: labels, neighbours and directions of their words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from causal_sam.errors import InputError
from causal_sam.notes.acts import acts_of
from causal_sam.notes.clarification import ClarificationNeeded, NotUnderstood
from causal_sam.notes.drafts import WITHOUT_AMOUNT, Details, Draft
from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.items import Item
from causal_sam.notes.laterality import resolve_direction, side_of, structures_of
from causal_sam.notes.mentions import Mention, NameFinder
from causal_sam.notes.places import Place, unknown_part
from causal_sam.notes.request import ImageSlices
from causal_sam.notes.schema import Direction, Intervention, is_valid_name
from causal_sam.notes.tokens import Ranges
from causal_sam.notes.vocabulary import Vocabulary

MAX_LISTED_LABELS = 8  # names in a question
# Kinds after a side that is a subject: "the left is too large", "right: lacks 4 mm".
_PREDICATES = frozenset(
    {"cue", "keep", "wrong", "too", "wanted", "small", "strength", "starts", "also", "mm", "slices", "include"}
)


# Beginnings of a fragment that repeats a statement: "left lung misses its apex, as does the right".
_INVERTED_REPEATS = frozenset(
    f"{word} {auxiliary}"
    for word in ("as", "so", "nor", "neither")
    for auxiliary in ("is", "are", "was", "were", "does", "do", "did", "has", "have")
)


class Resolver:
    """Resolves the names and places of one note on the present labels.

    Args:
        names: finder of the names of the labels.
        vocabulary: vocabulary of notes.
        sides: label -> side of the body, where the name does not determine it.
        current: label that a note without a name refers to.
        image: slices of the image, if they are known.

    Attributes:
        labels: labels that are present.
        default: labels that a note without a name refers to; empty if that is uncertain.
    """

    def __init__(
        self,
        names: NameFinder,
        vocabulary: Vocabulary,
        sides: Mapping[str, Direction],
        current: str | None,
        image: ImageSlices | None = None,
    ) -> None:
        self._names, self._vocabulary, self._sides, self._image = names, vocabulary, sides, image
        self.labels = names.labels
        self.default = (current,) if current else names.labels if len(names.labels) == 1 else ()

    def with_side(self, fragment: Fragment, topic: Sequence[str]) -> Fragment:
        """Replace "the left one", or "the left" as a subject, by a name.

        Args:
            fragment: fragment of the note.
            topic: labels of the previous statements.
        """
        marks = fragment.marks
        for at, mark in enumerate(marks):
            following = marks[at + 1 : at + 2]
            is_one = bool(following) and following[0].kind == "one"
            is_first = all(each.kind == "plain" for each in marks[:at])
            is_predicate = is_first and (
                following[0].is_in("copulas") or following[0].kind in _PREDICATES if following else bool(topic)
            )
            is_predicate = is_predicate or (not following and any(each.is_in("same") for each in marks))
            says_the_same = _says_the_same(marks[:at], marks[at + 1 :])
            label = (
                self._of_side(mark.values[0], topic)
                if mark.values and (is_one or is_predicate or says_the_same)
                else None
            )
            if mark.kind == "place" and label:
                name = Mark("name", mark.text, mention=Mention(f"{mark.text} one", (label,)))
                return replace(fragment, marks=(*marks[:at], name, *marks[at + 1 + is_one :]))
        return fragment

    def _of_side(self, side: str, topic: Sequence[str]) -> str | None:
        """Return the label on a side that has a counterpart; of several, the one of the topic's kind."""
        sides = {label: self._names.side_in_name(label) for label in self._names.labels}
        own = [label for label, named_side in sides.items() if named_side == side]
        if topic:
            topics = {self._names.kind(label) for label in topic}
            own = [label for label in own if self._names.kind(label) in topics]
        return own[0] if len(own) == 1 and {*sides.values()} >= {"left", "right"} else None

    def counterparts(self, labels: Sequence[str]) -> list[str]:
        """Return the labels of the same kinds on the other side."""
        kinds = set(map(self._names.kind, labels))
        return [label for label in self.labels if self._names.kind(label) in kinds and label not in labels]

    def apply_exception(self, fragment: Fragment, draft: Draft) -> None:
        """Apply the exception of an order: "smooth all labels except the liver".

        Raises:
            ClarificationNeeded: the exception is a place, which no act supports.
        """
        excepted = fragment.all("except")
        if not excepted or fragment.approvals() or draft.act.action == "keep_largest":
            return
        before, after = fragment.before(excepted[0]), fragment.after(excepted[0])
        is_ordered = bool(acts_of(replace(fragment, marks=before)))
        if not (is_ordered or fragment.is_about_all() or any(mark.kind == "all" for mark in before)):
            return  # "except the tip, which is missing"
        excluded_labels = [mark.mention for mark in after if mark.mention][:1]
        if not excluded_labels:
            raise ClarificationNeeded(f"Where is it to be done? Name each side. {self.example_hint()}")
        draft.subjects = [mention for mention in draft.subjects if mention not in excluded_labels]
        draft.nears = [mention for mention in draft.nears if mention not in excluded_labels]
        draft.excluded_labels += [label for mention in excluded_labels for label in mention.labels]

    def check_members(self, fragment: Fragment) -> None:
        """Check that no name means one of several labels: "one of the kidneys".

        Raises:
            ClarificationNeeded: it is.
        """
        for mark in fragment.all("name"):
            words = [each for each in fragment.before(mark) if not each.is_in("determiners")]
            is_member = len(words) > 1 and words[-1].kind == "of" and words[-2].is_in("uncertain_members")
            if is_member and len(mark.mention.labels) > 1:
                raise ClarificationNeeded(self.mention_question(replace(mark.mention, candidates=mark.mention.labels)))

    def check_parts(self, fragment: Fragment, is_located: bool) -> None:
        """Check that the fragment names no part that masks do not tell apart: "segment IV", "at the level of T4".

        Raises:
            ClarificationNeeded: it does.
        """
        part = unknown_part(fragment, is_located)
        if part:
            raise ClarificationNeeded(
                f'No mask tells "{part}" apart. Say the direction or the slices instead, as in: on slices 30-36.'
            )

    def items(self, draft: Draft) -> list[Item]:
        """Return the interventions of a draft: one per label, neighbour, direction and slice range.

        Raises:
            ClarificationNeeded: the label, the neighbour or the direction is uncertain.
        """
        action = draft.act.action
        labels = self._labels(draft)
        items = []
        for label in labels:
            target = self._up_to_target(draft, label)
            for near in self._nears(draft, label) or (None,):
                for direction in target[0] or self._directions(draft, label) or (None,):
                    for slices in target[1] or draft.slices or self._slices_of_mask(draft, label):
                        takes_amount = action not in WITHOUT_AMOUNT
                        if action == "shrink" and direction and near not in self.labels:
                            near = None  # "too low in the mediastinum": the direction says where
                        intervention = Intervention(
                            label=label,
                            action=action,
                            direction=direction,
                            near=near,
                            slices=slices,
                            extent_mm=draft.mm if takes_amount and action != "smooth" else None,
                            strength=(draft.strength if takes_amount else None) or "moderate",
                        )
                        items.append(Item(intervention, draft))
        return items

    def _up_to_target(self, draft: Draft, label: str) -> tuple[tuple[Direction, ...], Ranges]:
        """Return direction and slices from the end of a mask to the slice that it is to reach; none without that.

        Raises:
            ClarificationNeeded: the mask is there already, the note also has another place, or the slices are unknown.
        """
        if draft.target is None:
            return (), ()
        image = self._image if self._image is not None and self._image.is_axial else None
        first, last = (0, 0) if image is None else image.nonempty.get(label, (0, 0))
        is_below, directions = draft.target > last, self._directions(draft, label)
        direction: Direction = "inferior" if is_below else "superior"
        is_beyond = first > 0 and not first <= draft.target <= last and {*directions} <= {direction}
        if not is_beyond or draft.act.action != "expand" or draft.slices or draft.end_slices:
            raise ClarificationNeeded(f"On which slices is the {label} to change? Say them as in: slices 30-36.")
        return (direction,), ((last + 1, draft.target) if is_below else (draft.target, first - 1),)

    def _slices_of_mask(self, draft: Draft, label: str) -> tuple[tuple[int, int] | None, ...]:
        """Return the slices that an act counts on the mask: "the last three slices", or all of them if it deletes it.

        Raises:
            ClarificationNeeded: the slices of the mask are not known.
        """
        if not (draft.end_slices or draft.act.is_whole):
            return (None,)
        if self._image is None or label not in self._image.nonempty:
            raise ClarificationNeeded(f"Which slices of the {label} are meant? Say them as in: slices 30-36.")
        first, last = self._image.nonempty[label]
        ends = [
            (first, min(last, first + n - 1)) if n > 0 else (max(first, last + n + 1), last) for n in draft.end_slices
        ]
        return tuple(ends) or ((first, last),)

    def _labels(self, draft: Draft) -> tuple[str, ...]:
        """Return the labels of a draft without the excluded ones.

        Raises:
            ClarificationNeeded: the label is uncertain.
        """
        return tuple(label for label in self._matching_labels(draft) if label not in draft.excluded_labels)

    def _matching_labels(self, draft: Draft) -> tuple[str, ...]:
        if draft.unknown_subject is not None:
            raise NotUnderstood(f"There is no label {draft.unknown_subject.text} here. {self.label_question()}")
        if draft.subjects:
            labels: list[str] = []
            for mention in draft.subjects:
                found = self.resolve_mention(mention, draft.places) or (mention.candidates if draft.has_both else ())
                if not found:
                    raise ClarificationNeeded(self.mention_question(mention))
                labels += found
            return self._on_named_side(draft, tuple(dict.fromkeys(labels)))
        if draft.has_other and len(draft.topic) == 1:
            others = self.labels if len(self.labels) == 2 else self.counterparts(draft.topic)
            return tuple(label for label in others if label not in draft.topic)
        on_side = self._on_side(draft)
        if on_side:
            return on_side
        if draft.has_all or (draft.has_both and len(self._names.labels) == 2):
            return self._names.labels
        labels_ = draft.topic or self.default
        owners = self._owners_of_parts(draft)
        if owners and not draft.refers_back and not set(owners) & set(labels_):
            return owners
        if not labels_:
            raise NotUnderstood(self.label_question())
        return labels_

    def _on_named_side(self, draft: Draft, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Restrict a pair to the side of a place: "the kidneys are good except the left lower pole"."""
        sides = self._sides_in(draft.places)
        has_other_place = any(len(group) > 1 for group in draft.places)
        own = tuple(label for label in labels if self._names.side_in_name(label) in sides)
        if len(labels) != 2 or len(own) != 1 or len(sides) != 1 or not has_other_place:
            return labels
        _drop_side(draft.places, sides[0])
        return own

    def _owners_of_parts(self, draft: Draft) -> tuple[str, ...]:
        """Return the only label, or the pair of labels, that a part in a draft can belong to: "the dome is cut"."""
        parts = [
            self._vocabulary.parts.get(value, {}) for group in draft.places for place in group for value in place.values
        ]
        found = tuple(label for label in self.labels if any(structures_of(label) & set(part) for part in parts))
        sides = [place for group in draft.places for place in group if set(place.values) == {"left", "right"}]
        is_pair = len(found) == 2 and len(set(map(self._names.kind, found))) == 1 and (draft.has_both or bool(sides))
        if is_pair:
            draft.places = [[place for place in group if place not in sides] for group in draft.places]
        return found if len(found) == 1 or is_pair else ()

    def _on_side(self, draft: Draft) -> tuple[str, ...]:
        """Return the label that "the right one" or "on the left" distinguishes from its counterpart."""
        if len(draft.topic) == 1 and not draft.has_one:
            return ()
        labels = draft.topic if len(draft.topic) > 1 else self.labels
        for side in self._sides_in(draft.places):
            own = [label for label in labels if self._names.side_in_name(label) == side]
            others = [label for label in labels if self._names.side_in_name(label) not in (None, side)]
            if len(own) == 1 and others:
                _drop_side(draft.places, side)
                return (own[0],)
        return ()

    def labels_of(self, names: Iterable[Mark], details: Details) -> list[str]:
        """Return the labels that names refer to.

        Raises:
            ClarificationNeeded: a name may refer to several labels.
        """
        found: list[str] = []
        for name in names:
            labels = self.resolve_mention(name.mention, [details.places])
            if name.mention.candidates and not labels:
                raise ClarificationNeeded(self.mention_question(name.mention))
            found += labels
        return found

    def resolve_mention(
        self, mention: Mention, places: Sequence[list[Place]], context: Sequence[list[Place]] = ()
    ) -> tuple[str, ...]:
        """Return the labels of a name; places, then the context, may determine the side of an ambiguous one."""
        if mention.labels:
            return mention.labels
        both = next((place for group in places for place in group if {"left", "right"} == set(place.values)), None)
        if both and {self._names.side_in_name(label) for label in mention.candidates} == {"left", "right"}:
            for group in places:
                group[:] = [place for place in group if place is not both]
            return mention.candidates
        beside = [[place for place in group if place.owner and place.owner.text == mention.text] for group in places]
        for side in self._sides_in([*beside, *places, *context]):
            own = [label for label in mention.candidates if self._names.side_in_name(label) == side]
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
            same_side = [name for name in mention.candidates if self._names.side_in_name(name) == side]
            near = same_side[0] if len(same_side) == 1 else mention.neighbour
            several = mention.labels if len(mention.labels) > 1 else (near,)
            found += [name for name in several if name != label and name not in found]
        if not all(map(is_valid_name, found)):
            raise ClarificationNeeded("Which structure is meant? Name it in a few words.")
        is_of_itself = draft.act.action == "remove" and draft.act.neighbour_is_content and bool(draft.nears)
        if (draft.act.action == "exclude" or is_of_itself) and not found:
            raise NotUnderstood(f"What does the {label} run into? Say it as in: {label} leaks into the stomach.")
        return found

    def _directions(self, draft: Draft, label: str) -> list[Direction]:
        """Return the distinct directions of a draft on a label, the most specific one of each phrase."""
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
        if value in self._vocabulary.sets["medial_segments"] and "liver" in structures_of(label):
            raise ClarificationNeeded(f"On which side of the {label} is its {value}? Say the direction or the slices.")
        try:
            return resolve_direction(value, label, self._sides.get(label), self._vocabulary)
        except InputError:
            if sides:
                return None  # "the lateral wall on the left"
            raise ClarificationNeeded(f"On which side of the {label}? Say left or right instead of {value}.") from None

    def example_hint(self, label: str | None = None) -> str:
        """Return a sentence with an example of a note."""
        label = label or self._names.labels[0]
        return f"Say what is wrong with a mask, as in: {label} is too small inferiorly, {label} leaks into the colon."

    def label_question(self) -> str:
        """Return the question for a note without a certain label."""
        return f"Which label is meant? Present are {_shortened_list(self._names.labels, ', ')}."

    def mention_question(self, mention: Mention) -> str:
        """Return the question for a name that is ambiguous or no label."""
        if mention.candidates:
            return f"Which {mention.text} is meant, {_shortened_list(mention.candidates, ' or ')}?"
        return f"There is no label {mention.text} here. {self.label_question()}"


def _shortened_list(names: Sequence[str], join: str) -> str:
    """Join the first few names, with "others" if there are more."""
    return join.join((*names[:MAX_LISTED_LABELS], *(["others"] if len(names) > MAX_LISTED_LABELS else [])))


def _vagueness(place: Place, group: Sequence[Place]) -> int:
    """Rank a place within its phrase; lower is more specific: the tip of the left lobe is on the left."""
    is_of_lobe = place.values in (("left",), ("right",)) and any(other.values == ("lobe",) for other in group)
    return 2 * (place.values == ("tip",)) + is_of_lobe


def _says_the_same(before: Sequence[Mark], after: Sequence[Mark]) -> bool:
    """Return whether the words around a side only repeat a statement: "as does the right", "the right as well"."""
    words = [mark.text for mark in before if not mark.is_in("determiners")]
    rest = " ".join(mark.text for mark in after)
    is_inverted = " ".join(words) in _INVERTED_REPEATS and rest in ("", "one")
    return is_inverted or (not words and rest in ("too", "also", "as well", "likewise"))


def _drop_side(places: Sequence[list[Place]], side: str) -> None:
    """Remove a side that has determined the label."""
    for group in places:
        for place in group:
            if place.values == (side,):
                group.remove(place)
                return
