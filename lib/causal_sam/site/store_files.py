"""Files of an adapter store: manifests, weights, locks, and the history of the acts that decided about versions."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from causal_sam.atomic import atomic_write, sync
from causal_sam.site.versions import ADAPTER, MANIFEST, DamagedVersionError, Manifest, StoreError, Version, version_name

CURRENT, HISTORY = "current", "history.jsonl"


@dataclass(frozen=True)
class Event:
    """An act that decided about a version.

    Attributes:
        act: the kind of act.
        number: number of the version.
        time: UTC, ISO 8601.
        before: the version that was current until then.
        reason: reason for the rejection.
    """

    act: Literal["publish", "reject", "roll back"]
    number: int
    time: str
    before: int | None
    reason: str | None = None


_EVENT, _MANIFEST = TypeAdapter(Event), TypeAdapter(Manifest)


class StoreHistory:
    """Number of the current version, and the log of all acts. Methods that write need the lock of the store.

    `current` holds the last act that made a version current, and is the truth about it. `history.jsonl` follows it: an
    act that could not be recorded there is recorded by the next change.

    Args:
        folder: folder of the store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def current(self) -> tuple[Event | None, bool]:
        """Return the act that made a version current, and whether it had to be taken from the history.

        Raises:
            StoreError: the files cannot be read.
        """
        event = _parsed(_content(self.folder / CURRENT))
        if event is not None:
            return event, False
        moves = [event for event in self._recorded() if event.act != "reject"]
        return (moves[-1], True) if moves else (None, False)

    def events(self) -> list[Event]:
        """Return all acts, the oldest first."""
        current, _ = self.current()  # before the rest, which may grow meanwhile
        events = self._recorded()
        return events if current is None or current in events else [*events, current]

    def ancestors(self, number: int | None) -> Iterator[int]:
        """Yield the versions that a published one goes back to, the newest first."""
        parents = {event.number: event.before for event in self.events() if event.act == "publish"}
        while number is not None and (number := parents.get(number)) is not None:
            yield number

    def make_current(self, act: Literal["publish", "roll back"], number: int) -> Event:
        """Make a version current."""
        event = self._event(act, number)
        self._replace(CURRENT, _line(event))
        with suppress(OSError):  # it is done already, and the next change records it
            self._record(event)
        return event

    def reject(self, number: int, reason: str) -> None:
        """Record that a version is not published."""
        self._record(self._event("reject", number, reason))

    def repair(self) -> None:
        """Complete the files after a process was killed between their changes."""
        current, is_lost = self.current()
        if current is not None and is_lost:
            self._replace(CURRENT, _line(current))
        elif current is not None and current not in self._recorded():
            self._record(current)

    def _event(self, act: Literal["publish", "reject", "roll back"], number: int, reason: str | None = None) -> Event:
        current, _ = self.current()
        return Event(act, number, utc_now(), None if current is None else current.number, reason)

    def _recorded(self) -> list[Event]:
        events = map(_parsed, _content(self.folder / HISTORY).splitlines())
        return [event for event in events if event is not None]

    def _record(self, event: Event) -> None:
        recorded = _content(self.folder / HISTORY)
        if recorded and not recorded.endswith(b"\n"):
            recorded += b"\n"
        self._replace(HISTORY, recorded + _line(event))

    def _replace(self, name: str, content: bytes) -> None:
        """Write a file of the store, whole or not at all."""
        with atomic_write(self.folder / name) as part:
            part.write_bytes(content)
        sync(self.folder)


def read_manifest(folder: Path, number: int) -> Manifest:
    """Read the manifest of a version.

    Raises:
        DamagedVersionError: it cannot be read, or belongs to another version.
    """
    try:
        manifest = _MANIFEST.validate_json((folder / MANIFEST).read_bytes(), strict=True)
    except OSError as error:
        raise _damaged(folder, f"its {MANIFEST} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise _damaged(folder, f"its {MANIFEST} is cut off or was changed") from error
    if manifest.number != number:
        raise _damaged(folder, f"its {MANIFEST} is that of {version_name(manifest.number)}")
    return manifest


def _damaged(folder: Path, damage: str) -> DamagedVersionError:
    return DamagedVersionError(
        f"Version {folder} is damaged, {damage}: roll back to another version, or restore its files from a copy."
    )


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_weights(version: Version) -> None:
    """Compare the weights of a version with its manifest.

    Raises:
        DamagedVersionError: they are not those that were written.
    """
    try:
        digest = file_digest(version.adapter)
    except OSError as error:
        raise _damaged(version.folder, f"its {ADAPTER} cannot be read ({error.strerror})") from error
    if digest != version.manifest.adapter_sha256:
        raise _damaged(version.folder, f"its {ADAPTER} is cut off or was changed (wrong SHA-256)")


@contextmanager
def locked(path: Path, how: int) -> Iterator[None]:
    """Hold a lock on a file, which is made if it is not there."""
    # Network file systems want a file that is open for writing, but only for exclusive locks.
    file = os.open(path, os.O_CREAT | (os.O_RDONLY if how == fcntl.LOCK_SH else os.O_RDWR), 0o644)
    try:
        fcntl.flock(file, how)
        yield
    finally:
        os.close(file)


def utc_now() -> str:
    """Return the time, ISO 8601."""
    return datetime.now(UTC).isoformat()


def _content(path: Path) -> bytes:
    """Read a file; one that is not there is empty."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}): make it a file that can.") from error


def _line(event: Event) -> bytes:
    return json.dumps(asdict(event)).encode() + b"\n"


def _parsed(line: bytes) -> Event | None:
    """Read an act; None if it is damaged."""
    try:
        return _EVENT.validate_json(line, strict=True)
    except ValidationError:
        return None
