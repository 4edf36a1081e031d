"""The standing rules of a site: `protocol.md` beside the studies, each list item of which is a rule.

Headings, paragraphs, tables, comments and code blocks of the file are explanations for people.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from causal_sam.atomic import atomic_write
from causal_sam.errors import InputError, NotFoundError
from causal_sam.notes.schema import PLAN_VERSION

PROTOCOL_FILE = "protocol.md"
MAX_BYTES = 256 * 2**10
MAX_RULES = 200
IDENTITY_DIGITS = 12

_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+(?:\[[ xX]\]\s+)?(\S.*)")
_FENCE = re.compile(r"\s*(?:```|~~~)")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_MARKUP = re.compile(r"[*`]|(?<!\w)_|_(?!\w)")


@dataclass(frozen=True)
class Rule:
    """A standing rule.

    Attributes:
        text: the rule as people wrote it, without markup, on one line.
        line: number of its first line in the file, from 1.
    """

    text: str
    line: int

    @property
    def identity(self) -> str:
        """Version of the rule: hexadecimal digits that depend on its words and on the schema of plans alone.

        Letter case, spaces and the full stop at the end do not count.
        """
        words = " ".join(self.text.casefold().split()).rstrip(" .;")
        return _digest(f"{PLAN_VERSION}\n{words}")


@dataclass(frozen=True)
class Protocol:
    """The rules of a site, in the order of the file.

    Attributes:
        rules: the rules, each once.
    """

    rules: tuple[Rule, ...] = ()

    @property
    def version(self) -> str:
        """Version of all rules together, in hexadecimal digits."""
        return _digest("\n".join(rule.identity for rule in self.rules))

    def rule(self, identity: str) -> Rule:
        """Return the rule with an identity.

        Raises:
            NotFoundError: there is none, or it has been changed since.
        """
        for rule in self.rules:
            if rule.identity == identity:
                return rule
        raise NotFoundError("The protocol has no such rule any more: it was changed. Check it again.")


def parse_protocol(text: str) -> Protocol:
    """Find the rules in the text of a protocol.

    A rule is an item of a list, with all lines of that item. A rule that is there twice counts once.

    Raises:
        InputError: there are more than `MAX_RULES`.

    >>> parse_protocol("For volumetry:").rules + parse_protocol("* Smooth the **liver**.").rules
    (Rule(text='Smooth the liver.', line=1),)
    """
    # A comment leaves its line breaks, so that lines keep their numbers.
    lines = _COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), text).splitlines()
    found: list[tuple[int, list[str]]] = []
    is_open = is_code = False
    for number, line in enumerate(lines, start=1):
        if _FENCE.match(line):
            is_code, is_open = not is_code, False
        elif is_code:
            continue
        elif item := _ITEM.fullmatch(line):
            found.append((number, [item[1]]))
            is_open = True
        elif is_open and line[:1].isspace() and line.strip():
            found[-1][1].append(line)
        else:
            is_open = False
    rules: dict[str, Rule] = {}
    for number, parts in found:
        rule = Rule(" ".join(_MARKUP.sub("", " ".join(parts)).split()), number)
        if rule.text:
            rules.setdefault(rule.identity, rule)
    if len(rules) > MAX_RULES:
        raise InputError(f"The protocol has {len(rules)} rules, and {MAX_RULES} is the most.")
    return Protocol(tuple(rules.values()))


def read_protocol(path: Path) -> Protocol:
    """Read the protocol of a site; it has no rules if there is no file.

    Args:
        path: `protocol.md`.

    Raises:
        InputError: the file cannot be read, is too large, is not UTF-8, or has too many rules.
    """
    return parse_protocol(_text_of(path))


def append_rules(path: Path, texts: Sequence[str]) -> None:
    """Add rules at the end of a protocol, which replaces the file as a whole; what people wrote stays as it is.

    Args:
        path: `protocol.md`, made if there is none.
        texts: new rules, each on one line.

    Raises:
        InputError: the file cannot be read or written.
    """
    before = _text_of(path)
    if before and not before.endswith("\n"):
        before += "\n"
    ends_in_list = before.rstrip("\n").rpartition("\n")[2].lstrip().startswith(("- ", "* ", "+ "))
    head = before or "# Protocol\n"
    gap = "" if ends_in_list and before.endswith("\n") and not before.endswith("\n\n") else "\n"
    try:
        with atomic_write(path) as part:
            part.write_text(head + gap + "".join(f"- {text}\n" for text in texts), encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"The protocol {path} cannot be written: {error.strerror or error}.") from error


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"The protocol {path} is larger than {MAX_BYTES // 2**10} KiB: shorten it.")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise InputError(f"The protocol {path} is not text in UTF-8: save it as UTF-8.") from error
    except OSError as error:
        raise InputError(f"The protocol {path} cannot be read: {error.strerror or error}.") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:IDENTITY_DIGITS]
