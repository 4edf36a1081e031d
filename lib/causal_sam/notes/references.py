"""References to what a note named before: "the left one", "the vein" after "the middle hepatic vein"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from causal_sam.notes.fragments import Fragment
from causal_sam.notes.mentions import Mention
from causal_sam.notes.resolver import Resolver


def with_labels_for_sides(fragments: Sequence[Fragment], resolver: Resolver) -> list[Fragment]:
    """Replace "the left one" by the label of that side, of the kind of the labels that were named last."""
    found: list[Fragment] = []
    topic: tuple[str, ...] = ()
    for fragment in fragments:
        found.append(resolver.with_side(fragment, topic) if fragment.has("one") else fragment)
        topic = next((name.mention.all_labels for name in found[-1].names if name.mention.is_label), topic)
    return found


def with_antecedents(fragment: Fragment, earlier: Sequence[Mention]) -> Fragment:
    """Replace names by longer ones that they repeat.

    Args:
        fragment: fragment of the note.
        earlier: names before the fragment, in the order of the note.
    """
    marks = tuple(
        replace(mark, mention=_antecedent(mark.mention, earlier)) if mark.mention and not mark.mention.labels else mark
        for mark in fragment.marks
    )
    return replace(fragment, marks=marks)


def _antecedent(mention: Mention, earlier: Sequence[Mention]) -> Mention:
    same = [each for each in earlier if each.text.endswith(f" {mention.text}") and len(each.labels) <= 1]
    return same[-1] if same else mention
