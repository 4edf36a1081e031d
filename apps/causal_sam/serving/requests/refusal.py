"""The error of a request that does not pass the border."""

from __future__ import annotations

from causal_sam.errors import InputError


class RefusedError(InputError):
    """A request is refused before an endpoint sees it.

    Args:
        status: HTTP status.
        sentence: says what is wrong and what would be right.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
