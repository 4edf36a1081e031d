"""Classical methods that make a mask from clicks, each with one fixed setting.

The settings are the best of a search on generated images (`causal_sam.benchmark.tuning`), in
``baseline_settings.json``; no real image chose them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
import numpymaxflow
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric
from skimage.segmentation import random_walker

from causal_sam.errors import InputError
from causal_sam.imaging.distances import distance_to

SETTINGS_FILE = "baseline_settings.json"


class Baseline(Protocol):
    """A classical method.

    Attributes:
        name: name on the command line.
        dimensions: supported numbers of image dimensions.
    """

    name: ClassVar[str]
    dimensions: ClassVar[frozenset[int]]

    def segment(
        self,
        image: NDArray[np.float32],
        foreground: NDArray[np.intp],
        background: NDArray[np.intp],
        spacing: tuple[float, ...],
    ) -> NDArray[np.bool_]:
        """Make a mask from clicks.

        Args:
            image: HxW or IxJxK in [0, 1].
            foreground: Nxd indices of voxels inside the structure, N at least 1.
            background: Mxd indices of voxels outside it; M may be 0.
            spacing: voxel spacing in mm along each axis.
        """


def smoothed(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Smooth an image by a Gaussian; ``sigma`` in voxels."""
    return ndimage.gaussian_filter(image, sigma) if sigma > 0 else image


def seeds_of(shape: tuple[int, ...], points: NDArray[np.intp], radius: int) -> NDArray[np.bool_]:
    """Draw balls of ``radius`` voxels around clicks, since an annotator never means a single voxel."""
    seeds = np.zeros(shape, bool)
    seeds[tuple(points.T)] = True
    return distance_to(seeds) <= radius if len(points) else seeds


def background_seeds(
    foreground: NDArray[np.intp], background: NDArray[np.intp], shape: tuple[int, ...], reach: float, radius: int
) -> NDArray[np.bool_]:
    """Return the background clicks and all voxels farther from foreground clicks than ``reach`` of the image.

    Methods that divide an image between two kinds of seeds need both kinds from the first click on.
    """
    far = distance_to(seeds_of(shape, foreground, 0)) > reach * max(shape)
    if not far.any():  # the whole image is within reach: use its edge
        far[...] = True
        far[tuple(slice(1, -1) for _ in shape)] = False
    far[tuple(foreground.T)] = False
    return far | seeds_of(shape, background, radius)


def clicked_parts(
    mask: NDArray[np.bool_], foreground: NDArray[np.intp], background: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Keep the components with a foreground click; the clicked voxels themselves are always as clicked."""
    mask = mask.copy()
    mask[tuple(foreground.T)] = True
    mask[tuple(background.T)] = False
    components, _ = ndimage.label(mask)
    return np.isin(components, np.setdiff1d(components[tuple(foreground.T)], 0))


@dataclass(frozen=True)
class RandomWalker:
    """Random walker (Grady 2006) of scikit-image.

    Attributes:
        sigma: smoothing in voxels.
        beta: how much a step across an edge costs.
        reach: distance from the clicks, as a share of the image, where the background begins.
        radius: of the seeds in voxels.
    """

    name: ClassVar[str] = "random-walker"
    dimensions: ClassVar[frozenset[int]] = frozenset({2, 3})
    choices: ClassVar[dict[str, tuple]] = {
        "sigma": (0.0, 1.0),
        "beta": (100, 1000, 5000),
        "reach": (0.15, 0.25, 0.4),
        "radius": (1, 2),
    }
    sigma: float = 1.0
    beta: float = 1000
    reach: float = 0.25
    radius: int = 1

    def segment(self, image, foreground, background, spacing):
        """See `Baseline`."""
        labels = np.zeros(image.shape, np.int8)
        labels[background_seeds(foreground, background, image.shape, self.reach, self.radius)] = 2
        labels[seeds_of(image.shape, foreground, self.radius)] = 1
        labels[tuple(background.T)] = 2
        seen = smoothed(image, self.sigma)
        if np.ptp(seen) == 0 or not (labels == 0).any() or not (labels == 1).any():
            return clicked_parts(labels == 1, foreground, background)
        # scikit-image scales beta by the variance of the whole image.
        walked = random_walker(seen, labels, beta=self.beta, mode="cg_j", spacing=spacing, prob_tol=0.1)
        return clicked_parts(walked == 1, foreground, background)


@dataclass(frozen=True)
class Geodesic:
    """Nearest seed by geodesic distance (Criminisi et al. 2008), with scikit-image's minimal cost paths.

    Attributes:
        sigma: smoothing in voxels.
        weight: cost of a step across the whole range of grey values, in voxels of walking.
        reach: as in `RandomWalker`.
        radius: of the seeds in voxels.
    """

    name: ClassVar[str] = "geodesic"
    dimensions: ClassVar[frozenset[int]] = frozenset({2, 3})
    choices: ClassVar[dict[str, tuple]] = {
        "sigma": (0.0, 1.0),
        "weight": (100, 400, 1600),
        "reach": (0.15, 0.25, 0.4),
        "radius": (1, 2),
    }
    sigma: float = 1.0
    weight: float = 400
    reach: float = 0.25
    radius: int = 1

    def segment(self, image, foreground, background, spacing):
        """See `Baseline`."""
        seen = smoothed(image, self.sigma)
        cost = 1 + self.weight * ndimage.generic_gradient_magnitude(seen, ndimage.sobel) / 8
        outside = background_seeds(foreground, background, image.shape, self.reach, self.radius)
        inside = seeds_of(image.shape, foreground, self.radius) & ~seeds_of(image.shape, background, 0)
        outside &= ~inside
        to_inside, to_outside = (
            MCP_Geometric(cost, sampling=spacing).find_costs(np.argwhere(seeds))[0] for seeds in (inside, outside)
        )
        return clicked_parts(to_inside < to_outside, foreground, background)


@dataclass(frozen=True)
class GraphCut:
    """Graph cut (Boykov and Jolly 2001) of numpymaxflow, as in MONAI Label's scribbles.

    Attributes:
        sigma: smoothing in voxels.
        lamda: weight of borders against grey values.
        contrast: difference of grey values that makes a border cheap.
        width: how far grey values inside may lie from the clicked ones.
        reach: as in `RandomWalker`.
        radius: of the seeds in voxels.
    """

    name: ClassVar[str] = "graph-cut"
    dimensions: ClassVar[frozenset[int]] = frozenset({2, 3})
    choices: ClassVar[dict[str, tuple]] = {
        "sigma": (0.0, 1.0),
        "lamda": (1.0, 5.0, 20.0),
        "contrast": (0.03, 0.1),
        "width": (0.05, 0.1, 0.2),
        "reach": (0.15, 0.25, 0.4),
        "radius": (1, 2),
    }
    sigma: float = 1.0
    lamda: float = 5.0
    contrast: float = 0.1
    width: float = 0.1
    reach: float = 0.25
    radius: int = 1

    def segment(self, image, foreground, background, spacing):
        """See `Baseline`."""
        seen = smoothed(image, self.sigma)
        inside = seeds_of(image.shape, foreground, self.radius) & ~seeds_of(image.shape, background, 0)
        outside = background_seeds(foreground, background, image.shape, self.reach, self.radius) & ~inside
        likely = _likelihood(seen, seen[inside], self.width)
        unlikely = _likelihood(seen, seen[seeds_of(image.shape, background, self.radius) & ~inside], self.width)
        # Without background clicks all grey values are as likely outside.
        unlikely = unlikely if len(background) else np.full(seen.shape, 0.5, np.float32)
        share = np.clip(likely / (likely + unlikely + 1e-6), 0.01, 0.99)
        share[inside], share[outside] = 1 - 1e-6, 1e-6
        cut = numpymaxflow.maxflow(
            np.ascontiguousarray(seen[None], np.float32),
            np.ascontiguousarray(np.stack([1 - share, share]), np.float32),
            lamda=self.lamda,
            sigma=self.contrast,
            connectivity=2 * image.ndim,
        )
        return clicked_parts(np.asarray(cut).reshape(image.shape) > 0, foreground, background)


def _likelihood(image: NDArray, clicked: NDArray, width: float) -> NDArray[np.float32]:
    """Gaussian likelihood of grey values around the clicked ones."""
    if not clicked.size:
        return np.zeros(image.shape, np.float32)
    spread = np.hypot(width, clicked.std())
    return np.exp(-0.5 * ((image - np.median(clicked)) / spread) ** 2).astype(np.float32)


@dataclass(frozen=True)
class GrabCut:
    """GrabCut (Rother et al. 2004) of OpenCV.

    Attributes:
        sigma: smoothing in voxels.
        likely: distance from the foreground clicks, as a share of the image, where the structure probably is.
        reach: as in `RandomWalker`.
        radius: of the seeds in voxels.
        rounds: of the algorithm.
    """

    name: ClassVar[str] = "grabcut"
    dimensions: ClassVar[frozenset[int]] = frozenset({2})
    choices: ClassVar[dict[str, tuple]] = {
        "sigma": (0.0, 1.0),
        "likely": (0.05, 0.1, 0.18),
        "reach": (0.2, 0.35, 0.5),
        "radius": (1, 2),
        "rounds": (1, 3),
    }
    sigma: float = 1.0
    likely: float = 0.1
    reach: float = 0.35
    radius: int = 1
    rounds: int = 3

    def segment(self, image, foreground, background, spacing):
        """See `Baseline`."""
        marks = np.full(image.shape, cv2.GC_PR_BGD, np.uint8)
        marks[background_seeds(foreground, background, image.shape, self.reach, self.radius)] = cv2.GC_BGD
        marks[seeds_of(image.shape, foreground, max(1, round(self.likely * max(image.shape))))] = cv2.GC_PR_FGD
        marks[seeds_of(image.shape, background, self.radius)] = cv2.GC_BGD
        marks[seeds_of(image.shape, foreground, self.radius)] = cv2.GC_FGD
        marks[tuple(background.T)] = cv2.GC_BGD
        colour = np.repeat((smoothed(image, self.sigma) * 255).astype(np.uint8)[..., None], 3, axis=2)
        if np.isin(marks, (cv2.GC_BGD, cv2.GC_PR_BGD)).any() and np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).any():
            cv2.setRNGSeed(0)  # its colour models begin at random
            models = np.zeros((1, 65)), np.zeros((1, 65))
            cv2.grabCut(colour, marks, None, *models, self.rounds, cv2.GC_INIT_WITH_MASK)
        return clicked_parts(np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)), foreground, background)


@dataclass(frozen=True)
class RegionGrowing:
    """Confidence-connected region growing of SimpleITK.

    Attributes:
        sigma: smoothing in voxels.
        multiplier: how many standard deviations grey values may lie from the region's mean.
        rounds: how often mean and deviation are taken anew from the region.
        radius: of the neighbourhood of a click that the first mean and deviation come from, in voxels.
        eraser: how much a background click takes away, see `_erased`.
    """

    name: ClassVar[str] = "region-growing"
    dimensions: ClassVar[frozenset[int]] = frozenset({2, 3})
    choices: ClassVar[dict[str, tuple]] = {
        "sigma": (0.0, 1.0, 2.0),
        "multiplier": (1.5, 2.0, 2.5, 3.0),
        "rounds": (0, 2, 5),
        "radius": (1, 2, 3),
        "eraser": (0.3, 0.6, 0.9),
    }
    sigma: float = 1.0
    multiplier: float = 2.5
    rounds: int = 2
    radius: int = 2
    eraser: float = 0.6

    def segment(self, image, foreground, background, spacing):
        """See `Baseline`."""
        seen = smoothed(image, self.sigma).astype(np.float32)
        grown = SimpleITK.ConfidenceConnected(
            SimpleITK.GetImageFromArray(seen),
            seedList=[tuple(int(v) for v in point[::-1]) for point in foreground],
            numberOfIterations=self.rounds,
            multiplier=self.multiplier,
            initialNeighborhoodRadius=self.radius,
            replaceValue=1,
        )
        mask = SimpleITK.GetArrayFromImage(grown) > 0
        return clicked_parts(_erased(mask, foreground, background, self.eraser), foreground, background)


@dataclass(frozen=True)
class ThresholdBand:
    """Connected voxels whose grey value lies in a band around the clicked ones.

    Attributes:
        sigma: smoothing in voxels.
        width: half of the band's width.
        radius: of the neighbourhood of a click that its grey value is the median of, in voxels.
        opening: radius in voxels of the opening that cuts thin bridges.
        eraser: how much a background click takes away, see `_erased`.
    """

    name: ClassVar[str] = "threshold-band"
    dimensions: ClassVar[frozenset[int]] = frozenset({2, 3})
    choices: ClassVar[dict[str, tuple]] = {
        "sigma": (0.0, 1.0, 2.0),
        "width": (0.05, 0.08, 0.12, 0.18),
        "radius": (1, 2, 3),
        "opening": (0, 1, 2),
        "eraser": (0.3, 0.6, 0.9),
    }
    sigma: float = 1.0
    width: float = 0.1
    radius: int = 2
    opening: int = 1
    eraser: float = 0.6

    def segment(self, image, foreground, background, spacing):
        """See `Baseline`."""
        seen = smoothed(image, self.sigma)
        mask = np.zeros(image.shape, bool)
        for point in foreground:
            level = np.median(seen[seeds_of(image.shape, point[None], self.radius)])
            mask |= np.abs(seen - level) <= self.width
        if self.opening:
            mask = ndimage.binary_opening(mask, iterations=self.opening)
        return clicked_parts(_erased(mask, foreground, background, self.eraser), foreground, background)


def _erased(
    mask: NDArray[np.bool_], foreground: NDArray[np.intp], background: NDArray[np.intp], eraser: float
) -> NDArray[np.bool_]:
    """Erase a ball around each background click, for methods without background seeds.

    Args:
        mask: mask to correct.
        foreground: Nxd indices.
        background: Mxd indices.
        eraser: radius of the ball as a share of the distance to the nearest foreground click.
    """
    if not len(background):
        return mask
    to_foreground = distance_to(seeds_of(mask.shape, foreground, 0))
    mask = mask.copy()
    for point in background:
        far = distance_to(seeds_of(mask.shape, point[None], 0))
        mask &= far > eraser * to_foreground[tuple(point)]
    return mask


_BASELINES: dict[str, type] = {
    method.name: method for method in (RandomWalker, Geodesic, GraphCut, GrabCut, RegionGrowing, ThresholdBand)
}
BASELINE_NAMES = tuple(_BASELINES)


def load_baseline(name: str) -> Baseline:
    """Return a baseline with its best setting.

    Raises:
        InputError: the baseline does not exist.
    """
    return make_baseline(name, tuned_settings().get(name, {}).get("setting", {}))


def make_baseline(name: str, setting: dict[str, Any]) -> Baseline:
    """Return a baseline with a given setting; missing parameters have their defaults.

    Raises:
        InputError: the baseline or one of the parameters does not exist.
    """
    method = _BASELINES.get(name)
    if method is None:
        raise InputError(f"There is no baseline '{name}': choose from {', '.join(BASELINE_NAMES)}.")
    unknown = setting.keys() - {field.name for field in fields(method)}
    if unknown:
        known = ", ".join(field.name for field in fields(method))
        raise InputError(f"Baseline '{name}' has no parameter {', '.join(sorted(unknown))}: it has {known}.")
    return method(**setting)


def tuned_settings() -> dict[str, dict[str, Any]]:
    """Return the results of the search on generated images: name -> setting, score and options of the search."""
    return json.loads((files("causal_sam.benchmark") / SETTINGS_FILE).read_text())


def random_settings(name: str, count: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield the default and ``count - 1`` random settings of a baseline, each at most once."""
    method = _BASELINES[name]
    seen = []
    setting = asdict(method())
    combinations = int(np.prod([len(values) for values in method.choices.values()]))
    while len(seen) < min(count, combinations):
        if setting not in seen:
            seen.append(setting)
            yield setting
        setting = {key: values[int(rng.integers(len(values)))] for key, values in method.choices.items()}
