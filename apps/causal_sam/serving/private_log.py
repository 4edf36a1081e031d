"""The log says what happened, never what a client wrote: people name people in notes, labels and file names.

Nothing of a request is logged but what `loggable` lets through. MONAI Label logs requests, labels and results whole, at
the level of information; of it only warnings are kept. Stack traces are logged without the messages of their errors,
which may quote anything.
"""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from causal_sam.imaging import MASK_EXTENSIONS, PLANES

# The second one is MONAI Label's too: its module that runs batches and trainings in a process of their own.
_QUIET = ("monailabel", "__main__")
_FLAGS = (
    *("confirm", "local", "preview", "redo", "repeat", "replace", "reset", "reset_state", "result_compress"),
    *("save_label", "undo"),
)
_NUMBERS = ("dimension", "frame", "slice")
_COUNTED = ("background", "foreground", "lasso", "roi")
_WORDS = {
    "extent": ("slice", "volume"),
    "plane": PLANES,
    "result_dtype": ("uint8", "uint16", "uint32", "int16", "int32", "float32", "float64"),
    "result_extension": MASK_EXTENSIONS,
}
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
_MAX_LOGGED_NUMBER = 10**6


def loggable(params: Mapping[str, Any]) -> str:
    """Say of the parameters of a request what may be logged: known flags, numbers and words, and how many points."""
    said = []
    for key in sorted((*_FLAGS, *_NUMBERS, *_COUNTED, *_WORDS)):
        value = params.get(key)
        if key in _FLAGS and isinstance(value, bool):
            said.append(f"{key}={value}")
        elif key in _NUMBERS and isinstance(value, int | float) and abs(value) < _MAX_LOGGED_NUMBER:
            said.append(f"{key}={value:g}")
        elif key in _COUNTED and isinstance(value, list):
            said.append(f"{key}: {len(value)}")
        elif key in _WORDS and isinstance(value, str) and value in _WORDS[key]:
            said.append(f"{key}={value}")
    return ", ".join(said) or "no options"


def known_method(method: str) -> str:
    """Return the method of a request, which may be any word, if it is one of HTTP."""
    return method if method in _METHODS else "A request"


def origin(error: BaseException) -> str:
    """Name the class of an error and where it was raised, which says what was wrong without the words of a client."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def install_private_log() -> None:
    """Keep what clients write out of all logs of this process."""
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # It quotes the values of headers, those of a patient's name too.
    warnings.filterwarnings("ignore", module="pydicom")
    if not isinstance(logging.getLogRecordFactory(), _RecordFactory):
        logging.setLogRecordFactory(_RecordFactory())


class _RecordFactory:
    """Makes log records whose stack traces have no messages; whichever library logs them, whatever handles them."""

    def __init__(self) -> None:
        self._make = logging.getLogRecordFactory()

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = _without_messages(record.exc_info[1])
            record.exc_info = None
        return record


def _without_messages(error: BaseException) -> str:
    parts = []
    chain: BaseException | None = error
    while chain is not None and len(parts) < 10:
        parts.append(_frames(chain.__traceback__) + type(chain).__name__)
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return "\nafter:\n".join(parts)


def _frames(trace: TracebackType | None) -> str:
    return "".join(traceback.format_tb(trace))
