"""Cases in general layouts: a list of cases, the Decathlon's, nnU-Net's, or pairs of files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from causal_sam.data_sets.case import SEQUENCES, Case, LayoutMismatch, image_files, warn_left_out
from causal_sam.errors import InputError

CASE_LIST = "cases.json"
LABEL_ENDINGS = ("_label", "_seg", "-label", "-seg")
FOLDER_PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"))
# nnU-Net numbers the channels of a case; the label map has the name without a number.
_CHANNEL = re.compile(r"(.+)_(\d{4})")
_MODALITY = re.compile(r"(ct|mri?)(?![a-z0-9])[\s_-]*(.*)", re.IGNORECASE)


class _Channel(NamedTuple):
    """DICOM code of the modality, and MR sequence or contrast phase of a channel; "" if unknown."""

    modality: str
    sequence: str


class _Description(NamedTuple):
    """Content of a `dataset.json`."""

    channels: Mapping[int, _Channel]
    labels: Mapping[int | tuple[int, ...], str] | None
    is_complete: bool


def find_cases(directory: Path) -> list[Case]:
    """Find the cases of a folder; cases without image or label map are omitted with a warning.

    Raises:
        LayoutMismatch: there are no cases.
        InputError: `cases.json` or `dataset.json` is invalid, or does not list the channel of an image.
    """
    if (directory / CASE_LIST).is_file():
        cases = _read_case_list(directory)
    else:
        cases = [case for pair in FOLDER_PAIRS for case in _find_in_folders(directory, *pair)] or _find_pairs(directory)
    if not cases:
        raise LayoutMismatch("there is no image with a label map")
    return cases


def _read_case_list(directory: Path) -> list[Case]:
    path = directory / CASE_LIST
    try:
        entries = json.loads(path.read_text())
        cases = []
        unpaired = []
        for entry in entries:
            if not entry.get("image") or not entry.get("label"):
                unpaired.append(f"{entry['set']}/{entry['case']}")
                continue
            labels = {int(value): str(name) for value, name in entry["labels"].items()}
            cases.append(
                Case(
                    str(entry["set"]),
                    str(entry["case"]),
                    directory / entry["image"],
                    directory / entry["label"],
                    str(entry.get("modality") or ""),
                    str(entry.get("sequence") or ""),
                    labels,
                )
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be used ({type(error).__name__}: {error}): it must be a list of objects with set, case, "
            "image, label and labels."
        ) from error
    warn_left_out(directory.name, unpaired)
    return cases


def _find_in_folders(directory: Path, images: str, labels: str) -> list[Case]:
    label_files = image_files(directory / labels)
    if not label_files:
        return []
    description = _description(directory / "dataset.json")
    channels = description.channels
    cases, unpaired = [], []
    for stem, image in image_files(directory / images).items():
        numbered = _CHANNEL.fullmatch(stem)
        if stem in label_files:
            name = stem
            # In the Decathlon, channels are frames of one file.
            frames = len(channels) if len(channels) > 1 else None
            parts = [(n, channels.get(n, _Channel("", ""))) for n in range(frames or 1)]
        elif numbered and numbered[1] in label_files:
            name, number, frames = numbered[1], int(numbered[2]), None
            if channels and number not in channels:
                raise InputError(f"{image} is channel {number}, and dataset.json names {_names(channels)}.")
            parts = [(0, channels.get(number) or _Channel("", f"channel {number}" if number else ""))]
        else:
            unpaired.append(stem)
            continue
        cases += [
            Case(
                directory.name,
                name,
                image,
                label_files[name],
                channel.modality,
                channel.sequence,
                description.labels,
                frame,
                frames,
                description.is_complete,
            )
            for frame, channel in parts
        ]
    warn_left_out(directory.name, unpaired)
    return cases


def _names(channels: Mapping[int, _Channel]) -> str:
    return ", ".join(f"{number} ({' '.join(filter(None, channel))})" for number, channel in channels.items())


def _description(path: Path) -> _Description:
    """Read a `dataset.json`: value -> name in the Decathlon, name -> value or values in nnU-Net 2."""
    if not path.is_file():
        return _Description({}, None, False)
    try:
        content = json.loads(path.read_text())
        names: dict[int | tuple[int, ...], str] = {}
        for key, entry in content["labels"].items():
            name, value = (entry, key) if key.isdigit() else (key, entry)
            value = tuple(map(int, value)) if isinstance(value, list) else int(value)
            # nnU-Net ignores voxels with this label in training.
            if value != 0 and name != "ignore":
                names[value] = str(name)
        channels = _channels(content.get("modality") or content.get("channel_names") or {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be used ({type(error).__name__}: {error}): it must name the labels as Decathlon or "
            "nnU-Net do."
        ) from error
    return _Description(channels, names, "ignore" not in content["labels"])


def _channels(names: Mapping[str, Any]) -> dict[int, _Channel]:
    channels = {}
    for number, text in names.items():
        name = str(text).strip()
        modality, sequence = "", name
        if found := _MODALITY.fullmatch(name):
            modality, sequence = found[1].upper()[:2], found[2]
        if known := SEQUENCES.get(sequence.casefold()):
            modality, sequence = "MR", known
        channels[int(number)] = _Channel(modality, sequence)
    return channels


def _find_pairs(directory: Path) -> list[Case]:
    files = image_files(directory)
    cases = []
    for stem, path in files.items():
        label = next((files[stem + ending] for ending in LABEL_ENDINGS if stem + ending in files), None)
        if label is not None:
            cases.append(Case(directory.name, stem, path, label))
    return cases
