"""One click for a whole structure, over HTTP: followed, corrected, cancelled when the client goes away."""

from __future__ import annotations

import json
import socket
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

from causal_sam.imaging.overlap import dice

from .conftest import SLOW_SLICES
from .images import Phantom
from .server import REQUEST_SECONDS, Server

pytestmark = pytest.mark.integration


def deepgrow(label: str, foreground: list, background: list | None = None, **options) -> dict:
    """What Slicer's plug-in sends when the user has left *extent* on the volume."""
    return {"label": label, "foreground": foreground, "background": background or [], "extent": "volume", **options}


def slices(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask.any(axis=(0, 1))).tolist()


def test_one_click_gives_the_organ_in_3d(server: Server, phantom: Phantom) -> None:
    for name, (i, j, k) in phantom.centres.items():
        mask, params = server.slicer(deepgrow(name, [[i, j, k]]), client_id="volume")
        assert params["labels"][name]["updated_slices"] == [k]
        followed = params["labels"][name]["followed_slices"]
        assert followed
        assert set(slices(mask)) <= {k, *followed}
        here = slices(mask)
        told = (
            f"on all {len(here)} slices of the image: check" if len(here) == mask.shape[2] else f"on {len(here)} slices"
        )
        assert told in params["message"]
        organ = phantom.organs[name]
        assert dice(mask, organ) > dice(mask[..., k], organ[..., k]) - 0.25


def test_a_correction_keeps_what_it_cannot_reach(server: Server, phantom: Phantom) -> None:
    i, j, k = phantom.centres["liver"]
    first, _ = server.slicer(deepgrow("liver", [[i, j, k]]), client_id="reach")
    above = [s for s in slices(first) if s > k]
    below = [s for s in slices(first) if s < k]
    corner = [int(n) for n in np.argwhere(first[..., above[0]])[0]]
    second, params = server.slicer(deepgrow("liver", [[i, j, k]], [[*corner, above[0]]]), client_id="reach")
    assert params["labels"]["liver"]["updated_slices"] == [above[0]]
    np.testing.assert_array_equal(first[..., below], second[..., below])
    np.testing.assert_array_equal(first[..., k], second[..., k])
    # The very same request again changes nothing, and computes nothing.
    third, params = server.slicer(deepgrow("liver", [[i, j, k]], [[*corner, above[0]]]), client_id="reach")
    assert params["labels"]["liver"]["followed_slices"] == []
    np.testing.assert_array_equal(second, third)


def test_slicers_slice_wins_over_the_extent(server: Server, phantom: Phantom) -> None:
    i, j, k = phantom.centres["liver"]
    mask, params = server.slicer(deepgrow("liver", [[i, j, k]], slice=k), client_id="one-slice")
    assert params["labels"]["liver"]["followed_slices"] == []
    assert set(slices(mask)) <= {k}


def test_a_label_map_of_structures_that_are_followed(server: Server, phantom: Phantom) -> None:
    clicks = {name: [list(phantom.centres[name])] for name in ("liver", "spleen")}
    params = {**clicks, "right kidney": [], "background": [], "extent": "volume", "label": "liver"}
    mask, answer = server.slicer(params, model="causal_sam_multilabel", client_id="volume-map")
    for value, name in enumerate(("liver", "spleen"), start=1):
        assert len(slices(mask == value)) > 1
        assert answer["labels"][name]["followed_slices"]


def ask_and_leave(server: Server, phantom: Phantom, client_id: str, seconds: float) -> None:
    i, j, _ = phantom.centres["liver"]
    params = json.dumps(deepgrow("liver", [[int(i), int(j), SLOW_SLICES // 2]], client_id=client_id))
    body = f'--x\r\nContent-Disposition: form-data; name="params"\r\n\r\n{params}\r\n--x--\r\n'
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(
            (
                f"POST /infer/causal_sam?image=slow2&output=json HTTP/1.1\r\nHost: {address.netloc}\r\n"
                f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            ).encode()
        )
        time.sleep(seconds)


def test_work_for_a_client_that_went_away_is_given_up(server: Server, phantom: Phantom) -> None:
    """Some leave at once, some while slices are followed; a fast machine may have answered the last ones by then."""
    given_up = "answered 499 (ClientGoneError"
    before = server.log.read_text().count(given_up)
    for number in range(6):
        ask_and_leave(server, phantom, f"leaves {number}", seconds=0.02 * number)
    deadline = time.monotonic() + REQUEST_SECONDS
    while server.log.read_text().count(given_up) == before:
        assert time.monotonic() < deadline, "the work went on without its client"
        time.sleep(0.1)
    # Nothing of it is kept: the next request starts from nothing.
    mask, _ = server.slicer(deepgrow("liver", [], reset=True), image="slow2", client_id="leaves 0")
    assert not mask.any()
