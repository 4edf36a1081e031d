"""Configurations of training scripts: a YAML file, and changes to it on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from causal_sam.errors import InputError

Made = TypeVar("Made")


def read_command_line(description: str, example: str) -> argparse.Namespace:
    """Read the command line of a training script.

    Args:
        description: what the script does.
        example: the configuration file that comes with the package.

    Returns:
        ``config``, the file; ``set``, changes for `read_values`; ``backend``, for
        `causal_sam.training.processes.torchrun_backend`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help=f"YAML file, such as {example}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key; may be repeated")
    parser.add_argument(
        "--backend", choices=("gloo", "nccl"), help="of torchrun's processes; default nccl with GPUs, else gloo"
    )
    return parser.parse_args()


def read_values(path: Path, changes: Sequence[str], example: str) -> dict[str, Any]:
    """Read a configuration file.

    Args:
        path: YAML.
        changes: texts KEY=VALUE, where a dot leads into a part or to an entry of a list.
        example: of changes, for the message about one that is not of this form.

    Raises:
        InputError: the file or a change cannot be used.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The configuration {path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise InputError(f"The configuration {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise InputError(f"The configuration {path} must hold lines of KEY: VALUE.")
    for change in changes:
        key, equals, text = change.partition("=")
        *way, last = key.split(".")
        part: Any = values
        try:
            for step in way:
                part = part[int(step)] if isinstance(part, list) else part.setdefault(step, {})
            part[int(last) if isinstance(part, list) else last] = yaml.safe_load(text)
        except (ValueError, IndexError, TypeError, AttributeError, yaml.YAMLError):
            equals = ""
        if not equals:
            raise InputError(f"--set {change!r} must be KEY=VALUE, such as {example}.")
    return values


def made(kind: type[Made], values: Mapping[str, Any], where: str) -> Made:
    """Make a dataclass of values from a file.

    Args:
        kind: the dataclass, which checks ranges itself.
        values: by the names of its fields.
        where: what people call this part of the configuration.

    Raises:
        InputError: a key is unknown, or a value cannot be used.
    """
    known = [field.name for field in fields(kind)]
    if unknown := sorted(values.keys() - set(known)):
        raise InputError(f"There is no {unknown[0]!r} in {where}; known are {', '.join(known)}.")
    try:
        return kind(**values)
    except TypeError as error:  # such as text where a number is compared
        raise InputError(f"A value of {where} is of the wrong kind: {error}.") from error
