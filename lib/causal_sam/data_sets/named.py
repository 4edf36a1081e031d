"""Folders of an image, a label map and `labels.json`, which names the values: one folder for each case."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path

from causal_sam.data_sets.case import Case, LayoutMismatch, image_files, warn_left_out
from causal_sam.errors import InputError

NAMES = "labels.json"
# Structures that people also ask for as one -> patterns of the names of their parts.
UNIONS = {
    "lungs": ("* lung *",),
    "vertebrae": ("* vertebra",),
    "cerebral ventricles": ("* lateral ventricle", "third ventricle", "fourth ventricle"),
}


def find_cases(directory: Path) -> list[Case]:
    """Find the cases in a folder and the folders in it; those without an image are omitted with a warning.

    Structures of `UNIONS` are added where a case has parts of them.

    Raises:
        LayoutMismatch: there are no such cases.
        InputError: a `labels.json` is invalid.
    """
    cases, unpaired = [], []
    for folder in (directory, *sorted(path for path in directory.iterdir() if path.is_dir())):
        if not (folder / NAMES).is_file():
            continue
        files = image_files(folder)
        image, label = files.get("image"), files.get("label")
        if image and label:
            cases.append(Case(directory.name, folder.name, image, label, labels=_labels(folder / NAMES)))
        else:
            unpaired.append(folder.name)
    if not cases:
        raise LayoutMismatch(f"there is no folder with image.nii.gz, label.nii.gz and {NAMES}")
    warn_left_out(directory.name, unpaired)
    return cases


def _labels(path: Path) -> dict[int | tuple[int, ...], str]:
    """Read value -> name, and the values of each union -> its name."""
    try:
        content = json.loads(path.read_text()).items()
        labels: dict[int | tuple[int, ...], str] = {int(value): str(name) for value, name in content}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be used ({error}): it must be an object of values and names.") from error
    for union, patterns in UNIONS.items():
        parts = tuple(
            value
            for value, name in labels.items()
            if isinstance(value, int) and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        )
        if parts:
            labels[parts] = union
    return labels
