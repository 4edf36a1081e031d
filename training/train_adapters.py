"""Learn from accepted labels on many GPUs or machines, and publish a new version of the adapters if it is better.

    python training/train_adapters.py sample_configs/training/adapters.yaml --set data=STUDIES
    torchrun --nproc-per-node 4 training/train_adapters.py sample_configs/training/adapters.yaml --set data=STUDIES

It is what "Update Model" in a viewer and `causal-sam train` do. The configuration file says what each key means. All
machines must see the folders of the data store and of the versions. Stopped at any time, it goes on with the same
command from its last checkpoint, unless other labels were accepted meanwhile.
"""

from __future__ import annotations

import causal_sam  # noqa: F401  before torch, whose threads it lets wait passively

# isort: split
import sys
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import ignite.distributed as idist

from causal_sam.errors import CausalSamError, InputError
from causal_sam.sam.loading import checked_device
from causal_sam.site.paths import JOURNAL_FOLDER, STORE_FOLDER, SitePaths, UpdateConfig
from causal_sam.site.update import update
from causal_sam.training.config_file import made, read_command_line, read_values
from causal_sam.training.processes import torchrun_backend

# The others wait while the first process reads all labels, which with many of them takes longer than the usual minutes.
MAX_WAIT = timedelta(hours=12)


@dataclass(frozen=True)
class RunConfig:
    """The whole configuration; `sample_configs/training/adapters.yaml` says what each key means.

    Attributes:
        site: where labels come from, and where versions go.
        learning: how labels are learnt.
    """

    site: SitePaths
    learning: UpdateConfig

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> RunConfig:
        """Check values from a file.

        Raises:
            InputError: a key is unknown or missing, or a value cannot be used.
        """
        given = {key: value for key, value in values.items() if value is not None}
        own = {field.name for field in fields(UpdateConfig)}
        learning = {key: given.pop(key) for key in own & given.keys()}
        if "labels" in learning:
            if not isinstance(learning["labels"], list):
                raise InputError("labels of the configuration must be a list of names; an empty one means all.")
            learning["labels"] = tuple(map(str, learning["labels"]))
        if "data" not in given:
            raise InputError("The configuration lacks data, the folder of the data store.")
        for key in {"data", "store", "journal", "checkpoint"} & given.keys():
            given[key] = Path(str(given[key])).expanduser()
        given.setdefault("store", given["data"] / STORE_FOLDER)
        given.setdefault("journal", given["data"] / JOURNAL_FOLDER)
        given["device"] = checked_device(str(given.get("device", "auto")))
        if not isinstance(given.get("values", {}), dict):
            raise InputError("values of the configuration must be lines of NAME: VALUE.")
        unknown = sorted(given.keys() - {field.name for field in fields(SitePaths)})
        if unknown:
            known = ", ".join(field.name for kind in (SitePaths, UpdateConfig) for field in fields(kind))
            raise InputError(f"There is no {unknown[0]!r} in the configuration; known are {known}.")
        return cls(made(SitePaths, given, "the configuration"), made(UpdateConfig, learning, "the configuration"))


def read_config(path: Path, changes: list[str]) -> RunConfig:
    """Read the configuration from a file and from changes KEY=VALUE to it.

    Raises:
        InputError: the file or a change cannot be used.
    """
    return RunConfig.from_values(read_values(path, changes, "minutes=30 or data=DIR"))


def run(config: RunConfig, backend: str | None) -> int:
    """Learn in this process, together with all others that torchrun started.

    Returns:
        0, or 1 in the first process if a version was made and rejected.

    Raises:
        CausalSamError: nothing could be made.
    """
    if backend is not None:
        idist.initialize(backend, timeout=MAX_WAIT)
    outcome = update(config.site, config.learning, tell=lambda line: print(line, flush=True))
    idist.finalize()
    return int(outcome is not None and outcome.status == "rejected")


def main() -> None:
    """Parse the command line and learn."""
    arguments = read_command_line(__doc__, "sample_configs/training/adapters.yaml")
    try:
        config = read_config(arguments.config, arguments.set)
        code = run(config, torchrun_backend(arguments.backend, config.site.device))
    except CausalSamError as error:
        sys.exit(f"train_adapters.py: {error}")
    sys.exit(code)


if __name__ == "__main__":
    main()
