"""Checks of a request's path and query on every route, and the routes that are off unless switched on."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from urllib.parse import parse_qsl

from serving.requests.errors import RefusedError
from serving.requests.identifiers import checked_identifier

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
MAX_ADDRESS_BYTES = 16 * 1024
MAX_QUERY_FIELDS = 200
# Query fields that MONAI Label joins to paths -> their names in a sentence.
IDENTIFIERS = {"image": "image id", "id": "id", "label": "label id", "tag": "label tag", "session_id": "session id"}
# Their paths name files and resources of the archive; the endpoints check them.
_FREE_PATHS = re.compile(r"/(ohif|static|proxy)/.*", re.DOTALL)
# Also encoded twice: a name may have a percent sign, as in "50% dose".
_ENCODED_SEPARATOR = re.compile(rb"%(2f|5c|25[0-9a-f]{2}|00)", re.IGNORECASE)

OFF_BY_DEFAULT = {
    "reload": ("POST", re.compile(r"/reload/?"), "drops all work and needs no sign-in"),
    "wsi": ("POST", re.compile(r"/infer/wsi(_v2)?(/.*)?"), "is for whole-slide images"),
    "model": ("PUT DELETE", re.compile(r"/model(/.*)?"), "replaces weights"),
    "docs": ("GET HEAD", re.compile(r"/docs/?"), "loads scripts from public servers"),
    "unpack": ("PUT", re.compile(r"/session/?"), "unpacks archives"),
}
"""Name in the configuration -> methods, path, and what the route does that speaks against it."""

_NO = ("", "0", "false", "f", "no", "n", "off")


def check_address(method: str, path: str, raw_path: bytes, query: bytes, switched_on: Collection[str]) -> None:
    """Let an address pass, or refuse it.

    Args:
        method: HTTP method of the request.
        path: decoded path, as routes see it.
        raw_path: undecoded path, as sent.
        query: undecoded query, as sent.
        switched_on: keys of `OFF_BY_DEFAULT`.

    Raises:
        InputError: the address leads to another folder, or has an identifier that is none; see `checked_identifier`.
        RefusedError: the address is malformed or too long, or its route or method is off.
    """
    if method not in METHODS:
        raise RefusedError(405, f"This server takes {', '.join(METHODS)} only.")
    if len(raw_path) + len(query) > MAX_ADDRESS_BYTES:
        raise RefusedError(414, f"The address of the request is longer than {MAX_ADDRESS_BYTES} bytes.")
    _check_path(path, raw_path)
    fields = _query_fields(path, query)
    for name, (methods, pattern, reason) in OFF_BY_DEFAULT.items():
        if name in switched_on or method not in methods.split() or not pattern.fullmatch(path):
            continue
        if name != "unpack" or any(key == "uncompress" and value.lower() not in _NO for key, value in fields):
            raise RefusedError(
                403, f"This request {reason}, so it is off; the operator can switch it on with unsafe_routes {name}."
            )


def _check_path(path: str, raw_path: bytes) -> None:
    parts = path.split("/")
    if parts[0] or _ENCODED_SEPARATOR.search(raw_path) or "\\" in path or not _is_printable(path):
        raise RefusedError(400, "The path must start with '/' and have no encoded separators or control characters.")
    if "." in parts or ".." in parts:
        raise RefusedError(400, "The path must not have the parts '.' and '..'.")
    if not _FREE_PATHS.fullmatch(path):
        for part in filter(None, parts):
            checked_identifier(part, "part of the path")


def _query_fields(path: str, query: bytes) -> list[tuple[str, str]]:
    try:
        fields = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS
        )
    except UnicodeError:
        raise RefusedError(400, "The query of the address is not text in UTF-8.") from None
    except ValueError:
        raise RefusedError(400, f"The query of the address has more than {MAX_QUERY_FIELDS} fields.") from None
    of_archive = path.startswith("/proxy/")
    seen = set()
    for key, value in fields:
        if not _is_printable(key + value):
            raise RefusedError(400, "The query of the address contains control characters.")
        if of_archive:
            continue
        if key in seen:
            raise RefusedError(400, f"The query of the address has the field {key[:40]!r} twice.")
        seen.add(key)
        if value and key in IDENTIFIERS:
            checked_identifier(value, IDENTIFIERS[key])
    return fields


def _is_printable(text: str) -> bool:
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
