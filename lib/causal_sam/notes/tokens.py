"""Tokens of a note: words, punctuation, lengths and slice ranges."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import OSA

from causal_sam.notes.quantities import AMOUNT, COUNT, MM, NUMBER, UNIT, count_of, millimetres, with_decimals

Kind = Literal["word", "stop", "comma", "mm", "amount", "slice count", "slices", "open slices", "end slices", "foreign"]
Ranges = tuple[tuple[int, int], ...]
# A range without a first or last slice.
OpenRange = tuple[int | None, int | None]

# "Around slice 23" means so many slices on either side too.
ABOUT_SLICES = 2
_KEYS = "slices?|slcs?|sl|images?|imgs?|cuts?|frames?|sections?|z"
_SLICE = rf"\b(?:(?:axial|coronal|sagittal)\s+)?(?:{_KEYS})(?:\b|(?=\d))"
_JOIN = (
    r"(?:\+\s*/?\s*-|-+>|-|/|,\s*(?:and\b|&)?|&|\+|\.\.+"
    r"|\b(?:down to|to|till|til|until|through to|through|thru|and|up to|bis)\b)"
)
_LIST = rf"(?:{_SLICE}[.:#=]*\s*)?\d+"
# A number after a space belongs to a list, unless it is that of a length or of things: "slice 20 2-3 mm", "2 holes".
_NO_SLICE = (
    rf"(?!{NUMBER}(?:\s*(?:-|to)\s*{NUMBER})?[\s-]*(?:{UNIT}|voxels?\b|pixels?\b)"
    r"|\d+\s+(?:large|big|small|tiny|little|more|holes?|gaps?|islands?|parts?|pieces?|bits|spots?|times)\b)"
)
_FROM = (
    r"(?:(?:above|below|beyond|after|before|past|up to|down to|to|until|till|starting (?:at|from|with|in)|from|between)"
    r"\s+)"
)
_ONWARD = r"\s*(?:onwards?|on\b(?!\s+the)|ff\b|and (?:up|above|higher|below|lower|down)\b|upwards?|downwards?|\+(?!\d))"
_ABOUT = r"(?:\b(?:around|about|near|roughly|approximately|approx|circa|ca)\s+(?:the\s+)?)"
_SLICES = (
    rf"(?P<before>{_FROM}(?:the\s+)?)?(?P<about>{_ABOUT})?{_SLICE}\s*[.:#=]*\s*(?:(?:nos?\b\.?|numbers?)\s*)?(?P<before2>{_FROM})?"
    rf"(?P<list>\d+(?:(?:\s*{_JOIN}\s*|\s+{_NO_SLICE}){_LIST})*)(?![\d.]*\d|\s*-?\s*(?:{UNIT}|voxels?\b|pixels?\b))(?P<after>{_ONWARD})?"
)
# "the last three slices", and amounts: "two slices short", but not "on two slices".
_ENDS = "first|last|final|top|bottom|uppermost|lowermost|lowest|highest"
_END_SLICES = rf"\b(?P<end>{_ENDS})\s+(?:(?P<ends>{COUNT})\s+)?{_SLICE}"
_SLICE_COUNT = (
    rf"(?<!\bin )(?<!\bon )(?<!\bthe )(?<!\bthose )(?<!\bof )(?<!\bfrom )(?P<counted>\b{COUNT})\s+(?:{_KEYS})\b"
)
_THICKNESS = re.compile(
    rf"\b(?:slices?\s+)?(?:thickness|spacing)\s+(?:(?:is|of|=)\s+)?({NUMBER})\s*mm\b|\b({NUMBER})\s*-?\s*mm\s+(?:thick\s+)?slices?\b(?!\s*[.:#=]*\s*\d)",
    re.IGNORECASE,
)
# Numbers without the word: "too small on 20-24", "(30-36)", "from 41 to 47", "at 37/38".
_BARE_SLICES = (
    r"(?<![\w.,/#+-])(?:(?:from\s+)?"
    r"(?P<bare>\d+(?:\s*(?:-+>?|\.\.+)\s*|\s+(?:to|till|until|through to|through|thru)\s+|(?<=\bat \d\d)/)\d+)"
    r"|between\s+(?P<bare2>\d+\s+and\s+\d+))"
    r"(?!\d|[.,]\d|\s*-?\s*(?:mm|cm|millim|centim|ml|cc|%|voxels?|vox|pixels?|px|x\b|times|places|spots|parts|pieces|slices|weeks|days))"
)
# Markup and program code, which clinicians do not write.
_MARKUP = r"`|<\||/(?:etc|bin|usr|var|tmp|dev|home)/|</?[a-z]\w*[^<>]*>|[{}\\]|\$\(|;\s*--|\w+@\w+\.\w+|\w+://\S*|\b(?:print|eval|exec|system|alert|open|import)\(|#!/?\S*"
_TOKENS = re.compile(
    rf"(?P<foreign>{_MARKUP})|(?P<some_slices>\b(?:in|on)\s+{COUNT}\s+slices\b)|(?P<end_slices>{_END_SLICES})|(?P<slices>{_SLICES})|(?P<slice_count>{_SLICE_COUNT})|(?P<amount>{AMOUNT})|(?P<bare_slices>{_BARE_SLICES})|(?P<mm>{MM})|(?P<word>[^\W_]+)"
    r"|(?P<stop>[.;!?\n]+)|(?P<comma>[,:()\[\]/]+|[-=]+>|(?<=\s)-+(?=\s))",
    re.IGNORECASE,
)
# A full stop after these ends no sentence.
_ABBREVIATION = re.compile(
    r"\b((?i:sup|inf|ant|post|lat|med|ca|appr|approx|sl|slc|no|nos|fig|resp|incl|excl|max|min|seg|segm|dr|vs|esp|"
    r"underseg|undersegm|underest|overseg|oversegm|overest|tum|cran|caud|dors|ventr|dist|prox|bilat|lt|rt|marg|surf|incompl))\."
    r"(?!\s+[A-Z][a-z])"
)
_DASHES = str.maketrans(
    {dash: "-" for dash in "‐‑‒–—−"}  # noqa: RUF001
    | {"’": "'", "→": "->", "⇒": "->", "➔": "->", "≠": " is not ", "≈": " ", "±": "+/-", "\r": "\n"}  # noqa: RUF001
)
_NOT = re.compile(r"\b(do|does|did|is|are|was|were|should|could|would|wo|ca|has|have|had|must|need)n'?t\b", re.I)
_IS = re.compile(r"\b(that|it|there|what|here|this|who|how|where)'s\b", re.I)
_SIZES = "small|big|large|much|wide|short|fat|high|low|far|tight|generous|thick|thin|little|many|tall"
_AFTER_SIZES = (
    "in|on|at|by|and|but|near|around|along|all|everywhere|there|here|up|down|left|right|lat|med|sup|inf|ant|post|"
    "cranial|caudal|dorsal|ventral|superior|inferior|anterior|posterior|lateral|medial|too"
)
# Signs and short forms: "+5 mm", "-3 mm", "too big ++", "lat + post", and "to small" for "too small".
_SIGNS = (
    (re.compile(rf"(?<!\S)\+\s*(?={NUMBER}\s*[mc]m\b)", re.I), "expand "),
    (re.compile(rf"(?<!\S)-(?={NUMBER}\s*[mc]m\b)", re.I), "shrink "),
    (re.compile(r"\+{2,}(?!\d)"), " strongly "),
    (re.compile(r"\bwell,?\s+(?=\d)", re.I), "sorry "),
    (re.compile(r"(?<=[a-z])\s*[+&]\s*(?=[a-z])", re.I), " and "),
    (re.compile(r"\bw/o\b", re.I), "without"),
    (re.compile(r"\bincl\.?(?=\s+in\b)", re.I), "included"),
    (re.compile(r"\bincl\b", re.I), "includes"),
    (re.compile(r"\bexcl\b", re.I), "exclude"),
    (re.compile(r"(?<!ed )\b(?:as well as|together with|along with)\b", re.I), "and"),
    (re.compile(rf"({NUMBER}) (more|further|additional|extra) (?=[mc]m\b|millim|centim)", re.I), r"\2 \1 "),
    (re.compile(r"\b(left|right) (?:nor|or|and) the (?=(?:left|right)\b)", re.I), r"\1 and "),
    # "on the right at the top", but not "right at the top"
    (
        re.compile(
            r"\b(the|on|and) right (?=(?:at|above|below|beneath|under|underneath|behind|next to|beside)\b)", re.I
        ),
        r"\1 right side ",
    ),
    (re.compile(r"(^|[.;!?\n])(\s*)back to (?=the\b)", re.I), r"\1\2"),
    (re.compile(r"\bb/c\b", re.I), "because of"),
    (re.compile(r"\bb/w\b", re.I), "between"),
    (re.compile(r"\bw/\s*(?=[a-z])", re.I), "with "),
    (re.compile(rf"\bto\s+(?=(?:{_SIZES})\b(?!\s+(?:attenuation|signal|dose|contrast)))", re.I), "too "),
    # "2 large at the top", but not "2 large holes"
    (re.compile(rf"\b2\s+(?=(?:{_SIZES})\s*(?:$|[.,;:!?)\n]|(?:{_AFTER_SIZES})\b|\w+ly\b))", re.I), "too "),
    (re.compile(rf"\b({_ENDS}) and (?:the )?({_ENDS}) ((?:{COUNT} )?slices?)\b", re.I), r"\1 \3 and \2 \3"),
)
# The last slice before the first: "to slice 88 from slice 80".
_REVERSED_RANGE = re.compile(
    rf"\b(?:(?:up |down )?to|until|till|through)\s+(?:the\s+)?{_SLICE}\s*[.:#=]*\s*(\d+)\s*,?\s*"
    rf"(?:(?:starting|beginning)\s+)?(?:from|at|with)\s+(?:the\s+)?(?:{_SLICE}\s*[.:#=]*\s*)?(\d+)"
    r"(?![\d.,]*\d|\s*-?\s*[mc]m\b|\s*(?:millim|centim))",
    re.IGNORECASE,
)
# Dictated punctuation. "colon" counts as punctuation only beside other such words.
_DICTATED = re.compile(r"\b(?:comma|full stop|semicolon|new line|new paragraph|period)\b", re.I)
_SPOKEN = (
    (re.compile(r"\s+(?:full stop|period|new line|new paragraph|next line)\b", re.I), ". "),
    (re.compile(r"\s+(?:comma|semicolon)\b", re.I), ", "),
    (re.compile(r"(?<!\bthe)(?<!\binto)(?<!\bof)(?<!\band)(?<!\bascending)(?<!\btransverse)\s+colon\b", re.I), ": "),
)
# Words beside numbers that are corrected even if they are short or unknown.
_UNITS_AND_KEYS = (
    *("slices", "slice", "between", "through"),
    *(f"{prefix}met{ending}" for ending in ("res", "ers", "re", "er") for prefix in ("milli", "centi")),
)
_MISSPELT = re.compile(
    r"\b[sl][a-z]{4,6}\b(?=\s*\d)|\bb[a-z]{5,8}\b(?=\s+(?:the\s+)?slices?\b)|(?<=\d )t[a-z]{4,7}\b(?=\s+\d)"
    r"|(?:(?<=\d)|(?<=\d )|(?<=\ba )|(?<=\ban ))[mc][a-z]{7,11}\b",
    re.IGNORECASE,
)
_SEPARATED_PREFIX = re.compile(
    r"\b(over|under|mis|un)[\s-]+(?=(?:segm|call|draw|contour|estimat|exten|includ|inclus|fill|shoot|label|outlin|reach|"
    r"done|seg|size|cover|classif|connect|smooth|trim|crop|shav|erod|prun))",
    re.I,
)


@dataclass(frozen=True)
class Token:
    """A token of a note.

    Attributes:
        kind: "stop" ends a sentence, "comma" a part of it; "open slices" is a range without begin or end; "foreign" is
            markup or program code.
        text: text in lower case, without accents.
        is_capital: whether it was written in capital letters.
        mm: length in mm.
        slices: first and last slice of each range, inclusive.
        open_range: range without a first or last slice.
        count: number of slices; negative for the last ones.
    """

    kind: Kind
    text: str
    is_capital: bool = False
    mm: float = 0.0
    slices: Ranges = ()
    open_range: OpenRange = (None, None)
    count: int = 0


def tokenise(note: str, slice_mm: float | None = None, slice_count: int | None = None) -> list[Token]:
    """Divide a note into tokens.

    Args:
        note: text of the note.
        slice_mm: distance of slices in mm, by which numbers of slices become lengths; a note can also state it.
        slice_count: number of slices of the image, which viewers show too: "slice 35/60".

    >>> [token.text for token in tokenise("LK isn't over-segmented: 5mm")]
    ['lk', 'is', 'not', 'oversegmented', ':', '5mm']
    >>> [token.slices for token in tokenise("slices 30-36, slice 40")]
    [((30, 36), (40, 40))]
    """
    text = _plain(note)
    stated = _THICKNESS.search(text)
    if stated:
        slice_mm = float((stated[1] or stated[2]).replace(",", "."))
        text = _THICKNESS.sub(" ", text)
    tokens = [_token(match, slice_count) for match in _TOKENS.finditer(text)]
    if slice_mm is None:
        return tokens
    return [
        Token("mm", token.text, mm=round(token.count * slice_mm, 3)) if token.kind == "slice count" else token
        for token in tokens
    ]


def _plain(note: str) -> str:
    # "isn`t"
    decomposed = unicodedata.normalize("NFKD", re.sub(r"(?<=\w)`(?=\w)", "'", with_decimals(note)).translate(_DASHES))
    text = "".join(letter for letter in decomposed if not unicodedata.combining(letter)).translate(_DASHES)
    text = re.sub(r"\be\.g\.|\bi\.e\.", " ", text)
    if _DICTATED.search(text):
        for spoken, sign in _SPOKEN:
            text = spoken.sub(sign, text)
    text = _IS.sub(r"\1 is", _NOT.sub(r"\1 not", text))
    text = re.sub(r"'s?\b|'", "", text).replace("~", " ")
    text = _REVERSED_RANGE.sub(_in_order, _MISSPELT.sub(_unit_or_key, text))
    for pattern, word in _SIGNS:
        text = pattern.sub(word, text)
    return _SEPARATED_PREFIX.sub(r"\1", _ABBREVIATION.sub(r"\1 ", text))


def _in_order(match: re.Match[str]) -> str:
    """Return a range with its first slice first, but "until slice 40, from 41" as it is."""
    last, first = int(match[1]), int(match[2])
    return f"in slices {first} to {last}" if first <= last else match.group()


def _unit_or_key(match: re.Match[str]) -> str:
    """Return the unit or slice keyword that is meant by a misspelt word beside a number."""
    word = match.group().casefold()
    meant = min(_UNITS_AND_KEYS, key=lambda known: OSA.distance(word, known))
    return meant if OSA.distance(word, meant) <= (1 if len(word) < 8 else 2) else match.group()


def _token(match: re.Match[str], slice_count: int | None) -> Token:
    text = match.group().casefold()
    if match["foreign"]:
        return Token("foreign", text)
    bare = match["bare"] or match["bare2"]
    if bare:
        first, last = sorted(map(int, re.findall(r"\d+", bare)))
        return Token("slices", text, slices=((first, last),))
    if match["slices"]:
        ranges = _ranges(match, slice_count)
        return Token("slices", text, slices=ranges) if ranges else Token("open slices", text, open_range=_open(match))
    if match["some_slices"]:
        return Token("open slices", text)
    if match["end_slices"]:
        is_first = match["end"].casefold() in ("first", "top", "uppermost", "highest")
        return Token("end slices", text, count=count_of(match["ends"] or "1") * (1 if is_first else -1))
    if match["slice_count"]:
        return Token("slice count", text, count=count_of(match["counted"]))
    if match["amount"]:
        return Token("amount", text)
    if match["mm"]:
        return Token("mm", text, mm=millimetres(match))
    if match["word"]:
        return Token("word", text, is_capital=match.group().isupper())
    return Token("stop" if match["stop"] else "comma", text)


def _open(match: re.Match[str]) -> OpenRange:
    """Return the range of words such as "above slice 17", with axial slices counted from the head."""
    before = (match["before"] or match["before2"] or "").casefold().strip().removesuffix(" the")
    after = (match["after"] or "").casefold()
    if re.search(r"\d\s+\d", match["list"]):
        return None, None
    number = int(re.findall(r"\d+", match["list"])[-1])
    if re.search(r"up|above|higher", after) or before == "above":
        return None, number - (before == "above")
    if re.search(r"down|below|lower", after) or before == "below":
        return number + (before == "below"), None
    if before in ("beyond", "after", "past"):
        return number + 1, None
    if before in ("before", "up to", "down to", "to", "until", "till"):
        return None, number - (before == "before")
    return (None, None) if before == "between" else (number, None)


def _ranges(match: re.Match[str], slice_count: int | None) -> Ranges:
    """Return the ranges of a list such as "12, 13 and 20-24"; none if a range is open or unclear."""
    before = (match["before"] or match["before2"] or "").casefold().split()
    parts = re.split(rf"(?:\s*({_JOIN})\s*|\s+)(?:{_SLICE}[.:#=]*\s*)?", match["list"].casefold())
    numbers, joins = [int(part) for part in parts[::2]], parts[1::2]
    if match["after"] or (before and len(numbers) == 1):
        return ()
    if match["about"] and len(numbers) == 1:
        return ((max(1, numbers[0] - ABOUT_SLICES), numbers[0] + ABOUT_SLICES),)
    if joins == ["/"] and numbers[1] == slice_count and not re.match(r"\D*s\b", match.group(), re.I):
        numbers, joins = numbers[:1], []  # "slice 35/60", the 35th of 60
    ranges: list[tuple[int, int]] = [(numbers[0], numbers[0])]
    for join, number in zip(joins, numbers[1:], strict=True):
        first, last = ranges[-1]
        if join is None and number != last + 1:
            return ()
        if join is not None and join.endswith("-") and join.startswith("+"):
            ranges[-1] = (max(1, first - number), last + number)
        # Consecutive slices of a list form a range, and so does "between slices 10 and 20".
        elif (
            (join or ",").split()[0] not in (",", "and", "&", "+", "/", ",and", ",&")
            or "between" in before
            or number == last + 1
        ):
            ranges[-1] = (min(first, number), max(last, number))
        else:
            ranges.append((number, number))
    return tuple(ranges)
