"""Options of tasks that run apart from a request: an allow-list, made from what the task itself offers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from causal_sam.errors import InputError
from serving.requests.clicks import flag
from serving.requests.identifiers import checked_label_name
from serving.requests.numbers import MAX_NUMBER, shown

MAX_TEXT = 1000
MAX_ITEMS = 1000

OptionValues = str | bool | int | float | list[Any]


def chosen_options(params: Mapping[str, Any] | None, offered: Mapping[str, OptionValues]) -> dict[str, Any]:
    """Return the options that a client chose; what the task does not offer is left out.

    MONAI Label makes environment variables, module paths and command lines of what it is handed, and clients send what
    other tasks, or other servers, have offered them.

    Args:
        params: as the client sent them. None and empty texts mean the task's own value.
        offered: option -> its default, which says its kind; a list has the values that there are.

    Raises:
        InputError: a value is not of the option's kind.
    """
    return {
        key: _checked(params, key, offered[key])
        for key in offered
        if params and params.get(key) is not None and params[key] != ""
    }


def _checked(params: Mapping[str, Any], key: str, default: OptionValues) -> OptionValues:
    value = params[key]
    if isinstance(default, bool):
        return flag(params, key)
    if isinstance(default, list):
        if value not in default:
            raise InputError(f"{key} must be one of {', '.join(map(str, default))}, not {shown(value)}.")
        return value
    if isinstance(default, str):
        return [_text(item, key) for item in value[:MAX_ITEMS]] if isinstance(value, list) else _text(value, key)
    return _number(value, key, is_whole=isinstance(default, int))


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise InputError(f"{key} must be text of at most {MAX_TEXT} printable characters, not {shown(value)}.")
    return value


def _number(value: Any, key: str, *, is_whole: bool) -> int | float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) < MAX_NUMBER or (is_whole and number != int(number)):
        raise InputError(f"{key} must be a {'whole ' if is_whole else ''}number, not {shown(value)}.")
    return int(number) if is_whole else number


def checked_client_id(params: Mapping[str, Any] | None) -> str | None:
    """What a client calls itself, or None.

    Raises:
        InputError: it is no name.
    """
    client_id = (params or {}).get("client_id")
    return None if client_id is None or client_id == "" else checked_label_name(client_id, "client_id")
