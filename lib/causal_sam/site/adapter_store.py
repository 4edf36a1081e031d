"""The adapter store: numbered versions of what training wrote, and which of them is in use.

    <folder>/v0001/adapter.safetensors    weights; never changed
    <folder>/v0001/manifest.json          what they were made from, and how good they are; never changed
    <folder>/v0001/lease                  locked by who uses the version
    <folder>/current                      the act that made a version current
    <folder>/history.jsonl                all acts: publish, reject, roll back
    <folder>/lock                         locked by who changes the store

Each change takes effect by one rename, so a process can be killed at any moment. `current` is the truth about which
version is in use, and history follows it: an act that could not be recorded is recorded by the next change. Locks are
those of `flock`, which end with the process that holds them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from causal_sam.atomic import PART_PREFIX, atomic_write
from causal_sam.errors import CausalSamError, InputError, NotFoundError

ADAPTER, MANIFEST, LEASE = "adapter.safetensors", "manifest.json", "lease"
CURRENT, HISTORY, LOCK = "current", "history.jsonl", "lock"
PACKAGES = ("causal-sam", "monai", "peft", "safetensors", "torch")
# Folders that are not a version yet, or not any more, and files that are not whole yet.
_ADDING, _REMOVED = ".adding-", ".removed-"

Status = Literal["candidate", "published", "rejected"]


class StoreError(CausalSamError):
    """The store cannot be read, or cannot be changed and was not."""


class ConflictError(StoreError):
    """Another version became current while one was trained, which therefore is not published."""


class DamagedVersionError(StoreError):
    """The files of a version are not what was written."""


@dataclass(frozen=True)
class UsedLabel:
    """An accepted label that a version was trained on.

    Attributes:
        image: id of its image.
        tag: of the label.
        sha256: hexadecimal digest of the label's file.
    """

    image: str
    tag: str
    sha256: str


@dataclass(frozen=True)
class Training:
    """What a version was made from, and how good it is.

    Attributes:
        parent: the version that was current when training began, and that it began with; None if there was none.
        encoder_hash: `CausalSam.encoder_hash` of the model that it belongs to.
        labels: the accepted labels that it was trained on.
        names: of the labels that it knows.
        metrics: one number for each label, on the cases that ``config`` names as ``measured_on``.
        parent_metrics: the same of the parent, on the same cases.
        config: of the training; what JSON can hold.
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
    """What a version says about itself.

    Attributes:
        number: of the version, from 1; never used again.
        training: what it was made from, and how good it is.
        adapter_sha256: hexadecimal digest of its file of weights.
        time: when it was added, UTC, ISO 8601.
        packages: their versions, by name.
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
        manifest: what it says about itself.
        folder: of its files.
        status: "published", if it is or was current; "rejected"; or "candidate" as long as it is neither.
        reason: why it was rejected.
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
        """Its file of weights."""
        return self.folder / ADAPTER


@dataclass(frozen=True)
class Event:
    """An act that decided about a version.

    Attributes:
        act: what was done.
        number: of the version.
        time: UTC, ISO 8601.
        before: the version that was current until then.
        reason: why it was rejected.
    """

    act: Literal["publish", "reject", "roll back"]
    number: int
    time: str
    before: int | None
    reason: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two versions side by side.

    Attributes:
        metrics: label -> the number of the first and of the second version; None if it was not measured.
        same_cases: both were measured on the same cases, since one was trained from the other.
        names_gained: labels that only the second version knows.
        names_lost: labels that only the first version knows.
        labels_gained: accepted labels that only the second was trained on. One that was corrected is also lost.
        labels_lost: accepted labels that only the first was trained on.
    """

    metrics: dict[str, tuple[float | None, float | None]]
    same_cases: bool
    names_gained: tuple[str, ...]
    names_lost: tuple[str, ...]
    labels_gained: tuple[UsedLabel, ...]
    labels_lost: tuple[UsedLabel, ...]


_TRAINING, _MANIFEST, _EVENT = TypeAdapter(Training), TypeAdapter(Manifest), TypeAdapter(Event)


def version_name(number: int | None) -> str:
    """What people and folders call a version.

    >>> version_name(7), version_name(None)
    ('v0007', 'no version')
    """
    return "no version" if number is None else f"v{number:04d}"


class AdapterStore:
    """Versions of the adapters in a folder, which any number of threads and processes may share.

    A version is added, then published or rejected. Its files are never changed.

    Args:
        folder: is made when the first version is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def current(self) -> int | None:
        """Return the number of the version in use, None before the first one.

        It reads one line, so a server can ask at every request. The version itself may be damaged: `lease_current`
        finds what can be loaded.

        Raises:
            StoreError: the store cannot be read.
        """
        pointer, _ = self._pointer()
        return None if pointer is None else pointer.number

    def numbers(self) -> list[int]:
        """Return the numbers of all versions that are there, ascending."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        numbers = sorted(int(name[1:]) for name in names if re.fullmatch(r"v\d{4,}", name))
        return [number for number in numbers if version_name(number) in names]

    def version(self, number: int) -> Version:
        """Read the manifest of a version; its weights are not looked at.

        Raises:
            NotFoundError: there is no such version.
            DamagedVersionError: the manifest cannot be read.
        """
        folder = self.folder / version_name(number)
        try:
            manifest = _MANIFEST.validate_json((folder / MANIFEST).read_bytes(), strict=True)
        except OSError as error:
            if not folder.is_dir():
                raise self._not_found(number) from None
            raise _damaged(folder, f"its {MANIFEST} cannot be read ({error.strerror})") from error
        except ValidationError as error:
            raise _damaged(folder, f"its {MANIFEST} is cut off or was changed") from error
        if manifest.number != number:
            raise _damaged(folder, f"its {MANIFEST} is that of {version_name(manifest.number)}")
        events = [event for event in self.history() if event.number == number]
        if any(event.act == "publish" for event in events):
            return Version(manifest, folder, "published")
        if events:
            return Version(manifest, folder, "rejected", events[-1].reason)
        return Version(manifest, folder, "candidate")

    def history(self) -> list[Event]:
        """Return all that was published, rejected and rolled back, the oldest first."""
        pointer, _ = self._pointer()  # before the rest, which may grow meanwhile
        events = self._recorded()
        return events if pointer is None or pointer in events else [*events, pointer]

    @contextmanager
    def lease(self, number: int) -> Iterator[Version]:
        """Keep a version from being removed until the block ends, and check that its files are what was written.

        Raises:
            NotFoundError: there is no such version.
            DamagedVersionError: its files are not what was written.
            StoreError: it cannot be opened.
        """
        path = self.folder / version_name(number) / LEASE
        with ExitStack() as stack:
            try:
                stack.enter_context(_locked(path, fcntl.LOCK_SH))
            except (FileNotFoundError, NotADirectoryError):
                raise self._not_found(number) from None
            except OSError as error:
                raise StoreError(f"{path} cannot be opened ({error.strerror}): make it readable.") from error
            version = self.version(number)  # while this waited for the lock it may have been removed
            _check(version)
            yield version

    @contextmanager
    def lease_current(self) -> Iterator[tuple[Version, str | None]]:
        """Lease the version in use or, if it is damaged, the newest of those that it goes back to which is not.

        Yields:
            The version, and what is wrong if it is not the one that was asked for; a sentence for people, or None.

        Raises:
            NotFoundError: nothing was published yet.
            DamagedVersionError: none of them can be loaded.
        """
        with ExitStack() as stack:
            yield self._lease_best(stack)

    def compare(self, first: int, second: int) -> Comparison:
        """Put two versions side by side.

        Raises:
            NotFoundError: there is no such version.
            DamagedVersionError: a manifest cannot be read.
        """
        one, two = (self.version(number).manifest.training for number in (first, second))
        ones, twos, same_cases = one.metrics, two.metrics, True
        if two.parent == first:
            ones = two.parent_metrics
        elif one.parent == second:
            twos = one.parent_metrics
        else:
            same_cases = first == second
        return Comparison(
            metrics={name: (ones.get(name), twos.get(name)) for name in dict.fromkeys((*ones, *twos))},
            same_cases=same_cases,
            names_gained=tuple(name for name in two.names if name not in one.names),
            names_lost=tuple(name for name in one.names if name not in two.names),
            labels_gained=tuple(label for label in two.labels if label not in one.labels),
            labels_lost=tuple(label for label in one.labels if label not in two.labels),
        )

    def add(self, write: Callable[[Path], object], training: Training) -> Version:
        """Add a version; it is a candidate until it is published or rejected.

        Args:
            write: writes the weights to the path that it is given, as safetensors; it may take its time.
            training: what they were made from, and how good they are.

        Raises:
            InputError: ``training`` is not what JSON can hold.
            StoreError: it cannot be written, or what was written is not a file of weights; nothing was added.
        """
        try:
            _TRAINING.validate_json(json.dumps(asdict(training), allow_nan=False), strict=True)
        except (TypeError, ValueError) as error:
            raise InputError(f"What is said about a training must be what JSON can hold: {error}") from error
        with self._writing(), ExitStack() as stack:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._changing():
                part = self.folder / f"{_ADDING}{secrets.token_hex(8)}"
                stack.callback(shutil.rmtree, part, ignore_errors=True)
                part.mkdir()
                stack.enter_context(_locked(part / LEASE, fcntl.LOCK_EX))
            write(part / ADAPTER)
            digest = _seal_weights(part / ADAPTER)
            packages = {name: metadata.version(name) for name in PACKAGES}
            with self._changing():
                number = 1 + max((0, *self.numbers(), *(event.number for event in self.history())))
                manifest = Manifest(number, training, digest, _now(), packages)
                (part / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1))
                _seal(part / MANIFEST)
                _sync(part)
                part.rename(self.folder / version_name(number))
                _sync(self.folder)
        return self.version(number)

    def publish(self, number: int) -> Event:
        """Make a candidate the version in use, if the one that it was trained from still is.

        Returns:
            What was recorded.

        Raises:
            ConflictError: another version is in use by now; this one was rejected.
            InputError: it was published or rejected before.
            NotFoundError: there is no such version.
            DamagedVersionError: its files are not what was written.
            StoreError: it cannot be written; nothing was changed.
        """
        with self._changing():
            version = self._candidate(number)
            _check(version)
            parent, current = version.manifest.training.parent, self.current()
            if parent != current:
                reason = (
                    f"{version_name(number)} was trained from {version_name(parent)}, but {version_name(current)} is "
                    f"current now, so it was not published: train again from {version_name(current)}."
                )
                self._record(Event("reject", number, _now(), current, reason))
                raise ConflictError(reason)
            return self._make_current("publish", number)

    def reject(self, number: int, reason: str) -> None:
        """Record why a candidate is not published.

        Raises:
            InputError: it was published or rejected before.
            NotFoundError: there is no such version.
            DamagedVersionError: its manifest cannot be read.
            StoreError: it cannot be written; nothing was changed.
        """
        with self._changing():
            self._candidate(number)
            self._record(Event("reject", number, _now(), self.current(), reason))

    def roll_back(self, number: int) -> Event:
        """Make a version that was published before the one in use again.

        Returns:
            What was recorded.

        Raises:
            InputError: it never was published, or is in use.
            NotFoundError: there is no such version.
            DamagedVersionError: its files are not what was written.
            StoreError: it cannot be written; nothing was changed.
        """
        with self._changing():
            version = self.version(number)
            if version.status != "published":
                raise InputError(f"{version_name(number)} was never published: roll back to a version that was.")
            if number == self.current():
                raise InputError(f"{version_name(number)} is current already.")
            _check(version)
            return self._make_current("roll back", number)

    def collect(self, keep: int) -> list[int]:
        """Remove old versions.

        What stays: the newest ones, the one in use, the nearest sound one that it was trained from, and whatever is
        leased by any process.

        Args:
            keep: how many stay of those that were published, and of the others; at least 1.

        Returns:
            The numbers of what was removed.

        Raises:
            InputError: ``keep`` is less than 1.
            StoreError: something cannot be removed.
        """
        if keep < 1:
            raise InputError(f"At least 1 version must be kept, not {keep}.")
        with self._changing():
            published = {event.number for event in self.history() if event.act == "publish"}
            numbers = self.numbers()
            kept = {self.current()}
            for group in (published.intersection(numbers), set(numbers) - published):
                kept.update(sorted(group)[-keep:])
            kept.add(next((number for number in self._ancestors(self.current()) if self._is_sound(number)), None))
            return [number for number in numbers if number not in kept and self._remove(number)]

    def _lease_best(self, stack: ExitStack) -> tuple[Version, str | None]:
        pointer, lost = self._pointer()
        if pointer is None:
            raise NotFoundError(f"No version was published in {self.folder} yet: train one first.")
        wrong = [f"{self.folder / CURRENT} is lost or damaged, so the last entry of {HISTORY} counts."] if lost else []
        for number in (pointer.number, *self._ancestors(pointer.number)):
            try:
                version = stack.enter_context(self.lease(number))
            except (DamagedVersionError, NotFoundError) as error:
                if self._pointer()[0] != pointer:  # it moved meanwhile, so what it was may be gone
                    return self._lease_best(stack)
                if number == pointer.number:
                    wrong.append(str(error))
                continue
            if number != pointer.number:
                wrong.append(f"Until then {version_name(number)} is used, which it was trained from.")
            return version, " ".join(wrong) or None
        raise DamagedVersionError(" ".join([*wrong, "None of those that it was trained from can be used either."]))

    def _pointer(self) -> tuple[Event | None, bool]:
        """The act that made a version current, and whether it had to be taken from history."""
        pointer = _event(_content(self.folder / CURRENT))
        if pointer is not None:
            return pointer, False
        moves = [event for event in self._recorded() if event.act != "reject"]
        return (moves[-1], True) if moves else (None, False)

    def _recorded(self) -> list[Event]:
        lines = _content(self.folder / HISTORY).splitlines()
        return [event for event in map(_event, lines) if event is not None]

    def _ancestors(self, number: int | None) -> Iterator[int]:
        """The versions that a published one goes back to, the newest first."""
        parents = {event.number: event.before for event in self.history() if event.act == "publish"}
        while number is not None and (number := parents.get(number)) is not None:
            yield number

    def _is_sound(self, number: int) -> bool:
        try:
            _check(self.version(number))
        except (DamagedVersionError, NotFoundError):
            return False
        return True

    def _candidate(self, number: int) -> Version:
        version = self.version(number)
        if version.status == "published":
            raise InputError(f"{version_name(number)} was published before: roll back to it instead.")
        if version.status == "rejected":
            raise InputError(f"{version_name(number)} was rejected before: {version.reason}")
        return version

    def _make_current(self, act: Literal["publish", "roll back"], number: int) -> Event:
        event = Event(act, number, _now(), self.current())
        self._replace(CURRENT, _line(event))
        with suppress(OSError):  # it is done already, and the next change records it
            self._record(event)
        return event

    def _record(self, event: Event) -> None:
        recorded = _content(self.folder / HISTORY)
        if recorded and not recorded.endswith(b"\n"):
            recorded += b"\n"
        self._replace(HISTORY, recorded + _line(event))

    def _replace(self, name: str, content: bytes) -> None:
        """Write a file of the store, whole or not at all."""
        with atomic_write(self.folder / name) as part:
            part.write_bytes(content)
        _sync(self.folder)

    def _remove(self, number: int) -> bool:
        """Remove a version, unless somebody uses it."""
        folder = self.folder / version_name(number)
        try:
            with _locked(folder / LEASE, fcntl.LOCK_EX | fcntl.LOCK_NB):
                away = self.folder / f"{_REMOVED}{folder.name}"
                folder.rename(away)
                _sync(self.folder)
                shutil.rmtree(away, ignore_errors=True)
        except BlockingIOError:
            return False
        return True

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock of the store, after putting right what a killed process left."""
        with self._writing(), _locked(self.folder / LOCK, fcntl.LOCK_EX):
            pointer, lost = self._pointer()
            if pointer is not None and lost:
                self._replace(CURRENT, _line(pointer))
            elif pointer is not None and pointer not in self._recorded():
                self._record(pointer)
            for path in self.folder.glob(".*"):
                with suppress(OSError):  # its owner lives, or it is another user's
                    if path.name.startswith(PART_PREFIX):
                        path.unlink()
                    elif path.name.startswith((_ADDING, _REMOVED)):
                        with _locked(path / LEASE, fcntl.LOCK_EX | fcntl.LOCK_NB):
                            shutil.rmtree(path)
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            why = getattr(error, "strerror", None) or error
            raise StoreError(
                f"The adapter store {self.folder} cannot be written ({why}), so nothing was changed: make room there, "
                "or make it writable."
            ) from error

    def _not_found(self, number: int) -> NotFoundError:
        there = ", ".join(map(version_name, self.numbers()))
        return NotFoundError(
            f"There is no version {version_name(number)} in {self.folder}: choose one of {there}."
            if there
            else f"There are no versions in {self.folder}: train one, or give the folder of an adapter store."
        )


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    """Hold a lock on a file, which is made if it is not there."""
    # Network file systems want a file that is open for writing, but only for exclusive locks.
    file = os.open(path, os.O_CREAT | (os.O_RDONLY if how == fcntl.LOCK_SH else os.O_RDWR), 0o644)
    try:
        fcntl.flock(file, how)
        yield
    finally:
        os.close(file)


def _damaged(folder: Path, what: str) -> DamagedVersionError:
    return DamagedVersionError(
        f"Version {folder} is damaged, {what}: roll back to another version, or restore its files from a copy."
    )


def _check(version: Version) -> None:
    """Compare the weights of a version with its manifest."""
    try:
        digest = _sha256(version.adapter)
    except OSError as error:
        raise _damaged(version.folder, f"its {ADAPTER} cannot be read ({error.strerror})") from error
    if digest != version.manifest.adapter_sha256:
        raise _damaged(version.folder, f"its {ADAPTER} is cut off or was changed (wrong SHA-256)")


def _seal_weights(path: Path) -> str:
    """Check that a file holds weights, bring it to the disk, and return its digest."""
    try:
        with safe_open(path, "np"):
            pass
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"What was to become a version is no file of weights ({error}), so none was added: write it as safetensors."
        ) from error
    _seal(path)
    return _sha256(path)


def _seal(path: Path) -> None:
    """Bring a file to the disk, never to be changed again."""
    path.chmod(path.stat().st_mode & ~0o222)
    _sync(path)


def _sync(path: Path) -> None:
    """Bring what was written to a file or a folder to the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _content(path: Path) -> bytes:
    """Read a file of the store; one that is not there is empty."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}): make it a file that can.") from error


def _line(event: Event) -> bytes:
    return json.dumps(asdict(event)).encode() + b"\n"


def _event(line: bytes) -> Event | None:
    """Read an act; None if it is damaged."""
    try:
        return _EVENT.validate_json(line, strict=True)
    except ValidationError:
        return None
