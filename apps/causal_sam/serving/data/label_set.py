"""The label set: which structures the app offers, and the value that each has in a label map."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore

from causal_sam.errors import InputError
from causal_sam.imaging.label_names import names_in_info
from causal_sam.text import LabelNames, canonical
from serving.requests.identifiers import checked_label_name

BACKGROUND = "background"
ABDOMEN = (
    *("liver", "spleen", "right kidney", "left kidney", "pancreas", "gallbladder", "stomach", "aorta"),
    *("inferior vena cava", "urinary bladder", "lesion"),
)
# Clients put a label's points under its name, beside these: keys of MONAI Label, of its clients, and options of tasks.
RESERVED = frozenset(
    (
        *("background", "client_id", "confirm", "description", "device", "extent", "foreground", "frame"),
        *("image", "image_path", "label", "label_info", "label_names", "label_tag", "labels", "lasso", "latencies"),
        *("local", "locked"),
        *("logging", "model", "note", "organs", "output", "params", "plane", "preview", "redo", "repeat", "replace"),
        *("reset", "reset_state", "restore_label_idx", "roi", "save_label", "selected_label_name", "session"),
        *("session_id", "slice", "undo"),
    )
)
RESERVED_PREFIXES = ("result_", "causal_sam_")
MAX_LABELS = 254  # label maps go to clients as uint8, and one value is the background's


def checked_label(value: object, what: str = "label name") -> str:
    """Return a name that a label can have, unchanged: prompted, scribbled, found by name or saved.

    Args:
        value: value from a client.
        what: noun for the sentence.

    Raises:
        InputError: it is no `checked_label_name`, or requests use that word for something else.
    """
    name = checked_label_name(value, what)
    if name in RESERVED or name.startswith(RESERVED_PREFIXES):
        raise InputError(
            f"No label can be called {name!r}: requests use that word for something else; choose another name."
        )
    return name


def refusal(name: str) -> str | None:
    """Why no label can have a name, a sentence; None if one can."""
    try:
        checked_label(name)
    except InputError as error:
        return str(error)
    return None


class LabelSet:
    """Names with the values 1..N of a label map, without gaps: Slicer maps the values of an answer by position.

    Args:
        names: label names in the order of their values.

    Raises:
        InputError: no name, too many, one twice, an empty one, or one that clients use as another parameter.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(str(name).strip() for name in names)
        if not 1 <= len(self.names) <= MAX_LABELS:
            raise InputError(f"labels must be 1 to {MAX_LABELS} names, not {len(self.names)}.")
        for name in self.names:
            if not name:
                raise InputError("labels has an empty name; write names separated by single commas.")
            if self.names.count(name) > 1:
                raise InputError(f"labels names {name!r} twice; give each structure once.")
            checked_label(name)
        self.indices: dict[str, int] = {name: index for index, name in enumerate(self.names, start=1)}
        self._spoken = LabelNames(self.names)

    def resolve(self, text: str) -> str:
        """Return the label that a person means by ``text``: "LK" and "Lt. renal" are the label "left kidney".

        Raises:
            InputError: it is none of the labels, or could be several of them.
        """
        found = self._spoken.resolve(text)
        if found is not None:
            return found.label
        several = self._spoken.candidates(text)
        if several:
            raise InputError(f"{text[:40]!r} can mean {' or '.join(several)}: say which.")
        raise InputError(f"There is no label {text[:40]!r}; this server has {', '.join(self.names)}.")

    def known_as(self, text: str, present: Container[str] = ()) -> str:
        """The label that a client calls ``text``: one of these spelled otherwise, or by another name of the same.

        Any other name is a label of its own, unlike in a note: a metastasis is a lesion, and may be one label of two.

        Args:
            text: name from the client.
            present: names that stand for themselves, such as those of the labels in a session.
        """
        found = None if text in present else self._spoken.resolve(text)
        if found is not None and (found.how == "exact" or canonical(found.label) == canonical(text)):
            return found.label
        return text

    @classmethod
    def from_conf(cls, value: str | Sequence[str] | Mapping[str, int]) -> LabelSet:
        """Read the label set from the configuration.

        Args:
            value: names separated by commas, or the path of a JSON file, or what such a file holds: a list of names, or
                an object of name -> value with the values 1..N.

        Raises:
            InputError: the value cannot be used.
        """
        if isinstance(value, str):
            if value.strip().endswith(".json"):
                return cls.from_conf(_read_json(Path(value.strip()).expanduser()))
            return cls(value.split(","))
        if isinstance(value, Mapping):
            names = sorted(value, key=lambda name: (not isinstance(value[name], int), value[name]))
            if [value[name] for name in names] != list(range(1, len(names) + 1)):
                raise InputError(f"labels must have the values 1 to {len(names)}, each once; 0 is the background.")
            return cls(names)
        return cls(value)

    @classmethod
    def from_datastore(cls, datastore: Datastore) -> LabelSet:
        """Offer the labels that were saved in the data store, or those of the abdomen if there are none.

        If any saved label is one of the abdomen, all of the abdomen are offered, others behind them. Names keep their
        order from one start to the next: by the value they have in the saved label maps, then by name.
        """
        seen: dict[str, int] = {}
        # Only the stores with a folder of their own, which the DICOMweb store has too, tell about saved labels.
        objects = datastore.json()["objects"] if isinstance(datastore, LocalDatastore) else {}
        for image in objects.values():
            for label in image["labels"].values():
                for name, value in names_in_info(label["info"]).items():
                    if refusal(name) is None:
                        seen[name] = min(value, seen.get(name, value))
        names = sorted(seen, key=lambda name: (seen[name], name))
        if not names or any(name in ABDOMEN for name in names):
            names = [*ABDOMEN, *(name for name in names if name not in ABDOMEN)]
        return cls(names[:MAX_LABELS])


def _read_json(path: Path) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The label file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"The label file {path} is not valid JSON: {error}.") from error
    if not isinstance(value, list | dict):
        raise InputError(f"The label file {path} must hold a list of names or an object of name: value.")
    return value
