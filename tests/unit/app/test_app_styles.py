"""Styles of the images in use: they come later, and never in the way of a request."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.style import StyleDescription, describe
from serving.conf import AppConf
from serving.data.style_cache import StyleCache


def volume(seed: int = 0) -> Volume:
    array = np.random.default_rng(seed).normal(300, 20, (24, 24, 5)).astype(np.float32)
    return Volume(array, np.diag([-1.0, -1.0, 5.0, 1.0]), "MR")


def wait_for(book: StyleCache, image: Volume) -> dict[str, str]:
    for _ in range(200):
        if (found := book.look_up(image)) is not None:
            return found
        time.sleep(0.02)
    raise AssertionError("no style came")


def test_the_first_request_does_not_wait_and_a_later_one_has_it() -> None:
    asked, go = [], threading.Event()

    def slow(image: Volume) -> StyleDescription:
        asked.append(image.content_hash)
        go.wait(5)
        return describe(image)

    book = StyleCache(slow)
    assert book.look_up(volume()) is None
    go.set()
    assert wait_for(book, volume()) == {"sentence": describe(volume()).sentence, "source": "measured"}
    assert wait_for(book, volume(1))["source"] == "measured"
    assert len(asked) == 2  # the same image is described once


def test_a_failure_is_no_ones_problem() -> None:
    def broken(image: Volume) -> StyleDescription:
        if image.content_hash == volume().content_hash:
            raise ValueError("no")
        return describe(image)

    book = StyleCache(broken)
    assert book.look_up(volume()) is None
    wait_for(book, volume(1))
    assert book.look_up(volume()) is None


def test_a_remote_vision_model_needs_consent() -> None:
    with pytest.raises(InputError, match="--conf vlm_consent remote"):
        AppConf.from_conf({"vlm": "openai:some"}).style_describer()
    with pytest.raises(InputError, match="vlm_consent must be one of none, remote"):
        AppConf.from_conf({"vlm_consent": "yes"})
    assert AppConf.from_conf({}).style_describer() is describe
