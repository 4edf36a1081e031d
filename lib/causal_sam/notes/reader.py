"""Reader that combines the fragments of a note into interventions, with the labels of each act."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from causal_sam.notes.acts import acts_of
from causal_sam.notes.ambiguity import check_acts, check_contradictions, check_screen_sides
from causal_sam.notes.clarification import ClarificationNeeded, NotUnderstood
from causal_sam.notes.completeness import check_complete
from causal_sam.notes.drafts import Act, Details, Draft, names_in, without_redundant_approvals
from causal_sam.notes.fragments import Fragment
from causal_sam.notes.items import merge_items, without_protected_remarks
from causal_sam.notes.mentions import Mention, NameFinder
from causal_sam.notes.places import Place
from causal_sam.notes.references import with_antecedents, with_labels_for_sides
from causal_sam.notes.repairs import apply_self_corrections
from causal_sam.notes.request import NoteRequest
from causal_sam.notes.resolver import Resolver
from causal_sam.notes.schema import Intervention
from causal_sam.notes.vocabulary import Vocabulary


class Reader:
    """Reads one note; create a new reader for each note.

    Args:
        names: finder of the names of the present labels.
        vocabulary: vocabulary of notes.
        request: the note, with what is known about its labels and the image.

    Attributes:
        is_corrected: True if the note takes back something that it said.
    """

    def __init__(self, names: NameFinder, vocabulary: Vocabulary, request: NoteRequest) -> None:
        self.is_corrected = False
        self._image, self._vocabulary = request.slices, vocabulary
        self._resolver = Resolver(names, vocabulary, request.sides, request.current, request.slices)
        self._drafts: list[Draft] = []
        self._group: list[Draft] = []  # drafts of the last fragment of the sentence with an act
        self._last: list[Draft] = []  # drafts of the last fragment of the note with an act
        self._pending: list[tuple[Fragment, Details]] = []
        self._topic: tuple[str, ...] = ()
        self._complaint: Details | None = None  # place of an error that a later fragment specifies
        self._has_unsupported_order = False  # the note orders something that is no act
        self._protected: list[str] = []
        self._mentions: list[Mention] = []  # names so far
        self._is_heading = False  # a colon follows the fragment
        self._carried: list[tuple[Fragment, Details]] = []  # places and amounts of a sentence without an act
        self._skipped: set[int] = set()  # sentences that are questions
        self._located: set[int] = set()  # sentences that name slices
        self._questions: list[str] = []  # questions to ask if nothing else is understood
        self._in_protection = False  # the previous fragment protects labels

    def read(self, fragments: Sequence[Fragment]) -> list[Intervention]:
        """Return the interventions of a note; none if no fragment is understood.

        Raises:
            ClarificationNeeded: the note is ambiguous or asks for something impossible; the message is the question.
        """
        fragments, self.is_corrected = apply_self_corrections(with_labels_for_sides(fragments, self._resolver))
        self._located = {fragment.sentence for fragment in fragments if fragment.has("slices")}
        for sentence in sorted({fragment.sentence for fragment in fragments}):
            own = [fragment for fragment in fragments if fragment.sentence == sentence]
            if not self._is_correction(own):
                self._skipped.add(sentence)
                continue
            self._group, self._complaint, self._in_protection = [], None, False
            self._pending, self._carried = self._carried, []
            for fragment, following in itertools.zip_longest(own, own[1:]):
                self._is_heading = following is not None and following.join == ":"
                self._read(fragment)
            self._attach_pending()
            for draft in self._drafts:
                # "Too generous, pull the liver edge back": the name follows the act.
                if draft.sentence == sentence and not draft.topic:
                    draft.topic = self._topic
        self._drafts = without_redundant_approvals(self._drafts, self._topic)
        items = merge_items([item for draft in self._drafts for item in self._resolver.items(draft)])
        check_acts(items, fragments, self._vocabulary)
        items = without_protected_remarks(items, self._protected)
        check_contradictions(items, self._protected)
        if self._questions and not items:
            raise NotUnderstood(self._questions[0])
        if (self._has_unsupported_order or self.is_corrected) and not (items or self._protected):
            raise NotUnderstood(f"What is to be done? {self._resolver.example_hint()}")
        spared = {*self._protected, *(label for draft in self._drafts for label in draft.excluded_labels)}
        acts = [item.intervention for item in items]
        loose = [fragment for fragment, _ in self._carried]
        check_complete([each for each in fragments if each.sentence not in self._skipped], acts, spared, loose)
        done = {item.intervention.label for item in items}
        kept = [label for label in dict.fromkeys(self._protected) if label not in done]
        return acts + [Intervention(label=label, action="keep") for label in kept]

    def general_question(self) -> str:
        """Return the question for a note of which nothing is understood."""
        return f"What is to be corrected? {self._resolver.example_hint()}"

    def _is_correction(self, sentence: Sequence[Fragment]) -> bool:
        """Return whether a sentence is a correction of a mask, not a question.

        Raises:
            ClarificationNeeded: it is markup, or uncertain.
        """
        first = next((m for f in sentence for m in f.marks if m.kind not in ("plain", "join", "requests")), None)
        is_request = any(fragment.has("requests") for fragment in sentence)
        if any(fragment.has("foreign") for fragment in sentence):
            raise ClarificationNeeded(f"That is no correction of a mask. {self._resolver.example_hint()}")
        # "What is marked as spleen is colon" is not a question.
        states_identity = sentence[0].is_denial() or any(
            mark.kind in ("taken_for", "as") or mark.is_in("called") for each in sentence for mark in each.marks
        )
        has_mark = any(fragment.asks for fragment in sentence)
        is_clause = first is not None and first.is_in("conjunctions") and not has_mark  # "when I scroll"
        is_question = first is not None and first.kind == "asks" and not (states_identity or is_clause)
        if is_question or (has_mark and not is_request):
            self._questions.append(f"Questions are not answered here. {self._resolver.example_hint()}")
            return False
        is_blamed = any(fragment.cues("restyle") for fragment in sentence)  # "motion, so the dome is uncertain"
        if any(fragment.has("unsure") for fragment in sentence) and not is_blamed:
            raise ClarificationNeeded(f"What is wrong with the mask? {self._resolver.example_hint()}")
        return True

    def _read(self, fragment: Fragment) -> None:
        fragment = with_antecedents(fragment, self._mentions)
        pending = [label for _, more in self._pending for mark in more.names for label in mark.mention.all_labels]
        sided = self._resolver.with_side(fragment, pending or self._topic)
        if sided is not fragment:  # "femoral heads: right lacks 4 mm"
            self._pending = [(loose, replace(more, names=())) for loose, more in self._pending]
        fragment = sided
        self._resolver.check_members(fragment)
        self._resolver.check_parts(fragment, fragment.sentence in self._located)
        check_screen_sides(fragment)
        details = Details.of(fragment, self._image)
        self._mentions += [mark.mention for mark in details.names]
        self._interpret(fragment, details)

    def _interpret(self, fragment: Fragment, details: Details) -> None:
        if fragment.protects():
            self._protect(details, fragment.has("it"))
            return
        spared = fragment.spares()
        if spared:
            self._protected += self._resolver.labels_of(spared, details)
            return
        if fragment.refuses() and (details.names or self._pending):
            self._protect(details)
            return
        if self._in_protection and fragment.join in ("and", ",", "or", "/", "nor") and fragment.has_only_names():
            self._protect(details)  # "don't touch the liver and the spleen"
            return
        self._in_protection = False
        if fragment.marks[0].kind == "except" and details.names and any(draft.has_all for draft in self._group):
            for draft in self._group:  # "everything 2 mm smaller, except the stomach"
                draft.excluded_labels += self._resolver.labels_of(details.names, details)
            return
        if fragment.is_about_past():
            self._set_topic(details)
            return
        acts = acts_of(fragment)
        if acts:
            self._group = self._last = self._add(fragment, details, acts)
            self._drafts += self._group
        elif self._is_redundant(fragment, details):
            return
        elif fragment.approvals():
            if fragment.marks[0].text == "which" and not details.names:
                # "the gallbladder is not included, which is right"
                self._drafts = [draft for draft in self._drafts if draft not in self._group]
            self._keep(fragment, details)
        elif fragment.has("wrong", "keep"):
            self._complaint = details
            if details.slices:
                self._pending.append((fragment, details))  # "spleen wrong on slices 77-80. Delete it there."
            self._has_unsupported_order = self._has_unsupported_order or fragment.has("keep")
            self._set_topic(details)
        elif self._deletes_slices(fragment, details):
            self._group = self._last = self._add(fragment, details, [Act("remove")])
            self._drafts += self._group
        elif fragment.has("delete", "retain", "move", "exclude") and not self._group:
            self._has_unsupported_order = True
        elif not details.is_empty or fragment.has("both", "one", "other"):
            self._add_details(fragment, details)

    def _deletes_slices(self, fragment: Fragment, details: Details) -> bool:
        """Return whether a fragment orders to delete the slices that were named before it: "sl 77-80 wrong, del"."""
        orders = [mark for mark in fragment.all("delete") if not fragment.is_negated(mark)]
        return bool(orders) and not (self._group or details.names) and any(more.slices for _, more in self._pending)

    def _protect(self, details: Details, is_topic: bool = False) -> None:
        """Protect the labels that a fragment names, or those named just before it: "bladder: hands off"."""
        pending = [mark for _, more in self._pending for mark in more.names]
        named = self._resolver.labels_of([*pending, *details.names], details)
        last = self._mentions[-1].labels if self._mentions else ()
        about = (last or self._topic) if is_topic else ()
        if self._resolver.default:
            about = about or self._topic or self._resolver.default
        self._protected += named or about
        self._pending, self._in_protection = [], True

    def _is_redundant(self, fragment: Fragment, details: Details) -> bool:
        """Return whether a fragment only says what remains, or repeats the previous acts on other labels."""
        if fragment.marks[0].is_in("leaving") and not details.names and details.places:
            return True  # "reduce it in front, leave the back"
        is_again = fragment.has_word("same") or fragment.repeats_statement()
        others = self._resolver.counterparts(self._topic) if fragment.has("other") else []
        if is_again and self._repeat_last_acts(details, others):
            return True
        return fragment.has("nothing_else") and not (details.names and fragment.approvals())

    def _repeat_last_acts(self, details: Details, labels: Sequence[str]) -> bool:
        """Repeat the last acts on other labels: "the same for the spleen"; return whether there are any."""
        names = [mark for _, more in self._pending for mark in more.names] + list(details.names)
        subjects = [mark.mention for mark in names if mark.mention.labels] or [
            Mention(each, (each,)) for each in labels
        ]
        for draft in self._last if subjects else ():
            owners = {mention.text for mention in draft.subjects}
            places = [[place.detached_from(owners) for place in group] for group in draft.places]
            copy = replace(draft, subjects=subjects, places=places, excluded_labels=[], number=len(self._drafts))
            self._drafts.append(copy)
        self._pending = []
        return bool(subjects and self._last)

    def _add(self, fragment: Fragment, details: Details, acts: Sequence[Act]) -> list[Draft]:
        drafts: list[Draft] = []
        pending, pending_nears = names_in(self._pending)
        is_listed = fragment.join in ("and", ",", "or", "/")
        for act in acts:
            draft = Draft(act, fragment.sentence, len(self._drafts) + len(drafts), fragment.has("also"))
            draft.is_listed = fragment.join == "and"
            draft.subjects, draft.nears = list(act.subjects), [*act.nears, *pending_nears]
            if act.action == "exclude" and not act.nears and fragment.marks[0].is_in("relatives"):
                # "the gallbladder, which is included in the liver"
                draft.nears = [mention for mention in pending if not mention.is_label]
                pending = [mention for mention in pending if mention not in draft.nears]
            if pending and act.unknown_subject is None:
                beside = [mark.mention for mark in details.names if fragment.preposition(mark) == "near"]
                if not set(act.subjects) - set(beside) or is_listed:
                    # "liver: delete the blob near the stomach"
                    draft.subjects = [*pending, *(each for each in act.subjects if each not in beside)]
            draft.unknown_subject = act.unknown_subject
            draft.nears += [each for each in act.subjects if each not in draft.subjects]
            self._resolver.apply_exception(fragment, draft)
            if act.action == "exclude" and not draft.nears and fragment.has("it"):
                draft.nears = [each for each in self._mentions if each not in draft.subjects][-1:]
            draft.has_one = fragment.has("one") or any(loose.has("one") for loose, _ in self._pending)
            draft.has_both = fragment.has("both") or any(loose.has("both") for loose, _ in self._pending)
            draft.has_all = fragment.is_about_all()
            draft.refers_back = fragment.has("it")
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
            self._update_topic(draft)
        return drafts

    def _update_topic(self, draft: Draft) -> None:
        if draft.subjects:
            context = [group for other in self._group for group in other.places]
            found = [
                (mention, self._resolver.resolve_mention(mention, draft.places, context)) for mention in draft.subjects
            ]
            draft.subjects = [replace(mention, labels=labels) for mention, labels in found]
            self._topic = tuple(dict.fromkeys(label for _, labels in found for label in labels)) or self._topic

    def _keep(self, fragment: Fragment, details: Details) -> None:
        if fragment.has("exclude", "include"):
            return
        names = list(details.names)
        excepted = fragment.all("except")
        rest = [mark for mark in names if excepted and mark in fragment.after(excepted[0])]
        excluded_labels = self._resolver.labels_of(rest, details)
        kept = [mark.mention for mark in names if mark not in rest]
        draft = Draft(Act("keep", is_weak=True), fragment.sentence, len(self._drafts), subjects=kept)
        if self._pending and (not kept or fragment.join in ("and", ",", "/")):
            draft.subjects = [*(mark.mention for _, more in self._pending for mark in more.names), *kept]
        if not draft.subjects:
            draft.is_general_approval = not (self._topic or fragment.has("all") or excepted)
            # An approval without a name approves all that is shown.
            labels = self._topic or self._resolver.default or self._resolver.labels
            draft.subjects = [Mention(label, (label,)) for label in labels if label not in excluded_labels]
        self._pending = []
        self._drafts.append(draft)
        self._group = [draft]
        if excepted:
            self._pending = [(fragment, replace(details, names=tuple(rest)))]
        if excluded_labels:
            self._topic = tuple(excluded_labels)
        else:
            self._update_topic(draft)

    def _add_details(self, fragment: Fragment, details: Details) -> None:
        """Add a fragment without an act to the previous act, or keep it for the next one."""
        group = [draft for draft in self._group if draft.act.action != "keep"]
        if fragment.has("not"):
            negated_names = [mark.mention for mark in details.names if fragment.preposition(mark) == "not"]
            for draft in group if negated_names else ():
                if draft.act.action not in ("exclude", "remove") and not draft.act.names_owner_only:
                    draft.excluded_labels += [label for mention in negated_names for label in mention.labels]
                    continue
                if draft.act.names_owner_only:
                    draft.act, draft.nears = Act("exclude"), draft.subjects
                draft.subjects = negated_names
            if not (negated_names and group):
                self._set_topic(details)
            return
        is_topic = bool(details.names) and any(mark.mention.is_label for mark in details.names)
        if (
            not group
            or self._is_heading
            or (is_topic and fragment.join not in ("and", "or", "/", ""))
            or fragment.join in ("then", "but")
        ):
            self._pending.append((fragment, details))
            return
        self._attach(group, fragment, details)

    def _attach_pending(self) -> None:
        """Attach pending fragments to the previous act, or make their names the topic of the next sentence."""
        group = [draft for draft in self._group if draft.act.action != "keep"]
        for fragment, details in self._pending:
            if fragment.has("except"):
                self._set_topic(details)
            elif group:
                self._attach(group, fragment, details)
            elif self._group:
                self._group[0].subjects += [mark.mention for mark in details.names if mark.mention.labels]
            elif self._last and details.has_details and not details.names:
                for draft in self._last:  # "The liver is too large laterally. About 4 mm."
                    draft.add(details)
            else:
                self._set_topic(details)
                if details.has_details:  # "Upper pole of the spleen. Not covered."
                    self._carried.append((fragment, details))
        self._pending = []

    def _set_topic(self, details: Details) -> None:
        labels = [
            label for mark in details.names for label in self._resolver.resolve_mention(mark.mention, [details.places])
        ]
        self._topic = tuple(dict.fromkeys(labels)) or self._topic

    def _attach(self, group: Sequence[Draft], fragment: Fragment, details: Details) -> None:
        """Add a fragment to the previous acts, or repeat these for its names: "the spleen by 3 mm"."""
        beside = [mark for mark in details.names if fragment.preposition(mark) in ("near", "place", "into", "from")]
        others = [mark for mark in details.names if mark not in beside and mark.mention.is_label]
        nears = [mark.mention for mark in details.names if mark not in others]
        # "spleen untouchable" is no further subject, but a part of the note that is not understood.
        subjects = [] if fragment.has("word", "starts", "modal") else [mark.mention for mark in others]
        is_listed = fragment.join in ("and", "or", "/", "")
        all_have_details = all(draft.has_details for draft in group)
        is_own_amount = bool(details.places and details.mm) and all(draft.mm for draft in group)
        is_own_near = bool(details.names and details.places) and all(draft.nears and draft.places for draft in group)
        is_of_neighbours = group[0].act.action == "exclude"
        if is_of_neighbours:
            nears, subjects = [mark.mention for mark in details.names], []
        if is_own_amount or is_own_near or (subjects and details.has_details and (all_have_details or not is_listed)):
            # "2 mm anteriorly and 4 mm posteriorly", "the liver at the dome and the spleen at the tip"
            group = [self._repeated(draft, subjects, nears) for draft in group]
            self._group = group
        else:
            for draft in group:
                is_restyle = draft.act.action == "restyle"
                draft.nears += [mention for mention in nears if not is_restyle or mention.labels]
                draft.subjects += [mention for mention in subjects if not is_restyle or mention.labels]
                if is_restyle and draft.subjects:
                    draft.unknown_subject = None  # "breathing blurs the diaphragm, so the liver is cut"
        for draft in group:
            draft.add(details)

    def _repeated(self, draft: Draft, subjects: Sequence[Mention], nears: Sequence[Mention]) -> Draft:
        """Repeat an act on other labels or beside other neighbours, without place and extent."""
        copy = replace(
            draft,
            number=len(self._drafts),
            subjects=[*(subjects or draft.subjects)],
            nears=[*(nears or (() if subjects else draft.nears))],
            places=[],
            mm=None,
            slices=() if subjects else draft.slices,
            end_slices=() if subjects else draft.end_slices,
            target=None if subjects else draft.target,
            strength=None if subjects else draft.strength,
        )
        self._drafts.append(copy)
        self._update_topic(copy)
        return copy
