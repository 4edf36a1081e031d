"""Starting trainings, batches and scorings, which MONAI Label runs in processes of their own; choosing the next study.

The arguments of such a process are built here from the task's options. MONAI Label itself hands over all that a client
sends: ``bundle_path`` becomes its module path, ``gpus`` its environment, and the whole its command line.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Request
from monailabel.config import settings
from monailabel.endpoints.activelearning import sample
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import background_tasks

from causal_sam.errors import InputError, NotFoundError
from serving.requests.identifiers import checked_identifier, checked_result_tag
from serving.requests.options import OptionValues, checked_client_id, chosen_options
from serving.requests.sign_in import Admin, Annotator, Reader

TRAIN, BATCH, SCORE = "train", "batch_infer", "scoring"
_NAMES = {TRAIN: "training", BATCH: "batch", SCORE: "scoring"}
# Images of one batch; 0 for all.
MAX_BATCH = 1_000_000
# Devices and workers are for the operator to choose, though clients send what MONAI Label shows them.
BATCH_OPTIONS: dict[str, OptionValues] = {
    "logging": ["DEBUG", "INFO", "WARNING", "ERROR"],
    "label_tag": "",
    "max_batch_size": range(MAX_BATCH + 1),
}
# Limit of a list of images: the process gets the list on its command line, whose length is limited.
MAX_REQUEST_BYTES = 100_000
# Finished tasks that clients can still ask for.
MAX_HISTORY = 100

_starting = threading.Lock()
_in_requests: Counter[str] = Counter()


class BusyError(InputError):
    """The server already has its maximum number of running and waiting tasks."""

    status = 429


def train(user: Admin, params: dict[str, Any] | None = None, run_sync: bool = False) -> Any:
    """Start all trainers; options may be given for each by its name, or for all.

    Raises:
        InputError: an option cannot be used.
        BusyError: too many trainings run or wait.
    """
    own = {name: params.get(name) for name in app_instance()._trainers} if params else {}
    if any(not isinstance(each, dict | None) for each in own.values()):
        raise InputError("The options of a trainer must be a JSON object.")
    requests = [_train_request(name, {**(own.get(name) or {}), **(params or {})}) for name in app_instance()._trainers]
    return {each["model"]: {"result": _start(TRAIN, each, run_sync, True), "detail": None} for each in requests}


def train_model(
    model: str, user: Admin, params: dict[str, Any] | None = None, run_sync: bool = False, enqueue: bool = False
) -> Any:
    """Start a trainer.

    Raises:
        NotFoundError: there is no such trainer.
        InputError: an option cannot be used.
        BusyError: too many trainings run or wait, or one does and this one is not to be enqueued.
    """
    _check_known("trainer", model, app_instance()._trainers)
    return _start(TRAIN, _train_request(model, params), run_sync, enqueue)


def infer_batch(
    model: str,
    user: Admin,
    images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
    params: dict[str, Any] | None = None,
    run_sync: bool = False,
) -> Any:
    """Run a task on many images: all, the labelled or unlabelled ones, or those of a list in ``params``.

    Raises:
        NotFoundError: there is no such task.
        InputError: the task needs a person for each image, or an option cannot be used.
        BusyError: another batch runs.
    """
    tasks = app_instance()._infers
    _check_known("model", model, tasks)
    if not getattr(tasks[model], "runs_in_batches", False):
        able = ", ".join(name for name, task in tasks.items() if getattr(task, "runs_in_batches", False))
        raise InputError(f"{model} needs a person for each image, so it does not run in batches; {able} does.")
    request = {"model": model, "images": _images(images, params)}
    request |= chosen_options(params, {**BATCH_OPTIONS, **tasks[model].config()})
    if "label_tag" in request:
        checked_result_tag(request["label_tag"])
    return _start(BATCH, request, run_sync, enqueue=False)


def score(user: Annotator, params: dict[str, Any] | None = None, run_sync: bool = False) -> Any:
    """Run all scoring methods.

    Raises:
        InputError: an option cannot be used.
        BusyError: too many scorings run or wait.
    """
    requests = [_score_request(method, params) for method in app_instance()._scoring_methods]
    return {each["method"]: {"result": _start(SCORE, each, run_sync, True), "detail": None} for each in requests}


def score_method(method: str, user: Annotator, params: dict[str, Any] | None = None, run_sync: bool = False) -> Any:
    """Run a scoring method.

    Raises:
        NotFoundError: there is no such method.
        InputError: an option cannot be used.
        BusyError: another scoring runs.
    """
    _check_known("scoring method", method, app_instance()._scoring_methods)
    return _start(SCORE, _score_request(method, params), run_sync, enqueue=False)


def next_sample(request: Request, strategy: str, user: Reader, params: dict[str, Any] | None = None) -> Any:
    """Choose a study as MONAI Label's endpoint does.

    Slicer says which client it is. OHIF does not, and without authentication all users have one name, so its address
    tells whose study it is.

    Raises:
        NotFoundError: there is no such strategy.
        InputError: the client's name for itself is none.
    """
    _check_known("strategy", strategy, app_instance()._strategies)
    return sample(strategy, {"client_id": client_of_strategy(request, user, params)}, user.username)


def client_of_strategy(request: Request, user: User, params: Mapping[str, Any] | None) -> str:
    """Return the name under which strategies know a client.

    Raises:
        InputError: the client's name for itself is none.
    """
    client = checked_client_id(params)
    if client is None:
        address = request.client.host if request.client else "unknown"
        client = user.username if settings.MONAI_LABEL_AUTH_ENABLE else f"address {address}"
    return client


def _check_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Look whether the server has a task; MONAI Label takes an unknown one for an error of its own.

    Raises:
        NotFoundError: it has not.
    """
    if name not in known:
        raise NotFoundError(f"There is no {kind} {name!r}; this server has {', '.join(known)}.")


def _train_request(model: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
    trainer = app_instance()._trainers[model]
    options = chosen_options(params, trainer.config())
    trainer.checked(options)  # here, since a process that fails cannot tell the client why
    return {"model": model, **options}


def _score_request(method: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
    chosen = chosen_options(params, getattr(app_instance()._scoring_methods[method], "options", {}))
    return {"method": method, **{key: checked_identifier(tag, key) for key, tag in chosen.items()}}


def _images(images: BatchInferImageType, params: Mapping[str, Any] | None) -> str | list[str]:
    given = (params or {}).get("images")
    if isinstance(given, list):
        return [checked_identifier(image, "image id") for image in given]
    return BatchInferImageType(images).value


def _start(method: str, request: dict[str, Any], run_sync: bool, enqueue: bool) -> Any:
    """Run a task here, or have it run in a process of its own.

    Returns:
        The result of the task, or MONAI Label's record of the process.
    """
    name, limit = _NAMES[method], app_instance().max_queued_trainings
    if len(json.dumps(request)) > MAX_REQUEST_BYTES:
        raise InputError(f"The options of the {name} are too long; give fewer images or shorter texts.")
    with _starting:
        history = background_tasks.setdefault(method, [])
        active = sum(task["status"] in ("SUBMITTED", "RUNNING") for task in history) + _in_requests[method]
        if active and not enqueue:
            raise BusyError(f"A {name} runs already: wait for it, or stop it.")
        if active >= limit:
            raise BusyError(f"{active} of at most {limit} (max_queued_trainings) run or wait already; try again later.")
        del history[: max(0, len(history) - MAX_HISTORY)]
        if not run_sync:
            return AsyncTask.run(method, request, enqueue=True)[0]
        _in_requests[method] += 1
    try:
        return AsyncTask.run(method, request, force_sync=True, enqueue=True)[0]
    finally:
        with _starting:
            _in_requests[method] -= 1
