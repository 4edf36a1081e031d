"""Division of a note into fragments, and of a fragment into marks: words and phrases with their meaning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from causal_sam.notes.fragments import Fragment, Mark
from causal_sam.notes.mentions import NameFinder
from causal_sam.notes.request import ImageSlices
from causal_sam.notes.tokens import Token, tokenise
from causal_sam.notes.vocabulary import MAX_GAP_WORDS, Meaning, Vocabulary

# Telegraphic style: "spleen under inf, liver over".
TELEGRAPHIC = {"under": "expand", "over": "shrink"}
_JOINS = frozenset({"and", "but", "then", "while", "whereas", "however", "or", "yet", "although", "though"})


def split_into_fragments(
    note: str, names: NameFinder, vocabulary: Vocabulary, image: ImageSlices | None = None
) -> list[Fragment]:
    """Divide a note into fragments; numbers of axial slices become lengths by their distance in mm.

    Slices in other planes have no top or bottom to count from: "two slices short at the top".
    """
    slice_mm = image.spacing_mm if image is not None and image.is_axial else None
    slice_count = None if image is None else image.count
    fragments: list[Fragment] = []
    tokens: list[Token] = []
    sentence = 0
    for token in [*tokenise(note, slice_mm, slice_count), Token("stop", "")]:
        if token.kind != "stop":
            tokens.append(token)
            continue
        asks = "?" in token.text
        marks = list(_marks(tokens, names, vocabulary))
        fragments += [replace(each, sentence=sentence, asks=asks) for each in _split(marks)]
        tokens = []
        sentence += 1
    return fragments


def _split(marks: Sequence[Mark]) -> Iterator[Fragment]:
    part: list[Mark] = []
    join = ""
    for place, mark in enumerate([*marks, Mark("comma", "")]):
        if mark.text.endswith(">") and _is_arrow_into(part, marks[place + 1 :]):
            mark = Mark("into", mark.text)
        if mark.kind not in ("comma", "join"):
            if mark.mention and len(part) > 1 and part[-1].kind == "keep" and part[0].mention:
                yield Fragment(tuple(part), 0, join)  # "liver ok spleen too small"
                part, join = [], ","
            part.append(mark)
            continue
        if part:
            yield Fragment(tuple(part), 0, join)
            part, join = [], ""
        # A conjunction after a comma replaces the comma.
        join = mark.text if mark.kind == "join" or not join else join


def _is_arrow_into(before: Sequence[Mark], after: Sequence[Mark]) -> bool:
    """Return whether an arrow stands for "into": "leaks -> duodenum", "CTV -> rectum"."""
    if not before or not after:
        return False
    is_label = bool(before[-1].mention.labels)
    is_neighbour = bool(after[0].mention) and not after[0].mention.labels
    return before[-1].values == ("leak",) or (is_label and is_neighbour)


def _marks(tokens: Sequence[Token], names: NameFinder, vocabulary: Vocabulary) -> Iterator[Mark]:
    """Yield the marks of a sentence; longer phrases and names take precedence."""
    spelt = [
        replace(token, text=word)
        for token in tokens
        for word in (names.corrected(token.text) if token.kind == "word" else (token.text,))
    ]
    taken: dict[int, int] = {}  # start of the second part of a split phrase -> its length
    start = 0
    previous = ""  # kind
    while start < len(spelt):
        token = spelt[start]
        if start in taken:
            start += taken[start]
        elif token.kind != "word":
            yield Mark(
                *(token.kind, token.text),
                mm=token.mm,
                slices=token.slices,
                open_range=token.open_range,
                count=token.count,
            )
            start += 1
        else:
            length, mark = _phrase(spelt, start, taken, names, vocabulary)
            if (
                token.text in TELEGRAPHIC
                and previous in ("name", "strength", "slices", "comma", "place", "")
                and _ends_clause(spelt, start, vocabulary)
            ):
                length, mark = 1, Mark("cue", token.text, (TELEGRAPHIC[token.text],))  # "FHL under sup"
            if (
                mark.mention
                and previous in ("strength", "too")
                and (adjective := vocabulary.longest_phrase((token.text,)))
            ):
                length, mark = 1, Mark(adjective[1].kind, token.text, adjective[1].values)  # "a bit fat"
            yield mark
            previous = mark.kind
            start += length


def _ends_clause(tokens: Sequence[Token], start: int, vocabulary: Vocabulary) -> bool:
    """Return whether a word ends its clause, or only a place, slices or a length follow."""
    following = tokens[start + 1 : start + 2]
    is_word = bool(following) and following[0].kind == "word"
    return (
        not is_word or following[0].text in ("in", "on", "by") or bool(vocabulary.direction_of_word(following[0].text))
    )


def _phrase(
    tokens: Sequence[Token], start: int, taken: dict[int, int], names: NameFinder, vocabulary: Vocabulary
) -> tuple[int, Mark]:
    """Return the length of the phrase or name that begins at a word, and its mark."""
    run = []
    for token in tokens[start:]:
        if token.kind != "word":
            break
        run.append(token)
    words = [token.text for token in run]
    named = names.longest_name(words, [token.is_capital for token in run])
    phrase = vocabulary.longest_phrase(words)
    if phrase is not None and phrase[1].kind == "place" and not names.has_part(phrase[1].values[0]):
        phrase = (phrase[0], Meaning("word"))
    # "lower lobe" is a place on the lung unless a label has that name.
    is_place = phrase is not None and phrase[1].kind == "place" and not (named and named[1].labels)
    if named and named[0] >= (phrase[0] + is_place if phrase else 0):
        return named[0], Mark("name", named[1].text, mention=named[1])
    # "take 4 mm off"
    following = tokens[start + len(run) : start + len(run) + MAX_GAP_WORDS]
    gapped = vocabulary.split_phrase([*words, *(token.text for token in following)])
    if gapped and gapped[0] >= (phrase[0] if phrase else 0):
        length, second, meaning = gapped
        taken[start + second.start] = len(second)
        return length, Mark(meaning.kind, " ".join(words[:length]), meaning.values)
    if phrase:
        length, meaning = phrase
        if words[:length] == ["as", "is"] and length < len(words) and not vocabulary.longest_phrase(words[length:]):
            return length, Mark("plain", "as is")  # "as is the spleen"
        return length, Mark(meaning.kind, " ".join(words[:length]), meaning.values)
    if words[0] in _JOINS:
        return 1, Mark("join", words[0])
    return 1, Mark("plain" if vocabulary.is_plain(words[0]) else "word", words[0])
