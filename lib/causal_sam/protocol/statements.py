"""Statements of how masks are to be, as orders in the language of notes.

A note says what is wrong with one mask, a rule how all masks are to be, and the same words can mean the opposite: "the
liver includes the caudate lobe" is a complaint as a note and a demand as a rule. So demands are turned into orders
here, and only orders are given to an interpreter of notes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from causal_sam.notes.schema import MAX_EXTENT_MM

EXAMPLES = (
    'Write it as in "liver without gallbladder", "no holes in the liver", "fill vessels of the liver up to 3 mm", "the '
    'spleen is one piece", "remove stray parts of the kidneys" or "smooth the liver".'
)

_LABEL, _NEAR = r"(?P<label>.+?)", r"(?P<near>.+?)"
_MUST = r"(?:must|should|shall|may|is to|are to)"
_HAS_NO = rf"(?:without|has no|have no|{_MUST} have no)"
_HOLES = r"(?:any )?(?:holes?|gaps?)"
_CHANNELS = r"(?:the |all )?(?:small )?(?:holes?|gaps?|(?:blood )?vessels?)"
_PARTS = r"(?:any )?(?:stray parts?|stray voxels?|islands?|loose parts?|specks?)"
_ONE = r"(?:one|a single) (?:connected )?(?:piece|part|component)"
_BE_NOT = rf"(?:is|are|{_MUST}) (?:not|never)(?: be)?"
_INCLUDE_NOT = rf"(?:(?:{_MUST}|does|do) (?:not|never) (?:include|contain|cover)|never (?:includes?|contains?|covers?))"
# Demand -> order. The first one that fits counts.
_DEMANDS = tuple(
    (re.compile(pattern, re.IGNORECASE), order)
    for pattern, order in (
        (rf"(?:fill|include) {_CHANNELS}(?: (?:of|in|inside) {_LABEL})?", "fill the holes of {label}"),
        (rf"no {_HOLES} in {_LABEL}", "fill the holes of {label}"),
        (rf"{_LABEL} {_HAS_NO} {_HOLES}", "fill the holes of {label}"),
        (rf"no {_PARTS} (?:of|in|beside) {_LABEL}", "remove the stray part of {label}"),
        (rf"{_LABEL} {_HAS_NO} {_PARTS}", "remove the stray part of {label}"),
        (rf"{_LABEL}(?::| is| are| {_MUST} be) (?:only )?{_ONE}(?: each)?", "keep only the largest part of {label}"),
        (rf"(?:only )?{_ONE} (?:of|for|per) {_LABEL}", "keep only the largest part of {label}"),
        (rf"exclude {_NEAR} from {_LABEL}", "exclude {near} from {label}"),
        (rf"{_LABEL} (?:without|excludes?|excluding|{_INCLUDE_NOT}) {_NEAR}", "exclude {near} from {label}"),
        (rf"{_NEAR} {_BE_NOT} (?:a )?(?:part of|in|included in) {_LABEL}", "exclude {near} from {label}"),
        (rf"{_NEAR} (?:does|do) not belong to {_LABEL}", "exclude {near} from {label}"),
        (rf"no {_NEAR} in {_LABEL}", "exclude {near} from {label}"),
    )
)
_ORDER = re.compile(r"(?:[^:]{1,100}: )?(?:fill|smooth|remove|delete|discard|drop|keep|exclude|take)\b", re.IGNORECASE)
_SIZE = re.compile(
    r"\s*\(?(?:\b(?:under|below|up to|at most|(?:smaller|narrower|thinner|less) than)|<|≤)\s*"
    r"(?P<number>\d+(?:[.,]\d+)?)\s*(?P<unit>mm|cm)\b(?: wide| in diameter)?\)?",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"\d\s*(?:mm|cm|ml|cc|mm3|%|voxels?|pixels?|slices?)", re.IGNORECASE)
_LIST = re.compile(r",? and |, ?", re.IGNORECASE)


class Order(NamedTuple):
    """An order in the language of notes.

    Attributes:
        text: what an interpreter of notes reads.
        max_gap_mm: width in mm up to which holes, channels and notches are to be filled; None for closed holes of any
            size.
    """

    text: str
    max_gap_mm: float | None = None


def as_orders(statement: str) -> list[Order]:
    """Turn a statement of how masks are to be into orders; none if it is neither an order nor a known demand.

    Args:
        statement: one clause of a rule.

    >>> [order.text for order in as_orders("Liver without gallbladder and vena cava")]
    ['exclude gallbladder from Liver', 'exclude vena cava from Liver']
    >>> as_orders("fill vessels of the liver under 3 mm")
    [Order(text='fill the holes of the liver', max_gap_mm=3.0)]
    >>> as_orders("the liver includes the caudate lobe")
    []
    """
    size = _SIZE.search(statement)
    text = statement if size is None else statement[: size.start()] + statement[size.end() :]
    fitting = ((pattern.fullmatch(text.strip()), order) for pattern, order in _DEMANDS)
    demand, order = next(((match, order) for match, order in fitting if match), (None, ""))
    if demand is None:
        is_order = _ORDER.match(text) and size is None and not _AMOUNT.search(text)
        return [Order(text)] if is_order else []
    is_fill = order.startswith("fill")
    if _AMOUNT.search(text) or (size is not None and not is_fill):
        return []
    found = demand.groupdict()
    if is_fill and found["label"] is None:  # the label is that of the clause before
        order = "fill the holes"
    gap = (
        None if size is None else float(size["number"].replace(",", ".")) * (10 if size["unit"].lower() == "cm" else 1)
    )
    if gap is not None and not 0 < gap <= MAX_EXTENT_MM:
        return []
    nears = _LIST.split(found["near"]) if "near" in found else [""]
    return [Order(order.format(label=found["label"], near=near), gap) for near in nears]
