"""`causal-sam doctor`: what is installed, which weights are there, and how to get what is missing."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console
from rich.table import Table

from causal_sam.cli.files import app_folder, requirements_file
from causal_sam.cli.options import AsJson

MIN_PYTHON = (3, 11)
FREE_GB = 5.0
DICOMWEB_PLUGINS = ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "/usr/lib/orthanc/libOrthancDicomWeb.so")
SHOWN = {
    "ok": "[green]ok[/]",
    "optional": "[yellow]optional[/]",
    "different": "[yellow]different[/]",
    "missing": "[red]MISSING[/]",
}


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        part: part that was checked.
        state: "ok"; "different" from what was tested, "optional" and not there, or "missing" although it is needed.
        found: version, place or size.
        advice: instructions to get the part; empty if nothing is to be done.
    """

    part: str
    state: Literal["ok", "different", "optional", "missing"]
    found: str
    advice: str = ""


def doctor(as_json: AsJson = False) -> None:
    """Check the installation. The exit code is 1 if something that is needed is missing."""
    checks = [*_python(), *_packages(), *_machine(), *_app(), *_checkpoints(), *_programs(), *_disk()]
    healthy = all(check.state != "missing" for check in checks)
    if as_json:
        typer.echo(json.dumps({"healthy": healthy, "checks": [asdict(check) for check in checks]}, indent=1))
    else:
        _show(checks, healthy)
    if not healthy:
        raise typer.Exit(1)


def pinned_versions(text: str) -> dict[str, str]:
    r"""Read the pins of a requirements file.

    >>> pinned_versions("# Server\nmonai==1.6.1\n-e .")
    {'monai': '1.6.1'}
    """
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", text, flags=re.MULTILINE))


def needed_packages() -> set[str]:
    """Normalised names of the packages that the program cannot do without."""
    # The marker after a semicolon says when a requirement applies: for an extra, if it names one.
    requirements = (requirement.partition(";") for requirement in metadata.requires("causal-sam") or [])
    return {
        normalised(re.split(r"[^A-Za-z0-9._-]", name, maxsplit=1)[0])
        for name, _, condition in requirements
        if "extra" not in condition
    }


def normalised(name: str) -> str:
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()} ({sys.executable})"
    is_new = sys.version_info >= MIN_PYTHON
    yield Check("Python", "ok" if is_new else "missing", found, "" if is_new else "Python 3.11")


def _packages() -> Iterator[Check]:
    needed = needed_packages()
    for name, tested in pinned_versions(requirements_file().read_text(encoding="utf-8")).items():
        required = normalised(name) in needed
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Check(name, "missing" if required else "optional", "not installed", f"pip install {name}=={tested}")
            continue
        # A build's own suffix, such as +cpu, is the same release.
        same = found.partition("+")[0] == tested
        yield Check(name, "ok" if same else "different", found, "" if same else f"tested with {tested}")


def _machine() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch import", "missing", str(error).splitlines()[0], "install torch again")
        return
    found = (
        f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} torch threads"
    )
    yield Check("processor", "ok", found)
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
        yield Check("GPU", "ok", ", ".join(f"{gpu.name} ({gpu.total_memory / 1e9:.0f} GB)" for gpu in gpus))
    else:
        yield Check("GPU", "optional", "none", "the compact model is made for processors; the others want a GPU")


def _app() -> Iterator[Check]:
    folder = app_folder()
    there = (folder / "main.py").is_file()
    yield Check(
        "MONAI Label app", "ok" if there else "missing", str(folder), "" if there else "install the package again"
    )


def _checkpoints() -> Iterator[Check]:
    try:
        from causal_sam.sam import MODELS, checkpoint_dir
    except (ImportError, OSError) as error:
        yield Check("models", "missing", str(error).splitlines()[0], "see the packages above")
        return
    folder = checkpoint_dir()
    for name, spec in MODELS.items():
        if isinstance(spec.checkpoint, Path):
            there = spec.checkpoint.is_file()
            found = _sized(spec.checkpoint) if there else f"not at {spec.checkpoint}"
            yield Check(
                f"model {name}", "ok" if there else "missing", found, "" if there else "install the package again"
            )
            continue
        path, size = folder / spec.checkpoint.filename, spec.checkpoint.size
        if not path.is_file():
            advice = f"downloaded at first use, or put {spec.checkpoint.url} at {path}"
            yield Check(f"model {name}", "optional", f"not downloaded ({_megabytes(size)})", advice)
        elif path.stat().st_size != size:
            yield Check(
                f"model {name}", "different", _sized(path), f"the published file has {_megabytes(size)}: delete it"
            )
        else:
            yield Check(f"model {name}", "ok", _sized(path))


def _programs() -> Iterator[Check]:
    scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])
    for part, names, advice in (
        ("Orthanc", ("Orthanc",), "apt-get install orthanc orthanc-dicomweb, to use OHIF"),
        (
            "Chromium",
            ("chromium", "chromium-browser", "google-chrome"),
            "apt-get install chromium, for the end-to-end tests",
        ),
    ):
        found = next(filter(None, (shutil.which(name, path=scripts) for name in names)), None)
        yield Check(part, "ok" if found else "optional", found or "not found", "" if found else advice)
    plugin = next(filter(os.path.exists, DICOMWEB_PLUGINS), None)
    advice = "" if plugin else "apt-get install orthanc-dicomweb, to use OHIF"
    yield Check("Orthanc's DICOMweb", "ok" if plugin else "optional", plugin or "not found", advice)


def _disk() -> Iterator[Check]:
    try:
        from causal_sam.sam import checkpoint_dir
    except (ImportError, OSError):
        return  # reported with the models
    folder = checkpoint_dir()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 1e9
    enough = free >= FREE_GB
    advice = "" if enough else "free some space, or set CAUSAL_SAM_CACHE to a folder on another disk"
    yield Check("cache folder", "ok" if enough else "different", f"{folder}, {free:.0f} GB free", advice)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _sized(path: Path) -> str:
    return f"{path}, {_megabytes(path.stat().st_size)}"


def _show(checks: list[Check], healthy: bool) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "part", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        table.add_row(SHOWN[check.state], check.part, check.found, check.advice)
    console = Console()
    console.print(table)
    console.print("\nAll that is needed is there." if healthy else "\n[red]Something that is needed is missing.[/]")
