"""Learn from accepted labels on many GPUs or machines, and publish a new version of the adapters if it is better.

    python training/train_adapters.py sample_configs/training/adapters.yaml --set data=STUDIES
    torchrun --nproc-per-node 4 training/train_adapters.py sample_configs/training/adapters.yaml --set data=STUDIES

It does the same as "Update Model" in a viewer and `causal-sam train`. The configuration file explains each key. All
machines must see the folders of the data store and of the versions. Stopped at any time, it continues with the same
command from its last checkpoint, unless other labels were accepted meanwhile.
"""

from __future__ import annotations

import causal_sam  # noqa: F401  before torch, whose threads it lets wait passively

# isort: split
import sys
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import ignite.distributed as idist

from causal_sam.errors import CausalSamError
from causal_sam.sam.loading import checked_device
from causal_sam.site.paths import JOURNAL_FOLDER, STORE_FOLDER, SitePaths, UpdateConfig
from causal_sam.site.update import update
from causal_sam.training.config_file import from_values, read_command_line, read_values
from causal_sam.training.processes import torchrun_backend

# The first process reads all labels while the others wait, which can exceed PyTorch's default timeout of minutes.
MAX_WAIT = timedelta(hours=12)


def read_config(values: dict[str, Any]) -> tuple[SitePaths, UpdateConfig]:
    """Return where labels come from and versions go, and how labels are learned, from the values of a file.

    Raises:
        InputError: a key is unknown or missing, or a value cannot be used.
    """
    names = [field.name for field in fields(UpdateConfig)]
    learning = {name: values[name] for name in names if name in values}
    paths = {name: value for name, value in values.items() if name not in learning}
    paths["device"] = checked_device(str(paths.get("device") or "auto"))
    for name, folder in (("store", STORE_FOLDER), ("journal", JOURNAL_FOLDER)):
        if paths.get(name) is None and paths.get("data") is not None:
            paths[name] = Path(str(paths["data"])) / folder
    return from_values(SitePaths, paths, also=names), from_values(UpdateConfig, learning)


def run(site: SitePaths, config: UpdateConfig, backend: str | None) -> int:
    """Learn in this process, together with all others that torchrun started.

    Returns:
        0, or 1 in the first process if a version was made and rejected.

    Raises:
        CausalSamError: no version could be made.
    """
    if backend is not None:
        idist.initialize(backend, timeout=MAX_WAIT)
    outcome = update(site, config, log=lambda line: print(line, flush=True))
    idist.finalize()
    return int(outcome is not None and outcome.status == "rejected")


def main() -> None:
    """Parse the command line and learn."""
    arguments = read_command_line(__doc__, "adapters.yaml")
    try:
        site, config = read_config(read_values(arguments.config, arguments.set))
        code = run(site, config, torchrun_backend(arguments.backend, site.device))
    except CausalSamError as error:
        sys.exit(f"train_adapters.py: {error}")
    sys.exit(code)


if __name__ == "__main__":
    main()
