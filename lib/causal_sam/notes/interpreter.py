"""The interpreter of notes that is part of the package: rules, and a network that knows what they read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from langchain_core.runnables import Runnable

from causal_sam.chat import is_local
from causal_sam.notes.ambiguity import mutually_excluded
from causal_sam.notes.clarification import ClarificationNeeded
from causal_sam.notes.completeness import check_complete
from causal_sam.notes.drafts import WITHOUT_AMOUNT
from causal_sam.notes.fragments import STATEMENT_KINDS, Fragment
from causal_sam.notes.learned import LearnedReading, labels_to_read, load_learned_reader, named_labels
from causal_sam.notes.request import Interpretation, Interpreter, NoteRequest
from causal_sam.notes.rules import RULES, RuleInterpreter, RuleReading
from causal_sam.notes.schema import MAX_INTERVENTIONS, MAX_QUESTION_LENGTH, Intervention, Plan
from causal_sam.text import canonical

EMBEDDED = "embedded"
# Least certainty of a reading of the network that is carried out where the rules read the note differently.
MIN_CERTAINTY = 0.6
# Least certainty of a reading of the network that a question offers.
MIN_CHOICE_CERTAINTY = 0.05


class EmbeddedInterpreter(Interpreter):
    """Reads notes with rules and a small trained network, without another machine or a chat model.

    Where the two differ and the network is not certain, the answer is a question about the readings that are possible.
    A note can only choose among the acts. The interpreter is thread-safe.
    """

    run_type = "parser"

    def __init__(self) -> None:
        self._rules, self._network = RuleInterpreter(), load_learned_reader()

    def _read(self, request: NoteRequest) -> Interpretation:
        fragments = self._rules.divided(request)
        by_rules = self._rules.reading(fragments, request)
        if by_rules.is_firm and by_rules.plan.question is None:
            return Interpretation(by_rules.plan, EMBEDDED)
        learned = self._network.read(fragments, request, by_rules.plan)
        return decided(fragments, request, by_rules, learned)


def decided(
    fragments: Sequence[Fragment], request: NoteRequest, reading: RuleReading, learned: LearnedReading | None
) -> Interpretation:
    """Return the plan of the rules or that of the network, or a question with the readings to choose from.

    The network may only change labels that the note names, and none that it protects. It may not overlook a denial,
    leave out a label, or a length, slices or direction that the rules use, or contradict itself.

    Args:
        fragments: the note, divided.
        request: the note with its labels.
        reading: what the rules read.
        learned: what the network reads; None if it cannot read the note.
    """
    by_rules = reading.plan
    if learned is None:
        return Interpretation(by_rules, EMBEDDED)
    labels = labels_to_read(fragments, request)
    protected, denied = spared_labels(fragments, labels)
    said = {(act.label, act.action) for act in by_rules.interventions}
    acts = _bound_by_rules(learned.interventions, by_rules.interventions)
    acts = tuple(a for a in acts if a.action == "keep" or a.label not in denied or (a.label, a.action) in said)
    differing = {_plain(act) for act in acts} ^ {_plain(act) for act in by_rules.interventions}
    if not differing:
        return Interpretation(by_rules, EMBEDDED)
    kept = {act.label for act in by_rules.interventions if act.action == "keep"}
    named = named_labels(fragments)
    # Without any name a note is about the one label; a name that is no label's says that it is about something else.
    is_about_only_label = not named and len(labels) == 1 and _unlabelled(fragments) <= {act.near for act in acts}
    may_change = (set(labels) if is_about_only_label else named) - kept - protected
    is_possible = (
        0 < len(acts) <= MAX_INTERVENTIONS
        and _changed(acts) <= may_change
        and _is_complete(fragments, acts)
        and _details(by_rules.interventions) <= _details(acts)
        and not _is_contradictory(acts)
    )
    if is_possible and learned.certainty >= MIN_CERTAINTY and not reading.is_firm:
        return Interpretation(Plan(interventions=acts), EMBEDDED)
    named_by_rules = {act.label for act in by_rules.interventions}
    if by_rules.question is None and all(a.action == "keep" and a.label not in named_by_rules for a in differing):
        return Interpretation(by_rules, EMBEDDED)  # what would be kept does not change anyway
    is_offered = is_possible and learned.certainty >= MIN_CHOICE_CERTAINTY
    choices = (Plan(interventions=acts),) if is_offered else ()
    if by_rules.question is not None:
        return Interpretation(by_rules, EMBEDDED, choices=choices)
    question = Plan(question=_question(by_rules.interventions, acts, is_offered))
    return Interpretation(question, EMBEDDED, choices=(by_rules, *choices))


def _bound_by_rules(acts: Sequence[Intervention], by_rules: Sequence[Intervention]) -> tuple[Intervention, ...]:
    """Add what the rules keep, and take the strength that they read; a label that is kept is no place to grow at."""
    if not acts:
        return ()
    named = {act.label for act in acts}
    kept = [act for act in by_rules if act.action == "keep" and act.label not in named]
    all_kept = {act.label for act in (*acts, *kept) if act.action == "keep"}
    strengths = {(act.label, act.action): act.strength for act in by_rules}
    exact = {(act.label, act.action, act.direction): act.strength for act in by_rules}
    bound = []
    for act in acts:
        near = None if act.action == "expand" and act.near in all_kept else act.near
        strength = strengths.get((act.label, act.action), act.strength)
        strength = exact.get((act.label, act.action, act.direction), strength)
        bound.append(act.model_copy(update={"near": near, "strength": strength}))
    return (*dict.fromkeys(bound), *kept)


def spared_labels(fragments: Sequence[Fragment], about: Sequence[str] = ()) -> tuple[set[str], set[str]]:
    """Return the labels that a note protects, and those of which it denies something.

    Where a fragment has no name, it is about the one before it in the sentence, or that "it" stands for: "the liver, as
    I see it, is not too large". A name that is no label's protects nothing; one that may be several labels', all.

    Args:
        fragments: the note, divided.
        about: labels that the note may be about; if there is one, sentences without a name are about that.
    """
    protected: set[str] = set()
    denied: set[str] = set()
    default = set(about) if len(about) == 1 else set[str]()
    last: tuple[int, set[str]] = (-1, default)
    for fragment in fragments:
        own = {label for name in fragment.names for label in name.mention.all_labels}
        if fragment.names:
            last = (fragment.sentence, own)
        elif last[0] != fragment.sentence:
            last = (fragment.sentence, last[1] if fragment.has("it") else default)
        if fragment.protects() or fragment.refuses():
            protected |= last[1]
        protected |= {label for name in fragment.spares() for label in name.mention.all_labels}
        if any(fragment.is_negated(mark) for mark in fragment.all(*STATEMENT_KINDS, "too")):
            denied |= last[1]
    return protected, denied


def _unlabelled(fragments: Sequence[Fragment]) -> set[str]:
    """Return the structures that a note names and that are no labels."""
    return {n.mention.neighbour for each in fragments for n in each.names if not n.mention.all_labels}


def _changed(acts: Iterable[Intervention]) -> set[str]:
    return {act.label for act in acts if act.action != "keep"}


def _plain(act: Intervention) -> Intervention:
    """Return an act without what makes no difference: the strength beside a length, the spelling of a neighbour."""
    has_no_strength = act.extent_mm is not None or act.action in WITHOUT_AMOUNT
    near = canonical(act.near) if act.near else None
    return act.model_copy(update={"near": near} | ({"strength": "moderate"} if has_no_strength else {}))


def _is_complete(fragments: Sequence[Fragment], acts: Sequence[Intervention]) -> bool:
    """Return whether acts use each label, length and slice range of a note, and spare what it spares."""
    kept = [act.label for act in acts if act.action == "keep"]
    try:
        check_complete(fragments, [act for act in acts if act.action != "keep"] or acts, spared=kept, loose=())
    except ClarificationNeeded:
        return False
    return True


def _details(acts: Iterable[Intervention]) -> set[object]:
    """Return the lengths, slices and directions that acts use."""
    details: set[object] = {detail for act in acts for detail in (act.extent_mm, act.slices, act.direction)}
    return details - {None}


def _is_contradictory(acts: Sequence[Intervention]) -> bool:
    """Return whether two labels are excluded from each other, or one is to grow and shrink, or to change and stay."""
    grown, shrunk = (
        {(act.label, act.direction, act.slices) for act in acts if act.action == action}
        for action in ("expand", "shrink")
    )
    changed_and_kept = _changed(acts) & {act.label for act in acts if act.action == "keep"}
    return bool(grown & shrunk or changed_and_kept) or mutually_excluded(acts) is not None


def _question(by_rules: Sequence[Intervention], learned: Sequence[Intervention], is_offered: bool) -> str:
    """Ask which of two readings is meant, by the acts in which they differ.

    If that of the network is not offered, it is asked whether that of the rules is meant.
    """
    only_network = [act for act in learned if act not in by_rules] if is_offered else []
    only_rules = [act for act in by_rules if act not in learned]
    both = [act for act in by_rules if act in learned]
    if not only_rules and not only_network:
        only_rules, both = both, []
    if only_rules and only_network:
        asked = f'Which is meant: "{_sentence(only_rules)}", or "{_sentence(only_network)}"?'
    else:
        too = ", too" if both else ""
        asked = f'Is this meant{too}: "{_sentence(only_rules or only_network)}"?'
    clear = f" The rest of the note is clear: {_sentence(both)}." if both else ""
    question = asked + clear
    if len(question) > MAX_QUESTION_LENGTH:
        return "This note can be read in two ways. Write one correction a sentence, each with the name of its label."
    return question


def _sentence(acts: Sequence[Intervention]) -> str:
    return Plan(interventions=tuple(acts)).sentence


def load_interpreter(
    llm: str | None = None, consent: bool = False, seconds: float | None = None
) -> Runnable[NoteRequest, Interpretation]:
    """Load an interpreter of notes.

    Args:
        llm: chat model as PROVIDER:MODEL of LangChain's `init_chat_model`, huggingface:FOLDER or gguf:FILE;
            None or "embedded" for the interpreter of the package; "rules" for its rules alone.
        consent: whether de-identified notes may be sent to a remote model.
        seconds: time limit of the chat model for one note; None for the default.

    Raises:
        InputError: the name has another form, the model is remote and there is no consent, its package
            is missing, or it cannot be set up.
    """
    if llm == RULES:
        return RuleInterpreter()
    embedded = EmbeddedInterpreter()
    if llm is None or llm == EMBEDDED:
        return embedded
    # LangChain's agents take a second to import.
    from causal_sam.notes.chat import SECONDS, ChatInterpreter, load_language_model

    model = load_language_model(llm, consent)
    return ChatInterpreter(model, llm, embedded, is_remote=not is_local(llm), seconds=seconds or SECONDS)
