"""The settings of a benchmark that goes on where it was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

from causal_sam.errors import InputError

SETTINGS = "settings.json"


def check_settings(folder: Path, settings: dict[str, str]) -> None:
    """Make the folder of a benchmark, or look whether what it holds was made with the same settings.

    Args:
        folder: folder of the benchmark.
        settings: name -> value.

    Raises:
        InputError: it holds something else, or was begun with other settings.
    """
    path = folder / SETTINGS
    if not path.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} holds something else than runs of this benchmark: give a new one with -o.")
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=1))
        return
    before = json.loads(path.read_text())
    if different := [key for key in settings if before.get(key) != settings[key]]:
        key = different[0]
        raise InputError(f"{folder} was begun with {key} {before.get(key)!r}, not {settings[key]!r}: give another.")
