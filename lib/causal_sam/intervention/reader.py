"""From the fragments of a note to interventions: which label each act is on, and what belongs together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from causal_sam.errors import InputError
from causal_sam.intervention.acts import acts_of, with_names
from causal_sam.intervention.fragments import Fragment, Mark
from causal_sam.intervention.grammar import Act, is_known, is_negated, places_of, preposition, says
from causal_sam.intervention.laterality import direction_by, side_of
from causal_sam.intervention.mentions import Mention, Names
from causal_sam.intervention.schema import FARTHEST_MM, Action, Direction, Intervention
from causal_sam.intervention.tokens import Ranges
from causal_sam.intervention.vocabulary import Vocabulary

# Acts whose strength and extent nobody says: a word such as "severe" is about the image or the hole then.
_WITHOUT_AMOUNT = frozenset({"restyle", "keep", "fill", "remove", "keep_largest"})
LISTED = 8  # names in a question
_ABSORBED_BY_STYLE = frozenset({"expand", "shrink", "exclude"})


class Unclear(Exception):
    """The note cannot be acted on; the message is the question to ask."""


@dataclass
class _Draft:
    """An act while the note is read.

    Attributes:
        places: for each fragment that says where, its words in their order.
    """

    act: Act
    sentence: int
    number: int
    is_also: bool = False
    subjects: list[Mention] = field(default_factory=list)
    absent: Mention | None = None
    nears: list[Mention] = field(default_factory=list)
    places: list[list[tuple[str, ...]]] = field(default_factory=list)
    slices: Ranges = ()
    mm: float | None = None
    strength: str | None = None
    has_one: bool = False
    has_both: bool = False
    has_all: bool = False
    has_other: bool = False
    topic: tuple[str, ...] = ()

    def add(self, details: _Details) -> None:
        """Add what another fragment says of where and how much."""
        if details.places and self.act.places is None:
            self.places.append(details.places)
        self.slices += tuple(each for each in details.slices if each not in self.slices)
        self.mm = self.mm if details.mm is None else details.mm
        self.strength = details.strength or self.strength


@dataclass(frozen=True)
class _Details:
    """What a fragment says besides its act."""

    places: list[tuple[str, ...]]
    slices: Ranges
    mm: float | None
    strength: str | None
    names: tuple[Mark, ...]

    @classmethod
    def of(cls, fragment: Fragment) -> _Details:
        lengths = [mark.mm for mark in fragment.all("mm")]
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
    def is_empty(self) -> bool:
        return not (self.places or self.slices or self.mm or self.strength or self.names)


@dataclass(frozen=True)
class _Item:
    """An intervention, and where in the note it is said."""

    what: Intervention
    sentence: int
    number: int
    is_also: bool
    is_weak: bool

    @property
    def is_bare(self) -> bool:
        """Whether it says neither where nor how far."""
        what = self.what
        return what.direction is None and what.near is None and what.slices is None and what.extent_mm is None

    def filled(self, other: Intervention) -> _Item:
        """With what another one says more."""
        more = {
            name: getattr(other, name)
            for name in ("direction", "near", "slices", "extent_mm")
            if getattr(self.what, name) is None
        }
        if self.what.strength == "moderate" and self.what.action not in _WITHOUT_AMOUNT:
            more["strength"] = other.strength
        if self.what.action in _WITHOUT_AMOUNT:
            more.pop("extent_mm", None)
        return replace(self, what=self.what.model_copy(update=more))


class Reader:
    """Reads one note.

    Args:
        names: of structures, for the labels that are present.
        vocabulary: of notes.
        sides: of the body on which labels are, where their names do not say it.
        current: the label that a note without a name is about.
    """

    def __init__(
        self, names: Names, vocabulary: Vocabulary, sides: Mapping[str, Direction], current: str | None
    ) -> None:
        self._names, self._vocabulary, self._sides = names, vocabulary, sides
        self._default = (current,) if current else names.labels if len(names.labels) == 1 else ()
        self._drafts: list[_Draft] = []
        self._group: list[_Draft] = []  # of the last fragment that asks for something
        self._pending: list[tuple[Fragment, _Details]] = []
        self._topic: tuple[str, ...] = ()
        self._other: Mention | None = None  # the last name that is no label
        self._is_undone = False  # something was ordered that is none of the acts
        self._protected: list[str] = []
        self._wrong: list[str] = []

    def read(self, fragments: Sequence[Fragment]) -> list[Intervention]:
        """Return the interventions of a note; none if it says nothing that is understood.

        Raises:
            Unclear: with the question to ask, if the note is ambiguous or asks for something impossible.
        """
        for sentence in sorted({fragment.sentence for fragment in fragments}):
            own = [fragment for fragment in fragments if fragment.sentence == sentence]
            self._refuse(own)
            self._group, self._pending = [], []
            for fragment in own:
                self._read(fragment)
            self._leave_pending()
            for draft in self._drafts:
                # "Too generous, pull the liver edge back": the name comes later.
                if draft.sentence == sentence and not draft.topic:
                    draft.topic = self._topic
        items = self._merged([item for draft in self._drafts for item in self._items(draft)])
        self._check_wrong(items)
        if self._is_undone and not items:
            raise Unclear(f"What is to be done? {self._example()}")
        if not items:
            items = [self._keeping(label) for label in dict.fromkeys(self._protected)]
        return [item.what for item in items]

    def read_as(self, action: Action, fragments: Sequence[Fragment]) -> list[Intervention]:
        """Return the interventions of a note whose action is known, from where and how much it says.

        Raises:
            Unclear: with the question to ask.
        """
        whole = Fragment(tuple(mark for fragment in fragments for mark in fragment.marks), 0)
        self._group, self._pending = [], []
        drafts = self._add(whole, _Details.of(whole), [with_names(whole, Act(action))])
        return [item.what for draft in drafts for item in self._items(draft)]

    def ask_what(self) -> str:
        """The question to a note that says nothing that is understood."""
        return f"What is to be corrected? {self._example()}"

    def _refuse(self, sentence: Sequence[Fragment]) -> None:
        """Ask back for what is no note about a mask."""
        first = next((m for f in sentence for m in f.marks if m.kind not in ("plain", "join")), None)
        is_request = any(fragment.has("requests") for fragment in sentence)
        if any(fragment.has("foreign") for fragment in sentence):
            raise Unclear(f"That is no correction of a mask. {self._example()}")
        # "What is marked as spleen is colon" is no question.
        is_told = _is_denial(sentence[0]) or any(each.has("taken_for") for each in sentence)
        begins_so = first is not None and first.kind == "asks" and not is_told
        if begins_so or (any(fragment.asks for fragment in sentence) and not is_request):
            raise Unclear(f"Questions are not answered here. {self._example()}")
        if any(fragment.has("unsure") for fragment in sentence):
            raise Unclear(f"What is wrong with the mask? {self._example()}")

    def _read(self, fragment: Fragment) -> None:
        details = _Details.of(fragment)
        self._interpret(fragment, details)
        others = [mark.mention for mark in details.names if not is_known(mark.mention)]
        self._other = others[-1] if others else self._other

    def _interpret(self, fragment: Fragment, details: _Details) -> None:
        if self._is_protection(fragment):
            named = [label for mark in details.names for label in self._labels_of(mark.mention, details)]
            self._protected += named or self._default
            return
        acts = acts_of(fragment)
        if acts:
            self._group = self._add(fragment, details, acts)
            self._drafts += self._group
        elif fragment.has("nothing_else"):
            return
        elif any(not is_negated(fragment, mark) for mark in fragment.all("keep")):
            self._keep(fragment, details)
        elif fragment.has("wrong", "keep"):
            self._set_topic(details)
            self._wrong += [label for mark in details.names for label in self._labels_of(mark.mention, details)]
        elif fragment.has("delete", "retain", "move", "exclude") and not self._group:
            self._is_undone = True
            self._wrong += [label for mark in details.names for label in self._labels_of(mark.mention, details)]
        elif not details.is_empty or fragment.has("both", "one", "other"):
            self._loose(fragment, details)

    def _is_protection(self, fragment: Fragment) -> bool:
        for mark in fragment.all("protect"):
            if any(cue.values[0] == "restyle" for cue in fragment.all("cue")):
                return False
            if mark.text not in ("touch", "touches", "touched", "touching") or is_negated(fragment, mark):
                return True
        return False

    def _add(self, fragment: Fragment, details: _Details, acts: Sequence[Act]) -> list[_Draft]:
        drafts = []
        pending = [mark.mention for loose, more in self._pending for mark in more.names]
        is_listed = fragment.join in ("and", ",", "or", "/")
        for act in acts:
            draft = _Draft(act, fragment.sentence, len(self._drafts) + len(drafts), fragment.has("also"))
            draft.subjects = list(act.subjects)
            if pending and (not act.subjects or is_listed) and act.absent is None:
                draft.subjects = [*pending, *act.subjects]
            draft.subjects = [self._all_sides(mention, fragment) for mention in draft.subjects]
            draft.absent, draft.nears = act.absent, list(act.nears)
            if act.action == "exclude" and not act.nears and self._other and fragment.has("it"):
                draft.nears = [self._other]
            draft.has_one = fragment.has("one") or any(loose.has("one") for loose, _ in self._pending)
            draft.has_both = fragment.has("both") or any(loose.has("both") for loose, _ in self._pending)
            draft.has_all = _is_about_all(fragment)
            draft.has_other = fragment.has("other") or any(loose.has("other") for loose, _ in self._pending)
            for _, more in self._pending:
                draft.add(more)
            if act.places is not None:
                draft.places = [[(place,) for place in act.places]]
            draft.add(details)
            draft.topic = self._topic
            drafts.append(draft)
        self._pending = []
        for draft in drafts:
            self._remember(draft)
        return drafts

    def _all_sides(self, mention: Mention, fragment: Fragment) -> Mention:
        """The name of a pair that is told by the plural of its part: "lung bases"."""
        sides = {self._names.said_side(label) for label in mention.candidates}
        is_plural = any(says(mark, "plural_parts") for mark in fragment.all("place"))
        return replace(mention, labels=mention.candidates) if is_plural and sides == {"left", "right"} else mention

    def _remember(self, draft: _Draft) -> None:
        if draft.subjects:
            context = [group for other in self._group for group in other.places]
            found = [(mention, self._chosen(mention, draft.places, context)) for mention in draft.subjects]
            draft.subjects = [replace(mention, labels=labels) for mention, labels in found]
            self._topic = tuple(dict.fromkeys(label for _, labels in found for label in labels)) or self._topic

    def _keep(self, fragment: Fragment, details: _Details) -> None:
        if _is_other(fragment) or fragment.has("exclude", "include"):
            return  # "is correctly excluded"
        names = list(details.names)
        excepted = fragment.all("except")
        rest = [mark for mark in names if excepted and mark in fragment.after(excepted[0])]
        spared = [label for mark in rest for label in self._labels_of(mark.mention, details)]
        kept = [mark.mention for mark in names if mark not in rest]
        draft = _Draft(Act("keep", is_weak=True), fragment.sentence, len(self._drafts), subjects=kept)
        if self._pending and (not kept or fragment.join in ("and", ",", "/")):
            draft.subjects = [*(mark.mention for _, more in self._pending for mark in more.names), *kept]
        if not draft.subjects:
            # What looks good without a name is all that is shown.
            labels = self._default or self._topic or self._names.labels
            draft.subjects = [Mention(label, (label,)) for label in labels if label not in spared]
        self._pending = []
        self._drafts.append(draft)
        self._group = [draft]
        if excepted:
            self._pending = [(fragment, replace(details, names=tuple(rest)))]
        if spared:
            self._topic = tuple(spared)
        else:
            self._remember(draft)

    def _loose(self, fragment: Fragment, details: _Details) -> None:
        """What a fragment without an act adds: to the act before it, or to the one after."""
        group = [draft for draft in self._group if draft.act.action != "keep"]
        if fragment.has("not"):
            said_not = [mark.mention for mark in details.names if preposition(fragment, mark) == "not"]
            for draft in group if said_not else ():
                if draft.act.says_whose:
                    draft.act, draft.nears = Act("exclude"), draft.subjects
                draft.subjects = said_not
            if not (said_not and group):
                self._set_topic(details)
            return
        is_topic = bool(details.names) and any(is_known(mark.mention) for mark in details.names)
        if not group or (is_topic and fragment.join not in ("and", "or", "/", "")) or fragment.join in ("then", "but"):
            self._pending.append((fragment, details))
            return
        self._trail(group, fragment, details)

    def _leave_pending(self) -> None:
        """Give what no act followed to the act before it, or keep its names as the topic of the next sentence."""
        group = [draft for draft in self._group if draft.act.action != "keep"]
        for fragment, details in self._pending:
            if group:
                self._trail(group, fragment, details)
            elif self._group:
                self._group[0].subjects += [mark.mention for mark in details.names if mark.mention.labels]
            else:
                self._set_topic(details)
        self._pending = []

    def _set_topic(self, details: _Details) -> None:
        labels = [label for mark in details.names for label in self._chosen(mark.mention, [details.places])]
        self._topic = tuple(dict.fromkeys(labels)) or self._topic

    def _trail(self, group: Sequence[_Draft], fragment: Fragment, details: _Details) -> None:
        if details.places and details.mm and all(draft.mm for draft in group):
            # "2 mm anteriorly and 4 mm posteriorly"
            copies = [
                replace(draft, places=[], mm=None, subjects=[*draft.subjects], nears=[*draft.nears]) for draft in group
            ]
            for number, draft in enumerate(copies):
                draft.number = len(self._drafts) + number
            self._drafts += copies
            self._group = group = copies
        for draft in group:
            for mark in details.names:
                if draft.act.action == "restyle" and not mark.mention.labels:
                    continue
                is_beside = preposition(fragment, mark) in ("near", "place", "into", "from")
                if draft.act.action == "exclude" or is_beside or not is_known(mark.mention):
                    draft.nears.append(mark.mention)
                else:
                    draft.subjects.append(mark.mention)
            draft.add(details)

    def _items(self, draft: _Draft) -> list[_Item]:
        action = draft.act.action
        labels = self._labels(draft)
        items = []
        for label in labels:
            for near in self._nears(draft, label) or [None]:
                for direction in self._directions(draft, label) or [None]:
                    for slices in draft.slices or [None]:
                        takes_amount = action not in _WITHOUT_AMOUNT
                        what = Intervention(
                            label=label,
                            action=action,
                            direction=direction,
                            near=near,
                            slices=slices,
                            extent_mm=draft.mm if takes_amount and action != "smooth" else None,
                            strength=(draft.strength if takes_amount else None) or "moderate",
                        )
                        items.append(_Item(what, draft.sentence, draft.number, draft.is_also, draft.act.is_weak))
        return items

    def _labels(self, draft: _Draft) -> tuple[str, ...]:
        """The labels that an act is on.

        Raises:
            Unclear: it is not certain which.
        """
        if draft.absent is not None:
            raise Unclear(f"There is no label {draft.absent.text} here. {self._which()}")
        if draft.subjects:
            labels: list[str] = []
            for mention in draft.subjects:
                chosen = self._chosen(mention, draft.places)
                if not chosen:
                    raise Unclear(self._ask_which(mention))
                labels += chosen
            return tuple(dict.fromkeys(labels))
        if draft.has_other and len(self._names.labels) == 2 and len(draft.topic) == 1:
            return tuple(label for label in self._names.labels if label not in draft.topic)
        on_side = self._on_side(draft)
        if on_side:
            return on_side
        if draft.has_all or (draft.has_both and len(self._names.labels) == 2):
            return self._names.labels
        labels_ = self._default or draft.topic
        if not labels_:
            raise Unclear(self._which())
        return labels_

    def _on_side(self, draft: _Draft) -> tuple[str, ...]:
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

    def _labels_of(self, mention: Mention, details: _Details) -> tuple[str, ...]:
        labels = self._chosen(mention, [details.places])
        if mention.candidates and not labels:
            raise Unclear(self._ask_which(mention))
        return labels

    def _chosen(
        self,
        mention: Mention,
        places: Sequence[list[tuple[str, ...]]],
        context: Sequence[list[tuple[str, ...]]] = (),
    ) -> tuple[str, ...]:
        """The labels of a name; of several candidates, the one on a side that is said, if need be in the context."""
        if mention.labels:
            return mention.labels
        for side in self._sides_in([*places, *context]):
            own = [label for label in mention.candidates if self._names.said_side(label) == side]
            if len(own) == 1:
                _drop_side(places, side)
                return (own[0],)
        return ()

    def _sides_in(self, places: Iterable[list[tuple[str, ...]]]) -> list[str]:
        return [value for group in places for values in group for value in values if value in ("left", "right")]

    def _nears(self, draft: _Draft, label: str) -> list[str]:
        found = []
        for mention in draft.nears:
            side = self._sides.get(label) or side_of(label)
            same_side = [name for name in mention.candidates if self._names.said_side(name) == side]
            near = same_side[0] if len(same_side) == 1 else mention.neighbour
            if near != label and near not in found:
                found.append(near)
        if draft.act.action == "exclude" and not found:
            raise Unclear(f"What does the {label} run into? Say it as in: {label} leaks into the stomach.")
        return found

    def _directions(self, draft: _Draft, label: str) -> list[Direction]:
        """The directions of a draft on a label, without repetition; of several in one phrase, the first."""
        found: list[Direction] = []
        for group in draft.places:
            values = [value for each in group for value in each]
            is_quadrant = "quadrant" in values and {"superior", "inferior"} & set(values)
            for each in group:
                if is_quadrant and each[0] in ("left", "right"):
                    continue
                directions = [self._direction(value, label) for value in each]
                known = [direction for direction in directions if direction is not None]
                if known:
                    found += [direction for direction in known if direction not in found]
                    break
        return found

    def _direction(self, value: str, label: str) -> Direction | None:
        try:
            return direction_by(value, label, self._sides.get(label), self._vocabulary)
        except InputError:
            raise Unclear(f"On which side of the {label}? Say left or right instead of {value}.") from None

    def _merged(self, items: Sequence[_Item]) -> list[_Item]:
        """Interventions without what is said twice, or explained by another one of the same label."""
        labels = dict.fromkeys(item.what.label for item in items)
        merged = [each for label in labels for each in _joined([item for item in items if item.what.label == label])]
        places = {_place(item.what) for item in merged if item.what.action == "expand"}
        for item in merged:
            if item.what.action == "shrink" and _place(item.what) in places:
                raise Unclear(f"Is the {item.what.label} too small or too large? Say which, and where.")
        return merged

    def _check_wrong(self, items: Sequence[_Item]) -> None:
        done = {item.what.label for item in items}
        unclear = next((label for label in self._wrong if label not in done), None)
        if unclear:
            raise Unclear(f"What is wrong with the {unclear}? {self._example(unclear)}")

    def _keeping(self, label: str) -> _Item:
        return _Item(Intervention(label=label, action="keep"), 0, 0, False, True)

    def _example(self, label: str | None = None) -> str:
        label = label or self._names.labels[0]
        return f"Say what is wrong with a mask, as in: {label} is too small inferiorly, {label} leaks into the colon."

    def _which(self) -> str:
        return f"Which label is meant? Present are {_some(self._names.labels, ', ')}."

    def _ask_which(self, mention: Mention) -> str:
        if mention.candidates:
            return f"Which {mention.text} is meant, {_some(mention.candidates, ' or ')}?"
        return f"There is no label {mention.text} here. {self._which()}"


def _some(names: Sequence[str], join: str) -> str:
    """The first few names, and that there are more."""
    return join.join((*names[:LISTED], *(["others"] if len(names) > LISTED else [])))


def _drop_side(places: Sequence[list[tuple[str, ...]]], side: str) -> None:
    """Take a side away that told which label is meant."""
    for group in places:
        if (side,) in group:
            group.remove((side,))
            return


def _is_denial(fragment: Fragment) -> bool:
    """Whether a sentence begins as in "does not include"; a question has its subject there."""
    kinds = [mark.kind for mark in fragment.marks if mark.kind != "plain"]
    return kinds[:2] == ["asks", "not"]


def _is_about_all(fragment: Fragment) -> bool:
    for mark in fragment.all("all"):
        after = fragment.after(mark)
        if mark.text in ("everything", "all labels", "all of them") or (after and after[0].kind == "masks"):
            return True
    return False


def _is_other(fragment: Fragment) -> bool:
    """Whether a fragment is about the rest: "the others are fine"."""
    cues = [mark.text for mark in fragment.all("cue")]
    return any(text in ("the rest", "the others", "everything else", "all others", "all other") for text in cues)


def _is_same(first: _Item, second: _Item) -> bool:
    """Whether two items are one intervention, of which each says a part."""
    if (first.what.label, first.what.action) != (second.what.label, second.what.action):
        return False
    names = ("direction", "near", "slices", "extent_mm")
    pairs = [(getattr(first.what, name), getattr(second.what, name)) for name in names]
    if any(one != two and one is not None and two is not None for one, two in pairs):
        return False
    if first.number == second.number or (second.is_also and not second.is_bare):
        return all(one == two for one, two in pairs)
    is_near_by = first.sentence == second.sentence
    return is_near_by or first.is_bare or second.is_bare or first.what.direction == second.what.direction is not None


def _joined(items: Sequence[_Item]) -> list[_Item]:
    """The items of one label, of which each says something of its own."""
    joined: list[_Item] = []
    for item in items:
        same = [place for place, other in enumerate(joined) if _is_same(other, item)]
        for place in same:
            joined[place] = joined[place].filled(item.what)
        if not same:
            joined.append(item)
    return list({item.what: item for item in _absorbed(joined)}.values())


def _absorbed(items: Sequence[_Item]) -> list[_Item]:
    """Without the acts that others stand for."""
    found: list[_Item | None] = list(items)
    for i, j in itertools.permutations(range(len(found)), 2):
        item, other = found[i], found[j]
        if item is not None and other is not None and _stands_for(item, other):
            found[i], found[j] = _taking_over(item, other.what), None
    return [item for item in found if item is not None]


def _taking_over(item: _Item, other: Intervention) -> _Item:
    if other.action == "keep":
        return item
    if item.what.action in ("remove", "exclude", "restyle"):
        taken = item.filled(other)
        # An artefact has no neighbour.
        return item if item.what.action == "restyle" and other.near else taken
    return item


def _stands_for(item: _Item, other: _Item) -> bool:
    """Whether an act is the remedy or the cause of another one, which then is none of its own."""
    what, second = item.what, other.what
    if second.action == "keep":
        return what.action != "restyle" or not item.is_weak
    if what.action == "keep":
        return second.action == "restyle" and other.is_weak
    is_near_by = abs(item.sentence - other.sentence) <= 1
    is_together = item.sentence == other.sentence
    if what.action == "restyle":
        return is_together and second.action in _ABSORBED_BY_STYLE
    if what.action == "keep_largest":
        return second.action in ("remove", "shrink") and is_near_by and other.is_bare
    if what.action == "remove":
        is_naming = second.action == "exclude" and is_near_by and other.number > item.number
        return is_naming or (second.action == "shrink" and is_together and other.is_bare)
    if what.action == "exclude" and second.action == "shrink":
        is_remedy = other.number > item.number and is_near_by and not other.is_also
        is_cause = is_together and (other.is_bare or not item.is_also)
        same_place = None in (what.direction, second.direction) or what.direction == second.direction
        return same_place and (is_remedy or is_cause)
    return what.action == "fill" and second.action == "expand" and is_together and other.is_bare


def _place(what: Intervention) -> tuple[object, ...]:
    return what.label, what.direction, what.slices, what.near
