"""Data stores whose files are written whole or not at all, so that accepted labels outlive a killed server.

MONAI Label writes its list of images and labels, ``datastore_v2.json``, over the old one. Killed at that moment, the
server has lost the names of all labels and does not start again. The same goes for a label that is saved anew.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from filelock import FileLock
from monailabel.datastore import local
from monailabel.datastore.local import LocalDatastore

# No extension of images or labels, so those who watch the folder do not see it.
PART = ".part"


def install_safe_datastore() -> None:
    """Let all data stores with a folder of their own, that of a DICOMweb server too, write their files safely.

    Their class is changed, since MONAI Label makes them itself, and they write as soon as they are made.
    """
    LocalDatastore._update_datastore_file = _update_datastore_file
    local.shutil = SimpleNamespace(copy=_copy)  # all that it uses: for images and labels that are added


def _update_datastore_file(self: LocalDatastore, lock: bool = True) -> None:
    """Write the list of images and labels.

    Args:
        self: the data store.
        lock: False if the caller holds the lock.
    """
    if lock:
        with FileLock(self._lock_file):
            return _update_datastore_file(self, lock=False)
    path = Path(self._datastore_config_path)
    content = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)

    def write(part: Path) -> None:
        part.write_text(content)
        if path.exists():
            shutil.copymode(path, part)

    _replace(path, write)
    # Who watches the folder, other servers and this one, does not take the new file for a change of the old one, but
    # they do this, which changes nothing. This one is to ignore it.
    self._ignore_event_config = True
    os.truncate(path, path.stat().st_size)
    self._config_ts = path.stat().st_mtime
    return None


def _copy(source: str, target: str) -> str:
    """Copy a file and its permissions, as `shutil.copy` does to the path of a file."""
    _replace(Path(target), lambda part: shutil.copy(source, part))
    return target


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    path = path.resolve()  # a link goes on to lead to the file
    part = path.with_name(f".{path.name}{PART}")
    try:
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
