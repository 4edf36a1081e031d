"""What clients get for each kind of error, from a real web application with the app's handlers."""

from __future__ import annotations

import logging

import pytest
import requests
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException

from causal_sam.errors import CheckpointError, InputError, NotFoundError
from serving.requests.errors import explain_failed_start, install_error_handlers
from serving.requests.inference import checked_params

ERRORS = {
    "input": (InputError("The click is outside."), 422, "The click is outside."),
    "missing": (NotFoundError("There is no image."), 404, "There is no image."),
    "checkpoint": (CheckpointError("The weights are damaged."), 500, "The weights are damaged."),
    "monailabel-input": (
        MONAILabelException(MONAILabelError.INVALID_INPUT, "No such strategy"),
        400,
        "No such strategy.",
    ),
    "monailabel-image": (ImageNotFoundException("Image x not found"), 404, "Image x not found."),
    "archive": (
        requests.ConnectionError("refused"),
        502,
        "The server that holds the images cannot be reached, or broke off its answer; try again later.",
    ),
    "slow-archive": (
        requests.ReadTimeout("10 s"),
        504,
        "The server that holds the images does not answer in time; try again later.",
    ),
    "monailabel-own": (MONAILabelException(MONAILabelError.SERVER_ERROR, "It broke"), 500, "It broke."),
}


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()

    @app.get("/raise/{name}")
    def fail(name: str) -> None:
        raise ERRORS[name][0] if name in ERRORS else RuntimeError("secret of the server")

    # As when MONAI Label's app is made: the web application has answered already.
    started = TestClient(app, raise_server_exceptions=False)
    started.get("/docs")
    install_error_handlers(app)
    return started


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_has_its_status_and_its_sentence(client: TestClient, name: str) -> None:
    _, status, sentence = ERRORS[name]
    response = client.get(f"/raise/{name}")
    assert (response.status_code, response.json()) == (status, {"detail": sentence})


def test_an_unexpected_error_tells_nothing_but_its_kind(client: TestClient) -> None:
    response = client.get("/raise/something")
    assert response.status_code == 500
    assert "RuntimeError" in response.json()["detail"]
    assert "secret" not in response.text
    assert "Traceback" not in response.text


def test_a_refusal_is_logged_once_without_a_stack_trace(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        client.get("/raise/input")
    records = [record for record in caplog.records if "answered 422 (InputError in " in record.getMessage()]
    assert len(records) == 1
    assert records[0].exc_info is None
    assert "click" not in caplog.text


def test_a_failed_start_is_a_sentence_in_the_web_servers_log(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("uvicorn.error")
    before = list(logger.filters)
    try:
        explain_failed_start(InputError("plane must be another."))
        with caplog.at_level(logging.INFO, logger="uvicorn.error"):
            logger.error("Traceback (most recent call last):\n  ...\nInputError: plane must be another.")
            logger.info("Something else")
    finally:
        logger.filters[:] = before
    assert [record.getMessage() for record in caplog.records] == ["plane must be another.", "Something else"]


def test_params_are_an_object_and_do_not_name_the_image() -> None:
    assert checked_params("") == {}
    assert checked_params('{"image": "/etc/passwd", "model": "x", "session": {}, "label": "liver"}') == {
        "label": "liver"
    }
    for text in ("[1]", "7", "null", "{"):
        with pytest.raises(InputError, match="params"):
            checked_params(text)
