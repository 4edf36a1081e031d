"""The adapter store: numbered versions of the adapters, and which of them is in use.

    <folder>/v0001/adapter.safetensors    an adapter bundle; never changed
    <folder>/v0001/manifest.json          how it was made, and how good it is; never changed
    <folder>/v0001/lease                  locked by who uses the version
    <folder>/current                      the act that made a version current
    <folder>/history.jsonl                all acts: publish, reject, roll back
    <folder>/lock                         locked by who changes the store

Each change takes effect by one rename, so a process can be killed at any moment. Locks are those of `flock`, which end
with the process that holds them.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open

from causal_sam.atomic import PART_PREFIX, sync
from causal_sam.errors import InputError, NotFoundError
from causal_sam.site.store_files import (
    CURRENT,
    HISTORY,
    Event,
    StoreHistory,
    check_weights,
    file_digest,
    locked,
    read_manifest,
    utc_now,
)
from causal_sam.site.versions import (
    ADAPTER,
    MANIFEST,
    ConflictError,
    DamagedVersionError,
    Manifest,
    StoreError,
    Training,
    Version,
    version_name,
)

LEASE, LOCK = "lease", "lock"
PACKAGES = ("causal-sam", "monai", "peft", "safetensors", "torch")
# Folders that are not a version yet, or not any more.
_ADDING, _REMOVED = ".adding-", ".removed-"

_TRAINING = TypeAdapter(Training)


class AdapterStore:
    """Versions of the adapters in a folder, which any number of threads and processes may share.

    A version is added, then published or rejected. Its files are never changed.

    Args:
        folder: folder of the store; created when the first version is added.

    Attributes:
        history: the acts that decided about versions.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.history = StoreHistory(self.folder)

    def current(self) -> int | None:
        """Return the number of the version in use, None before the first one.

        It reads one line, so a server can ask at every request. The version itself may be damaged: `lease_current`
        finds what can be loaded.

        Raises:
            StoreError: the store cannot be read.
        """
        event, _ = self.history.current()
        return None if event is None else event.number

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
            manifest = read_manifest(folder, number)
        except DamagedVersionError:
            if not folder.is_dir():
                raise self._not_found(number) from None
            raise
        events = [event for event in self.history.events() if event.number == number]
        if any(event.act == "publish" for event in events):
            return Version(manifest, folder, "published")
        if events:
            return Version(manifest, folder, "rejected", events[-1].reason)
        return Version(manifest, folder, "candidate")

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
                stack.enter_context(locked(path, fcntl.LOCK_SH))
            except (FileNotFoundError, NotADirectoryError):
                raise self._not_found(number) from None
            except OSError as error:
                raise StoreError(f"{path} cannot be opened ({error.strerror}): make it readable.") from error
            version = self.version(number)  # while this waited for the lock it may have been removed
            check_weights(version)
            yield version

    @contextmanager
    def lease_current(self) -> Iterator[tuple[Version, str | None]]:
        """Lease the version in use or, if it is damaged, its newest ancestor that is sound.

        Yields:
            The version, and None; if it is not the version in use, a sentence for people that says what is wrong.

        Raises:
            NotFoundError: nothing was published yet.
            DamagedVersionError: none of them can be loaded.
        """
        with ExitStack() as stack:
            yield self._lease_best(stack)

    def add(self, write: Callable[[Path], object], training: Training) -> Version:
        """Add a version; it is a candidate until it is published or rejected.

        Args:
            write: writes the weights to the path that it is given, as safetensors; it may take its time.
            training: record of how they were trained, and how good they are.

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
                stack.enter_context(locked(part / LEASE, fcntl.LOCK_EX))
            write(part / ADAPTER)
            digest = _seal_weights(part / ADAPTER)
            packages = {name: metadata.version(name) for name in PACKAGES}
            with self._changing():
                number = 1 + max((0, *self.numbers(), *(event.number for event in self.history.events())))
                manifest = Manifest(number, training, digest, utc_now(), packages)
                (part / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1))
                _seal(part / MANIFEST)
                sync(part)
                part.rename(self.folder / version_name(number))
                sync(self.folder)
        return self.version(number)

    def publish(self, number: int) -> Event:
        """Make a candidate the version in use, if the one that it was trained from still is.

        Returns:
            The event that was recorded.

        Raises:
            ConflictError: another version is in use by now; this one was rejected.
            InputError: it was published or rejected before.
            NotFoundError: there is no such version.
            DamagedVersionError: its files are not what was written.
            StoreError: it cannot be written; nothing was changed.
        """
        with self._changing():
            version = self._candidate(number)
            check_weights(version)
            parent, current = version.manifest.training.parent, self.current()
            if parent != current:
                reason = (
                    f"{version_name(number)} was trained from {version_name(parent)}, but {version_name(current)} is "
                    f"current now, so it was not published: train again from {version_name(current)}."
                )
                self.history.reject(number, reason)
                raise ConflictError(reason)
            return self.history.make_current("publish", number)

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
            self.history.reject(number, reason)

    def roll_back(self, number: int) -> Event:
        """Make a version that was published before the one in use again.

        Returns:
            The event that was recorded.

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
            check_weights(version)
            return self.history.make_current("roll back", number)

    def collect(self, keep: int) -> list[int]:
        """Remove old versions.

        The newest versions stay, and so do the one in use, its nearest sound ancestor, and all that any process leases.

        Args:
            keep: number of published versions that stay, and number of others; at least 1.

        Returns:
            The numbers of the removed versions.

        Raises:
            InputError: ``keep`` is less than 1.
            StoreError: something cannot be removed.
        """
        if keep < 1:
            raise InputError(f"At least 1 version must be kept, not {keep}.")
        with self._changing():
            published = {event.number for event in self.history.events() if event.act == "publish"}
            numbers = self.numbers()
            kept = {self.current()}
            for group in (published.intersection(numbers), set(numbers) - published):
                kept.update(sorted(group)[-keep:])
            ancestors = self.history.ancestors(self.current())
            kept.add(next((number for number in ancestors if self._is_sound(number)), None))
            return [number for number in numbers if number not in kept and self._remove(number)]

    def _lease_best(self, stack: ExitStack) -> tuple[Version, str | None]:
        event, is_lost = self.history.current()
        if event is None:
            raise NotFoundError(f"No version was published in {self.folder} yet: train one first.")
        lost = f"{self.folder / CURRENT} is lost or damaged, so the last entry of {HISTORY} counts."
        wrong = [lost] if is_lost else []
        for number in (event.number, *self.history.ancestors(event.number)):
            try:
                version = stack.enter_context(self.lease(number))
            except (DamagedVersionError, NotFoundError) as error:
                if self.history.current()[0] != event:  # it moved meanwhile, so what it was may be gone
                    return self._lease_best(stack)
                if number == event.number:
                    wrong.append(str(error))
                continue
            if number != event.number:
                wrong.append(f"Until then {version_name(number)} is used, which it was trained from.")
            return version, " ".join(wrong) or None
        raise DamagedVersionError(" ".join([*wrong, "None of those that it was trained from can be used either."]))

    def _is_sound(self, number: int) -> bool:
        try:
            check_weights(self.version(number))
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

    def _remove(self, number: int) -> bool:
        """Remove a version, unless somebody uses it."""
        folder = self.folder / version_name(number)
        try:
            with locked(folder / LEASE, fcntl.LOCK_EX | fcntl.LOCK_NB):
                away = self.folder / f"{_REMOVED}{folder.name}"
                folder.rename(away)
                sync(self.folder)
                shutil.rmtree(away, ignore_errors=True)
        except BlockingIOError:
            return False
        return True

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock of the store, after putting right what a killed process left."""
        with self._writing(), locked(self.folder / LOCK, fcntl.LOCK_EX):
            self.history.repair()
            for path in self.folder.glob(".*"):
                with suppress(OSError):  # its owner lives, or it is another user's
                    if path.name.startswith(PART_PREFIX):
                        path.unlink()
                    elif path.name.startswith((_ADDING, _REMOVED)):
                        with locked(path / LEASE, fcntl.LOCK_EX | fcntl.LOCK_NB):
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
    return file_digest(path)


def _seal(path: Path) -> None:
    """Bring a file to the disk, never to be changed again."""
    path.chmod(path.stat().st_mode & ~0o222)
    sync(path)
