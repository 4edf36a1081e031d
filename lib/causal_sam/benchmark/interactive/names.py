"""Structures asked for by their names alone, as a client asks for the labels of an image."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from causal_sam.benchmark.interactive.methods import Method
from causal_sam.benchmark.interactive.targets import Target
from causal_sam.benchmark.interactive.trials import Step, Trial
from causal_sam.benchmark.metrics import hd95
from causal_sam.imaging import Volume
from causal_sam.imaging.overlap import dice


def ask_by_name(method: Method, volume: Volume, targets: Sequence[Target]) -> Iterator[tuple[Trial, NDArray[np.bool_]]]:
    """Ask a method for the structures of an image, in as few requests as possible.

    Structures that share voxels, such as the lungs and their lobes, are asked for in different requests, since a voxel
    has one answer in a request.

    Args:
        method: method that answers.
        volume: image.
        targets: whole structures of the image, each of another name.

    Yields:
        A trial for each target and its mask, which is empty if the name is not known. Seconds are a structure's share
        of its request.
    """
    for request in _disjoint(targets):
        begin = time.perf_counter()
        masks = method.by_name(volume, [target.structure for target in request])
        seconds = (time.perf_counter() - begin) / len(request)
        for target in request:
            is_known = target.structure in masks
            mask = masks.get(target.structure, np.zeros_like(target.truth))
            step = Step(
                0,
                dice(mask, target.truth),
                hd95(mask, target.truth, volume.spacing),
                seconds=seconds if is_known else None,
            )
            yield Trial(method.name, target, 0, (step,), is_known), mask


def _disjoint(targets: Sequence[Target]) -> list[list[Target]]:
    """Divide targets into groups without common voxels: each goes to the first group where it fits."""
    groups: list[tuple[list[Target], NDArray[np.bool_]]] = []
    for target in targets:
        for members, union in groups:
            if not (target.truth & union).any():
                members.append(target)
                union |= target.truth
                break
        else:
            groups.append(([target], target.truth.copy()))
    return [members for members, _ in groups]
