"""Versions of the adapters: manifests, a comparison of two, and the errors of the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from causal_sam.errors import CausalSamError

ADAPTER, MANIFEST = "adapter.safetensors", "manifest.json"

Status = Literal["candidate", "published", "rejected"]


class StoreError(CausalSamError):
    """The store cannot be read, or cannot be changed and was not."""


class ConflictError(StoreError):
    """Another version became current while one was trained, which therefore is not published."""


class DamagedVersionError(StoreError):
    """The files of a version are not those that were written."""


@dataclass(frozen=True)
class UsedLabel:
    """An accepted label that a version was trained on.

    Attributes:
        image: id of its image.
        tag: tag of the label.
        sha256: hexadecimal digest of the label's file.
    """

    image: str
    tag: str
    sha256: str


@dataclass(frozen=True)
class Training:
    """Record of how a version was trained, and how good it is.

    Attributes:
        parent: the version that was current when training began, and from which it started; None if there was none.
        encoder_hash: `CausalSam.encoder_hash` of the model that it belongs to.
        labels: the accepted labels that it was trained on.
        names: names of the labels that it knows.
        metrics: one number for each label, on the cases that ``config`` names as ``measured_on``.
        parent_metrics: the same of the parent, on the same cases.
        config: settings of the training; JSON values only.
    """

    parent: int | None
    encoder_hash: str
    labels: tuple[UsedLabel, ...]
    names: tuple[str, ...]
    metrics: dict[str, float]
    parent_metrics: dict[str, float] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The description of a version that is stored beside its weights.

    Attributes:
        number: number of the version, from 1; never used again.
        training: record of how it was trained, and how good it is.
        adapter_sha256: hexadecimal digest of its file of weights.
        time: time of adding, UTC, ISO 8601.
        packages: package name -> version.
    """

    number: int
    training: Training
    adapter_sha256: str
    time: str
    packages: dict[str, str]


@dataclass(frozen=True)
class Version:
    """A version in the store.

    Attributes:
        manifest: its description.
        folder: folder of its files.
        status: "published", if it is or was current; "rejected"; or "candidate" as long as it is neither.
        reason: reason for the rejection.
    """

    manifest: Manifest
    folder: Path
    status: Status
    reason: str | None = None

    @property
    def number(self) -> int:
        return self.manifest.number

    @property
    def adapter(self) -> Path:
        """Its file of weights, an adapter bundle."""
        return self.folder / ADAPTER


@dataclass(frozen=True)
class Comparison:
    """Two versions side by side.

    Attributes:
        metrics: label -> the number of the first and of the second version; None if it was not measured.
        same_cases: both were measured on the same cases, since one was trained from the other.
        names_gained: labels that only the second version knows.
        names_lost: labels that only the first version knows.
        labels_gained: accepted labels that only the second was trained on. A corrected label is also in labels_lost.
        labels_lost: accepted labels that only the first was trained on.
    """

    metrics: dict[str, tuple[float | None, float | None]]
    same_cases: bool
    names_gained: tuple[str, ...]
    names_lost: tuple[str, ...]
    labels_gained: tuple[UsedLabel, ...]
    labels_lost: tuple[UsedLabel, ...]

    @classmethod
    def between(cls, first: Version, second: Version) -> Comparison:
        """Compare two versions; where one was trained from the other, on the cases of that training."""
        one, two = first.manifest.training, second.manifest.training
        ones, twos, same_cases = one.metrics, two.metrics, True
        if two.parent == first.number:
            ones = two.parent_metrics
        elif one.parent == second.number:
            twos = one.parent_metrics
        else:
            same_cases = first.number == second.number
        return cls(
            metrics={name: (ones.get(name), twos.get(name)) for name in dict.fromkeys((*ones, *twos))},
            same_cases=same_cases,
            names_gained=tuple(name for name in two.names if name not in one.names),
            names_lost=tuple(name for name in one.names if name not in two.names),
            labels_gained=tuple(label for label in two.labels if label not in one.labels),
            labels_lost=tuple(label for label in one.labels if label not in two.labels),
        )


def version_name(number: int | None) -> str:
    """Return the name of a version, for people and folders.

    >>> version_name(7), version_name(None)
    ('v0007', 'no version')
    """
    return "no version" if number is None else f"v{number:04d}"
