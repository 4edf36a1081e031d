"""Misspelt names: what was meant, where that is beyond doubt."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable

from rapidfuzz.distance import OSA

from causal_sam.text.lexicon import Lexicon, singular, split_words

# Letters that a word must have for one and for two mistakes; shorter words are too near to other words.
ONE_MISTAKE, TWO_MISTAKES = 7, 9
SHORTEST = 4


def correct(name: str, lexicon: Lexicon, vocabulary: Collection[str]) -> str | None:
    """Return a name with its misspelt words put right; None if none of them is, or it is not certain how.

    Args:
        name: as written.
        lexicon: the words that it knows are right.
        vocabulary: the words that may be meant.
    """
    words = split_words(name)
    wrong = [word for word in words if not lexicon.knows(word) and word not in vocabulary]
    if not wrong:
        return None
    nearest = {word: _nearest({word, singular(word)}, vocabulary, lexicon) for word in wrong}
    if all(nearest.values()):
        return " ".join(nearest.get(word) or word for word in words)
    # Words that are wrongly divided too: "gal bladder".
    long_names = (known for known in lexicon.names if len(known) >= ONE_MISTAKE)
    return _nearest((lexicon.squashed(name),), long_names, lexicon)


def _nearest(forms: Iterable[str], vocabulary: Iterable[str], lexicon: Lexicon) -> str | None:
    """The one word of the vocabulary that a word, in one of its forms, can be a misspelling of."""
    found: dict[int, set[str]] = {}
    for known, word in itertools.product(vocabulary, forms):
        is_begun_so = known[0] == word[0] or known[1::-1] == word[:2]  # the first two letters may be swapped
        if len(known) >= SHORTEST and is_begun_so and abs(len(known) - len(word)) <= 2:
            mistakes = OSA.distance(word, known, score_cutoff=2)
            if mistakes <= _allowed(word, known):
                found.setdefault(mistakes, set()).add(known)
    nearest = found[min(found)] if found else set()
    # Several words may be forms of one, such as "pancreas" and "pancreatic".
    meanings = {frozenset(map(str, lexicon.readings(known))) for known in nearest}
    return min(nearest) if len(meanings) == 1 else None


def _allowed(word: str, known: str) -> int:
    shorter = min(len(word), len(known))
    if shorter >= TWO_MISTAKES:
        return 2
    if shorter >= ONE_MISTAKE:
        return 1
    # Of short words, other words come about by another letter ("lever") or another ending ("live", "colony").
    is_swapped = sorted(word) == sorted(known)
    is_slip = len(word) != len(known) and shorter >= SHORTEST and len(known) > SHORTEST and word[-1] == known[-1]
    is_cut = known[:-1] == word and len(word) > SHORTEST
    return 1 if is_swapped or is_slip or is_cut else 0
