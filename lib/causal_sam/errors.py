"""Errors for users: each message is a sentence that states the problem and its solution."""

from collections.abc import Sequence

MAX_LISTED = 5  # items of a list in a message


def join_limited(items: Sequence[object], max_items: int = MAX_LISTED) -> str:
    """Join items for a message, up to a maximum number.

    >>> join_limited(["a", "b"]), join_limited([1, 2, 3, 4], max_items=2)
    ('a, b', '1, 2 and 2 more')
    """
    more = f" and {len(items) - max_items} more" if len(items) > max_items else ""
    return ", ".join(map(str, items[:max_items])) + more


class CausalSamError(Exception):
    """Base class of all errors that Causal-SAM raises deliberately."""


class InputError(CausalSamError, ValueError):
    """The caller's input is invalid; a server answers with `status` instead of 500."""

    status = 422


class NotFoundError(InputError):
    """The caller named an image, label or file that does not exist."""

    status = 404


class CheckpointError(CausalSamError, RuntimeError):
    """Model weights are missing, damaged, or belong to another model."""
