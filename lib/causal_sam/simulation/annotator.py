"""A simulated annotator, who clicks in the middle of the largest error, for training and for benchmarks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from causal_sam.imaging.distances import distance_to
from causal_sam.imaging.overlap import dice
from causal_sam.prompting import InteractiveSession
from causal_sam.prompting.prompts import Voxel


class Click(NamedTuple):
    """A click in a slice: row and column in pixels, and whether it says inside (foreground) or outside."""

    row: int
    column: int
    foreground: bool


def annotate(
    session: InteractiveSession,
    label: str,
    truth: NDArray[np.bool_],
    spacing: Sequence[float],
    target: float,
    max_clicks: int,
) -> int | None:
    """Correct a label of a session by clicks, as a person who knows the anatomy does.

    The truth decides where the next click is and when the mask is good enough. It decides nothing about the masks:
    these are the session's answers, with its default options.

    Args:
        session: session on the volume.
        label: any name; its mask may be empty.
        truth: (I, J, K), not empty.
        spacing: distance of neighbouring voxels along (i, j, k) in millimetre.
        target: Dice at which the annotator stops.
        max_clicks: number of clicks after which the annotator gives up.

    Returns:
        The number of clicks; None if they do not reach the target.
    """
    clicked: list[tuple[int, ...]] = []
    while dice(mask := session.mask(label), truth) < target:
        click = next_click_in_volume(truth, mask, spacing, clicked=clicked)
        if click is None or len(clicked) == max_clicks:
            return None
        voxel, is_inside = click
        session.add_point(label, voxel, positive=is_inside)
        clicked.append(voxel)
    return len(clicked)


def deepest_point(region: np.ndarray, rng: np.random.Generator | None = None) -> tuple[int, int]:
    """Return (row, column) of the point of a region farthest from its border.

    Args:
        region: HxW, non-zero inside; the image's edge counts as border. Must not be empty.
        rng: if given, take a random point instead, at least a random share as deep as the deepest, as people who
            do not aim do.
    """
    depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    if rng is None:
        chosen = int(depth.argmax())
    else:
        chosen = int(rng.choice(np.flatnonzero(depth >= max(depth.max() * (1 - rng.random() ** 2), 1e-3))))
    row, column = _position(chosen, depth.shape)
    return row, column


def next_click(
    truth: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator | None = None,
    clicked: Collection[tuple[int, ...]] = (),
) -> Click | None:
    """Return the click that corrects the largest error region at its deepest point, or None if nothing is wrong.

    Args:
        truth: HxW, non-zero inside the structure.
        mask: HxW, non-zero inside the present mask; all zero before the first click.
        rng: see `deepest_point`.
        clicked: (row, column) of earlier clicks. Where one had no effect, the next is beside it.
    """
    error = _largest_error(truth, mask, clicked)
    return error and Click(*deepest_point(error[0], rng), error[1])


def next_click_in_volume(
    truth: np.ndarray,
    mask: np.ndarray,
    spacing: Sequence[float],
    clicked: Collection[tuple[int, ...]] = (),
) -> tuple[Voxel, bool] | None:
    """Return the voxel that corrects the largest error region of a volume, and whether it is inside the structure.

    Args:
        truth: (I, J, K), non-zero inside the structure.
        mask: (I, J, K), non-zero inside the present mask.
        spacing: distance of neighbouring voxels along (i, j, k) in millimetre: depth is measured in these.
        clicked: voxels of earlier clicks; see `next_click`.

    Returns:
        None if nothing is wrong.
    """
    error = _largest_error(truth, mask, clicked)
    if error is None:
        return None
    region, is_missing = error
    return _deepest_voxel(region, spacing), is_missing


def random_point(region: np.ndarray, rng: np.random.Generator) -> tuple[int, ...]:
    """Return the position of a random point of a region (non-zero inside, not empty); all are equally likely."""
    points = np.flatnonzero(region)
    return _position(int(points[rng.integers(len(points))]), region.shape)


def challenge_click(truth: np.ndarray, mask: np.ndarray) -> tuple[Voxel, bool] | None:
    """Return the voxel that is clicked in the CVPR 2025 challenge, and whether it is inside the structure.

    It is the deepest voxel of the largest error region, where missing and superfluous voxels that touch, also at
    corners, are one region, and depth is counted in voxels. Source: `CVPR25_iter_eval.py` of
    github.com/JunMa11/CVPR-MedSegFMCompetition, which draws one of equally deep voxels at random; this takes the first.

    Args:
        truth: (I, J, K), non-zero inside the structure.
        mask: (I, J, K), non-zero inside the present mask.

    Returns:
        None if nothing is wrong.
    """
    components, count = ndimage.label((truth > 0) != (mask > 0), np.ones((3, 3, 3)))
    if not count:
        return None
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    voxel = _deepest_voxel(components == int(sizes.argmax()), (1, 1, 1))
    return voxel, bool(truth[voxel])


def _largest_error(
    truth: np.ndarray, mask: np.ndarray, clicked: Collection[tuple[int, ...]]
) -> tuple[NDArray[np.bool_], bool] | None:
    """The largest connected region that is missing (True) or too much (False), without the clicked places."""
    truth, mask = truth.astype(bool), mask.astype(bool)
    for place in clicked:
        mask[place] = truth[place]
    largest, size = None, 0
    for error, is_missing in ((truth & ~mask, True), (mask & ~truth, False)):
        components, count = ndimage.label(error)
        if count:
            sizes = np.bincount(components.ravel())[1:]
            if sizes.max() > size:
                largest, size = (components == 1 + int(sizes.argmax()), is_missing), int(sizes.max())
    return largest


def _deepest_voxel(region: NDArray[np.bool_], spacing: Sequence[float]) -> Voxel:
    """Return the voxel of a region (I, J, K) farthest from its border; the volume's edge counts as border."""
    part = ndimage.find_objects(region.astype(np.uint8))[0]
    depth = distance_to(~np.pad(region[part], 1), spacing)[1:-1, 1:-1, 1:-1]
    i, j, k = (n + s.start for n, s in zip(_position(int(depth.argmax()), depth.shape), part, strict=True))
    return i, j, k


def _position(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(n) for n in np.unravel_index(index, shape))
