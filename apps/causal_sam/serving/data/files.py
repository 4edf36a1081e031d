"""From the files of a folder to ids of images: one id for each file, and a sentence for each that gets none."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from causal_sam.errors import InputError
from serving.requests.identifiers import checked_identifier


@dataclass(frozen=True)
class FoundFile:
    """A file that can be an image or a label.

    Attributes:
        name: name of the file.
        stem: its name without the extension.
        ext: the extension as it is written, with its dot.
    """

    name: str
    stem: str
    ext: str


class Extensions:
    """The extensions of images and labels, the longest that fits counts, in lower or upper case.

    Args:
        patterns: file patterns as in MONAI Label: "*.nii.gz".
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.known = tuple(dict.fromkeys(pattern.replace("*", "").lower() for pattern in patterns))

    def split(self, name: str) -> tuple[str, str] | None:
        """Cut a file name at its extension; None if it ends with none of them."""
        found = [ext for ext in self.known if name.lower().endswith(ext)]
        if not found:
            return None
        length = len(max(found, key=len))
        return name[:-length], name[-length:]

    def rank(self, ext: str) -> int:
        """Place of an extension in the list; where several files have one stem, the first one goes by it."""
        return self.known.index(ext.lower())


def list_files(folder: Path, extensions: Extensions) -> tuple[list[FoundFile], dict[str, str]]:
    """List the files of a folder that can be images or labels.

    Returns:
        The files in the order in which they get ids, and why each other file with such an extension is left out, by its
        name: the end of a sentence.

    Raises:
        OSError: the folder cannot be read.
    """
    found, left_out = [], {}
    with os.scandir(folder) as entries:
        for entry in entries:
            parts = extensions.split(entry.name)
            if parts is None:
                continue
            problem = _problem(entry, parts[0])
            if problem is None:
                found.append(FoundFile(entry.name, *parts))
            else:
                left_out[entry.name] = problem
    return sorted(
        found, key=lambda file: (extensions.rank(file.ext), file.ext != file.ext.lower(), file.name)
    ), left_out


def new_ids(files: Sequence[FoundFile], taken: Collection[str]) -> dict[str, FoundFile]:
    """Give ids to image files: the stem, or the whole name where another image has that stem.

    Args:
        files: files without an id, in order.
        taken: ids of other images.
    """
    ids: dict[str, FoundFile] = {}
    used = set(taken)
    for file in files:
        if file.stem not in used:
            used.add(file.stem)
            ids[file.stem] = file
        elif file.name not in used:
            used.add(file.name)
            ids[file.name] = FoundFile(file.name, file.name, "")
    return ids


def same_id(image_id: str, known: Collection[str]) -> str:
    """Return the known id that a client means; it may write accents in the other form of Unicode."""
    if image_id in known:
        return image_id
    composed = unicodedata.normalize("NFC", image_id)
    if composed == image_id and image_id.isascii():
        return image_id
    return next((each for each in known if unicodedata.normalize("NFC", each) == composed), image_id)


def nested_files(folder: Path, extensions: Extensions, skip: Collection[Path], most: int) -> list[str]:
    """Paths below ``folder``, relative to it, of up to ``most`` image files that lie in sub folders."""
    found: list[str] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(parent, name) not in skip]
        if Path(parent) != folder:
            found += [str(Path(parent, name).relative_to(folder)) for name in names if extensions.split(name)]
        if len(found) >= most:
            break
    return found[:most]


def _problem(entry: os.DirEntry, stem: str) -> str | None:
    """Why a file cannot be an image or label; None if it can."""
    if entry.name.startswith("."):
        return "is a hidden file: rename it without the dot"
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "is a link that leads to no file" if entry.is_symlink() else "cannot be looked at"
    if not stat.S_ISREG(mode):
        return "is a folder: move its files up" if stat.S_ISDIR(mode) else "is no file"
    try:
        checked_identifier(stem, "image id")
        checked_identifier(entry.name, "file name")
    except InputError as error:
        return f"cannot be an image id: rename it ({error})"
    return None
