"""A note in fragments, each of which says one thing, with its words marked by what they do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from causal_sam.notes.mentions import Mention, Names
from causal_sam.notes.tokens import Ranges, Token, tokenise
from causal_sam.notes.vocabulary import LONGEST_GAP, Meaning, Vocabulary

NEARBY = 3  # marks, as in "the mask of the liver"
_JOINS = frozenset({"and", "but", "then", "while", "whereas", "however", "or", "yet", "although", "though"})


@dataclass(frozen=True)
class Mark:
    """One or a few words of a note.

    Attributes:
        kind: the section of the vocabulary, or "name", "mm", "slices", "open slices", "word", "plain", "join", "comma".
        text: as written, with its spelling corrected.
        values: which of its kinds.
        mention: of a name.
        mm: of a length.
        slices: of ranges of slices.
    """

    kind: str
    text: str
    values: tuple[str, ...] = ()
    mention: Mention | None = None
    mm: float = 0.0
    slices: Ranges = ()


@dataclass(frozen=True)
class Fragment:
    """Part of a sentence between commas and conjunctions.

    Attributes:
        marks: its words.
        sentence: number of the sentence.
        join: what stands before it: a conjunction, "," or ":", or nothing.
        asks: whether its sentence ends in a question mark.
    """

    marks: tuple[Mark, ...]
    sentence: int
    join: str = ""
    asks: bool = False

    def all(self, *kinds: str) -> list[Mark]:
        """All marks of these kinds."""
        return [mark for mark in self.marks if mark.kind in kinds]

    def has(self, *kinds: str) -> bool:
        """Whether there is a mark of one of these kinds."""
        return any(mark.kind in kinds for mark in self.marks)

    def index(self, mark: Mark) -> int:
        """The place of one of its own marks."""
        return next(place for place, own in enumerate(self.marks) if own is mark)

    def before(self, mark: Mark) -> tuple[Mark, ...]:
        """The marks before one."""
        return self.marks[: self.index(mark)]

    def after(self, mark: Mark) -> tuple[Mark, ...]:
        """The marks after one."""
        return self.marks[self.index(mark) + 1 :]


def divide(note: str, names: Names, vocabulary: Vocabulary) -> list[Fragment]:
    """Divide a note into fragments, in its order."""
    fragments: list[Fragment] = []
    tokens: list[Token] = []
    sentence = 0
    for token in [*tokenise(note), Token("stop", "")]:
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
        # "but" after a comma says more than the comma.
        join = mark.text if mark.kind == "join" or not join else join


def _is_arrow_into(before: Sequence[Mark], after: Sequence[Mark]) -> bool:
    """Whether an arrow says that a mask runs into something: "leaks -> duodenum", "CTV -> rectum"."""
    if not before or not after:
        return False
    is_label = before[-1].mention is not None and bool(before[-1].mention.labels)
    is_neighbour = after[0].mention is not None and not after[0].mention.labels
    return before[-1].values == ("leak",) or (is_label and is_neighbour)


def _marks(tokens: Sequence[Token], names: Names, vocabulary: Vocabulary) -> Iterator[Mark]:
    """Mark the words of a sentence, the longest phrases and names first."""
    spelt = [
        replace(token, text=word)
        for token in tokens
        for word in (names.corrected(token.text) if token.kind == "word" else (token.text,))
    ]
    taken: dict[int, int] = {}  # second parts of phrases with a gap -> their length
    start = 0
    previous = ""  # kind
    while start < len(spelt):
        token = spelt[start]
        if start in taken:
            start += taken[start]
        elif token.kind != "word":
            yield Mark(token.kind, token.text, mm=token.mm, slices=token.slices)
            start += 1
        else:
            length, mark = _phrase(spelt, start, taken, names, vocabulary)
            if mark.mention and previous in ("strength", "too") and (adjective := vocabulary.longest((token.text,))):
                length, mark = 1, Mark(adjective[1].kind, token.text, adjective[1].values)  # "a bit fat"
            yield mark
            previous = mark.kind
            start += length


def _phrase(
    tokens: Sequence[Token], start: int, taken: dict[int, int], names: Names, vocabulary: Vocabulary
) -> tuple[int, Mark]:
    """The phrase or name that begins at a word, and its length."""
    run = []
    for token in tokens[start:]:
        if token.kind != "word":
            break
        run.append(token)
    words = [token.text for token in run]
    named = names.longest(words, [token.is_capital for token in run])
    phrase = vocabulary.longest(words)
    if phrase is not None and phrase[1].kind == "place" and not names.has_part(phrase[1].values[0]):
        phrase = (phrase[0], Meaning("word"))
    # "lower lobe" is a place on the lung where there is no label of that name.
    is_place = phrase is not None and phrase[1].kind == "place" and not (named and named[1].labels)
    if named and named[0] >= (phrase[0] + is_place if phrase else 0):
        return named[0], Mark("name", named[1].text, mention=named[1])
    # "take 4 mm off"
    following = tokens[start + len(run) : start + len(run) + LONGEST_GAP]
    gapped = vocabulary.gapped([*words, *(token.text for token in following)])
    if gapped and gapped[0] >= (phrase[0] if phrase else 0):
        length, second, meaning = gapped
        taken[start + second.start] = len(second)
        return length, Mark(meaning.kind, " ".join(words[:length]), meaning.values)
    if phrase:
        length, meaning = phrase
        if words[:length] == ["as", "is"] and length < len(words) and not vocabulary.longest(words[length:]):
            return length, Mark("plain", "as is")  # "as is the spleen"
        return length, Mark(meaning.kind, " ".join(words[:length]), meaning.values)
    if words[0] in _JOINS:
        return 1, Mark("join", words[0])
    return 1, Mark("plain" if vocabulary.is_plain(words[0]) else "word", words[0])
