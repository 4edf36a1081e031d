"""Check that no part of a note is dropped: what no act uses becomes a question that quotes it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from causal_sam.notes.ambiguity import check_known_places
from causal_sam.notes.clarification import NotUnderstood
from causal_sam.notes.drafts import WITHOUT_AMOUNT
from causal_sam.notes.fragments import STATEMENT_KINDS, Fragment
from causal_sam.notes.places import lengths_of
from causal_sam.notes.schema import Intervention
from causal_sam.notes.sparing import check_spared_places


def check_complete(
    fragments: Sequence[Fragment], acts: Sequence[Intervention], spared: Collection[str], loose: Sequence[Fragment]
) -> None:
    """Check that acts use each label, length, slice range and order to delete of a note, and spare what it spares.

    Args:
        fragments: fragments that were read; what they deny needs no act.
        acts: interventions of the note.
        spared: labels that the note protects, or excepts from its acts.
        loose: fragments with places or amounts that belong to no act.

    Raises:
        NotUnderstood: a part is not used.
        ClarificationNeeded: an act changes a place that the note spares, or nobody knows where it is to be done.
    """
    check_spared_places(fragments, acts)
    check_known_places(acts, fragments)
    dropped = [" ".join(mark.text for mark in fragment.marks) for fragment in loose]
    names = {*spared, *(name for act in acts for name in (act.label, act.near))}
    slices = {act.slices for act in acts}
    # Acts without an amount give a reason for the length: "1-2 mm too wide because of blooming".
    lengths = None if any(act.action in WITHOUT_AMOUNT for act in acts) else {act.extent_mm for act in acts}
    only_adds = bool(acts) and all(act.action in ("expand", "fill", "keep") for act in acts)
    for fragment in fragments:
        if only_adds:  # "the spleen is not there, delete it"
            dropped += [m.text for m in fragment.all("delete") if fragment.is_order(m) and not fragment.is_negated(m)]
        if fragment.is_about_past() or any(fragment.is_negated(mark) for mark in fragment.all(*STATEMENT_KINDS, "too")):
            continue
        for mark in fragment.marks:
            is_name = bool(mark.mention.labels) and fragment.preposition(mark) != "not"
            is_dropped = is_name and names.isdisjoint(mark.mention.labels)
            if is_dropped or not slices.issuperset(mark.slices):
                dropped.append(mark.text)
        if lengths is not None:
            dropped += [mark.text for mark in lengths_of(fragment) if mark.mm not in lengths]
    if dropped and acts:
        rest = "; ".join(act.sentence for act in acts)
        raise NotUnderstood(f'What is to be done about "{dropped[0]}"? The rest of the note is clear: {rest}.')
