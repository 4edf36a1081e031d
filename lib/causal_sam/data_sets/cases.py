"""Search for labelled images in a folder, in the layouts of public data sets and in general ones."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path

from causal_sam.data_sets import acdc, amos, brats, btcv, chaos, folders, ibsr, named
from causal_sam.data_sets.case import Case, LayoutMismatch
from causal_sam.data_sets.layouts import LAYOUTS, Kind
from causal_sam.errors import InputError, join_limited

# In the order of detection: folders of a data set may also fit the general layouts.
_FINDERS = {
    Kind.CHAOS: chaos.find_cases,
    Kind.BRATS: brats.find_cases,
    Kind.BTCV: btcv.find_cases,
    Kind.AMOS: amos.find_cases,
    Kind.ACDC: acdc.find_cases,
    Kind.IBSR: ibsr.find_cases,
    Kind.NAMED: named.find_cases,
    Kind.FOLDER: folders.find_cases,
}


def read_cases(directory: Path, kind: str = Kind.AUTO) -> list[Case]:
    """Find the labelled images of a folder; cases without image or label map are omitted with a warning.

    Args:
        directory: folder of the data set, in one of the `LAYOUTS`.
        kind: kind of the data set, one of `Kind`.

    Raises:
        InputError: the folder does not exist, does not have the layout of the kind or any known one; a list in it is
            invalid; the kind is unknown.
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
    except LayoutMismatch as error:
        found = _detect(directory)
        inside = join_limited(sorted(path.name for path in directory.iterdir())) or "nothing"
        instead = f"it looks like {found[0]}" if found else f"it holds {inside}"
        raise InputError(f"{directory} is not {kind} ({LAYOUTS[Kind(kind)]}): {error}; {instead}.") from error


def matching_cases(cases: Sequence[Case], patterns: Sequence[str]) -> list[Case]:
    """Choose cases by patterns SET/CASE/SEQUENCE.

    Raises:
        InputError: a pattern matches no case.
    """
    chosen = []
    for pattern in patterns:
        found = [case for case in cases if fnmatch.fnmatch(f"{case.group}/{case.name}/{case.sequence}", pattern)]
        if not found:
            some = ", ".join(dict.fromkeys(f"{case.group}/{case.name}/{case.sequence}" for case in cases[:6]))
            raise InputError(f"No case is like {pattern}: patterns are SET/CASE/SEQUENCE, and there are {some}, ….")
        chosen += [case for case in found if case not in chosen]
    return chosen


def _detect(directory: Path) -> tuple[Kind, list[Case]] | None:
    """Return the first kind that fits, and its cases; a list of cases takes precedence over other files."""
    kinds = [Kind.FOLDER] if (directory / folders.CASE_LIST).is_file() else list(_FINDERS)
    for kind in kinds:
        try:
            return kind, _FINDERS[kind](directory)
        except LayoutMismatch:
            continue
    return None
