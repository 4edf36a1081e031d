"""The server's log, and the state of its GPUs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Annotated

from fastapi import Query
from fastapi.responses import PlainTextResponse, Response
from monailabel.config import settings
from monailabel.endpoints.logs import get_logs

from causal_sam.errors import NotFoundError
from serving.requests.sign_in import Admin

MAX_LINES = 100_000
MAX_REFRESH_SECONDS = 86_400
GPU_SECONDS = 20


def logs(
    user: Admin,
    lines: Annotated[int, Query(ge=0, le=MAX_LINES)] = 300,
    refresh: Annotated[int, Query(ge=0, le=MAX_REFRESH_SECONDS)] = 0,
) -> Response:
    """Return the last lines of the log as text, or all of it for 0 lines; browsers ask again after ``refresh`` seconds.

    MONAI Label's page of it loads scripts from other servers, which could then read all that this one has.
    """
    file = str(Path(settings.MONAI_LABEL_APP_DIR) / "logs" / "app.log")
    answer = get_logs(file, lines, html=False, text=True, refresh=0)
    if refresh:
        answer.headers["Refresh"] = str(refresh)
    return answer


def gpu(user: Admin) -> PlainTextResponse:
    """Return what ``nvidia-smi`` prints.

    Raises:
        NotFoundError: there is no such program.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        raise NotFoundError("This server has no GPU of NVIDIA, or no nvidia-smi that could tell of it.")
    run = subprocess.run([program], capture_output=True, text=True, timeout=GPU_SECONDS, check=False)
    return PlainTextResponse(run.stdout)
