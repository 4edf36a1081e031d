"""`causal-sam serve`: start the MONAI Label server with the app, set up so that CT and MR work in all clients."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from causal_sam.cli.files import app_folder
from causal_sam.errors import CausalSamError, InputError

DEMO_STUDIES = Path("demo_studies")
ARCHIVE_SECONDS = 10
# Files that the app can read, among those that MONAI Label lists from a folder.
IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".png", ".jpg", ".tif")


class ServeCommand(TyperCommand):
    """Understands ``--conf KEY VALUE``, as MONAI Label's own command does, which typer cannot express."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, join_conf(args))


def join_conf(args: Sequence[str]) -> list[str]:
    """Turn ``--conf KEY VALUE`` into ``--conf KEY=VALUE``; what already has that form stays.

    >>> join_conf(["--conf", "model", "vit_b", "--port", "80", "--conf", "plane=axial"])
    ['--conf', 'model=vit_b', '--port', '80', '--conf', 'plane=axial']
    """
    joined = []
    rest = iter(args)
    for arg in rest:
        joined.append(arg)
        if arg == "--conf":
            key = next(rest, None)
            if key is not None:
                value = None if "=" in key else next(rest, None)
                joined.append(key if value is None else f"{key}={value}")
    return joined


def serve(
    studies: Annotated[
        str | None,
        typer.Option(
            help=f"Folder of images, or address of a DICOMweb server. Without it, demo studies are made in "
            f"./{DEMO_STUDIES} and served.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="compact, vit_b, vit_l, vit_h or medsam.")] = None,
    conf: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY VALUE", help="Configuration of the app; may be repeated. See sample_configs/server.yaml."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0, for all, needs --conf hosts NAMES.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
) -> None:
    """Start the server, and say what to open in which client."""
    settings = parse_conf(conf or [])
    if model is not None:
        settings["model"] = model
    settings = with_hosts(settings, host)
    check_monai_label()
    check_port(host, port)
    studies = _prepared(studies)
    _explain(studies, host, port)
    command = server_command(studies, host, port, settings)
    sys.stdout.flush()
    os.execve(command[0], command, server_environment(os.environ))


def parse_conf(pairs: Sequence[str]) -> dict[str, str]:
    """Split ``KEY=VALUE`` pairs.

    Raises:
        InputError: a pair has no key or no value.
    """
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise InputError(
                f"--conf takes a key and a value, such as --conf plane axial; {pair!r} is only one of them."
            )
        settings[key] = value
    return settings


def with_hosts(settings: Mapping[str, str], host: str) -> dict[str, str]:
    """Let the server answer to the address that it listens on.

    Raises:
        InputError: it listens on all addresses, and nothing says under which of them it is reached.
    """
    if "hosts" in settings or host == "localhost" or _is_address(host, "is_loopback"):
        return dict(settings)
    if not _is_address(host, "is_unspecified"):
        return {**settings, "hosts": host}
    if "config" in settings:  # the file may say it
        return dict(settings)
    raise InputError(
        f"--host {host} lets other machines in: say under which names or addresses they reach this one, such as "
        "--conf hosts 192.168.1.20,seg.example.org."
    )


def _is_address(host: str, kind: str) -> bool:
    try:
        return getattr(ip_address(host), kind)
    except ValueError:
        return False


def server_command(studies: str, host: str, port: int, settings: Mapping[str, str]) -> list[str]:
    """The command that runs the server in this Python environment."""
    command = [sys.executable, "-m", "monailabel.main", "start_server"]
    command += ["--app", str(app_folder()), "--studies", studies, "--host", host, "--port", str(port)]
    for key, value in settings.items():
        command += ["--conf", key, value]
    return command


def server_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment of the server: the user's, and what MONAI Label needs to serve MR."""
    # MONAI Label lists only CT of a DICOMweb server unless told otherwise.
    listed = {"MONAI_LABEL_DICOMWEB_SEARCH_FILTER": json.dumps({"Modality": "CT,MR"})}
    return {**listed, **environment}


def check_monai_label() -> None:
    """Look whether the server can be started.

    Raises:
        CausalSamError: MONAI Label or the app is missing, or the app's folder is read-only.
    """
    if importlib.util.find_spec("monailabel") is None:
        raise CausalSamError("MONAI Label is not installed in this environment: pip install monailabel.")
    folder = app_folder()
    if not (folder / "main.py").is_file():
        raise CausalSamError(f"The MONAI Label app is not at {folder}: install the package again.")
    if not os.access(folder, os.W_OK):
        raise CausalSamError(
            f"MONAI Label keeps its logs in the app's folder {folder}, which you may not write to: install the "
            "package in a virtual environment of your own."
        )


def check_port(host: str, port: int) -> None:
    """Look whether the address is free.

    Raises:
        InputError: something listens there already, or it is no address of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # As the server does: an address whose last connections have just ended is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(
            f"The server cannot listen on {host}:{port} ({error.strerror or error}): choose another --port or --host."
        ) from error


def is_dicomweb(studies: str) -> bool:
    """Return True if ``studies`` is an address and not a folder."""
    return studies.startswith(("http://", "https://"))


def holds_images(folder: Path) -> bool:
    """Return True if MONAI Label would find an image in the folder; it does not look into folders inside."""
    return any(entry.name.endswith(IMAGE_ENDINGS) for entry in os.scandir(folder))


def check_studies(studies: str) -> None:
    """Look whether the images can be reached.

    Raises:
        InputError: there is no such folder, or no server answers at the address.
    """
    if not is_dicomweb(studies):
        if not Path(studies).is_dir():
            raise InputError(f"There is no folder {studies}: --studies takes a folder of images or a DICOMweb address.")
        return
    import requests

    try:
        requests.get(f"{studies.rstrip('/')}/studies", params={"limit": 1}, timeout=ARCHIVE_SECONDS)
    except requests.RequestException as error:
        raise InputError(
            f"No DICOMweb server answers at {studies}: start it, or check the address (Orthanc's ends in /dicom-web)."
        ) from error


def _prepared(studies: str | None) -> str:
    """Check what the user wants served, or make the demo studies."""
    if studies is None:
        return str(_write_demo(Path.cwd() / DEMO_STUDIES))
    if is_dicomweb(studies):
        check_studies(studies)
        return studies
    studies = str(Path(studies).expanduser())
    check_studies(studies)
    if not holds_images(Path(studies)):
        endings = ", ".join(IMAGE_ENDINGS)
        typer.echo(
            f"Note: {studies} itself holds no image ({endings}). DICOM files are served from a DICOMweb server, "
            "such as Orthanc.",
            err=True,
        )
    return studies


def _write_demo(folder: Path) -> Path:
    from causal_sam.phantom.studies import write_demo_studies

    with Console(stderr=True).status("Making the demo studies (only once) …"):
        made = write_demo_studies(folder)
    typer.echo(f"Demo studies in {folder}: {', '.join(study.name for study in made)}")
    return folder


def _explain(studies: str, host: str, port: int) -> None:
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    url = f"http://{shown}:{port}"
    archive = "needs a DICOMweb server, such as Orthanc: --studies http://127.0.0.1:8042/dicom-web"
    lines = {
        "Browser": f"{url}/causal-sam/",
        "3D Slicer": f"module MONAILabel, server {url}",
        "OHIF": f"{url}/ohif/ in a browser" if is_dicomweb(studies) else archive,
        "Python": f'monailabel.client.MONAILabelClient("{url}")',
        "API": f"{url}/openapi.json",
    }
    typer.echo(f"\nCausal-SAM for MONAI Label serves {studies}\n")
    for client, what in lines.items():
        typer.echo(f"  {client:<10} {what}")
    typer.echo("\nFor research, not a medical device. Ctrl+C stops the server.\n")
