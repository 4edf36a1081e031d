"""What is logged of a request: what an allow-list lets through, and nothing that a client wrote."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causal_sam.errors import InputError
from serving.private_log import install_private_log, known_method, loggable, origin

pytestmark = pytest.mark.unit

MARK = "Zweifelhofer"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(MARK),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just(MARK) | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["note", "label", "plane", "extent", "slice", "frame", "reset", "undo", "foreground", "lasso", "result_dtype", MARK]
)


@given(st.dictionaries(KEYS, JSON, max_size=6))
def test_no_word_of_a_client_is_loggable(params: dict[str, object]) -> None:
    assert MARK not in loggable(params)
    assert len(loggable(params)) < 500


def test_known_options_are_logged() -> None:
    params = {"plane": "axial", "slice": 5, "undo": True, "foreground": [[1, 2, 3]], "note": MARK, "extent": MARK}
    assert loggable({**params, "frame": "3"}) == "foreground: 1, plane=axial, slice=5, undo=True"
    assert loggable({"reset": 1, "slice": True and 10**30}) == "no options"
    assert known_method("PUT") == "PUT"
    assert MARK.upper() not in known_method(MARK.upper())


def test_an_error_is_told_by_its_class_and_place() -> None:
    def refuse() -> None:
        raise InputError(f"There is no {MARK}.")

    with pytest.raises(InputError) as refused:
        refuse()
    assert origin(refused.value).startswith("InputError in refuse, line ")
    assert origin(ValueError(MARK)) == "ValueError"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that is logged from information upwards, with the private log installed."""
    stream, before = io.StringIO(), logging.getLogRecordFactory()
    handler = logging.StreamHandler(stream)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    install_private_log()
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)
    logging.setLogRecordFactory(before)
    for name in ("monailabel", "__main__"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_monai_labels_records_of_requests_and_results_are_not_kept(log: io.StringIO) -> None:
    for name in ("monailabel.endpoints.infer", "monailabel.utils.async_tasks.task", "monailabel.new", "__main__"):
        logging.getLogger(name).info("Infer Request: %s", {"note": MARK})
        logging.getLogger(name).warning("something is wrong")
    assert MARK not in log.getvalue()
    assert log.getvalue().count("something is wrong") == 4


def test_stack_traces_have_no_messages_whoever_logs_them(log: io.StringIO) -> None:
    install_private_log()
    for name in ("uvicorn.error", "asyncio", "some.library"):
        try:
            try:
                raise KeyError(MARK)
            except KeyError as error:
                raise ValueError(f"{MARK} is wrong") from error
        except ValueError:
            logging.getLogger(name).exception("It failed")
    text = log.getvalue()
    assert MARK not in text.replace('raise ValueError(f"{MARK} is wrong")', "")
    assert text.count("ValueError\nafter:\n") == 3
    assert text.count("KeyError") >= 3
    assert "test_app_private_log.py" in text
