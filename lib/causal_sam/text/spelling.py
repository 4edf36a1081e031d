"""Spelling correction of names, where the correction is unambiguous."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable

from rapidfuzz.distance import OSA

from causal_sam.text.lexicon import Lexicon, singular, split_words

# Minimum letters of a word for one and for two edits; shorter words are too similar to others.
MIN_LENGTH_ONE_EDIT, MIN_LENGTH_TWO_EDITS = 7, 9
MIN_CORRECTABLE_LENGTH = 4


def correct_spelling(name: str, lexicon: Lexicon, vocabulary: Collection[str]) -> str | None:
    """Correct the misspelt words of a name; None if there are none, or the correction is ambiguous.

    Args:
        name: name as written.
        lexicon: lexicon, whose words are never changed.
        vocabulary: candidates for the corrected words.
    """
    words = split_words(name)
    wrong = [word for word in words if not lexicon.is_known_word(word) and word not in vocabulary]
    if not wrong:
        return None
    nearest = {word: _nearest({word, singular(word)}, vocabulary, lexicon) for word in wrong}
    if all(nearest.values()):
        return " ".join(nearest.get(word) or word for word in words)
    # The whole name may be divided wrongly: "gal bladder".
    long_names = (known for known in lexicon.names if len(known) >= MIN_LENGTH_ONE_EDIT)
    return _nearest((lexicon.compact_form(name),), long_names, lexicon)


def _nearest(forms: Iterable[str], vocabulary: Iterable[str], lexicon: Lexicon) -> str | None:
    """Return the only nearest word of the vocabulary to one of the forms of a word, if it is near enough."""
    found: dict[int, set[str]] = {}
    for known, word in itertools.product(vocabulary, forms):
        is_begun_so = known[0] == word[0] or known[1::-1] == word[:2]  # the first two letters may be swapped
        if len(known) >= MIN_CORRECTABLE_LENGTH and is_begun_so and abs(len(known) - len(word)) <= 2:
            edits = OSA.distance(word, known, score_cutoff=2)
            if edits <= _max_edits(word, known):
                found.setdefault(edits, set()).add(known)
    nearest = found[min(found)] if found else set()
    # Several words may have the same meaning, such as "pancreas" and "pancreatic".
    meanings = {frozenset(map(str, lexicon.readings(known))) for known in nearest}
    return min(nearest) if len(meanings) == 1 else None


def _max_edits(word: str, known: str) -> int:
    shorter = min(len(word), len(known))
    if shorter >= MIN_LENGTH_TWO_EDITS:
        return 2
    if shorter >= MIN_LENGTH_ONE_EDIT:
        return 1
    # In short words, another letter ("lever") or ending ("live", "colony") makes another word.
    is_swapped = sorted(word) == sorted(known)
    is_slip = (
        len(word) != len(known)
        and shorter >= MIN_CORRECTABLE_LENGTH
        and len(known) > MIN_CORRECTABLE_LENGTH
        and word[-1] == known[-1]
    )
    is_cut = known[:-1] == word and len(word) > MIN_CORRECTABLE_LENGTH
    return 1 if is_swapped or is_slip or is_cut else 0
