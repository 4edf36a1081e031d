"""Options of tasks that run apart from a request: an allow-list, made from what the task itself offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from causal_sam.errors import InputError
from serving.requests.identifiers import checked_label_name
from serving.requests.numbers import MAX_NUMBER, shown

MAX_TEXT = 1000
MAX_ITEMS = 1000

OptionValues = str | bool | int | float | list[Any] | range


def _not(kind: type) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, kind):
            raise ValueError
        return value

    return BeforeValidator(check)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError
    return text


_RANGE = Field(gt=-MAX_NUMBER, lt=MAX_NUMBER, allow_inf_nan=False)
_Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_printable)]
# Type of an option's default -> what the option must be, and the type that checks it.
_KINDS: dict[type, tuple[str, TypeAdapter]] = {
    bool: ("true or false", TypeAdapter(bool)),
    int: ("a whole number", TypeAdapter(Annotated[int, _not(bool), _RANGE])),
    float: ("a number", TypeAdapter(Annotated[float, _not(bool), _RANGE])),
    str: (
        f"text of at most {MAX_TEXT} printable characters",
        TypeAdapter(_Text | Annotated[list[_Text], Field(max_length=MAX_ITEMS)]),
    ),
}


def chosen_options(params: Mapping[str, Any] | None, offered: Mapping[str, OptionValues]) -> dict[str, Any]:
    """Return the options that a client chose; what the task does not offer is left out.

    MONAI Label makes environment variables, module paths and command lines of what it is handed, and clients send what
    other tasks, or other servers, have offered them.

    Args:
        params: parameters from the client. None and empty texts mean the task's own value.
        offered: option -> its default, which says its kind: true or false, a number, text or a list of texts; a list
            or a range has the values that there are.

    Raises:
        InputError: a value is not of the option's kind.
    """
    chosen = {}
    for key, default in offered.items():
        value = None if params is None else params.get(key)
        if value is None or value == "":
            continue
        if isinstance(default, range):
            kind = f"a whole number from {default[0]} to {default[-1]}"
            adapter = TypeAdapter(Annotated[int, _not(bool), Field(ge=default[0], le=default[-1])])
        elif isinstance(default, list):
            kind, adapter = f"one of {', '.join(map(str, default))}", TypeAdapter(Literal[tuple(default)])
        else:
            kind, adapter = _KINDS[type(default)]
        try:
            chosen[key] = adapter.validate_python(value)
        except ValidationError:
            raise InputError(f"{key} must be {kind}, not {shown(value)}.") from None
    return chosen


def checked_client_id(params: Mapping[str, Any] | None) -> str | None:
    """Return what a client calls itself, or None.

    Raises:
        InputError: it is no name.
    """
    client_id = (params or {}).get("client_id")
    return None if client_id is None or client_id == "" else checked_label_name(client_id, "client_id")
