"""Images of a simulated site, and the division into cases to annotate and held-out cases."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from causal_sam.benchmark.ood.protocols import (
    PHANTOM_LABELS,
    BrainProtocol,
    Scan,
    phantom_scan,
    read_scan,
)
from causal_sam.data_sets.cases import matching_cases, read_cases
from causal_sam.errors import InputError
from causal_sam.phantom import brain, studies


def brain_pool(directory: Path, styles: Sequence[str]) -> tuple[list[Scan], tuple[str, ...]]:
    """Scan real brain anatomies in the styles of a site, one after the other.

    Args:
        directory: folder of label maps with FreeSurfer's numbers.
        styles: keys of `causal_sam.phantom.brain.STYLES`.

    Returns:
        The scans, and the structures in them.

    Raises:
        InputError: there are no such maps, or a style does not exist.
    """
    _check_styles(styles, brain.STYLES)
    protocol = BrainProtocol(directory)
    return [protocol.scan(name, styles[n % len(styles)]) for n, name in enumerate(protocol.patients)], brain.SEGMENTED


def phantom_pool(count: int, styles: Sequence[str]) -> tuple[list[Scan], tuple[str, ...]]:
    """Generate abdomens, and scan them in the styles of a site, one after the other.

    Args:
        count: number of patients.
        styles: keys of `causal_sam.phantom.studies.STYLES`.

    Returns:
        The scans, and the structures in them.

    Raises:
        InputError: a style does not exist.
    """
    _check_styles(styles, studies.STYLES)
    return [phantom_scan(str(n), styles[n % len(styles)]) for n in range(count)], PHANTOM_LABELS


def _check_styles(styles: Sequence[str], known: Collection[str]) -> None:
    if unknown := [style for style in styles if style not in known]:
        raise InputError(f"There is no style {unknown[0]!r}; there are {', '.join(known)}.")


def data_pool(
    directory: Path, kind: str, sources: Sequence[str], labels: Sequence[str], joins: dict[str, list[str]]
) -> tuple[list[Scan], tuple[str, ...]]:
    """Read real labelled images.

    Args:
        directory: folder of labelled images.
        kind: data set in the folder, or "auto".
        sources: patterns SET/CASE/SEQUENCE; only each patient's first image is used.
        labels: structures to annotate; empty for all.
        joins: name of a union of structures -> these structures.

    Returns:
        The scans, and the structures in them.

    Raises:
        InputError: a pattern matches no case, or no case has one of the labels.
    """
    scans = [read_scan(case, joins) for case in matching_cases(read_cases(directory, kind), sources)]
    scans = list({scan.patient: scan for scan in reversed(scans)}.values())[::-1]
    there = dict.fromkeys(name for scan in scans for name in scan.structures)
    wanted = tuple(name for name in there if not labels or name in labels)
    if not wanted:
        raise InputError(f"No case has one of the labels {', '.join(labels)}; there are {', '.join(there)}.")
    return scans, wanted


def divide(scans: Sequence[Scan], held_out: int, seed: int) -> tuple[list[Scan], list[Scan]]:
    """Divide cases into those to annotate and held-out ones; repetitions hold out different cases in turn.

    Args:
        scans: all cases.
        held_out: number of held-out cases.
        seed: number of the repetition.

    Raises:
        InputError: no case would be left to annotate.
    """
    if held_out >= len(scans):
        raise InputError(f"Of {len(scans)} cases at most {len(scans) - 1} can be held out, not {held_out}.")
    order = np.random.default_rng(0).permutation(len(scans)).tolist()
    order = order[(seed * held_out) % len(scans) :] + order[: (seed * held_out) % len(scans)]
    return [scans[n] for n in order[held_out:]], [scans[n] for n in order[:held_out]]
