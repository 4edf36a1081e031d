"""Configurations of training scripts: a YAML file, and changes to it on the command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_type_hints

import ignite.distributed as idist
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from causal_sam.errors import CausalSamError, InputError
from causal_sam.training.processes import torchrun_backend

Config = TypeVar("Config")


def run_script(train: Callable[[int, Any], object], kind: type, description: str, sample: str) -> None:
    """Read the command line of a training script, and train in all processes that torchrun has started.

    The script ends with one sentence if the configuration cannot be used.

    Args:
        train: called with the rank on this machine and the configuration.
        kind: dataclass of the configuration, with the field ``device``.
        description: purpose of the script.
        sample: name of the sample configuration.
    """
    arguments = read_command_line(description, sample)
    try:
        config: Any = from_values(kind, read_values(arguments.config, arguments.set))
        with idist.Parallel(backend=torchrun_backend(arguments.backend, config.device)) as parallel:
            parallel.run(train, config)
    except CausalSamError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def read_command_line(description: str, sample: str) -> argparse.Namespace:
    """Read the command line of a training script.

    Args:
        description: purpose of the script.
        sample: name of the sample configuration.

    Returns:
        ``config``, the file; ``set``, changes for `read_values`; ``backend``, for
        `causal_sam.training.processes.torchrun_backend`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help=f"YAML file, such as sample_configs/training/{sample}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key; may be repeated")
    parser.add_argument(
        "--backend", choices=("gloo", "nccl"), help="backend of torchrun's processes; default nccl with GPUs, else gloo"
    )
    return parser.parse_args()


def read_values(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Read a configuration file.

    Args:
        path: YAML.
        changes: texts KEY=VALUE, where a dot leads into a part or to an entry of a list.

    Raises:
        InputError: the file or a change cannot be used.
    """
    try:
        values = OmegaConf.load(path)
    except OSError as error:
        raise InputError(f"The configuration {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"The configuration {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not OmegaConf.is_dict(values):
        raise InputError(f"The configuration {path} must hold lines of KEY: VALUE.")
    for change in changes:
        if "=" not in change:
            raise InputError(f"--set {change!r} must be KEY=VALUE, such as minutes=30 or data.0.path=DIR.")
        try:
            values.merge_with_dotlist([change])
        except (OmegaConfBaseException, yaml.YAMLError, ValueError, IndexError, TypeError, AttributeError) as error:
            raise InputError(
                f"--set {change!r} does not fit the configuration: {str(error).splitlines()[0]}."
            ) from error
    return cast("dict[str, Any]", OmegaConf.to_container(values, resolve=True))


def from_values(kind: type[Config], values: Mapping[str, Any], also: Sequence[str] = ()) -> Config:
    """Return a dataclass of values from a file.

    A key without a value is left out, unless its field may be None.

    Args:
        kind: the dataclass, which checks ranges itself.
        values: values by the names of the fields.
        also: further keys that the file may have, for the message about an unknown one.

    Raises:
        InputError: a key is unknown or missing, or a value cannot be used.
    """
    _refuse_unknown_keys(kind, values, "the configuration", also)
    optional = {name for name, hint in get_type_hints(kind).items() if NoneType in get_args(hint)}
    given = {
        name: os.path.expanduser(value) if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None or name in optional
    }
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        if isinstance(cause := first.get("ctx", {}).get("error"), InputError):
            raise cause from error
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise InputError(f"The configuration lacks {where}.") from error
        raise InputError(f"{where} of the configuration cannot be used: {first['msg']}.") from error


def _refuse_unknown_keys(hint: Any, value: Any, where: str, also: Sequence[str] = ()) -> None:
    """Refuse keys that a dataclass does not have; also in its parts, and in lists of dataclasses."""
    for part in value if isinstance(value, list) else ():
        _refuse_unknown_keys(hint, part, where)
    kind = next((one for one in (hint, *get_args(hint)) if is_dataclass(one)), None)
    if kind is None or not isinstance(value, Mapping):
        return
    hints = get_type_hints(kind)
    known = [*(field.name for field in fields(kind)), *also]
    if unknown := sorted(map(str, value.keys() - set(known))):
        raise InputError(f"There is no {unknown[0]!r} in {where}; known are {', '.join(known)}.")
    for name, part in value.items():
        _refuse_unknown_keys(hints.get(name), part, name)
