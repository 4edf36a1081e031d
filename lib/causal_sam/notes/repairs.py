"""Notes whose author corrects them: "extend it cranially, sorry, caudally" is "extend it caudally"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from causal_sam.notes.acts import acts_of
from causal_sam.notes.drafts import Unclear
from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.grammar import approvals, is_known, names_in, preposition, says
from causal_sam.notes.laterality import OPPOSITES
from causal_sam.notes.mentions import Mention

# What one word stands for another of: where, how far, in which slices, how much, and of what.
_KINDS = ("name", "place", "mm", "slices", "strength")
_QUESTION = "What is replaced by the correction in the note? Say only what is to be done."


def repaired(fragments: Sequence[Fragment]) -> tuple[list[Fragment], bool]:
    """Return a note without what its author takes back in it, and whether anything was taken back.

    Raises:
        Unclear: it is not certain what is taken back.
    """
    found: list[Fragment] = []
    is_repaired = False
    parts = [part for fragment in fragments for part in _split(fragment)]
    at = 0
    while at < len(parts):
        if not _is_correction(parts, at):
            found += _without_marker(parts[at])
            at += 1
            continue
        start = at
        while at < len(parts) and _is_correction(parts, at):
            at += 1
        words = [part.marks[0] for part in parts[start:at]]
        said = parts[at] if at < len(parts) else None
        taken = _replaced(found, said, parts[at:], parts[start].sentence, words)
        if taken is None:
            continue
        is_repaired, found = True, taken
        if said is not None and found and found[-1].sentence != said.sentence:
            # What corrects a sentence goes on with it.
            moved = found[-1].sentence
            parts[at:] = [replace(e, sentence=moved) if e.sentence == said.sentence else e for e in parts[at:]]
        if said is not None and not _is_clause(said):
            at += 1
    return found, is_repaired


def _split(fragment: Fragment) -> Iterator[Fragment]:
    """A fragment, and the words of correction in it each as one of its own."""
    part: list[Mark] = []
    join = fragment.join
    marks = fragment.marks
    at = 0
    while at < len(marks):
        length = _marker(fragment, at)
        if length:
            if part:
                yield replace(fragment, marks=tuple(part), join=join)
                part, join = [], ","
            words = " ".join(mark.text for mark in marks[at : at + length])
            yield replace(fragment, marks=(Mark("correction", words),), join=join)
            join = ","
            at += length
        else:
            mark = marks[at]
            part.append(replace(mark, kind="plain") if mark.kind == "correction" else mark)
            at += 1
    if part:
        yield replace(fragment, marks=tuple(part), join=join)


def _marker(fragment: Fragment, at: int) -> int:
    """How many marks from one on are words of correction."""
    marks = fragment.marks
    mark, after = marks[at], marks[at + 1 : at + 3]
    is_alone = len(marks) == 1
    if mark.kind == "correction":
        if says(mark, "corrections_alone"):
            return int(is_alone or (at == len(marks) - 1 and all(_is_no(each) for each in marks[:at])))
        is_courtesy = says(mark, "courtesies") and bool(after) and says(after[0], "reasons")
        return int(not is_courtesy)
    if mark.text == "no" and mark.kind == "not":
        follows = bool(after) and after[0].kind == "correction"
        is_name = at == 0 and len(marks) == 3 and says(marks[1], "determiners") and marks[2].mention is not None
        return int(is_alone or follows or is_name)
    if mark.text == "make" and len(after) > 1 and after[0].text in ("it", "that"):
        return 2 if after[1].kind in ("mm", "slices") else 0
    if mark.text == "rather" and mark.kind == "plain" and at == 0 and fragment.join in (",", "or", "but"):
        is_part = bool(after) and (after[0].kind in (*_KINDS, "in", "near", "into") or says(after[0], "determiners"))
        return int(is_part and not acts_of(fragment))
    return 0


def _is_no(mark: Mark) -> bool:
    return mark.text == "no"


def _is_correction(parts: Sequence[Fragment], at: int) -> bool:
    """Whether a fragment is words of correction, after or before something that they can be about."""
    return at < len(parts) and len(parts[at].marks) == 1 and _is_word(parts[at].marks[0])


def _is_word(mark: Mark) -> bool:
    return mark.kind == "correction"


def _without_marker(fragment: Fragment) -> list[Fragment]:
    return [fragment] if fragment.marks else []


def _is_clause(fragment: Fragment) -> bool:
    """Whether a fragment says by itself what is to be done, or that all is right."""
    return bool(acts_of(fragment) or approvals(fragment))


def _replaced(
    before: Sequence[Fragment],
    said: Fragment | None,
    following: Sequence[Fragment],
    sentence: int,
    words: Sequence[Mark],
) -> list[Fragment] | None:
    """What is left of the fragments before a correction, with what replaces parts of them; None for no correction.

    Args:
        before: the note so far.
        said: what comes after the words of correction, if anything does.
        following: that and all that comes later.
        sentence: of these words.
        words: of correction.
    """
    if not before:
        return None
    is_new = before[-1].sentence != sentence
    last = before[-1].sentence
    own = [each for each in before if each.sentence == last]
    kept = [each for each in before if each.sentence != last]
    if said is None or said.sentence != sentence:
        is_withdrawn = any(says(word, "withdrawals") for word in words) and (not is_new or last == sentence - 1)
        return [*kept, *_withdrawn(own)] if is_withdrawn else None
    if is_new:
        rest = [each for each in following if each.sentence == sentence]
        is_whole = any(map(_is_clause, rest))
        is_polite = all(says(word, "courtesies") or word.text == "no" for word in words)
        if (is_whole and is_polite) or not _is_same_act(own, rest, is_whole):
            return None
    if _is_clause(said):
        return [*kept, *_with_clause(own, said)]
    changed = _with_parts(own, said)
    return None if changed is None else [*kept, *changed]


def _is_same_act(own: Sequence[Fragment], rest: Sequence[Fragment], is_whole: bool) -> bool:
    """Whether a new sentence says of another thing what the one before said."""
    if not is_whole:
        return True
    done = {act.action for fragment in own for act in acts_of(fragment)}
    return any(act.action in done for fragment in rest for act in acts_of(fragment))


def _withdrawn(own: Sequence[Fragment]) -> list[Fragment]:
    """A sentence without the last thing that it asks for."""
    found = list(own)
    while found and not _is_clause(found[-1]):
        found.pop()
    return found[:-1]


def _with_clause(own: Sequence[Fragment], said: Fragment) -> list[Fragment]:
    """A sentence without its last act, of which another one takes the place."""
    acts = acts_of(said)
    is_on_own = any(act.subjects or act.absent for act in acts) or (not acts and bool(said.all("name")))
    if not any(map(_is_clause, own)):
        # "left kidney, sorry, right kidney is too small"
        kinds = {kind for kind in _KINDS if said.has(kind)}
        sides = {word for mark in names_in(said.marks) for word in mark.text.split()} & {"left", "right"}
        found = [_without(fragment, kinds, bool(sides)) for fragment in own]
        return [each for each in found if each.has(*_KINDS) or each.has("slices")]
    found = list(own)
    while not _is_clause(found[-1]):
        found.pop()
    clause = found.pop()
    if is_on_own:
        while found and not _is_clause(found[-1]) and found[-1].has("name"):
            found.pop()  # "dome of the liver: missing, scratch that, the spleen is too small"
        return found
    nears = [mention for act in acts_of(clause) for mention in act.nears]
    names = [mark for mark in names_in(clause.marks) if mark.mention not in nears]
    carried = [m for m in clause.marks if m in names or m.kind in ("place", "mm", "slices", "modal", "of")]
    kinds = {kind for kind in ("place", "mm", "slices") if said.has(kind)}
    carried = [mark for mark in carried if mark.kind not in kinds]
    if carried and any(mark.kind != "of" for mark in carried):
        found.append(replace(clause, marks=tuple(carried)))
    return found


def _without(fragment: Fragment, kinds: set[str], has_side: bool) -> Fragment:
    """A fragment without marks of these kinds, and without a side that stands for a name."""
    is_side = has_side and not fragment.has("name")
    marks = [
        mark
        for mark in fragment.marks
        if mark.kind not in kinds and not (is_side and mark.values in (("left",), ("right",)))
    ]
    return replace(fragment, marks=tuple(marks))


def _with_parts(own: Sequence[Fragment], said: Fragment) -> list[Fragment] | None:
    """A sentence of which some words have been replaced; None if there is nothing to replace.

    Raises:
        Unclear: it is not certain which words.
    """
    said = _with_numbers(own, said)
    if said.has("also", "not") or any(mark.text == "too" for mark in said.marks[-1:]):
        return None
    found = list(own)
    places: list[tuple[int, Mark]] = []
    for kind in _KINDS:
        new = said.all(kind)
        at = next((i for i in reversed(range(len(found))) if found[i].has(kind)), None)
        if not new or at is None:
            continue
        if kind == "name" and _is_listed(found, at):
            raise Unclear(_QUESTION)
        places.append((at, _old(found[at], kind, new[0], said)))
    if not places:
        return None
    own_marks = tuple(mark for mark in said.marks if mark.kind not in ("correction",) and not _is_filler(mark))
    first_at, first = places[0]
    for at, mark in places[1:]:
        found[at] = replace(found[at], marks=tuple(each for each in found[at].marks if each is not mark))
    fragment = found[first_at]
    found[first_at] = replace(fragment, marks=(*fragment.before(first), *own_marks, *fragment.after(first)))
    return [each for each in found if each.marks]


def _is_filler(mark: Mark) -> bool:
    return mark.kind in ("modal", "requests") or says(mark, "copulas") or mark.text in ("does", "do", "be")


def _is_listed(found: Sequence[Fragment], at: int) -> bool:
    """Whether the names of a fragment go on with those of the one before: "the liver and the spleen"."""
    is_list = found[at].join in ("and", "or") and at > 0
    return is_list and not acts_of(found[at - 1]) and found[at - 1].has("name") and found[at].marks[-1].kind == "name"


def _old(fragment: Fragment, kind: str, new: Mark, said: Fragment) -> Mark:
    """The mark that another one takes the place of.

    Raises:
        Unclear: it may be one of several.
    """
    old = fragment.all(kind)
    if kind == "name":
        return _old_name(fragment, old, new, said)
    if kind == "place":
        same = [mark for mark in old if _axis(mark) == _axis(new)]
        # "the upper pole of the left kidney": the side of a label is none of the places.
        old = same or old
    if len(old) > 1 or any(len(mark.slices) > 1 for mark in old):
        raise Unclear(_QUESTION)
    return old[0]


def _old_name(fragment: Fragment, old: Sequence[Mark], new: Mark, said: Fragment) -> Mark:
    where = preposition(said, new)
    same = [mark for mark in old if where and preposition(fragment, mark) == where]
    if len(same) == 1:
        return same[0]
    if len(old) == 1:
        return old[0]
    if says(said.marks[-1], "copulas") or said.marks[-1].text in ("does", "do", "has", "have"):
        return old[0]  # "the liver leaks into the stomach, no, the spleen does"
    if not is_known(new.mention):
        return old[-1]
    known = [mark for mark in old if is_known(mark.mention)]
    if len(known) == 1 and known[0] is old[-1]:
        return old[-1]
    if len(known) == len(old):
        nears = _nears(fragment)
        rest = [mark for mark in known if mark.mention not in nears]
        if len(rest) == 1 and _counterparts(rest[0].mention, new.mention):
            return rest[0]
        return old[-1]
    counterparts = [mark for mark in known if _counterparts(mark.mention, new.mention)]
    if len(counterparts) == 1:
        return counterparts[0]
    raise Unclear(_QUESTION)


def _nears(fragment: Fragment) -> list[Mention]:
    return [mention for act in acts_of(fragment) for mention in act.nears]


def _counterparts(one: Mention, other: Mention) -> bool:
    """Whether two names differ only in their side."""

    def bare(mention: Mention) -> list[str]:
        return [word for word in mention.text.split() if word not in ("left", "right")]

    return one.text != other.text and bare(one) == bare(other)


def _axis(mark: Mark) -> object:
    """What directions that exclude one another have in common."""
    value = mark.values[0]
    if value in ("lateral", "medial"):
        return "lateral"
    return frozenset((value, OPPOSITES[value])) if value in OPPOSITES else None


def _with_numbers(own: Sequence[Fragment], said: Fragment) -> Fragment:
    """A correction whose bare numbers are slices or millimetres, as what they correct is."""
    numbers = [mark for mark in said.marks if mark.text.isdigit()]
    others = [mark for mark in said.marks if mark not in numbers and mark.kind not in ("plain", "in", "correction")]
    if others or not 1 <= len(numbers) <= 2:
        return said
    values = sorted(int(mark.text) for mark in numbers)
    has_slices = any(fragment.has("slices") for fragment in own)
    has_mm = any(fragment.has("mm") for fragment in own)
    if has_slices and not (has_mm and len(values) == 1):
        return replace(said, marks=(Mark("slices", said.marks[0].text, slices=((values[0], values[-1]),)),))
    unit = next((m for f in own for m in f.all("mm")), None)
    if unit is not None and not has_slices and len(values) == 1 and "mm" in unit.text:
        return replace(said, marks=(Mark("mm", f"{values[0]} mm", mm=float(values[0])),))
    return said
