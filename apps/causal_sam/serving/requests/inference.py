"""One inference: its uploads, the app's answer, and what is left on disk afterwards, which is nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import BackgroundTasks, UploadFile
from monailabel.endpoints.infer import ResultType, send_response
from monailabel.interfaces.utils.app import app_instance

from serving.private_log import loggable
from serving.requests.clients import current_context, in_context
from serving.requests.dicom_seg import answer_as_dicom_seg
from serving.sessions.endpoints import open_session
from serving.sessions.uploads import received

logger = logging.getLogger(__name__)


def run_inference(
    background_tasks: BackgroundTasks,
    model: str,
    image: str,
    session_id: str,
    params: Mapping[str, Any],
    file: UploadFile | None,
    label: UploadFile | None,
    output: ResultType | None,
) -> Any:
    """Run one inference, as MONAI Label's function of this name does.

    Args:
        background_tasks: of the response; they remove the result.
        model: the task.
        image: id or path in the studies; a session's image or an uploaded one counts before it.
        session_id: empty for none.
        params: the client's parameters.
        file: an uploaded image.
        label: an uploaded label map, such as scribbles.
        output: form of the answer.

    Raises:
        NotFoundError: there is no such model, image or session.
        InputError: an upload or a parameter cannot be used.
    """
    begin, series = time.monotonic(), image
    with ExitStack() as uploads:
        if session_id:
            image = str(open_session(session_id).image)
        elif file is not None:
            image = str(uploads.enter_context(received(file, "image")))
        context = current_context()
        if label is not None:
            context = replace(context, label_file=uploads.enter_context(received(label, "label")))
        with in_context(context):
            result = app_instance().infer({**params, "model": model, "image": image})
    logger.info("%s: %s; %.2f s.", model, loggable(params), time.monotonic() - begin)
    with removed_on_failure(result["file"]):
        if output == ResultType.dicom_seg:
            return answer_as_dicom_seg(background_tasks, series, result)
        return send_response(app_instance().datastore(), result, output, background_tasks)


@contextmanager
def removed_on_failure(path: str | None) -> Iterator[None]:
    """Remove the file of a result if the block fails, for then nobody sends it, and removes it behind that."""
    try:
        yield
    except BaseException:
        if path is not None:
            Path(path).unlink(missing_ok=True)
        raise
