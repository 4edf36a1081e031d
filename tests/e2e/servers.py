"""Start and stop the real servers of the end-to-end tests: Orthanc (the DICOM archive) and MONAI Label."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests
from processes import MONAI_LABEL_START_SECONDS, free_port, running

from causal_sam.cli.serve import server_command, server_environment

ROOT = Path(__file__).resolve().parents[2]
ORTHANC_EXECUTABLE = shutil.which("Orthanc", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

ORTHANC_START_SECONDS = 60


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
def monai_label(studies: str, folder: Path, variables: Mapping[str, str] = {}) -> Iterator[str]:
    """Run the MONAI Label server with the app of this project on `studies`; yield its base URL.

    `studies` is a DICOMweb URL, of which CT and MR series are listed; what the server downloads is kept in `folder`.
    `variables` are added to its environment.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folders = {
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "dicom"),
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
    }
    with running(
        server_command(studies, "127.0.0.1", port, {}),
        f"{url}/causal-sam/",  # needs no sign-in
        folder / "monailabel.log",
        MONAI_LABEL_START_SECONDS,
        environment=server_environment(os.environ) | folders | dict(variables),
    ):
        yield url
