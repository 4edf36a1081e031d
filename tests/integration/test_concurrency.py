"""One client's slow inference does not make the others wait."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from .conftest import SLOW_SLICES
from .server import Server

pytestmark = pytest.mark.integration

QUICK = {"label": "liver", "foreground": [[30, 40, 5]], "background": []}


def test_slow_inferences_overlap_and_the_server_answers_meanwhile(server: Server) -> None:
    every_slice = [5, 90, 5, 75, 0, SLOW_SLICES - 1]
    server.post(QUICK)  # its slice is encoded now, so that nothing but waiting could make it slow
    with ThreadPoolExecutor(3) as pool:
        slow: list[Future] = [
            pool.submit(server.post, {"label": "liver", "roi": every_slice}, image=image)
            for image in ("slow1", "slow2")
        ]
        answered_meanwhile = 0
        while not any(request.done() for request in slow):
            assert server.info()["name"] == "Causal-SAM"
            assert server.post(QUICK).status_code == 200
            answered_meanwhile += not any(request.done() for request in slow)
        # Encoding all slices of a volume takes many times as long as what was asked meanwhile.
        assert answered_meanwhile >= 2
        answers = [request.result() for request in slow]
    for answer in answers:
        assert answer.status_code == 200
        assert answer.json()["labels"]["liver"]["updated_slices"] == list(range(SLOW_SLICES))


def test_requests_for_one_working_mask_are_answered_one_after_the_other(server: Server) -> None:
    requests = [{**QUICK, "foreground": [[30, 40, k]], "client_id": "crowd"} for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(server.post, requests))
    assert [response.status_code for response in responses] == [200] * 8
    updated = [response.json()["labels"]["liver"]["updated_slices"] for response in responses]
    assert updated == [[k] for k in range(8)]
    # None of them was lost to another that began at the same time.
    again = server.post({**QUICK, "foreground": [[30, 40, k] for k in range(8)], "client_id": "crowd"}).json()
    assert again["labels"]["liver"]["updated_slices"] == []


def test_one_impatient_client_does_not_keep_the_others_out(server: Server) -> None:
    every_slice = [5, 90, 5, 75, 0, SLOW_SLICES - 1]
    impatient = {"label": "spleen", "roi": every_slice, "client_id": "impatient"}
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(server.post, impatient, image="slow1") for _ in range(40)]
        other = server.post({**QUICK, "client_id": "other"})
        answers = [request.result() for request in asked]
    assert other.status_code == 200
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) <= 40 - 16
    for answer in refused:
        assert answer.status_code == 429
        assert "wait for their answers" in answer.json()["detail"]
