"""Folders in the layouts that people have: a list of cases, the Decathlon's, nnU-Net's, or pairs of files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from causal_sam.data_sets.case import SEQUENCES, Case, OtherLayout, image_files, say_left_out
from causal_sam.errors import InputError

CASE_LIST = "cases.json"
LABEL_ENDINGS = ("_label", "_seg", "-label", "-seg")
FOLDER_PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"))
# nnU-Net numbers the channels of a case; the label map carries the name alone.
_CHANNEL = re.compile(r"(.+)_(\d{4})")
_MODALITY = re.compile(r"(ct|mri?)(?![a-z0-9])[\s_-]*(.*)", re.IGNORECASE)


class _Channel(NamedTuple):
    """Of an image: DICOM code of the modality, and MR sequence or contrast phase; "" for what is not known."""

    modality: str
    sequence: str


class _Description(NamedTuple):
    """What a `dataset.json` says."""

    channels: Mapping[int, _Channel]
    labels: Mapping[int | tuple[int, ...], str] | None
    is_complete: bool


def find_cases(directory: Path) -> list[Case]:
    """Find the cases of a folder; those without an image or a label map are left out, and said.

    Raises:
        OtherLayout: there are none.
        InputError: `cases.json` or `dataset.json` cannot be used, or an image has a channel that is not in it.
    """
    if (directory / CASE_LIST).is_file():
        cases = _in_list(directory)
    else:
        cases = [case for pair in FOLDER_PAIRS for case in _in_two_folders(directory, *pair)] or _in_pairs(directory)
    if not cases:
        raise OtherLayout("there is no image with a label map")
    return cases


def _in_list(directory: Path) -> list[Case]:
    path = directory / CASE_LIST
    try:
        entries = json.loads(path.read_text())
        cases = []
        without = []
        for entry in entries:
            if not entry.get("image") or not entry.get("label"):
                without.append(f"{entry['set']}/{entry['case']}")
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
    say_left_out(directory.name, without)
    return cases


def _in_two_folders(directory: Path, images: str, labels: str) -> list[Case]:
    label_files = image_files(directory / labels)
    if not label_files:
        return []
    description = _description(directory / "dataset.json")
    channels = description.channels
    cases, without = [], []
    for stem, image in image_files(directory / images).items():
        numbered = _CHANNEL.fullmatch(stem)
        if stem in label_files:
            name = stem
            # As in the Decathlon: the channels are frames of one file.
            frames = len(channels) if len(channels) > 1 else None
            parts = [(n, channels.get(n, _Channel("", ""))) for n in range(frames or 1)]
        elif numbered and numbered[1] in label_files:
            name, number, frames = numbered[1], int(numbered[2]), None
            if channels and number not in channels:
                raise InputError(f"{image} is channel {number}, and dataset.json names {_names(channels)}.")
            parts = [(0, channels.get(number) or _Channel("", f"channel {number}" if number else ""))]
        else:
            without.append(stem)
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
    say_left_out(directory.name, without)
    return cases


def _names(channels: Mapping[int, _Channel]) -> str:
    return ", ".join(f"{number} ({' '.join(filter(None, channel))})" for number, channel in channels.items())


def _description(path: Path) -> _Description:
    """Read a `dataset.json`: the Decathlon has value -> name, nnU-Net 2 name -> value, or values of a region."""
    if not path.is_file():
        return _Description({}, None, False)
    try:
        content = json.loads(path.read_text())
        names: dict[int | tuple[int, ...], str] = {}
        for key, entry in content["labels"].items():
            name, value = (entry, key) if key.isdigit() else (key, entry)
            value = tuple(map(int, value)) if isinstance(value, list) else int(value)
            # nnU-Net learns nothing from voxels that are called so.
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


def _in_pairs(directory: Path) -> list[Case]:
    files = image_files(directory)
    cases = []
    for stem, path in files.items():
        label = next((files[stem + ending] for ending in LABEL_ENDINGS if stem + ending in files), None)
        if label is not None:
            cases.append(Case(directory.name, stem, path, label))
    return cases
