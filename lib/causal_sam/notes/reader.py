"""From the fragments of a note to interventions: which label each act is on, and what belongs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from causal_sam.notes.acts import acts_of
from causal_sam.notes.drafts import Details, Draft, Unclear
from causal_sam.notes.fragments import Fragment
from causal_sam.notes.grammar import Act, approvals, is_about_all, is_known, is_negated, live, preposition, says
from causal_sam.notes.items import in_doubt, merged
from causal_sam.notes.mentions import Mention, Names
from causal_sam.notes.places import Place
from causal_sam.notes.repairs import repaired
from causal_sam.notes.resolver import Resolver
from causal_sam.notes.schema import Direction, Intervention
from causal_sam.notes.vocabulary import Vocabulary


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
        self._resolver = Resolver(names, vocabulary, sides, current)
        self._drafts: list[Draft] = []
        self._group: list[Draft] = []  # of the last fragment of the sentence that asks for something
        self._last: list[Draft] = []  # of the last fragment of the note that does
        self._pending: list[tuple[Fragment, Details]] = []
        self._topic: tuple[str, ...] = ()
        self._complaint: Details | None = None  # what is wrong where, before it is said how
        self._other: Mention | None = None  # the last name that is no label
        self._is_undone = False  # something was ordered that is none of the acts
        self._protected: list[str] = []
        self._is_protecting = False  # the fragment before protects labels

    def read(self, fragments: Sequence[Fragment]) -> list[Intervention]:
        """Return the interventions of a note; none if it says nothing that is understood.

        Raises:
            Unclear: with the question to ask, if the note is ambiguous or asks for something impossible.
        """
        fragments, is_repaired = repaired(fragments)
        for sentence in sorted({fragment.sentence for fragment in fragments}):
            own = [fragment for fragment in fragments if fragment.sentence == sentence]
            self._refuse(own)
            self._group, self._pending, self._complaint, self._is_protecting = [], [], None, False
            for fragment in own:
                self._read(fragment)
            self._leave_pending()
            for draft in self._drafts:
                # "Too generous, pull the liver edge back": the name comes later.
                if draft.sentence == sentence and not draft.topic:
                    draft.topic = self._topic
        self._drafts = self._without_praise()
        items = merged([item for draft in self._drafts for item in self._resolver.items(draft)])
        label = in_doubt(items)
        if label:
            raise Unclear(f"Is the {label} too small or too large? Say which, and where.")
        if (self._is_undone or is_repaired) and not (items or self._protected):
            raise Unclear(f"What is to be done? {self._resolver.example()}")
        done = {item.what.label for item in items}
        kept = [label for label in dict.fromkeys(self._protected) if label not in done]
        return [item.what for item in items] + [Intervention(label=label, action="keep") for label in kept]

    def _without_praise(self) -> list[Draft]:
        """The drafts without those that say of no label that it is right, if others say what is to be done."""
        # "Motion artefacts, but the mask is fine."
        done = [draft for draft in self._drafts if draft.act.action != "keep"]
        is_done = any(draft.act.action != "restyle" or not draft.act.is_weak for draft in done)
        found = [draft for draft in self._drafts if not (draft.is_praise and is_done)]
        said = {draft.sentence for draft in found if draft.act.action not in ("keep", "restyle")}
        if said:
            # "Noisy scan. Liver too small." says why, and then what.
            found = [d for d in found if d.sentence in said or d.subjects or not d.act.is_weak]
        for draft in found:
            if draft.act.action == "restyle" and draft.act.is_weak and not draft.topic and len(self._topic) == 1:
                draft.topic = self._topic  # "Low dose scan. The liver border is lost in the noise."
        return found

    def ask_what(self) -> str:
        """The question to a note that says nothing that is understood."""
        return f"What is to be corrected? {self._resolver.example()}"

    def _refuse(self, sentence: Sequence[Fragment]) -> None:
        """Ask back for what is no note about a mask."""
        first = next((m for f in sentence for m in f.marks if m.kind not in ("plain", "join", "requests")), None)
        is_request = any(fragment.has("requests") for fragment in sentence)
        if any(fragment.has("foreign") for fragment in sentence):
            raise Unclear(f"That is no correction of a mask. {self._resolver.example()}")
        # "What is marked as spleen is colon" is no question.
        is_told = _is_denial(sentence[0]) or any(
            mark.kind in ("taken_for", "as") or says(mark, "called") for each in sentence for mark in each.marks
        )
        begins_so = first is not None and first.kind == "asks" and not is_told
        if begins_so or (any(fragment.asks for fragment in sentence) and not is_request):
            raise Unclear(f"Questions are not answered here. {self._resolver.example()}")
        is_blamed = any(live(fragment, "restyle") for fragment in sentence)  # "motion, so the dome is uncertain"
        if any(fragment.has("unsure") for fragment in sentence) and not is_blamed:
            raise Unclear(f"What is wrong with the mask? {self._resolver.example()}")

    def _read(self, fragment: Fragment) -> None:
        fragment = self._resolver.with_side(fragment, self._topic)
        details = Details.of(fragment)
        self._interpret(fragment, details)
        others = [mark.mention for mark in details.names if not is_known(mark.mention)]
        self._other = others[-1] if others else self._other

    def _interpret(self, fragment: Fragment, details: Details) -> None:
        if self._is_protection(fragment):
            self._protect(details, fragment.has("it"))
            return
        if self._is_protecting and fragment.join in ("and", ",", "or", "/", "nor") and _only_names(fragment):
            self._protect(details)  # "don't touch the liver and the spleen"
            return
        self._is_protecting = False
        if _is_over(fragment):
            self._set_topic(details)
            return
        acts = acts_of(fragment)
        if acts:
            self._group = self._last = self._add(fragment, details, acts)
            self._drafts += self._group
        elif self._adds_nothing(fragment, details):
            return
        elif approvals(fragment):
            if fragment.marks[0].text == "which" and not details.names:
                # "the gallbladder is not included, which is right"
                self._drafts = [draft for draft in self._drafts if draft not in self._group]
            self._keep(fragment, details)
        elif fragment.has("wrong", "keep"):
            self._complaint = details
            self._is_undone = self._is_undone or fragment.has("keep")
            self._set_topic(details)
        elif fragment.has("delete", "retain", "move", "exclude") and not self._group:
            self._is_undone = True
        elif not details.is_empty or fragment.has("both", "one", "other"):
            self._loose(fragment, details)

    def _protect(self, details: Details, is_topic: bool = False) -> None:
        """Keep the labels that a protection names, or those named just before it: "bladder: hands off"."""
        pending = [mark for _, more in self._pending for mark in more.names]
        named = self._resolver.labels_of([*pending, *details.names], details)
        self._protected += named or self._resolver.default or (self._topic if is_topic else ())
        self._pending, self._is_protecting = [], True

    def _adds_nothing(self, fragment: Fragment, details: Details) -> bool:
        """Whether a fragment without an act only says what is to stay, or that the acts before it are meant again."""
        if says(fragment.marks[0], "leaving") and not details.names and details.places:
            return True  # "reduce it in front, leave the back"
        is_again = any(says(mark, "same") for mark in fragment.marks) or _is_so_too(fragment)
        if is_again and self._is_again(details):
            return True
        return fragment.has("nothing_else") and not (details.names and approvals(fragment))

    def _is_again(self, details: Details) -> bool:
        """Do the last acts on other labels too, if there are any: "the same for the spleen"."""
        names = [mark for _, more in self._pending for mark in more.names] + list(details.names)
        subjects = [mark.mention for mark in names if mark.mention.labels]
        for draft in self._last if subjects else ():
            owners = {mention.text for mention in draft.subjects}
            places = [[place.without(owners) for place in group] for group in draft.places]
            copy = replace(draft, subjects=subjects, places=places, spared=[], number=len(self._drafts))
            self._drafts.append(copy)
        self._pending = []
        return bool(subjects and self._last)

    def _is_protection(self, fragment: Fragment) -> bool:
        for mark in fragment.all("protect"):
            if any(cue.values[0] == "restyle" for cue in fragment.all("cue")):
                return False
            if mark.text not in ("touch", "touches", "touched", "touching") or is_negated(fragment, mark):
                return True
        return False

    def _add(self, fragment: Fragment, details: Details, acts: Sequence[Act]) -> list[Draft]:
        drafts = []
        pending, beside_pending = self._pending_names()
        is_listed = fragment.join in ("and", ",", "or", "/")
        for act in acts:
            draft = Draft(act, fragment.sentence, len(self._drafts) + len(drafts), fragment.has("also"))
            draft.is_listed = fragment.join == "and"
            draft.subjects, draft.nears = list(act.subjects), [*act.nears, *beside_pending]
            if act.action == "exclude" and not act.nears and says(fragment.marks[0], "relatives"):
                # "the gallbladder, which is included in the liver"
                draft.nears = [mention for mention in pending if not is_known(mention)]
                pending = [mention for mention in pending if mention not in draft.nears]
            if pending and act.absent is None:
                beside = [mark.mention for mark in details.names if preposition(fragment, mark) == "near"]
                if not set(act.subjects) - set(beside) or is_listed:
                    # "liver: delete the blob near the stomach"
                    draft.subjects = [*pending, *(each for each in act.subjects if each not in beside)]
            draft.absent = act.absent
            draft.nears += [each for each in act.subjects if each not in draft.subjects]
            self._resolver.check_member(fragment, draft)
            self._spare(fragment, draft)
            if act.action == "exclude" and not draft.nears and self._other and fragment.has("it"):
                draft.nears = [self._other]
            draft.has_one = fragment.has("one") or any(loose.has("one") for loose, _ in self._pending)
            draft.has_both = fragment.has("both") or any(loose.has("both") for loose, _ in self._pending)
            draft.has_all = is_about_all(fragment)
            draft.has_other = fragment.has("other") or any(loose.has("other") for loose, _ in self._pending)
            for _, more in self._pending:
                draft.add(more)
            if act.places is not None:
                draft.places = [[Place((place,)) for place in act.places]]
            draft.add(details)
            if self._complaint and not (draft.places or act.subjects):
                draft.add(self._complaint)  # "not good at the top, please add"
            draft.topic = self._topic
            drafts.append(draft)
        self._pending = []
        for draft in drafts:
            self._remember(draft)
        return drafts

    def _pending_names(self) -> tuple[list[Mention], list[Mention]]:
        """What the act that comes next is on, and neighbours that were said before it."""
        subjects, nears = [], []
        for loose, details in self._pending:
            for mark in details.names:
                where = preposition(loose, mark)
                if where == "of" and subjects and not is_known(mark.mention):
                    continue  # "consolidation of the lower lobe"
                if is_known(mark.mention) or where in ("", "of"):
                    subjects.append(mark.mention)
                elif where in ("near", "place"):
                    nears.append(mark.mention)
        return subjects, nears

    def _spare(self, fragment: Fragment, draft: Draft) -> None:
        """Take away what an order excepts: "smooth all labels except the liver".

        Raises:
            Unclear: it excepts a place, which no act can do.
        """
        excepted = fragment.all("except")
        if not excepted or approvals(fragment) or draft.act.action == "keep_largest":
            return
        before, after = fragment.before(excepted[0]), fragment.after(excepted[0])
        is_ordered = bool(acts_of(replace(fragment, marks=before)))
        if not (is_ordered or any(mark.kind == "all" for mark in before)):
            return  # "except the tip, which is missing"
        spared = [mark.mention for mark in after if mark.mention][:1]
        if not spared:
            raise Unclear(f"Where is it to be done? {self._resolver.example()}")
        draft.subjects = [mention for mention in draft.subjects if mention not in spared]
        draft.nears = [mention for mention in draft.nears if mention not in spared]
        draft.spared += [label for mention in spared for label in mention.labels]

    def _remember(self, draft: Draft) -> None:
        if draft.subjects:
            context = [group for other in self._group for group in other.places]
            found = [(mention, self._resolver.chosen(mention, draft.places, context)) for mention in draft.subjects]
            draft.subjects = [replace(mention, labels=labels) for mention, labels in found]
            self._topic = tuple(dict.fromkeys(label for _, labels in found for label in labels)) or self._topic

    def _keep(self, fragment: Fragment, details: Details) -> None:
        if fragment.has("exclude", "include"):
            return
        names = list(details.names)
        excepted = fragment.all("except")
        rest = [mark for mark in names if excepted and mark in fragment.after(excepted[0])]
        spared = self._resolver.labels_of(rest, details)
        kept = [mark.mention for mark in names if mark not in rest]
        draft = Draft(Act("keep", is_weak=True), fragment.sentence, len(self._drafts), subjects=kept)
        if self._pending and (not kept or fragment.join in ("and", ",", "/")):
            draft.subjects = [*(mark.mention for _, more in self._pending for mark in more.names), *kept]
        if not draft.subjects:
            draft.is_praise = not (self._topic or fragment.has("all") or excepted)
            # What looks good without a name is all that is shown.
            labels = self._resolver.default or self._topic or self._resolver.labels
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

    def _loose(self, fragment: Fragment, details: Details) -> None:
        """What a fragment without an act adds: to the act before it, or to the one after."""
        group = [draft for draft in self._group if draft.act.action != "keep"]
        if fragment.has("not"):
            said_not = [mark.mention for mark in details.names if preposition(fragment, mark) == "not"]
            for draft in group if said_not else ():
                if draft.act.action not in ("exclude", "remove") and not draft.act.says_whose:
                    draft.spared += [label for mention in said_not for label in mention.labels]
                    continue
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
            if fragment.has("except"):
                self._set_topic(details)
            elif group:
                self._trail(group, fragment, details)
            elif self._group:
                self._group[0].subjects += [mark.mention for mark in details.names if mark.mention.labels]
            else:
                self._set_topic(details)
        self._pending = []

    def _set_topic(self, details: Details) -> None:
        labels = [label for mark in details.names for label in self._resolver.chosen(mark.mention, [details.places])]
        self._topic = tuple(dict.fromkeys(labels)) or self._topic

    def _trail(self, group: Sequence[Draft], fragment: Fragment, details: Details) -> None:
        """Add a fragment to the acts before it, or repeat these for what it names: "the spleen by 3 mm"."""
        beside = [mark for mark in details.names if preposition(fragment, mark) in ("near", "place", "into", "from")]
        others = [mark for mark in details.names if mark not in beside and is_known(mark.mention)]
        nears = [mark.mention for mark in details.names if mark not in others]
        subjects = [mark.mention for mark in others]
        is_listed = fragment.join in ("and", "or", "/", "")
        is_told = all(draft.says_how for draft in group)
        is_own_amount = bool(details.places and details.mm) and all(draft.mm for draft in group)
        is_own_near = bool(details.names and details.places) and all(draft.nears and draft.places for draft in group)
        is_of_neighbours = group[0].act.action == "exclude"
        if is_of_neighbours:
            nears, subjects = [mark.mention for mark in details.names], []
        if is_own_amount or is_own_near or (subjects and details.says_how and (is_told or not is_listed)):
            # "2 mm anteriorly and 4 mm posteriorly", "the liver at the dome and the spleen at the tip"
            group = [self._repeated(draft, subjects, nears) for draft in group]
            self._group = group
        else:
            for draft in group:
                is_restyle = draft.act.action == "restyle"
                draft.nears += [mention for mention in nears if not is_restyle or mention.labels]
                draft.subjects += [mention for mention in subjects if not is_restyle or mention.labels]
                if is_restyle and draft.subjects:
                    draft.absent = None  # "breathing blurs the diaphragm, so the liver is cut"
        for draft in group:
            draft.add(details)

    def _repeated(self, draft: Draft, subjects: Sequence[Mention], nears: Sequence[Mention]) -> Draft:
        """The same act once more, on other labels or beside other neighbours, or still without where and how much."""
        copy = replace(
            draft,
            number=len(self._drafts),
            subjects=[*(subjects or draft.subjects)],
            nears=[*(nears or (() if subjects else draft.nears))],
            places=[],
            mm=None,
            slices=() if subjects else draft.slices,
            strength=None if subjects else draft.strength,
        )
        self._drafts.append(copy)
        self._remember(copy)
        return copy


def _only_names(fragment: Fragment) -> bool:
    """Whether a fragment only goes on with a list of names."""
    return fragment.has("name") and all(mark.kind in ("name", "plain", "protect", "place") for mark in fragment.marks)


def _is_so_too(fragment: Fragment) -> bool:
    """Whether a fragment says of another name what was said before: "right lung too", "L lung also"."""
    marks = [mark for mark in fragment.marks if mark.kind != "plain"]
    return len(marks) == 2 and marks[0].kind == "name" and (marks[1].kind == "also" or marks[1].text == "too")


def _is_over(fragment: Fragment) -> bool:
    """Whether a fragment says what was so at another time: "was too small before"."""
    if fragment.has("modal", "requests", "than"):
        return False
    is_before = fragment.marks[-1].text == "before" and any(mark.text in ("was", "were") for mark in fragment.marks)
    return is_before or any(says(mark, "formerly") for mark in fragment.marks)


def _is_denial(fragment: Fragment) -> bool:
    """Whether a sentence begins as in "does not include"; a question has its subject there."""
    kinds = [mark.kind for mark in fragment.marks if mark.kind != "plain"]
    return kinds[:2] == ["asks", "not"]
