"""Labelled images in a folder: public data sets as they are downloaded, and the layouts that people have."""

from __future__ import annotations

from pathlib import Path

from causal_sam.data_sets import amos, brats, btcv, chaos, folders
from causal_sam.data_sets.case import Case, OtherLayout, listed
from causal_sam.data_sets.layouts import LAYOUTS, Kind
from causal_sam.errors import InputError

# In the order in which they are looked for: what fits a data set may fit the general layouts too.
_FINDERS = {
    Kind.CHAOS: chaos.find_cases,
    Kind.BRATS: brats.find_cases,
    Kind.BTCV: btcv.find_cases,
    Kind.AMOS: amos.find_cases,
    Kind.FOLDER: folders.find_cases,
}


def read_cases(directory: Path, kind: str = Kind.AUTO) -> list[Case]:
    """Find the labelled images of a folder; what has no image or no label map is left out, and said.

    Args:
        directory: of the data set, as `LAYOUTS` describes it.
        kind: of the data set: one of `Kind`.

    Raises:
        InputError: the folder does not exist, is not laid out as the data set is, or has none of the known layouts; a
            list in it cannot be used; there is no such kind.
    """
    if kind not in list(Kind):
        raise InputError(f"There is no kind of data set {kind!r}: it must be one of {', '.join(Kind)}.")
    if not directory.is_dir():
        raise InputError(f"There is no folder {directory}: give one with images and label maps.")
    if kind == Kind.AUTO:
        found = _detect(directory)
        if found is None:
            layouts = " | ".join(f"{name}: {layout}" for name, layout in LAYOUTS.items())
            raise InputError(f"{directory} has no labelled images. Known layouts: {layouts}.")
        return found[1]
    try:
        return _FINDERS[Kind(kind)](directory)
    except OtherLayout as error:
        found = _detect(directory)
        inside = listed(sorted(path.name for path in directory.iterdir())) or "nothing"
        instead = f"it looks like {found[0]}" if found else f"it holds {inside}"
        raise InputError(f"{directory} is not {kind} ({LAYOUTS[Kind(kind)]}): {error}; {instead}.") from error


def _detect(directory: Path) -> tuple[Kind, list[Case]] | None:
    """The first kind that fits, and its cases. A list of cases is meant, whatever lies beside it."""
    kinds = [Kind.FOLDER] if (directory / folders.CASE_LIST).is_file() else list(_FINDERS)
    for kind in kinds:
        try:
            return kind, _FINDERS[kind](directory)
        except OtherLayout:
            continue
    return None
