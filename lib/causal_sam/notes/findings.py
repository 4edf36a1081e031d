"""What a note says of the patient or of how the image was made, in words that else ask for an act."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.grammar import is_negated, is_of_mask, is_order, live, names_in, says
from causal_sam.notes.laterality import structures_of
from causal_sam.notes.mentions import Mention
from causal_sam.text import load_lexicon

FINDING = "finding"  # the kind of marks that say nothing of a mask
# Who says these speaks of a mask, or wants something.
_OF_MASKS = ("masks", "modal", "requests", "too", "enough", "than", "only", "wrong", "taken_for", "belongs", "include")
_OF_MASKS = (*_OF_MASKS, "exclude", "delete", "actual")
_ENDINGS = ("osis", "osed", "otic", "itis", "trophy", "trophic", "plasia", "malignancy", "malignant", "spiculated")


def without_findings(sentence: Sequence[Fragment]) -> list[Fragment]:
    """Return the fragments of a sentence, with a mark of its own kind for what is said of no mask."""
    return [_without(fragment, sentence) for fragment in sentence]


def _without(fragment: Fragment, sentence: Sequence[Fragment]) -> Fragment:
    if _is_acquisition(fragment, sentence):
        return replace(fragment, marks=(_finding(fragment.marks),))
    shapes = [mark for mark in live(fragment, "smooth") if _is_shape(fragment, mark, sentence)]
    if shapes:
        marks = (_finding([mark]) if mark in shapes else mark for mark in fragment.marks)
        return replace(fragment, marks=tuple(marks))
    told = [mark for mark in fragment.all(*_OF_MASKS) if mark.text != "down to"]
    if told or any(says(mark, "called") for mark in fragment.marks):
        return fragment
    for mark in fragment.marks:
        if _is_growth(fragment, mark) or _is_extent(fragment, mark) or _is_unfilled(fragment, mark):
            end = _end(fragment, mark)
            return replace(fragment, marks=(*fragment.before(mark), _finding([mark]), *fragment.marks[end:]))
    return fragment


def _finding(marks: Iterable[Mark]) -> Mark:
    return Mark(FINDING, " ".join(mark.text for mark in marks))


def _end(fragment: Fragment, mark: Mark) -> int:
    """Where what goes with a verb ends: after its object and where that is."""
    kinds = ("plain", "word", "name", "place", "into", "in", "from", "of", "near", "beyond", "mm", "by", "edges")
    at = fragment.index(mark) + 1
    while at < len(fragment.marks) and fragment.marks[at].kind in (*kinds, "pieces", "strength"):
        if says(fragment.marks[at], "copulas"):
            break
        at += 1
    return at


def is_disease(mention: Mention) -> bool:
    """Whether a name is that of something that grows: a tumour, a thrombus."""
    findings = load_lexicon().findings
    structures = {each for label in (*mention.labels, *mention.candidates) for each in structures_of(label)}
    is_sited = any(says(Mark("word", word), "sited") for word in mention.text.split())
    return is_sited or not findings.isdisjoint(structures) or not findings.isdisjoint(structures_of(mention.text))


def _is_growth(fragment: Fragment, mark: Mark) -> bool:
    """Whether a verb says what a disease does: "the tumour invades the liver"; masks leak and spill."""
    is_past_border = says(mark, "goes_on") and any(each.kind == "beyond" for each in fragment.after(mark)[:2])
    if not (says(mark, "growths") or is_past_border) or is_negated(fragment, mark):
        return False
    before, after = names_in(fragment.before(mark)), names_in(fragment.after(mark))
    is_by = any(each.text in ("by", "by the") for each in fragment.after(mark)[:1])
    is_by_disease = is_by and any(is_disease(name.mention) for name in after[:1])
    return is_by_disease or (bool(before) and is_disease(before[-1].mention))


def _is_extent(fragment: Fragment, verb: Mark) -> bool:
    """Whether a verb says how far an organ goes: "extends to the iliac crest", "extends below the costal margin"."""
    if not says(verb, "goes_on") or is_order(fragment, verb) or is_negated(fragment, verb):
        return False
    after = [each for each in fragment.after(verb) if each.kind not in ("mm", "strength")]
    after = [each for each in after if each.kind != "plain" or says(each, "as_far_as")]
    while len(after) > 1 and after[0].kind == "place" and not says(after[0], "about_place"):
        if after[0].text.startswith("to the "):
            break
        after = after[1:]
    if len(after) < 2 or is_of_mask(fragment.after(verb)):
        return False
    is_told = any(each.mention is not None or each.kind == "word" for each in fragment.before(verb))
    is_far = says(after[0], "as_far_as") or after[0].text.startswith("to the ") or says(after[0], "about_place")
    is_landmark = any(says(each, "landmarks") or _has_landmark(each) for each in after[1:])
    return is_far and (is_landmark or is_told)


def _has_landmark(mark: Mark) -> bool:
    return any(says(Mark("word", word), "landmarks") for word in mark.text.split())


def _is_unfilled(fragment: Fragment, mark: Mark) -> bool:
    """Whether a hollow organ is empty: "the bladder is not filled"."""
    if mark.kind != "cue" or mark.text not in ("not filled", "unfilled"):
        return False
    names = names_in(fragment.before(mark))
    is_hollow = bool(names) and any(
        says(Mark("word", structure), "hollow")
        for label in (names[-1].text, *names[-1].mention.labels)
        for structure in structures_of(label)
    )
    is_inner = any(says(each, "interiors") for each in fragment.marks)
    return is_hollow and not is_inner and not fragment.has("place", "pieces", "slices", "edges", "in")


def _is_shape(fragment: Fragment, mark: Mark, sentence: Sequence[Fragment]) -> bool:
    """Whether a word for a rough outline is said of a sick organ: "irregular surface due to cirrhosis"."""
    if not says(mark, "shapes") or fragment.has("masks", "modal", "requests", "too"):
        return False
    words = [word for each in sentence for one in each.marks for word in one.text.split()]
    return any(word.endswith(_ENDINGS) for word in words)


def _is_acquisition(fragment: Fragment, sentence: Sequence[Fragment]) -> bool:
    """Whether a fragment only says how the image was made: "3 mm recon, portal venous phase"."""
    causes = live(fragment, "restyle")
    if not causes or not all(says(mark, "acquisition") for mark in causes):
        return False
    is_told_why = any(each.has("effects") or each.marks[0].text == "so" for each in sentence)
    is_told_why = is_told_why or any(each.join.endswith(">") for each in sentence)
    kinds = ("cue", "plain", "word", "mm", "slices", "in", "place", "of")
    is_bare = all(mark.kind in kinds and not says(mark, "copulas") for mark in fragment.marks)
    return is_bare and not is_told_why and not live(fragment, "expand", "shrink", "fill", "smooth", "leak")
