"""Fragments that say something only together: "not the dome but the tip", "upper pole: 3 mm too low"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from causal_sam.notes.acts import acts_of
from causal_sam.notes.drafts import Details
from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.grammar import approvals, is_known, names_in, preposition, says

_TURNED = {"expand": "shrink", "shrink": "expand", "large": "small", "small": "large"}
# What may stand in a fragment that only says of what the next one is.
_TOPICS = frozenset(
    {"name", "place", "plain", "edges", "masks", "of", "it", "pieces", "in", "word", "one", "both", "small", "near"}
)


def completed(fragments: Sequence[Fragment]) -> list[Fragment]:
    """Return the fragments of a sentence, each with what it takes from the one before."""
    found: list[Fragment] = []
    for fragment in (part for each in fragments for part in _divided(each)):
        before = found[-1] if found else None
        if before is not None and _needs_topic(fragment) and _is_topic(before):
            joined = replace(before, marks=(*before.marks, *fragment.marks))
            if acts_of(joined):
                found[-1] = joined
                continue
        found.append((before and (_reversed(before, fragment) or _contrasted(before, fragment))) or fragment)
    return found


def is_again_so(fragment: Fragment, details: Details) -> bool:
    """Whether a fragment only says of what else the one before is so: "and so does the spleen", "as is the spleen"."""
    first = fragment.marks[0]
    is_inverted = first.text in ("so", "as", "nor", "neither") and len(fragment.marks) > 1
    is_inverted = is_inverted and _is_auxiliary(fragment.marks[1])
    last = [mark for mark in fragment.marks if mark.text != "too" and mark.kind != "also"]
    is_too = len(last) < len(fragment.marks) and _is_auxiliary(last[-1]) if last else False
    return (is_inverted or is_too) and bool(details.names) and not details.says_how


def _is_auxiliary(mark: Mark) -> bool:
    return says(mark, "copulas") or mark.text in ("does", "do", "did", "has", "have")


def _divided(fragment: Fragment) -> Iterator[Fragment]:
    """A denial or praise, and its exception: "no leak except into the stomach"."""
    exceptions = fragment.all("except")
    if exceptions and _asserted(Fragment(fragment.before(exceptions[0]), fragment.sentence)) is not None:
        yield replace(fragment, marks=fragment.before(exceptions[0]))
        yield replace(fragment, marks=(exceptions[0], *fragment.after(exceptions[0])), join=",")
        return
    yield fragment
    if exceptions and fragment.after(exceptions[0]) and not acts_of(fragment):
        rest = replace(fragment, marks=fragment.after(exceptions[0]), join=",")
        if acts_of(rest):
            yield rest  # "all fine apart from an island"


def _needs_topic(fragment: Fragment) -> bool:
    """Whether a fragment says what is to be done with something, and not with what."""
    is_bare = all(mark.kind in ("delete", "requests", "plain", "it", "place") for mark in fragment.marks)
    is_about = fragment.has("too", "move") or (fragment.has("delete") and is_bare)
    return is_about and not fragment.has("name", "not")


def _is_topic(fragment: Fragment) -> bool:
    has_topic = fragment.has("name", "place", "pieces")
    return has_topic and all(mark.kind in _TOPICS for mark in fragment.marks) and not acts_of(fragment)


def _asserted(fragment: Fragment) -> Fragment | None:
    """A denied complaint without its denial; None for any other fragment."""
    if not fragment.has("not") or acts_of(fragment) or approvals(fragment):
        return None
    asserted = replace(fragment, marks=tuple(mark for mark in fragment.marks if mark.kind != "not"))
    acts = acts_of(asserted)
    return asserted if acts and not asserted.has("keep", "protect", "nothing_else") else None


def _contrasted(denied: Fragment, fragment: Fragment) -> Fragment | None:
    """What is so, after what is not: "not at the dome but at the tip", "nothing is missing, except the tip"."""
    is_contrast = fragment.join == "but" or fragment.marks[0].kind == "except" or _is_elliptic(fragment)
    if not is_contrast or fragment.has("not", "keep", "wrong", "nothing_else") or acts_of(fragment):
        return None
    asserted = _asserted(denied)
    if asserted is None or not fragment.has("place", "name", "slices"):
        return None
    own = tuple(mark for mark in fragment.marks if mark.kind != "except")
    if _is_elliptic(fragment) and own[0].values in (("left",), ("right",)):
        own = (own[0], Mark("one", "one"), *own[1:])  # "the left one is"
    names = [mark for mark in names_in(own) if is_known(mark.mention) and not preposition(fragment, mark)]
    has_subject = bool(names) or any(mark.kind == "one" for mark in own)
    kept = tuple(mark for mark in asserted.marks if not _is_replaced(asserted, mark, has_subject))
    return replace(fragment, marks=(*kept, *own))


def _reversed(denied: Fragment, fragment: Fragment) -> Fragment | None:
    """The opposite of what is not: "not too large, quite the reverse"."""
    if not fragment.has("contrary") or acts_of(fragment):
        return None
    asserted = _asserted(denied)
    if asserted is None:
        return None
    return replace(fragment, marks=tuple(_turned(mark) for mark in asserted.marks))


def _turned(mark: Mark) -> Mark:
    """The opposite of a size, or of what asks for one."""
    if mark.kind == "cue":
        return replace(mark, values=(_TURNED.get(mark.values[0], mark.values[0]),))
    return replace(mark, kind=_TURNED.get(mark.kind, mark.kind))


def _is_replaced(fragment: Fragment, mark: Mark, has_subject: bool) -> bool:
    if mark.mention:
        return has_subject or bool(preposition(fragment, mark))
    return mark.kind in ("place", "slices", "mm", "into", "near", "from", "in", "of")


def _is_elliptic(fragment: Fragment) -> bool:
    """Whether a fragment ends as in "the left one is"."""
    return _is_auxiliary(fragment.marks[-1])
