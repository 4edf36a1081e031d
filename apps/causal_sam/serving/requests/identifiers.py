"""Identifiers that clients send: ids of images and sessions, label tags, file names, names of labels.

MONAI Label joins most of them to paths, so one rule decides which are allowed, for every route.
"""

from __future__ import annotations

import re
import unicodedata

from monailabel.interfaces.datastore import DefaultLabelTag

from causal_sam.errors import InputError
from serving.requests.numbers import shown

MAX_LENGTH = 200
"""Longest identifier in bytes of UTF-8: with a suffix it still fits a file name of 255 bytes."""

# Control, format (invisible, right-to-left overrides), surrogate, private, unassigned; line and paragraph separators.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Persian and Indic words are spelt with these two.
_JOINERS = str.maketrans("", "", "\u200c\u200d")
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?|[a-z]:.*", re.I | re.S)
# A program that decodes such a name once more gets another name.
_ENCODED = re.compile(r"%[0-9a-f]{2}", re.I)


def checked_identifier(value: object, what: str) -> str:
    """Return an identifier that is safe as one component of a path, unchanged.

    Args:
        value: value from a client.
        what: noun for the sentence: "image id", "label tag", "session id", "file name".

    Raises:
        InputError: it is no string, empty, longer than `MAX_LENGTH` bytes, or has control or invisible characters,
            path separators, "..", a leading or trailing dot, blanks at its ends, is percent-encoded, or names
            a device of Windows.
    """
    name = checked_label_name(value, what)
    if any(unicodedata.category(character) in _UNPRINTABLE for character in name):
        problem = "contains invisible characters"
    elif "/" in name or "\\" in name:
        problem = "contains a path separator"
    elif ".." in name or name.startswith(".") or name.endswith("."):
        problem = "starts or ends with a dot or contains '..'"
    elif _ENCODED.search(name):
        problem = "is percent-encoded"
    elif _DEVICE.fullmatch(name):
        problem = "is the name of a device or a drive"
    else:
        return name
    raise InputError(f"The {what} {shown(name)} {problem}; give a plain name without '/', '\\' and '..'.")


def checked_result_tag(value: object) -> str:
    """Return the tag under which the result of a task may be saved.

    Args:
        value: value from a client; None or empty for the default.

    Raises:
        InputError: it is no identifier, or "final", which says that a person accepted the label: a task must neither
            replace such labels nor be trained on its own results.
    """
    tag = checked_identifier(DefaultLabelTag.ORIGINAL.value if value in (None, "") else value, "label tag")
    if tag.casefold() == DefaultLabelTag.FINAL:
        raise InputError("The label tag 'final' is for labels that a person accepted; save results as 'original'.")
    return tag


def checked_label_name(value: object, what: str = "label name") -> str:
    """Return the name of a structure, unchanged; it may contain what a path may not ("left/right ventricle").

    Args:
        value: value from a client.
        what: noun for the sentence.

    Raises:
        InputError: it is no string, empty, longer than `MAX_LENGTH` bytes, has blanks at its ends, or control,
            invisible or undefined characters.
    """
    if not isinstance(value, str):
        raise InputError(f"The {what} is no string; give a name as text.")
    if not value.strip():
        raise InputError(f"The {what} is empty; give a name of 1 to {MAX_LENGTH} characters.")
    if len(value.encode(errors="surrogatepass")) > MAX_LENGTH:
        raise InputError(f"The {what} {shown(value)} is too long; give at most {MAX_LENGTH} bytes of UTF-8.")
    if any(unicodedata.category(character) in _UNPRINTABLE for character in value.translate(_JOINERS)):
        raise InputError(f"The {what} {shown(value)} contains control or invisible characters; leave them out.")
    if value != value.strip():
        raise InputError(f"The {what} {shown(value)} starts or ends with a blank; leave it out.")
    return value
