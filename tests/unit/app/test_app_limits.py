"""How many requests one client may have at a time."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from serving.requests.inference import ClientLimit, TooManyRequestsError


def test_a_client_is_refused_until_one_of_its_requests_is_answered() -> None:
    limit = ClientLimit()
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(limit.admit("a", 2))
        second.enter_context(limit.admit("a", 2))
        with pytest.raises(TooManyRequestsError, match="2 of your requests") as refusal, limit.admit("a", 2):
            pass
        assert refusal.value.status == 429
        with limit.admit("b", 2):  # nobody else is
            pass
        with pytest.raises(ZeroDivisionError), second:
            raise ZeroDivisionError  # a request that fails is answered too
        with limit.admit("a", 2):
            pass
    for _ in range(5):
        with limit.admit("a", 1):
            pass
