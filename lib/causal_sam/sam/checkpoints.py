"""Weights come from files and from the network, neither of which is trusted: fetch, verify, open, and fit them."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import requests
import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from causal_sam.errors import CheckpointError

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "CAUSAL_SAM_CACHE"
CHUNK_BYTES = 2**16  # a cut connection loses the chunk it was in
CONNECT_SECONDS, READ_SECONDS = 10, 60
MAX_RESUMPTIONS = 20


@dataclass(frozen=True)
class CheckpointFile:
    """A file of weights on the network.

    Attributes:
        url: address of the file.
        filename: its name in the cache directory.
        size: bytes.
        sha256: hexadecimal digest of its content.
    """

    url: str
    filename: str
    size: int
    sha256: str


class _Interrupted(Exception):
    """The connection ended before the file did."""


def checkpoint_dir() -> Path:
    """Folder of downloaded checkpoints: ``$CAUSAL_SAM_CACHE/checkpoints``, else in the user's cache folder."""
    root = os.environ.get(CACHE_VARIABLE)
    return (Path(root) if root else platformdirs.user_cache_path("causal-sam", appauthor=False)) / "checkpoints"


def fetch_checkpoint(
    checkpoint: CheckpointFile,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    *,
    download: bool = True,
) -> Path:
    """Return the path of a verified copy of ``checkpoint``, downloading what is missing of it.

    A download is kept as ``<filename>.part`` until its SHA-256 is right, and goes on where it stopped, in this call
    and in a later one. Several processes may call this at once: one downloads, the others wait for it.

    Args:
        checkpoint: checkpoint to fetch.
        cache_dir: folder to keep it in; default `checkpoint_dir`.
        progress: stream for a progress bar; by default one on the standard error stream.
        download: whether the network may be used.

    Raises:
        CheckpointError: the file is not there and cannot be had, the disk is too full, or the content is wrong.
    """
    directory = checkpoint_dir() if cache_dir is None else Path(cache_dir)
    target = directory / checkpoint.filename
    try:
        # Before anything is written: a folder that comes with its files may be read-only.
        if target.exists():
            _verify_existing(checkpoint, target)
            return target
        if not download:
            raise CheckpointError(f"{checkpoint.filename} is not in {directory}: {_by_hand(checkpoint, target)}.")
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / f"{checkpoint.filename}.lock"):
            if not target.exists():  # another process may have downloaded it while this one waited
                _download(checkpoint, target, progress)
        return target
    except OSError as error:
        raise CheckpointError(
            f"{target} cannot be written ({error}); set {CACHE_VARIABLE} to a folder that can."
        ) from error


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read weights onto the CPU without running any code that a file might carry.

    Args:
        path: ``.safetensors``, or a ``.pth``/``.pt`` file with a state dictionary as `torch.save` writes it.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it holds anything but named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint file {path}; give the path of a .pth or .safetensors file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was refused: it is damaged or holds Python objects beside the weights, which could run code; "
            "give a plain state dictionary or a .safetensors file."
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} cannot be read as weights ({reason}); it may be damaged or cut off.") from error
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path} does not hold a state dictionary, which maps names to tensors.")
    return dict(weights)


def fit_state_dict(module: nn.Module, weights: Mapping[str, Tensor], name: str, source: Path) -> None:
    """Put ``weights`` into ``module``, all of them or none.

    Args:
        module: the model.
        weights: tensors with the same names and shapes as the model's.
        name: name of the model, for the message.
        source: origin of the weights, for the message.

    Raises:
        CheckpointError: names or shapes differ.
    """
    expected = module.state_dict()
    misfit = None
    for key in expected:
        if key not in weights:
            misfit = f"'{key}' is missing"
        elif weights[key].shape != expected[key].shape:
            misfit = f"'{key}' is {tuple(weights[key].shape)} instead of {tuple(expected[key].shape)}"
        if misfit:
            break
    else:
        unknown = sorted(weights.keys() - expected.keys())
        misfit = f"'{unknown[0]}' is not part of the model" if unknown else None
    if misfit:
        raise CheckpointError(f"{source} is not a checkpoint of {name}: {misfit}; check the model's name and the file.")
    module.load_state_dict(weights)


def _by_hand(checkpoint: CheckpointFile, target: Path) -> str:
    return (
        f"download {checkpoint.url} ({_human(checkpoint.size)}) and put it at {target}, "
        "or give the path of a copy with --checkpoint"
    )


def _human(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _verify_existing(checkpoint: CheckpointFile, target: Path) -> None:
    """A file that is there may have been put there by hand, so it is checked, but not removed."""
    size = target.stat().st_size
    if size != checkpoint.size or _sha256(target) != checkpoint.sha256:
        raise CheckpointError(
            f"{target} is not the published {checkpoint.filename} ({_human(checkpoint.size)}, SHA-256 "
            f"{checkpoint.sha256}): delete it to have it downloaded, or give your own weights with --checkpoint."
        )


def _download(checkpoint: CheckpointFile, target: Path, progress: Progress | None) -> None:
    part = target.with_name(f"{target.name}.part")
    if part.exists() and part.stat().st_size > checkpoint.size:
        part.unlink()
    missing = checkpoint.size - _size(part)
    free = shutil.disk_usage(target.parent).free
    if free < missing:
        raise CheckpointError(
            f"{target.parent} has {_human(free)} free but {checkpoint.filename} needs {_human(missing)}: "
            f"free some space or set {CACHE_VARIABLE} to a folder on another disk."
        )
    bar = progress or Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar if progress is None else nullcontext():
        task = bar.add_task(checkpoint.filename, total=checkpoint.size, completed=_size(part))
        _receive(checkpoint, part, target, lambda size: bar.update(task, completed=size))
    if _sha256(part) != checkpoint.sha256:
        part.unlink()
        raise CheckpointError(
            f"What {checkpoint.url} sent is not the published file (wrong SHA-256) and was removed: try again, or "
            f"{_by_hand(checkpoint, target)}."
        )
    os.replace(part, target)


def _receive(checkpoint: CheckpointFile, part: Path, target: Path, show: Callable[[int], None]) -> None:
    """Complete ``part``, asking again for the rest as long as every connection brings something."""
    reason: object = None
    for _ in range(MAX_RESUMPTIONS):
        before = _size(part)
        if before == checkpoint.size:
            return
        try:
            _receive_once(checkpoint, part, show)
        except (requests.RequestException, _Interrupted) as error:
            reason = error
            logger.info("Download of %s stopped at %d bytes: %s", checkpoint.filename, _size(part), error)
            if _size(part) <= before:
                break
    if _size(part) == checkpoint.size:
        return
    kept = f" ({_human(_size(part))} of it are kept)" if _size(part) else ""
    raise CheckpointError(
        f"{checkpoint.filename} could not be downloaded{kept}, {_short(reason)}: try again with a connection, or "
        f"{_by_hand(checkpoint, target)}."
    )


def _receive_once(checkpoint: CheckpointFile, part: Path, show: Callable[[int], None]) -> None:
    """Append what one request brings to ``part``."""
    start = _size(part)
    # The bytes are wanted as they are: a compressed transfer would count and resume differently.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(
        checkpoint.url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)
    ) as response:
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            start = 0  # the server sends the whole file, whatever was asked for
        elif not re.match(rf"bytes {start}-", response.headers.get("Content-Range", "")):
            raise CheckpointError(f"{checkpoint.url} answered another range than was asked for; try again later.")
        announced = response.headers.get("Content-Length")
        if announced and start + int(announced) != checkpoint.size:
            raise CheckpointError(
                f"{checkpoint.url} offers {_human(start + int(announced))} instead of {_human(checkpoint.size)}: it is "
                "not the published file, perhaps a sign-in page of your network."
            )
        with part.open("ab" if start else "wb") as stream:
            received = start
            for chunk in response.iter_content(CHUNK_BYTES):
                received += len(chunk)
                if received > checkpoint.size:
                    break
                stream.write(chunk)
                show(received)
            stream.flush()
            os.fsync(stream.fileno())
    if received != checkpoint.size:
        raise _Interrupted("the server sent less or more than the whole file")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _short(reason: object) -> str:
    if isinstance(reason, requests.HTTPError):
        return f"the server answered {reason.response.status_code}"
    if isinstance(reason, requests.Timeout):
        return "the server did not answer in time"
    if isinstance(reason, requests.exceptions.ChunkedEncodingError | _Interrupted):
        return "the connection was cut"
    return "the server cannot be reached"
