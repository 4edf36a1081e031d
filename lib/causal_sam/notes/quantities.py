"""Numbers, lengths and other amounts in the text of a note: "twenty-five mm", "one and a half cm", "5 voxels"."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A number begins with its decimal point only at the beginning of a word: "by .5 cm".
NUMBER = r"(?:\d+(?:[.,]\d+)?|(?<!\w)\.\d+)"
_ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS = [
    "ten",
    "eleven",
    "twelve",
    *(f"{word}teen" for word in ("thir", "four", "fif", "six", "seven", "eigh", "nine")),
]
_TENS = [f"{word}ty" for word in ("twen", "thir", "for", "fif", "six", "seven", "eigh", "nine")]
_VALUES = {word: float(number) for number, word in enumerate([*_ONES, *_TEENS], 1)}
_VALUES |= {word: 10.0 * number for number, word in enumerate(_TENS, 2)}
_VALUES |= {"a": 1.0, "an": 1.0, "zero": 0.0, "oh": 0.0}
_SHARES = {"half": 0.5, "quarter": 0.25}
# More slices than any image has.
_MAX_COUNT = 10_000


def _any(words: Iterable[str]) -> str:
    """Return a pattern of any of these words, the longest first: "sixteen" before "six"."""
    return f"(?:{'|'.join(sorted(words, key=len, reverse=True))})"


_WHOLE = rf"(?:{_any(_TENS)}[\s-]+{_any(_ONES)}|{_any([*_ONES, *_TEENS, *_TENS])})"
_DECIMAL = rf"(?:(?:{_WHOLE}|zero|\d+)\s+)?point(?:\s+(?:{_any(['zero', 'oh', *_ONES])}|\d))+"
_SHARE = rf"(?:(?:an?|one)\s+)?{_any(_SHARES)}"
_SPELT = (
    rf"\b(?:{_DECIMAL}|{_SHARE}(?:\s+of)?(?:\s+an?)?|a\s+(?:good|full)|(?:{_WHOLE}|\d+|an?)(?:\s+and\s+{_SHARE})?)\b"
)
_VALUE = rf"(?:{_SPELT}|{NUMBER})"
UNIT = r"(?:mms?|cms?|millimet(?:er|re)s?|centimet(?:er|re)s?)\b"
MM = rf"(?P<low>{_VALUE})(?:\s*\+/-\s*{_VALUE}|\s*(?:-|to)\s*(?P<high>{_VALUE}))?[\s-]*{UNIT}"
COUNT = rf"(?:\d+|{_any([*_ONES, 'ten'])})"
_WORD = rf"(?:{_any([*_VALUES, *_SHARES])}|\d+)\b"
# Lengths in other numbers, such as "a third of a centimetre" and "2/3 cm", which may be two thirds or two to three.
_UNREAD = (
    rf"(?:\b(?:hundred|dozen|thirds?|quarters|fifths?|eighths?|tenths?)(?:[\s-]+(?:of|and|{_WORD})){{0,4}}"
    rf"|\d+\s*/\s*\d+)[\s-]*{UNIT}"
)
_ENDS_AMOUNT = (
    r"(?=\s*(?:$|[.,](?!\d)|[;:!?)\n]"
    rf"|(?:and(?!\s+{_SHARE})|but|at|in|on|along|around|everywhere|all|to(?!\s*{_VALUE})|towards?|here|there|too|\w+ly)\b))"
)
_VOLUME = r"\s*-?\s*(?:%|(?:percent|per\s+cent|ml|cc|millilit(?:er|re)s?)(?!\w))"
# Amounts that are no lengths; "one voxel" means "slightly", and "20 ml" is mostly the size of something.
AMOUNT = (
    rf"{_UNREAD}|(?<!the )(?!\b(?:an?|one|1)[\s-]*[vp]){_VALUE}(?:\s*(?:-|to)\s*{_VALUE})?"
    r"[\s-]*(?:voxels?|vox|pixels?|px)\b"
    rf"|\bby\s+(?:(?:about|around|roughly|approx\w*|ca|some)\s+)?(?:{_VALUE}(?:\s*(?:-|to)\s*{_VALUE})?|a\s+third)"
    rf"(?:{_VOLUME}|{_ENDS_AMOUNT})|{_VALUE}{_VOLUME}(?=\s+(?:too|short|more|less)\b)"
)
# "2½ cm", "1 1/2 cm"
_UNICODE_FRACTION = re.compile(r"(?:(\d{1,4})\s*)?([½¼¾])")
_FRACTION = re.compile(
    rf"(?<![\d./])(?:(\d{{1,4}})[\s-]+)?(1/2|1/4|3/4)(?=[\s-]*(?:{UNIT}|(?:-|to)\s*{NUMBER}[\s-]*{UNIT}))",
    re.IGNORECASE,
)
_FRACTIONS = {"½": 0.5, "¼": 0.25, "¾": 0.75, "1/2": 0.5, "1/4": 0.25, "3/4": 0.75}


def with_decimals(text: str) -> str:
    """Return a text with halves and quarters as decimal fractions.

    >>> with_decimals("2½ cm, 1 1/2 cm")
    '2.5 cm, 1.5 cm'
    """
    for pattern in (_UNICODE_FRACTION, _FRACTION):
        text = pattern.sub(lambda match: f"{int(match[1] or 0) + _FRACTIONS[match[2]]:g}", text)
    return text


def value_of(number: str) -> float:
    """Return the value of a number in digits or words.

    >>> [value_of(text) for text in (".5", "1,5", "twenty-five", "two point five", "one and a half", "half a")]
    [0.5, 1.5, 25.0, 2.5, 1.5, 0.5]
    """
    if not re.search("[a-z]", number.casefold()):
        return float(number.replace(",", "."))
    words = re.split(r"[\s-]+", number.casefold())
    if "point" in words:
        at = words.index("point")
        return float(f"{_sum(words[:at]):g}.{''.join(f'{_sum([word]):g}' for word in words[at + 1 :])}")
    share = next((_SHARES[word] for word in words if word in _SHARES), None)
    if share is None:
        return _sum(words)
    return share + (_sum(words[: words.index("and")]) if "and" in words else 0.0)


def _sum(words: Iterable[str]) -> float:
    return sum(float(word) if word.isdigit() else _VALUES.get(word, 0.0) for word in words)


def millimetres(match: re.Match[str]) -> float:
    """Return the length of a match of `MM` in mm; the mean of a range such as "2-3 mm"."""
    numbers = [value_of(number) for number in (match["low"], match["high"]) if number]
    is_cm = re.search(r"c(?:ms?|enti\w+)$", match.group().casefold()) is not None
    return round(sum(numbers) / len(numbers) * (10.0 if is_cm else 1.0), 3)


def count_of(text: str) -> int:
    """Return a number of slices in digits or words."""
    return min(int(text), _MAX_COUNT) if text.isdigit() else round(_VALUES[text.casefold()])
