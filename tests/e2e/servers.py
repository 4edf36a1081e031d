"""Start and stop the real servers of the end-to-end tests: Orthanc (the DICOM archive) and MONAI Label."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "apps" / "causal_sam"
ORTHANC_EXECUTABLE = shutil.which("Orthanc", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

ORTHANC_START_SECONDS = 60
MONAI_LABEL_START_SECONDS = 240  # importing torch and monai on a busy two-core machine takes most of it


def free_port() -> int:
    """Return a TCP port of the loopback interface that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(
    command: Sequence[str], ready_url: str, log: Path, seconds: float, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run `command` in the background until `ready_url` answers 200, and end it when the context is left.

    Raises:
        RuntimeError: The process ended or did not answer within `seconds`; carries the end of its log.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        try:
            _wait_until_ready(process, ready_url, log, seconds)
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(url, timeout=5).status_code == 200:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    state = "ended" if process.poll() is not None else f"did not answer within {seconds:.0f} s"
    raise RuntimeError(f"{process.args[0]} {state}; its log ends with:\n{log.read_text(errors='replace')[-4000:]}")


@contextmanager
def orthanc(folder: Path) -> Iterator[str]:
    """Run an empty Orthanc with its DICOMweb plugin, everything it stores under `folder`; yield its base URL."""
    port = free_port()
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "Name": "causal-sam-e2e",
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / "storage"),
                "Plugins": [str(DICOMWEB_PLUGIN)],
                "HttpPort": port,
                "DicomServerEnabled": False,
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            }
        )
    )
    url = f"http://127.0.0.1:{port}"
    with running(
        [str(ORTHANC_EXECUTABLE), str(configuration)],
        f"{url}/dicom-web/studies",
        folder / "orthanc.log",
        ORTHANC_START_SECONDS,
    ):
        yield url


def upload(orthanc_url: str, folder: Path) -> None:
    """Store every DICOM file below `folder` in the Orthanc at `orthanc_url`."""
    with requests.Session() as session:
        for path in sorted(folder.rglob("*.dcm")):
            session.post(f"{orthanc_url}/instances", data=path.read_bytes(), timeout=30).raise_for_status()


@contextmanager
def monai_label(studies: str, folder: Path) -> Iterator[str]:
    """Run the MONAI Label server with the app of this project on `studies`; yield its base URL.

    `studies` is a DICOMweb URL, of which CT and MR series are listed; what the server downloads is kept in `folder`.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "monailabel.main", "start_server"]
    command += ["--app", str(APP), "--studies", studies, "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "dicom"),
        "MONAI_LABEL_DICOMWEB_SEARCH_FILTER": json.dumps({"Modality": "CT,MR"}),  # by default, CT alone
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        # The DICOM converters that MONAI Label would otherwise download lie beside the interpreter.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    with running(command, f"{url}/info/", folder / "monailabel.log", MONAI_LABEL_START_SECONDS, environment):
        yield url
