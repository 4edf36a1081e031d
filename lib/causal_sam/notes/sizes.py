"""Rules for words that alone describe a mask as too small, too large, rough or with holes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from causal_sam.notes.drafts import Act
from causal_sam.notes.fragments import STATEMENT_KINDS, Fragment, Mark, is_of_mask, name_marks
from causal_sam.notes.laterality import OPPOSITES, direction_of_part
from causal_sam.notes.places import is_part
from causal_sam.notes.schema import Action
from causal_sam.notes.vocabulary import load_vocabulary


def size_acts(fragment: Fragment) -> list[Act]:
    """Return the acts that words request without a neighbour."""
    compared = fragment.all("than")
    if compared and _is_other_comparison(fragment, fragment.after(compared[0])):
        return []
    names = {mark.mention.labels for mark in name_marks(fragment.marks_before_than())}
    if compared and any(mark.mention.labels not in names for mark in fragment.names_after(compared[0]) if names):
        return []  # "the spleen is smaller than the liver"
    found: dict[Action, bool] = {}
    for mark in fragment.cues("expand", "shrink", "fill", "smooth"):
        if _is_finding(fragment, mark):
            continue
        action, is_weak = _cue_action(fragment, mark)
        found[action] = found.get(action, True) and is_weak
    for rule in (
        _moved_border,
        _reach_compared,
        _unmet_requirement,
        _excess,
        _shortfall,
        _comparative,
        _not_enough,
        _more_needed,
    ):
        act = rule(fragment)
        if act is not None:
            found[act.action] = False
            if act.places is not None:
                return [act]
    strong = [action for action, is_weak in found.items() if not is_weak]
    if "expand" in strong and "shrink" in strong and any(mark.is_in("cut_short") for mark in fragment.all("cue")):
        strong.remove("expand")
    return [Act(action) for action in strong or found]


def _is_other_comparison(fragment: Fragment, than: Sequence[Mark]) -> bool:
    """Return whether the comparison is with an earlier time, or of an organ with the usual: "smaller than before"."""
    if any(mark.is_in("earlier_times") for mark in than):
        return True
    return any(mark.is_in("usual") for mark in than) and not fragment.is_about_mask(fragment.marks_before_than())


def _cue_action(fragment: Fragment, mark: Mark) -> tuple[Action, bool]:
    """Return the action of a cue, and whether any other act takes precedence."""
    action: Action = mark.values[0]  # type: ignore[assignment]
    after = fragment.after(mark)
    if mark.is_in("compared") and fragment.has("than") and not fragment.has("modal"):
        than = next(each for each in fragment.marks if each.kind == "than")
        is_it = [each.kind for each in fragment.after(than)[:1]] == ["it"]  # "bigger than that"
        if not (_is_compared_with_mask(fragment, than) or is_it):
            action = "shrink" if action == "expand" else "expand"
    is_cut_back = mark.text.removesuffix(" the") in load_vocabulary().sets["cut_back"]
    if is_cut_back and _reports_done(fragment, mark):
        action = "expand"  # "the edge has been shaved off"
    if mark.text.removeprefix("over") in load_vocabulary().sets["cut_back"] and mark.text.startswith("over"):
        action = "expand"  # "overtrimmed"
    if mark.text in ("stop before", "end before") and fragment.has("modal"):
        action = "shrink"  # "it should stop before that"
    if mark.text in ("lose", "loses") and fragment.has("mm") and fragment.is_order(mark):
        action = "shrink"  # "must lose 2 mm"
    is_on_object = bool(after) and (after[0].is_in("determiners") or after[0].kind in ("mm", "more"))
    is_due = fragment.has("modal") and not fragment.has("not")  # "should be cut off"
    if mark.is_in("cut_short") and (is_due or (is_on_object and fragment.is_order(mark))):
        action = "shrink"
    return action, action == "fill" and mark.is_in("weak_holes")


def _is_compared_with_mask(fragment: Fragment, than: Mark) -> bool:
    """Return whether an organ is compared with its mask, not the mask with the organ."""
    after = fragment.after(than)
    if fragment.is_about_mask(fragment.before(than)) and not any(mark.kind == "masks" for mark in after):
        return False
    is_drawn = any(mark.kind in ("wanted", "taken_for") for mark in after)
    return is_of_mask(after) or (is_drawn and not any(mark.kind == "actual" for mark in after))


def _reports_done(fragment: Fragment, mark: Mark) -> bool:
    """Return whether a participle reports what was done, not what is to be done."""
    before = [each for each in fragment.before(mark) if each.kind != "strength"]
    done = ("been", "got", "gets")
    was_done = bool(before) and (before[-1].is_in("copulas") or before[-1].text in done)
    return (was_done or _is_done_by(fragment, mark)) and not fragment.has("modal", "requests", "enough")


def _is_done_by(fragment: Fragment, mark: Mark) -> bool:
    """Return whether a verb reports what a person did: "the resident has cut back the tip", "someone trimmed it"."""
    before = [each for each in fragment.before(mark) if each.kind != "strength" and not each.is_in("auxiliaries")]
    return bool(before) and (before[-1].is_in("persons") or before[-1].is_in("agents"))


def _is_finding(fragment: Fragment, mark: Mark) -> bool:
    """Return whether a word describes the anatomy, not the mask: "the liver is enlarged"."""
    before, after = fragment.before(mark), fragment.after(mark)[:1]
    is_reached = mark.text == "extends" and bool(after) and after[0].is_in("as_far_as")
    if is_reached and not fragment.has("modal", "requests", "masks", "than", "too", "more", "only", "not"):
        return True  # "the spleen extends to the iliac crest"
    if mark.is_in("done") and _is_done_by(fragment, mark) and not fragment.has("modal", "requests", "not"):
        return True  # "someone enlarged the liver"
    if mark.is_in("act_nouns") and fragment.approvals():
        return True  # "the extension at the tip is correct"
    if mark.text.startswith(("disappear", "vanish")) and any(each.text == "make" for each in before):
        return True  # "make it disappear"
    is_state = any(each.is_in("copulas") for each in before[-2:]) or bool(before and before[-1].mention)
    is_state = is_state or any(each.mention or is_part(each) for each in after)  # "thickened wall"
    is_state = is_state and mark.is_in("findings")
    return is_state and not fragment.has("modal", "requests", "masks", "than")


def _unmet_requirement(fragment: Fragment) -> Act | None:
    """Read an unmet requirement: "does not reach the diaphragm"."""
    # "not labelled", but not "no label"
    wanted = [mark for mark in fragment.all("wanted", "masks", "edges")]
    # "does not extend to the dome", but not "do not extend it".
    wanted += [mark for mark in fragment.all("cue") if mark.text.startswith("extend") and fragment.is_statement(mark)]
    # "the tip is not in", "the tip is not in there"
    last = [mark.kind for mark in fragment.marks[-3:]]
    is_not_in = last[-2:] == ["not", "in"] or last == ["not", "in", "it"]
    if is_not_in:
        return Act("expand")
    # "only covers half of it"
    is_partial = fragment.has("only") and not fragment.has("modal") and any(mark.kind == "wanted" for mark in wanted)
    if is_partial and not fragment.cues("expand", "shrink", "fill", "smooth"):
        return Act("expand")
    is_due = fragment.has("modal") and any(mark.kind == "wanted" for mark in wanted)
    # "cover the dome", but not "segment the liver"
    orders = [mark for mark in wanted if mark.kind == "wanted" and fragment.is_order(mark)]
    is_due = is_due or any(is_part(part) for mark in orders for part in fragment.after(mark))
    inside = [mark for mark in fragment.all("in") if mark.is_in("insides") and fragment.has("pieces")]
    if inside and any(fragment.is_negated(mark) for mark in wanted) and fragment.names_after(inside[0]):
        return Act("fill")  # "voxels inside the kidney are not labelled"
    return Act("expand") if is_due or any(fragment.is_negated(mark) for mark in wanted) else None


def _moved_border(fragment: Fragment) -> Act | None:
    """Read the movement of a border: "bring the top down", "raise the lower border", "it should go down to S2"."""
    first = next((mark for mark in fragment.marks if mark.kind not in ("plain", "requests", "also", "modal")), None)
    verbs = [mark for mark in fragment.marks if mark.kind in ("move", "include") or mark.is_in("going")]
    if first is None or fragment.has("cue", "too", "starts", "wanted", "than", "into", "not", "delete", "exclude"):
        return None
    places = [
        mark for mark in fragment.all("place") if direction_of_part(mark.values[0]) in (*OPPOSITES, "lateral", "medial")
    ]
    if first.text in ("lower", "raise"):
        towards, borders = ("inferior" if first.text == "lower" else "superior"), [p for p in places if p is not first]
    elif verbs and places:
        towards, borders = places[-1].values[0], places[:-1]
    else:
        return None
    if borders:
        border = direction_of_part(borders[-1].values[0])
        if OPPOSITES.get(border) == towards:
            return Act("shrink", places=(border,))
        return Act("expand", places=(border,)) if border == towards else None
    is_due = fragment.has("modal", "requests") or fragment.is_order(verbs[0]) if verbs else False
    is_reach = any(mark.is_in("going") or mark.text in ("carry", "take") for mark in verbs)
    return Act("expand", places=(towards,)) if is_due and is_reach and not fragment.has("edges") else None


def _reach_compared(fragment: Fragment) -> Act | None:
    """Read a reach that is compared with the mask: "reaches 15 mm lower than drawn"."""
    than = fragment.all("than")
    if not than or not fragment.has("wanted", "cue", "starts"):
        return None
    before = [mark for mark in fragment.before(than[0]) if mark.kind != "plain"]
    if before and before[-1].kind == "place" and before[-1].text.endswith(("er", "further")):
        return Act("expand" if _is_compared_with_mask(fragment, than[0]) else "shrink", places=before[-1].values)
    return None


def _excess(fragment: Fragment) -> Act | None:
    """Read an excess of size or reach: "too wide", "too far down", "ends too high"."""
    for too in fragment.marks:
        if too.kind != "too" and not (too.kind == "strength" and too.text.endswith(" too")):
            continue
        if fragment.is_negated(too):
            return None
        for mark in fragment.after(too):
            if mark.kind in ("large", "small"):
                return Act("shrink" if mark.kind == "large" else "expand")
            if mark.text in ("soon", "early", "late"):
                is_start = any(each.text.startswith(("start", "begin")) for each in fragment.all("starts"))
                return Act("shrink" if is_start == (mark.text != "late") else "expand")
            if mark.kind == "place" and mark.values[0] in (*OPPOSITES, "lateral", "medial"):
                ends = [each for each in fragment.before(too) if each.kind == "starts"]
                border = [each for each in fragment.before(too) if each.kind == "place"]
                sides = [direction_of_part(each.values[0]) for each in border]
                border = [each for each, side in zip(border, sides, strict=True) if side in OPPOSITES] or border
                value = direction_of_part(border[-1].values[0]) if border else None
                if ends and not border and mark.values[0] in OPPOSITES:
                    return _ending_at(fragment, ends[-1], mark)
                is_short = value is not None and OPPOSITES.get(value) == mark.values[0]
                return Act("expand", places=border[-1].values) if is_short else Act("shrink", places=mark.values)
            if mark.kind not in ("plain", "strength", "word"):
                break
        following = fragment.after(too)[:1]
        if too.text == "too far" or (following and following[0].text == "far"):
            return Act("shrink")
    return None


def _ending_at(fragment: Fragment, end: Mark, place: Mark) -> Act:
    """Read a start or end that is too far: "ends too high" lacks the lower part, "ends too low" exceeds it."""
    towards = place.values[0]
    is_start = end.text.startswith(("start", "begin", "begun"))
    is_beyond = towards == ("superior" if is_start else "inferior")
    # "ends too low at its upper pole"
    borders = [direction_of_part(each.values[0]) for each in fragment.after(place) if each.kind == "place"]
    if not is_beyond or OPPOSITES[towards] in borders:
        return Act("expand", places=(OPPOSITES[towards],))
    return Act("shrink", places=(towards,))


def _shortfall(fragment: Fragment) -> Act | None:
    """Read a shortfall of a length or of slices."""
    # "base short", "slightly short toward the front"
    for before, mark in itertools.pairwise(fragment.marks):
        if mark.text == "short" and (before.mention or before.kind in ("place", "strength") or before.is_in("copulas")):
            return Act("expand")
    # "5 mm short", "two slices short"
    for mark in fragment.marks:
        if mark.kind != "mm" and not mark.is_in("units"):
            continue
        following = [each for each in fragment.after(mark) if each.kind not in ("plain", "strength")]
        if following and following[0].is_in("short") and not fragment.is_negated(following[0]):
            return Act("expand")
    return None


def _comparative(fragment: Fragment) -> Act | None:
    """Read a comparative: "more wide", "less big"."""
    for mark, size in itertools.pairwise(fragment.marks):
        if size.kind not in ("large", "small") or fragment.is_negated(size):
            continue
        is_more = mark.kind == "more" if mark.kind == "more" or mark.text == "less" else None
        if is_more is not None:
            is_larger = is_more == (size.kind == "large")
            is_compared = fragment.has("than") and not fragment.has("modal", "requests")
            return Act("expand" if is_larger != is_compared else "shrink")
    return None


def _not_enough(fragment: Fragment) -> Act | None:
    """Read an insufficient size: "not big enough"."""
    if not fragment.has("enough"):
        return None
    for mark in fragment.all("large", "small"):
        if fragment.is_negated(mark):
            return Act("expand" if mark.kind == "large" else "shrink")
    return None


def _more_needed(fragment: Fragment) -> Act | None:
    """Read a need for more or less mask: "needs a little more at the back"."""
    # "another 5 mm"
    for mark, following in itertools.pairwise(fragment.marks):
        if mark.is_in("further") and following.kind == "mm" and not fragment.has(*STATEMENT_KINDS, "move"):
            return Act("expand")
    # "the pancreas needs its tail"
    for mark, owner, part in zip(fragment.marks, fragment.marks[1:], fragment.marks[2:], strict=False):
        is_whole = mark.is_in("needed") and owner.text in ("its", "the") and is_part(part)
        if is_whole and part is fragment.marks[-1] and not fragment.has(*STATEMENT_KINDS):
            return Act("expand")
    is_needed = fragment.has("modal", "requests") or fragment.has_word("needed")
    is_all = not fragment.has("word", "effects", "than")  # "a bit more on the right"
    than = fragment.all("than")
    # "there is more edema than was contoured"
    is_drawn_less = bool(than) and any(
        mark.kind in ("masks", "wanted", "taken_for") or mark.is_in("called") for mark in fragment.after(than[0])
    )
    is_needed = is_needed or is_drawn_less
    is_less = any(mark.text == "less" for mark in fragment.marks) and not fragment.has("than", "not", *STATEMENT_KINDS)
    if is_less and fragment.has("mm", "place"):
        return Act("shrink")  # "2 mm less", "slightly less at the back"
    return (
        Act("expand") if fragment.has("more") and (is_needed or is_all) and not fragment.has(*STATEMENT_KINDS) else None
    )
