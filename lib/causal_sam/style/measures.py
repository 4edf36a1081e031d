"""Measures of style: noise, sharpness, bias field, contrast, brightness and artefacts of a few slices.

Each measure is taken where anatomy has little influence: noise in homogeneous windows, the bias field from slopes
within tissues, sharpness at the steepest edges, ghosts in the air.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from causal_sam.style.slices import StyledSlices

# More slices hardly change the measures.
MAX_SLICES = 5
# Minimum number of tissue pixels.
MIN_TISSUE = 64
# Noise is measured in windows of this size, at this quantile of their variance; there the standard deviation is on
# average this share of the noise's.
NOISE_WINDOW = 7
QUIET_QUANTILE = 0.1
QUIET_BIAS = 0.92
# Scales in pixels of the two derivatives whose ratio gives the width of an edge.
FINE, COARSE = 0.8, 1.6
# Minimum steepness of an edge in multiples of that of noise, and its minimum quantile.
EDGE_OVER_NOISE = 6.0
EDGE_QUANTILE = 0.9
MAX_BLUR = 6.0
# Degree of the polynomial bias field, number of blocks along the longer side, and rounds of the robust fit.
BIAS_DEGREE = 3
BIAS_BLOCKS = 56
BIAS_ROUNDS = 8
# Soft tissue window of CT in HU.
SOFT_TISSUE = (-160.0, 240.0)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
# Longer side in pixels of slices for the detection of artefacts.
ARTEFACT_SIZE = 128
# Minimum score of a visible artefact.
VISIBLE_SCORE = 0.5
# Lines for the detection of streaks: length in pixels, number of directions, and ratios for scores 0 and 1.
LINE_LENGTH, LINE_DIRECTIONS = 15, 12
STREAK_QUANTILE = 0.9
STREAK_RATIO = (2.6, 3.6)
# Signal in the air beside the body, as a share of the body's signal, at which ghosts are visible.
GHOST_SHARE = 0.03
# Minimum signal of the body, as a share of the brightest tissue.
BODY_SHARE = 0.25
# Wrap-around: minimum share of a side where tissue reaches both borders, minimum signal there as a share of the median,
# and minimum share of the tissue at either border that is at the same place of both.
WRAP_SHARE = 0.1
WRAP_SIGNAL = 0.35
WRAP_SAME_PLACE = 0.85
# Minimum variation along the border, in standard deviations of the noise.
WRAP_OVER_NOISE = 5.0
# Change across the borders, in changes from row to row, for scores 1 and 0.
WRAP_JUMP = (1.1, 2.0)


@dataclass(frozen=True)
class Artefact:
    """An artefact of an image.

    Attributes:
        name: "streaks", "ghosts" or "wrap-around".
        score: score in [0, 1]; the artefact is visible from `VISIBLE_SCORE` on.
        evidence: sentence with the number behind the score.
    """

    name: str
    score: float
    evidence: str

    @property
    def is_visible(self) -> bool:
        return self.score >= VISIBLE_SCORE


@dataclass(frozen=True)
class StyleMeasures:
    """Measures of style.

    Attributes:
        noise: standard deviation of the noise as a share of the median signal of tissue.
        noise_hu: standard deviation of the noise in HU; None except for CT.
        blur: standard deviation of the Gaussian blur of edges, in pixels; None without a clear edge.
        blur_mm: the same in mm.
        bias_field: standard deviation of the logarithm of the bias field over tissue; None for CT.
        contrast: difference of bright and dark tissue (90th and 10th percentile) divided by their sum, for CT by the
            width of the soft tissue window; in [0, 1].
        brightness: 10th, 25th, 50th, 75th and 90th percentile of the displayed brightness of tissue, in [0, 1].
        artefacts: artefacts that can be assessed on these slices.
    """

    noise: float
    noise_hu: float | None
    blur: float | None
    blur_mm: float | None
    bias_field: float | None
    contrast: float
    brightness: tuple[float, ...]
    artefacts: tuple[Artefact, ...]


def measure(slices: StyledSlices) -> StyleMeasures:
    """Measure the style of slices, deterministically.

    Args:
        slices: slices, of which up to `MAX_SLICES` are evenly chosen.
    """
    chosen = np.unique(np.linspace(0, len(slices.array) - 1, min(len(slices.array), MAX_SLICES)).round().astype(int))
    slices = replace(slices, array=slices.array[chosen])
    is_ct = slices.acquisition.modality == "CT"
    tissue = slices.tissue
    if np.count_nonzero(tissue) < MIN_TISSUE:
        return StyleMeasures(0.0, 0.0 if is_ct else None, None, None, None, 0.0, (0.0,) * len(QUANTILES), ())
    signal = slices.array - np.float32(slices.background)
    typical = max(float(np.median(signal[tissue])), 1e-6)
    noise = _noise(slices.array, tissue)
    blur = _blur(np.clip(slices.array, -1000, 1000) if is_ct else slices.array, slices, noise)
    smooth = np.stack([cv2.GaussianBlur(slice_, (0, 0), 1.0) for slice_ in slices.array])[tissue]
    if is_ct:
        shown = (np.clip(smooth, *SOFT_TISSUE) - SOFT_TISSUE[0]) / (SOFT_TISSUE[1] - SOFT_TISSUE[0])
        artefacts = [_streaks(slices)]
    else:
        low, high = np.percentile(smooth, (0.5, 99.5))
        shown = (np.clip(smooth, low, high) - low) / max(float(high - low), 1e-6)
        artefacts = [_ghosts(slices), _wrap(slices, noise)]
    brightness = np.quantile(shown, QUANTILES)
    dark, bright = np.quantile(smooth, (0.1, 0.9)) - slices.background
    contrast = brightness[-1] - brightness[0] if is_ct else (bright - dark) / max(float(bright + dark), 1e-6)
    return StyleMeasures(
        noise=noise / typical,
        noise_hu=noise if is_ct else None,
        blur=blur,
        blur_mm=None if blur is None else blur * float(np.sqrt(slices.spacing[1] * slices.spacing[2])),
        bias_field=None if is_ct else _bias_field(signal, tissue),
        contrast=float(np.clip(contrast, 0, 1)),
        brightness=tuple(float(value) for value in brightness),
        artefacts=tuple(artefact for artefact in artefacts if artefact is not None),
    )


def _noise(array: NDArray[np.float32], tissue: NDArray[np.bool_]) -> float:
    """Return the standard deviation of the noise in the units of the image, from homogeneous windows.

    Differences of neighbouring pixels would miss the coarse grain of reconstructed noise.
    """
    spreads = []
    size = (NOISE_WINDOW, NOISE_WINDOW)
    for slice_, inside in zip(array, tissue, strict=True):
        mean = cv2.boxFilter(slice_, cv2.CV_64F, size)
        variance = cv2.sqrBoxFilter(slice_, cv2.CV_64F, size) - mean**2
        whole = cv2.erode(inside.astype(np.uint8), np.ones(size, np.uint8)) > 0
        spreads.append(variance[whole])
    found = np.concatenate(spreads)
    if not found.size:
        return 0.0
    unbiased = NOISE_WINDOW**2 / (NOISE_WINDOW**2 - 1)
    return float(np.sqrt(max(np.quantile(found, QUIET_QUANTILE), 0.0) * unbiased)) / QUIET_BIAS


def _steepness(array: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    smooth = cv2.GaussianBlur(array, (0, 0), scale)
    # Central differences.
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)
    right = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)
    return cv2.magnitude(down, right).astype(np.float32, copy=False)


def _blur(array: NDArray[np.float32], slices: StyledSlices, noise: float) -> float | None:
    """Return the standard deviation in pixels of the Gaussian blur of the steepest edges.

    The steepness of a step with blur s at scale a is proportional to 1 / sqrt(s² + a²), so that two scales determine s
    independently of the height of the step.
    """
    kept = ~_near_masked_background(slices)
    fine, coarse, places = [], [], []
    for slice_, inside in zip(array, kept, strict=True):
        a, b = _steepness(slice_, FINE), _steepness(slice_, COARSE)
        inside[[0, -1]] = inside[:, [0, -1]] = False
        # The centre of an edge is a local maximum of steepness.
        places.append(inside & (b >= cv2.dilate(b, np.ones((3, 3), np.uint8))))
        fine.append(a)
        coarse.append(b)
    at = np.stack(places)
    fine, coarse = np.stack(fine)[at], np.stack(coarse)[at]
    # Expected steepness of white noise at the fine scale.
    grain = noise * np.sqrt(2.0) / (FINE**2 * np.sqrt(8 * np.pi))
    if not coarse.size:
        return None
    clear = (fine > EDGE_OVER_NOISE * grain) & (coarse >= np.quantile(coarse, EDGE_QUANTILE)) & (coarse > 0)
    if np.count_nonzero(clear) < 10:
        return None
    ratio = max(float(np.median(fine[clear] / coarse[clear])) ** 2, 1.0)
    widest = (MAX_BLUR**2 + COARSE**2) / (MAX_BLUR**2 + FINE**2)
    return MAX_BLUR if ratio <= widest else float(np.sqrt(max((COARSE**2 - ratio * FINE**2) / (ratio - 1), 0.0)))


def _near_masked_background(slices: StyledSlices) -> NDArray[np.bool_]:
    """Return the mask of exact background with 3 pixels around it, where a brain mask has created edges."""
    cut = slices.array == np.float32(slices.background)
    if slices.acquisition.modality == "CT" or cut.mean() < 0.05:
        return np.zeros(cut.shape, bool)
    return np.stack([cv2.dilate(slice_.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0 for slice_ in cut])


def _bias_field(signal: NDArray[np.float32], tissue: NDArray[np.bool_]) -> float | None:
    """Return the spread of a smooth bias field, fitted robustly to the slopes between neighbouring blocks of tissue.

    Borders between tissues are outliers, since they are few, whereas the field has slopes everywhere.
    """
    height, width = signal.shape[1:]
    block = max(1.0, max(height, width) / BIAS_BLOCKS)
    size = max(4, round(width / block)), max(4, round(height / block))
    spreads = [_field_spread(slice_, inside, size) for slice_, inside in zip(signal, tissue, strict=True)]
    found = [spread for spread in spreads if spread is not None]
    return float(np.median(found)) if found else None


def _field_spread(signal: NDArray[np.float32], tissue: NDArray[np.bool_], size: tuple[int, int]) -> float | None:
    means = cv2.resize(signal, size, interpolation=cv2.INTER_AREA)
    whole = (cv2.resize(tissue.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.999) & (means > 0)
    basis = _polynomials(size)
    if np.count_nonzero(whole) < 4 * len(basis):
        return None
    logs = np.log(np.where(whole, means, 1.0))
    down, right = whole[1:] & whole[:-1], whole[:, 1:] & whole[:, :-1]
    steps = np.concatenate([np.diff(logs, axis=0)[down], np.diff(logs, axis=1)[right]])
    slopes = np.concatenate([np.diff(basis, axis=1)[:, down], np.diff(basis, axis=2)[:, right]], axis=1).T
    ridge = 1e-4 * len(steps) * np.diag((slopes**2).mean(axis=0))
    weights = np.ones(len(steps))
    for _ in range(BIAS_ROUNDS):
        weighted = slopes * weights[:, None]
        fitted = np.linalg.solve(weighted.T @ slopes + ridge, weighted.T @ steps)
        rest = steps - slopes @ fitted
        scale = max(1.4826 * float(np.median(np.abs(rest))), 1e-6)
        # Tukey's biweight ignores outliers.
        weights = np.clip(1 - (rest / (4.7 * scale)) ** 2, 0, None) ** 2
    return float(np.tensordot(fitted, basis, axes=1)[whole].std())


@cache
def _polynomials(size: tuple[int, int]) -> NDArray[np.float64]:
    width, height = size
    half = max(width, height) / 2
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = (y - (height - 1) / 2) / half, (x - (width - 1) / 2) / half
    powers = [(a, d - a) for d in range(1, BIAS_DEGREE + 1) for a in range(d + 1)]
    return np.stack([y**a * x**b for a, b in powers])


def _small(slice_: NDArray[np.float32]) -> NDArray[np.float32]:
    """Downsample a slice to a longer side of at most `ARTEFACT_SIZE` pixels."""
    scale = ARTEFACT_SIZE / max(slice_.shape)
    if scale >= 1:
        return slice_
    size = max(1, round(slice_.shape[1] * scale)), max(1, round(slice_.shape[0] * scale))
    return cv2.resize(slice_, size, interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)


def _streaks(slices: StyledSlices) -> Artefact | None:
    """Detect streaks: long straight lines of alternating brightness in soft tissue.

    Soft tissue without slow variations is averaged along short lines in all directions. Noise averages out equally in
    all directions, whereas a streak remains along its own direction.
    """
    found = []
    for slice_ in slices.array:
        small = _small(slice_)
        inside = cv2.erode(((small > -200) & (small < 250)).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        if np.count_nonzero(inside) < MIN_TISSUE:
            continue
        rest = np.where(inside, small - cv2.GaussianBlur(small, (0, 0), 3.0), 0).astype(np.float32)
        limit = 2.5 * 1.4826 * float(np.median(np.abs(rest[inside]))) + 1e-3
        rest = np.clip(rest, -limit, limit)
        energy = np.stack(
            [
                cv2.boxFilter(np.square(cv2.filter2D(rest, -1, line)), -1, (LINE_LENGTH, LINE_LENGTH))
                for line in _lines()
            ]
        )
        ratio = energy.max(axis=0) / np.maximum(energy.mean(axis=0), 1e-6)
        found.append(float(np.quantile(ratio[inside], STREAK_QUANTILE)))
    if not found:
        return None
    ratio = float(np.max(found))
    sentence = f"In the most striped places, averages along lines vary {ratio:.1f} times as much in one direction."
    return Artefact("streaks", float(np.clip((ratio - STREAK_RATIO[0]) / np.diff(STREAK_RATIO)[0], 0, 1)), sentence)


@cache
def _lines() -> tuple[NDArray[np.float32], ...]:
    """Return normalised line kernels of `LINE_LENGTH` pixels in `LINE_DIRECTIONS` directions."""
    lines = []
    for n in range(LINE_DIRECTIONS):
        line, angle = np.zeros((LINE_LENGTH, LINE_LENGTH), np.float32), np.pi * n / LINE_DIRECTIONS
        reach = LINE_LENGTH // 2
        for step in range(-reach, reach + 1):
            line[reach + round(step * np.sin(angle)), reach + round(step * np.cos(angle))] = 1
        lines.append(line / line.sum())
    return tuple(lines)


def _ghosts(slices: StyledSlices) -> Artefact | None:
    """Detect ghosts: copies of the body in the air along rows or columns, caused by motion.

    Air in the rows of the body is compared with air in the columns of the body.
    """
    ratios = []
    for slice_ in slices.array:
        signal = _small(np.abs(slice_ - np.float32(slices.background)))
        # Ghosts are fainter than the body.
        body = signal > BODY_SHARE * np.quantile(signal, 0.95)
        body = cv2.dilate(body.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        rows, columns = body.any(axis=1)[:, None], body.any(axis=0)[None]
        parts = [~body & rows & ~columns, ~body & ~rows & columns]
        found = [float(signal[part].mean()) for part in parts if np.count_nonzero(part) >= MIN_TISSUE]
        typical = float(np.median(signal[body])) if body.any() else 0.0
        if len(found) == 2 and typical > 0:
            ratios.append(abs(found[0] - found[1]) / typical)
    if not ratios:
        return None
    ratio = float(np.median(ratios))
    sentence = f"Air in line with the body differs by {100 * ratio:.1f} % of the signal between both directions."
    return Artefact("ghosts", float(np.clip(ratio / (2 * GHOST_SHARE), 0, 1)), sentence)


def _wrap(slices: StyledSlices, noise: float) -> Artefact:
    """Detect wrap-around: tissue that leaves the image at one side and continues at the opposite side.

    A truncated body may also reach both borders. Wrapped tissue, however, begins and ends at the same places of both
    borders, and its brightness changes across them no more than between neighbouring rows.
    """
    jumps = [jump for axis in (1, 2) if (jump := _jump(np.moveaxis(slices.array, axis, 1), slices, noise)) is not None]
    if not jumps:
        return Artefact("wrap-around", 0.0, "No tissue goes on across opposite borders.")
    jump = min(jumps)
    sentence = f"Across opposite borders, tissue changes {jump:.1f} times as much as from one row to the next."
    joined, apart = WRAP_JUMP
    return Artefact("wrap-around", float(np.clip((apart - jump) / (apart - joined), 0, 1)), sentence)


def _jump(array: NDArray[np.float32], slices: StyledSlices, noise: float) -> float | None:
    """Return the change from the last to the first row relative to that between rows; None without enough tissue."""
    found = []
    for slice_ in array:
        # Smoothing only along the rows, which are compared.
        signal = cv2.GaussianBlur(slice_ - np.float32(slices.background), (0, 0), sigmaX=2.0, sigmaY=0.01)
        least = WRAP_SIGNAL * float(np.median(signal[signal > 0])) if (signal > 0).any() else 0.0
        first, last = signal[0], signal[-1]
        both, either = (first > least) & (last > least), (first > least) | (last > least)
        if both.mean() < WRAP_SHARE or both.sum() < WRAP_SAME_PLACE * either.sum():
            continue
        # Homogeneous tissue would appear to continue everywhere; the dark ends of a row are excluded.
        if any(np.diff(np.quantile(row[both], (0.2, 0.8)))[0] < WRAP_OVER_NOISE * noise for row in (first, last)):
            continue
        steps = (np.abs(first - signal[1]) + np.abs(last - signal[-2]))[both].mean() / 2
        found.append(float(np.abs(first - last)[both].mean() / max(float(steps), 1e-6)))
    return float(np.median(found)) if found else None
