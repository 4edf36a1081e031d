"""Notes stay out of the server's log: MONAI Label writes each request there whole, and people name people in notes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_unlogged: ContextVar[str] = ContextVar("causal_sam_unlogged", default="")


@contextmanager
def unlogged(text: object) -> Iterator[None]:
    """Keep a text of the request that is answered within the block out of the log, in the threads it starts too.

    Args:
        text: what a client sent; what is no text, or empty, is logged.
    """
    token = _unlogged.set(text if isinstance(text, str) else "")
    try:
        yield
    finally:
        _unlogged.reset(token)


class _WithoutText(logging.Filter):
    """Replaces the text, as a request that is printed shows it, by its length."""

    def filter(self, record: logging.LogRecord) -> bool:
        if text := _unlogged.get():
            record.msg = record.getMessage().replace(repr(text), f"<{len(text)} characters>")
            record.args = ()
        return True


def install_private_log() -> None:
    """Let MONAI Label log requests without what is `unlogged`."""
    logging.getLogger("monailabel.endpoints.infer").addFilter(_WithoutText())
