"""Self-corrections in a note: "extend it cranially, sorry, caudally" becomes "extend it caudally"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from causal_sam.notes.acts import acts_of
from causal_sam.notes.fragments import Fragment, Mark

# Kinds of marks that a correction can replace one by one.
_REPLACEABLE_KINDS = ("name", "place", "mm", "slices", "strength")


def apply_self_corrections(fragments: Sequence[Fragment]) -> tuple[list[Fragment], bool]:
    """Return the fragments without the parts that the author withdraws, and whether any was withdrawn."""
    kept: list[Fragment] = []
    is_corrected = False
    marker: Fragment | None = None
    parts = [part for fragment in fragments for part in _split(fragment)]
    for at, part in enumerate(parts):
        if _is_marker(part):
            marker = part
            following = parts[at + 1 : at + 2]
            is_last = not following or following[0].sentence != part.sentence
            if is_last and kept and part.marks[0].is_in("withdrawals"):
                kept, is_corrected = _without_last_clause(kept), True  # "smooth the liver, scratch that"
            continue
        corrected = _corrected(kept, part, marker) if marker and marker.sentence == part.sentence else None
        is_corrected = is_corrected or corrected is not None
        kept = [*kept, part] if corrected is None else corrected
        marker = None
    return kept, is_corrected


def _split(fragment: Fragment) -> Iterator[Fragment]:
    """Yield the parts of a fragment between its words of correction, and each of these words by itself."""
    part: list[Mark] = []
    for at, mark in enumerate(fragment.marks):
        is_no = mark.text == "no" and (len(fragment.marks) == 1 or fragment.marks[at + 1 : at + 2] == ())
        if mark.kind != "correction" and not (is_no and not (fragment.names and fragment.refuses())):
            part.append(mark)
            continue
        if part:
            yield replace(fragment, marks=tuple(part))
            part = []
        yield replace(fragment, marks=(replace(mark, kind="correction"),))
    if part:
        yield replace(fragment, marks=tuple(part))


def _is_marker(fragment: Fragment) -> bool:
    return fragment.marks[0].kind == "correction"


def _is_clause(fragment: Fragment) -> bool:
    """Return whether a fragment alone requests an act or approves."""
    return bool(acts_of(fragment) or fragment.approvals())


def _corrected(kept: Sequence[Fragment], correction: Fragment, marker: Fragment) -> list[Fragment] | None:
    """Replace the corrected part by the fragment after a word of correction; None if it corrects nothing."""
    if not kept:
        return None
    last = kept[-1].sentence
    if not _is_clause(correction):
        return _with_parts(kept, correction)
    if last != marker.sentence and correction.has("name"):
        return None  # "Sorry, the spleen is too small" after another sentence corrects nothing.
    if not any(_is_clause(each) for each in kept if each.sentence == last):
        # "left kidney, sorry, right kidney is too small"
        remaining = [
            each for each in kept if each.sentence != last or not (each.has("name") and correction.has("name"))
        ]
        return [*remaining, correction]
    remaining = _without_last_clause(kept)
    dropped = kept[len(remaining)]
    names = tuple(mark for mark in dropped.marks if mark.kind in ("name", "of"))
    topic = [replace(dropped, marks=names)] if names and not correction.has("name") else []
    return [*remaining, *topic, replace(correction, sentence=last)]


def _without_last_clause(kept: Sequence[Fragment]) -> list[Fragment]:
    """Drop the last clause and the fragments after it."""
    clauses = [at for at, each in enumerate(kept) if _is_clause(each)]
    return list(kept[: clauses[-1]] if clauses else kept[:-1])


def _with_parts(kept: Sequence[Fragment], correction: Fragment) -> list[Fragment] | None:
    """Replace the last marks of the kinds in a correction: places by places, lengths by lengths."""
    fragments = list(kept)
    is_changed = False
    for kind in _REPLACEABLE_KINDS:
        replacement = correction.all(kind)
        at = next((i for i in reversed(range(len(fragments))) if fragments[i].has(kind)), None)
        if not replacement or at is None or correction.has("not"):
            continue
        replaced = fragments[at].all(kind)[-1]
        before, after = fragments[at].before(replaced), fragments[at].after(replaced)
        fragments[at] = replace(fragments[at], marks=(*before, *replacement, *after))
        is_changed = True
    return fragments if is_changed else None
