"""Starts the MONAI Label server in a process of its own, and sends it the requests that the viewers' plug-ins send."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import nrrd
import requests
from monailabel.client import MONAILabelClient
from numpy.typing import NDArray
from processes import MONAI_LABEL_START_SECONDS, free_port, running
from requests.adapters import HTTPAdapter

from causal_sam.cli.serve import server_command, server_environment

REQUEST_SECONDS = 120


def command(studies: Path, port: int, conf: Mapping[str, str], start: Sequence[str]) -> list[str]:
    """The command line of a server that is called as ``start``."""
    python_form = server_command(str(studies), "127.0.0.1", port, conf)
    return [*start, *python_form[len(PYTHON_FORM) :]]


def environment(folder: Path) -> dict[str, str]:
    """Variables of a server whose sessions and temporary files are kept in ``folder``."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    own = {"MONAI_LABEL_SESSION_PATH": str(folder / "sessions"), "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
    return server_environment(os.environ) | own


PYTHON_FORM = (sys.executable, "-m", "monailabel.main")


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: without a slash at the end.
        studies: folder of its images.
        log: file with all it prints.
        pid: id of its process; 0 where a test started it otherwise.
    """

    url: str
    studies: Path
    log: Path
    pid: int = 0

    def left_behind(self) -> set[str]:
        """Names in its folders of temporary files, uploads and results, and of sessions."""
        folder = self.log.parent
        return {
            str(path.relative_to(folder)) for name in ("temporary", "sessions") for path in (folder / name).rglob("*")
        }

    def client(self, client_id: str | None = None) -> MONAILabelClient:
        """MONAI Label's own client, whose code the Slicer plug-in carries too."""
        return MONAILabelClient(self.url, tmpdir=tempfile.gettempdir(), client_id=client_id)

    def info(self) -> dict[str, Any]:
        """What ``/info/`` says."""
        return requests.get(f"{self.url}/info/", timeout=REQUEST_SECONDS).json()

    def post(
        self,
        params: Mapping[str, Any] | str,
        *,
        model: str = "causal_sam",
        image: str = "ct",
        output: str | None = "json",
        session: requests.Session | None = None,
        **more: Any,
    ) -> requests.Response:
        """Post an inference as a browser does, with the parameters as a form field."""
        query = {"image": image, **({"output": output} if output else {}), **more.pop("query", {})}
        files = {"params": (None, params if isinstance(params, str) else json.dumps(params)), **more.pop("files", {})}
        sender = session or requests
        return sender.post(f"{self.url}/infer/{model}", params=query, files=files, timeout=REQUEST_SECONDS, **more)

    def ohif(self, params: dict[str, Any], *, model: str = "causal_sam", image: str = "ct") -> NDArray:
        """Send what OHIF's panel sends and return the mask it gets; ``params`` is changed, as OHIF does."""
        params.update(result_extension=".nrrd", result_dtype="uint8", result_compress=False, restore_label_idx=False)
        headers = {"accept": "application/json, multipart/form-data"}
        response = self.post(params, model=model, image=image, output="image", headers=headers)
        assert response.status_code == 200, response.text
        return read_nrrd(response.content)

    def slicer(
        self, params: dict[str, Any], *, model: str = "causal_sam", image: str = "ct", client_id: str = "user-xyz"
    ) -> tuple[NDArray, dict[str, Any]]:
        """Send what Slicer's plug-in sends and return the mask and the parameters it gets."""
        sent = {**params, "result_extension": ".nrrd", "result_dtype": "uint8"}
        path, answer = self.client(client_id).infer(model, image, sent, session_id=None)
        mask, _ = nrrd.read(path)
        Path(path).unlink()
        return mask, answer


def read_nrrd(content: bytes) -> NDArray:
    """Voxels of an NRRD file in (i, j, k) order."""
    stream = io.BytesIO(content)
    return nrrd.read_data(nrrd.read_header(stream), stream)


def read_nifti(content: bytes) -> nibabel.Nifti1Image:
    """The image in the bytes of a .nii.gz file."""
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(content))


def from_address(address: str) -> requests.Session:
    """A session whose requests come from another address of this machine, as from another computer."""

    class From(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs, source_address=(address, 0))

    session = requests.Session()
    session.mount("http://", From())
    return session


@contextmanager
def running_server(
    studies: Path,
    folder: Path,
    conf: Mapping[str, str] | None = None,
    start: Sequence[str] = PYTHON_FORM,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run a server on a free port, from a folder that has nothing to do with it, until the block ends.

    Args:
        studies: its images.
        folder: where it is started and keeps its log.
        conf: ``--conf`` pairs.
        start: how ``monailabel`` is called.
        variables: more environment variables.
    """
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", folder / "server.log"
    with running(
        command(studies, port, conf or {}, start),
        f"{url}/info/",
        log,
        MONAI_LABEL_START_SECONDS,
        environment=environment(folder) | dict(variables or {}),
        folder=folder,
    ) as process:
        yield Server(url, studies, log, process.pid)
