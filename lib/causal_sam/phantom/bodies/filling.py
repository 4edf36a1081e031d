"""Completion of label maps: tissue between their structures, the surface of the body, and codes for arms.

A map without skin borrows the tissues around its structures from a complete map that shares structures with it: the
complete body is brought onto them by an affine map and a biharmonic spline. Borrowed voxels have a tissue, but no
label.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import RBFInterpolator

from causal_sam.imaging.distances import distance_to, nearest_voxels
from causal_sam.phantom.bodies.label_maps import (
    FILLER_CODE,
    OUTSIDE_CODE,
    UNKNOWN,
    Anatomy,
    cropped,
    read_label_maps,
)
from causal_sam.phantom.bodies.names import unions

# Fewest structures by which a complete body is brought onto a map.
MIN_SHARED = 3
# Margin in mm in which a surface has room, and the fat that covers structures at the surface.
MARGIN_MM, FAT_MM = 90.0, 9.0
# A body is cut at the end of a map if the cut has at least this share of the largest cross-section.
CUT_SHARE = 0.25
# Half of the width in mm of grooves in the surface that are filled.
GROOVE_MM = 18.0
# Distance in mm between the labels and the hull of a body for which there is no complete one.
HULL_MM = 22.0
# Distance of the points in mm at which the spline is computed, and its smoothing.
SPLINE_MM, SMOOTHING, MAX_SPLINE_MM = 16.0, 30.0, 25.0
# Weight of a map without turn and shear, against that of the landmarks.
STIFFNESS = 0.5
# Unions of so many kinds that a map with one of them may still leave parts of it open.
BROAD = {"bones", "spine", "bowel"}
ARM = re.compile(
    r"humerus|\bulna|radius|forearm|brachi(al|oradialis)|(bi|tri)ceps brachii|coracobrachialis|\bhand|"
    r"carpal|finger|radial artery|ulnar artery|cephalic|basilic"
)
# Tissues that take the place of organs that are not there.
SPREADING = ("lung", "filler", "fat", "muscle")
SOFT = ("skin", "fat", "filler")
# Distance in mm from the upper end of the upper arm to where it is apart from the trunk.
SHOULDER_MM = 110.0


def read_anatomies(folders: Sequence[Path]) -> list[Anatomy]:
    """Read all label maps of some folders and fill the open space of each; see `read_label_maps`."""
    anatomies = [_with_arms(anatomy) for anatomy in read_label_maps(folders)]
    complete = [anatomy for anatomy in anatomies if anatomy.has_skin]
    return [_capped(anatomy if anatomy.has_skin else _filled(anatomy, complete)) for anatomy in anatomies]


def _filled(anatomy: Anatomy, complete: Sequence[Anatomy]) -> Anatomy:
    """Return an anatomy with tissue in the open space of its body."""
    shared = [sorted(anatomy.known & donor.known) for donor in complete]
    x, y, _ = np.ceil(MARGIN_MM / anatomy.spacing).astype(int)
    codes = cropped(anatomy.codes, (x, y, 0))
    anatomy = replace(anatomy, codes=codes)
    if max(map(len, shared), default=0) < MIN_SHARED:
        filling = np.where(_hull(codes > 0, anatomy.spacing), FILLER_CODE, OUTSIDE_CODE).astype(np.int16)
        tissues: tuple[str, ...] = ()
    else:
        # If several maps show the same body, the finest is used.
        best = max(range(len(complete)), key=lambda i: (len(shared[i]), -complete[i].spacing.max()))
        filling, tissues = _borrowed(anatomy, complete[best], shared[best])
    is_open = codes == OUTSIDE_CODE
    codes = np.where(is_open, filling, codes)
    is_outside = codes == OUTSIDE_CODE
    codes[is_outside & _surface(~is_open, ~is_outside, anatomy.spacing)] = FILLER_CODE
    return replace(
        anatomy,
        codes=cropped(codes, (1, 1, 0)),
        code_labels=np.append(anatomy.code_labels, np.full(len(tissues), UNKNOWN, np.int16)),
        code_tissues=(*anatomy.code_tissues, *tissues),
    )


def _borrowed(anatomy: Anatomy, donor: Anatomy, shared: Sequence[str]) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Return the codes of the donor's tissues on an anatomy's grid, and the tissues of the codes that are new."""
    tissues = tuple(sorted(set(donor.code_tissues) - {"air"}))
    # Structures that the map labels are nowhere else: elsewhere the donor's neighbouring tissue replaces them.
    parts = unions(donor.known)
    known = (anatomy.known | unions(anatomy.known).keys()) - BROAD
    hidden = anatomy.known | {part for name in known & parts.keys() for part in parts[name]}
    new = {tissue: len(anatomy.code_labels) + number for number, tissue in enumerate(tissues)}
    hidden_code = -1
    table = np.array(
        [
            OUTSIDE_CODE
            if tissue == "air" or code in donor.arms
            else (hidden_code if donor.names.get(int(label), "") in hidden else new[tissue])
            for code, (label, tissue) in enumerate(zip(donor.code_labels, donor.code_tissues, strict=True))
        ],
        np.int16,
    )
    places = _onto(anatomy, donor, shared)
    index = tuple(
        np.clip(place, 0, size - 1).astype(np.int32) for place, size in zip(places, donor.codes.shape, strict=True)
    )
    borrowed = table[donor.codes[index]]
    spread = np.array([OUTSIDE_CODE, *(code for tissue, code in new.items() if tissue in SPREADING)])
    return _replaced(borrowed, borrowed == hidden_code, spread, anatomy.spacing), tissues


def _onto(anatomy: Anatomy, donor: Anatomy, shared: Sequence[str]) -> NDArray[np.float32]:
    """Return the place in the donor, in voxels, of each voxel of an anatomy: 3xXxYxZ."""
    own, other = (np.concatenate([_landmarks(body, name) for name in shared]) for body in (anatomy, donor))
    affine = _affine(own, other)
    count = np.maximum(np.ceil(np.array(anatomy.codes.shape) * anatomy.spacing / SPLINE_MM), 2).astype(int)
    steps = [
        np.linspace(0.5, n - 0.5, c) * s for n, c, s in zip(anatomy.codes.shape, count, anatomy.spacing, strict=True)
    ]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
    residual = other - np.c_[own, np.ones(len(own))] @ affine
    spline = RBFInterpolator(own[::7], residual[::7], smoothing=SMOOTHING, kernel="linear", degree=0)
    # Far from all landmarks the spline would run away.
    places = np.c_[grid, np.ones(len(grid))] @ affine + np.clip(spline(grid), -MAX_SPLINE_MM, MAX_SPLINE_MM)
    coarse = torch.from_numpy((places / donor.spacing).T.reshape(1, 3, *count).astype(np.float32))
    return F.interpolate(coarse, anatomy.codes.shape, mode="trilinear", align_corners=True)[0].numpy()


def _affine(own: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 4x3 map of points (with a 1) onto others that turns and shears little."""
    centre, target = own.mean(axis=0), other.mean(axis=0)
    scale = np.sqrt(((other - target) ** 2).sum(axis=0) / ((own - centre) ** 2).sum(axis=0))
    # As if as many points lay in a cube, and the plain scale were right for them.
    extra = np.eye(3) * own.std() * np.sqrt(STIFFNESS * len(own))
    matrix, *_ = np.linalg.lstsq(np.r_[own - centre, extra], np.r_[other - target, extra * scale], rcond=None)
    return np.r_[matrix, [target - centre @ matrix]]


def _landmarks(anatomy: Anatomy, name: str) -> NDArray[np.float64]:
    """Return the centroid of a structure in mm, and the points a standard deviation from it along each axis: 7x3."""
    (label,) = anatomy.labels_of([name])
    first, last = np.rint(anatomy.boxes[label] / anatomy.spacing).astype(int)
    place = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    voxels = np.argwhere(anatomy.code_labels[anatomy.codes[place]] == label)
    points = (voxels[:: max(1, len(voxels) // 5000)] + first + 0.5) * anatomy.spacing
    return points.mean(axis=0) + np.concatenate(
        [np.zeros((1, 3)), *(sign * np.diag(points.std(axis=0)) for sign in (1, -1))]
    )


def _capped(anatomy: Anatomy) -> Anatomy:
    """Return an anatomy with air above and below, but where the body is cut there."""
    areas = np.count_nonzero(anatomy.codes, axis=(0, 1))
    caps = [int(areas[end] < CUT_SHARE * areas.max()) for end in (0, -1)]
    return replace(anatomy, codes=np.pad(anatomy.codes, ((0, 0), (0, 0), (caps[0], caps[1]))))


def _with_arms(anatomy: Anatomy) -> Anatomy:
    """Return an anatomy in which arms that hang beside a trunk have codes of their own."""
    is_arm = np.array([bool(ARM.search(anatomy.names.get(int(label), ""))) for label in anatomy.code_labels])
    humerus = anatomy.label_of("left humerus")
    if humerus is None or "liver" not in anatomy.known:
        return anatomy
    top = int((anatomy.boxes[humerus][1, 2] - SHOULDER_MM) / anatomy.spacing[2])
    codes = anatomy.codes[:, :, :top]
    # Skin, fat and what has no name belong to the arm if the nearest other structure does.
    step = _step(anatomy.spacing, 4.5)
    coarse = codes[:: step[0], :: step[1], :: step[2]]
    is_soft = np.array(
        [
            tissue in SOFT or not anatomy.names.get(int(label))
            for label, tissue in zip(anatomy.code_labels, anatomy.code_tissues, strict=True)
        ]
    )
    nearest = nearest_voxels(~is_soft[coarse])
    near_arm = is_arm[coarse[tuple(nearest)]]
    for axis in range(3):
        near_arm = near_arm.repeat(step[axis], axis)
    near_arm = near_arm[tuple(slice(0, n) for n in codes.shape)]
    chosen = (is_arm[codes] | (near_arm & is_soft[codes])) & (codes != OUTSIDE_CODE)
    used = np.unique(codes[chosen])
    table = np.zeros(len(is_arm), np.int16)
    table[used] = len(is_arm) + np.arange(len(used))
    new = anatomy.codes.copy()
    new[:, :, :top] = np.where(chosen, table[codes], codes)
    return replace(
        anatomy,
        codes=new,
        code_labels=np.append(anatomy.code_labels, anatomy.code_labels[used]),
        code_tissues=(*anatomy.code_tissues, *(anatomy.code_tissues[code] for code in used)),
        arms=tuple(range(len(is_arm), len(is_arm) + len(used))),
    )


def _replaced(
    codes: NDArray[np.int16], mask: NDArray[np.bool_], others: NDArray, spacing: NDArray[np.float32]
) -> NDArray[np.int16]:
    """Return codes in which those of a mask are replaced by the nearest of some others."""
    step = _step(spacing, 3.0)
    small = codes[:: step[0], :: step[1], :: step[2]]
    table = np.ones(int(codes.max()) + 2, bool)
    table[others] = False
    nearest = nearest_voxels(~table[small], step * spacing)
    places = np.nonzero(mask)
    coarse = tuple(np.minimum(own // size, n - 1) for own, size, n in zip(places, step, small.shape, strict=True))
    codes[mask] = small[tuple(own[coarse] for own in nearest)]
    return codes


def _step(spacing: NDArray[np.float32], size: float) -> NDArray[np.int64]:
    """Return how many voxels along each axis are about a size in mm."""
    return np.maximum(np.rint(size / spacing), 1).astype(int)


def _surface(labelled: NDArray[np.bool_], body: NDArray[np.bool_], spacing: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return a body whose labels are covered by fat and whose surface has no narrow grooves."""
    step = _step(spacing, 4.0)
    small = tuple(slice(None, None, size) for size in step)

    covered = FAT_MM - distance_to(labelled[small], spacing * step)
    # Grooves that a ball rolling over the surface from outside cannot reach.
    closed = distance_to(distance_to(body[small], spacing * step) >= GROOVE_MM, spacing * step) - GROOVE_MM
    return _fine(np.maximum(covered, closed), body.shape) > 0


def _hull(mask: NDArray[np.bool_], spacing: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the body around the labels: convex in each axial slice, and `HULL_MM` wider."""
    step = _step(spacing, 4.0)
    small = mask[:: step[0], :: step[1], :: step[2]]
    filled = np.stack([_convex(small[:, :, k]) for k in range(small.shape[2])], axis=2)
    return _fine(distance_to(filled, spacing * step), mask.shape) < HULL_MM


def _fine(coarse: NDArray, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a coarse array on a finer grid, smoothed."""
    smooth = torch.from_numpy(ndimage.gaussian_filter(coarse.astype(np.float32), 0.7))
    return F.interpolate(smooth[None, None], shape, mode="trilinear")[0, 0].numpy()


def _convex(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the convex hull of a mask as the set of pixels between its extremes in 16 directions."""
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        return mask
    hull = np.ones(mask.shape, bool)
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    for angle in np.arange(16) * np.pi / 16:
        along, own = y * np.sin(angle) + x * np.cos(angle), rows * np.sin(angle) + columns * np.cos(angle)
        hull &= (along >= own.min()) & (along <= own.max())
    return hull
