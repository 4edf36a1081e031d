"""Self-corrections in a note: "extend it cranially, sorry, caudally" becomes "extend it caudally"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from causal_sam.notes.acts import acts_of
from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.grammar import approvals, says

# Kinds of marks in which one word can stand for another.
_KINDS = ("name", "place", "mm", "slices", "strength")


def repaired(fragments: Sequence[Fragment]) -> tuple[list[Fragment], bool]:
    """Return a note without the parts that its author takes back, and whether anything was taken back."""
    found: list[Fragment] = []
    is_repaired = False
    marker: Fragment | None = None
    parts = [part for fragment in fragments for part in _split(fragment)]
    for at, part in enumerate(parts):
        if _is_marker(part):
            marker = part
            following = parts[at + 1 : at + 2]
            is_last = not following or following[0].sentence != part.sentence
            if is_last and found and says(part.marks[0], "withdrawals"):
                found, is_repaired = _without_last_clause(found), True  # "smooth the liver, scratch that"
            continue
        corrected = _corrected(found, part, marker) if marker and marker.sentence == part.sentence else None
        is_repaired = is_repaired or corrected is not None
        found = [*found, part] if corrected is None else corrected
        marker = None
    return found, is_repaired


def _split(fragment: Fragment) -> Iterator[Fragment]:
    """Yield the parts of a fragment between its words of correction, and each of these words by itself."""
    part: list[Mark] = []
    for at, mark in enumerate(fragment.marks):
        is_no = mark.text == "no" and (len(fragment.marks) == 1 or fragment.marks[at + 1 : at + 2] == ())
        if mark.kind != "correction" and not is_no:
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
    """Tell whether a fragment asks for an act, or approves, by itself."""
    return bool(acts_of(fragment) or approvals(fragment))


def _corrected(found: Sequence[Fragment], said: Fragment, marker: Fragment) -> list[Fragment] | None:
    """Put what follows a word of correction in the place of what it corrects; None if it corrects nothing."""
    if not found:
        return None
    last = found[-1].sentence
    if not _is_clause(said):
        return _with_parts(found, said)
    if last != marker.sentence and said.has("name"):
        return None  # "Sorry, the spleen is too small" after another sentence is only polite.
    if not any(_is_clause(each) for each in found if each.sentence == last):
        # "left kidney, sorry, right kidney is too small"
        kept = [each for each in found if each.sentence != last or not (each.has("name") and said.has("name"))]
        return [*kept, said]
    kept = _without_last_clause(found)
    dropped = found[len(kept)]
    names = tuple(mark for mark in dropped.marks if mark.kind in ("name", "of"))
    topic = [replace(dropped, marks=names)] if names and not said.has("name") else []
    return [*kept, *topic, replace(said, sentence=last)]


def _without_last_clause(found: Sequence[Fragment]) -> list[Fragment]:
    """Drop the last clause, and the fragments after it."""
    clauses = [at for at, each in enumerate(found) if _is_clause(each)]
    return list(found[: clauses[-1]] if clauses else found[:-1])


def _with_parts(found: Sequence[Fragment], said: Fragment) -> list[Fragment] | None:
    """Replace the last marks of the kinds that a correction holds: places by places, lengths by lengths."""
    fragments = list(found)
    is_changed = False
    for kind in _KINDS:
        new = said.all(kind)
        at = next((i for i in reversed(range(len(fragments))) if fragments[i].has(kind)), None)
        if not new or at is None or said.has("not"):
            continue
        old = fragments[at].all(kind)[-1]
        before, after = fragments[at].before(old), fragments[at].after(old)
        fragments[at] = replace(fragments[at], marks=(*before, *new, *after))
        is_changed = True
    return fragments if is_changed else None
