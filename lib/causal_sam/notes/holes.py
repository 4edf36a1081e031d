"""Holes that are told as what is missing: "the centre is left out", "voxels inside are not labelled"."""

from __future__ import annotations

from dataclasses import replace

from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.grammar import Act, live, names_in, says


def filled(fragment: Fragment, act: Act) -> Act:
    """Return the act of a fragment; to fill, if what is missing is the inside."""
    is_missing = act.action == "expand" and not act.nears and act.places is None
    if not is_missing or live(fragment, "fill") or fragment.has("mm", "than"):
        return act
    is_inner = any(_is_interior(fragment, mark) or _is_within(fragment, mark) for mark in fragment.marks)
    return replace(act, action="fill") if is_inner else act


def _is_interior(fragment: Fragment, mark: Mark) -> bool:
    """Whether a word is the inside of the mask: "the centre of the lesion", "its core", "the middle is"."""
    if not says(mark, "interiors"):
        return False
    after, before = fragment.after(mark), fragment.before(mark)
    is_noun = not after or after[0].kind in ("of", "pieces", "not", "modal") or says(after[0], "copulas")
    return is_noun and not (before and before[-1].kind == "not")


def _is_within(fragment: Fragment, mark: Mark) -> bool:
    """Whether a piece is inside of a label: "a few voxels inside the spleen"."""
    if not says(mark, "insides"):
        return False
    names = names_in(fragment.after(mark))
    is_after_piece = any(_is_piece(each) for each in fragment.before(mark))
    return is_after_piece and bool(names) and bool(names[0].mention.labels)


def _is_piece(mark: Mark) -> bool:
    # "a few voxels" also says how much
    return mark.kind == "pieces" or mark.text.endswith(("voxels", "pixels"))
