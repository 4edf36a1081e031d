"""Classical methods that make a mask from clicks, each with one fixed setting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
import numpymaxflow
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric
from skimage.segmentation import random_walker

from causal_sam.benchmark.interactive.options import Prompt
from causal_sam.imaging import Volume, intensity_window
from causal_sam.imaging.distances import distance_to


class ClassicalMethod(ABC):
    """A classical method. Subclasses are dataclasses whose fields, made by `setting`, are the parameters.

    Attributes:
        name: name on the command line, a keyword of the class statement.
        dimensions: supported numbers of image dimensions.
        prompts: first prompts that it takes.
        sigma: standard deviation of the Gaussian that smooths the image, in voxels.
    """

    name: ClassVar[str]
    dimensions: ClassVar[frozenset[int]] = frozenset({2, 3})
    prompts: ClassVar[frozenset[Prompt]] = frozenset({Prompt.CLICK})
    sigma: float

    def __init_subclass__(cls, *, name: str) -> None:
        super().__init_subclass__()
        cls.name = name

    def image(self, volume: Volume) -> NDArray[np.float32]:
        """Return the voxels of a volume as the method wants them: in [0, 1], windowed as for a model."""
        return intensity_window(volume).apply(volume.array)

    def begin(self, image: NDArray[np.float32], spacing: Sequence[float]) -> Clicks:
        """Start on an image; see `segment`."""
        return Clicks(self, image, tuple(spacing))

    def segment(
        self,
        image: NDArray[np.float32],
        foreground: NDArray[np.intp],
        background: NDArray[np.intp],
        spacing: tuple[float, ...],
    ) -> NDArray[np.bool_]:
        """Make a mask from clicks: its components with a foreground click, with all clicked voxels as clicked.

        Args:
            image: HxW or IxJxK in [0, 1].
            foreground: Nxd indices of voxels inside the structure, N at least 1.
            background: Mxd indices of voxels outside it; M may be 0.
            spacing: voxel spacing in mm along each axis.
        """
        smooth = ndimage.gaussian_filter(image, self.sigma) if self.sigma > 0 else image
        mask = self._mask(smooth, foreground, background, spacing).copy()
        mask[tuple(foreground.T)] = True
        mask[tuple(background.T)] = False
        components, _ = ndimage.label(mask)
        return np.isin(components, np.setdiff1d(components[tuple(foreground.T)], 0))

    @abstractmethod
    def _mask(self, image: NDArray, foreground: NDArray, background: NDArray, spacing: tuple) -> NDArray[np.bool_]:
        """Make a mask of the smoothed image."""


class Clicks:
    """Clicks on one image; each answer is computed from all clicks so far.

    Args:
        method: method that answers.
        image: HxW or IxJxK in [0, 1].
        spacing: voxel spacing in mm along each axis.
    """

    def __init__(self, method: ClassicalMethod, image: NDArray[np.float32], spacing: tuple[float, ...]) -> None:
        self._method, self._image, self._spacing = method, image, spacing
        self._clicked: dict[bool, list[tuple[int, ...]]] = {True: [], False: []}

    def click(self, place: tuple[int, ...], *, inside: bool) -> NDArray[np.bool_]:
        """Click a place of the image and return the new mask."""
        self._clicked[inside].append(place)
        foreground, background = (
            np.array(self._clicked[kind], dtype=np.intp).reshape(-1, self._image.ndim) for kind in (True, False)
        )
        return self._method.segment(self._image, foreground, background, self._spacing)


def setting(default: float, *choices: float) -> Any:
    """Return the dataclass field of a parameter.

    Args:
        default: default value.
        choices: values that the search may draw.
    """
    return field(default=default, metadata={"choices": choices})


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


@dataclass(frozen=True)
class RandomWalker(ClassicalMethod, name="random-walker"):
    """Random walker (Grady 2006) of scikit-image.

    Attributes:
        beta: cost of a step across an edge.
        reach: distance from the clicks, as a share of the image, where the background begins.
        radius: radius of the seeds in voxels.
    """

    sigma: float = setting(1.0, 0.0, 1.0)
    beta: float = setting(1000, 100, 1000, 5000)
    reach: float = setting(0.25, 0.15, 0.25, 0.4)
    radius: int = setting(1, 1, 2)

    def _mask(self, image, foreground, background, spacing):
        labels = np.zeros(image.shape, np.int8)
        labels[background_seeds(foreground, background, image.shape, self.reach, self.radius)] = 2
        labels[seeds_of(image.shape, foreground, self.radius)] = 1
        labels[tuple(background.T)] = 2
        if np.ptp(image) == 0 or not (labels == 0).any() or not (labels == 1).any():
            return labels == 1
        # scikit-image scales beta by the variance of the whole image.
        return random_walker(image, labels, beta=self.beta, mode="cg_j", spacing=spacing, prob_tol=0.1) == 1


@dataclass(frozen=True)
class Geodesic(ClassicalMethod, name="geodesic"):
    """Nearest seed by geodesic distance (Criminisi et al. 2008), with scikit-image's minimal cost paths.

    Attributes:
        weight: cost of a step across the whole range of grey values, in voxels of walking.
        reach: see `RandomWalker`.
        radius: radius of the seeds in voxels.
    """

    sigma: float = setting(1.0, 0.0, 1.0)
    weight: float = setting(400, 100, 400, 1600)
    reach: float = setting(0.25, 0.15, 0.25, 0.4)
    radius: int = setting(1, 1, 2)

    def _mask(self, image, foreground, background, spacing):
        cost = 1 + self.weight * ndimage.generic_gradient_magnitude(image, ndimage.sobel) / 8
        inside = seeds_of(image.shape, foreground, self.radius) & ~seeds_of(image.shape, background, 0)
        outside = background_seeds(foreground, background, image.shape, self.reach, self.radius) & ~inside
        to_inside, to_outside = (
            MCP_Geometric(cost, sampling=spacing).find_costs(np.argwhere(seeds))[0] for seeds in (inside, outside)
        )
        return to_inside < to_outside


@dataclass(frozen=True)
class GraphCut(ClassicalMethod, name="graph-cut"):
    """Graph cut (Boykov and Jolly 2001) of numpymaxflow, as in MONAI Label's scribbles.

    Attributes:
        lamda: weight of borders against grey values.
        contrast: difference of grey values that makes a border cheap.
        width: maximum deviation of grey values inside from the clicked ones.
        reach: see `RandomWalker`.
        radius: radius of the seeds in voxels.
    """

    sigma: float = setting(1.0, 0.0, 1.0)
    lamda: float = setting(5.0, 1.0, 5.0, 20.0)
    contrast: float = setting(0.1, 0.03, 0.1)
    width: float = setting(0.1, 0.05, 0.1, 0.2)
    reach: float = setting(0.25, 0.15, 0.25, 0.4)
    radius: int = setting(1, 1, 2)

    def _mask(self, image, foreground, background, spacing):
        inside = seeds_of(image.shape, foreground, self.radius) & ~seeds_of(image.shape, background, 0)
        outside = background_seeds(foreground, background, image.shape, self.reach, self.radius) & ~inside
        likely = _likelihood(image, image[inside], self.width)
        unlikely = _likelihood(image, image[seeds_of(image.shape, background, self.radius) & ~inside], self.width)
        # Without background clicks all grey values are as likely outside.
        unlikely = unlikely if len(background) else np.full(image.shape, 0.5, np.float32)
        share = np.clip(likely / (likely + unlikely + 1e-6), 0.01, 0.99)
        share[inside], share[outside] = 1 - 1e-6, 1e-6
        cut = numpymaxflow.maxflow(
            np.ascontiguousarray(image[None], np.float32),
            np.ascontiguousarray(np.stack([1 - share, share]), np.float32),
            lamda=self.lamda,
            sigma=self.contrast,
            connectivity=2 * image.ndim,
        )
        return np.asarray(cut).reshape(image.shape) > 0


def _likelihood(image: NDArray, clicked: NDArray, width: float) -> NDArray[np.float32]:
    """Return the Gaussian likelihood of grey values around the clicked ones."""
    if not clicked.size:
        return np.zeros(image.shape, np.float32)
    spread = np.hypot(width, clicked.std())
    return np.exp(-0.5 * ((image - np.median(clicked)) / spread) ** 2).astype(np.float32)


@dataclass(frozen=True)
class GrabCut(ClassicalMethod, name="grabcut"):
    """GrabCut (Rother et al. 2004) of OpenCV.

    Attributes:
        likely: distance from the foreground clicks, as a share of the image, where the structure probably is.
        reach: see `RandomWalker`.
        radius: radius of the seeds in voxels.
        rounds: iterations of the algorithm.
    """

    dimensions = frozenset({2})
    sigma: float = setting(1.0, 0.0, 1.0)
    likely: float = setting(0.1, 0.05, 0.1, 0.18)
    reach: float = setting(0.35, 0.2, 0.35, 0.5)
    radius: int = setting(1, 1, 2)
    rounds: int = setting(3, 1, 3)

    def _mask(self, image, foreground, background, spacing):
        marks = np.full(image.shape, cv2.GC_PR_BGD, np.uint8)
        marks[background_seeds(foreground, background, image.shape, self.reach, self.radius)] = cv2.GC_BGD
        marks[seeds_of(image.shape, foreground, max(1, round(self.likely * max(image.shape))))] = cv2.GC_PR_FGD
        marks[seeds_of(image.shape, background, self.radius)] = cv2.GC_BGD
        marks[seeds_of(image.shape, foreground, self.radius)] = cv2.GC_FGD
        marks[tuple(background.T)] = cv2.GC_BGD
        colour = np.repeat((image * 255).astype(np.uint8)[..., None], 3, axis=2)
        if np.isin(marks, (cv2.GC_BGD, cv2.GC_PR_BGD)).any() and np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).any():
            cv2.setRNGSeed(0)  # its colour models begin at random
            of_background, of_foreground = np.zeros((1, 65)), np.zeros((1, 65))
            nowhere = (0, 0, 0, 0)  # the marks say where
            cv2.grabCut(colour, marks, nowhere, of_background, of_foreground, self.rounds, cv2.GC_INIT_WITH_MASK)
        return np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD))


@dataclass(frozen=True)
class RegionGrowing(ClassicalMethod, name="region-growing"):
    """Confidence-connected region growing of SimpleITK.

    Attributes:
        multiplier: maximum deviation of grey values from the region's mean, in standard deviations.
        rounds: number of updates of mean and deviation from the region.
        radius: radius in voxels of the neighbourhood of a click for the first mean and deviation.
        eraser: see `_erase_around`.
    """

    sigma: float = setting(1.0, 0.0, 1.0, 2.0)
    multiplier: float = setting(2.5, 1.5, 2.0, 2.5, 3.0)
    rounds: int = setting(2, 0, 2, 5)
    radius: int = setting(2, 1, 2, 3)
    eraser: float = setting(0.6, 0.3, 0.6, 0.9)

    def _mask(self, image, foreground, background, spacing):
        grown = SimpleITK.ConfidenceConnected(
            SimpleITK.GetImageFromArray(image.astype(np.float32)),
            seedList=[tuple(int(v) for v in point[::-1]) for point in foreground],
            numberOfIterations=self.rounds,
            multiplier=self.multiplier,
            initialNeighborhoodRadius=self.radius,
            replaceValue=1,
        )
        return _erase_around(SimpleITK.GetArrayFromImage(grown) > 0, foreground, background, self.eraser)


@dataclass(frozen=True)
class ThresholdBand(ClassicalMethod, name="threshold-band"):
    """Connected voxels whose grey value lies in a band around the clicked ones.

    Attributes:
        width: half the width of the band.
        radius: radius in voxels of the neighbourhood of a click whose median is its grey value.
        opening: radius in voxels of the opening that cuts thin bridges.
        eraser: see `_erase_around`.
    """

    sigma: float = setting(1.0, 0.0, 1.0, 2.0)
    width: float = setting(0.1, 0.05, 0.08, 0.12, 0.18)
    radius: int = setting(2, 1, 2, 3)
    opening: int = setting(1, 0, 1, 2)
    eraser: float = setting(0.6, 0.3, 0.6, 0.9)

    def _mask(self, image, foreground, background, spacing):
        mask = np.zeros(image.shape, bool)
        for point in foreground:
            level = np.median(image[seeds_of(image.shape, point[None], self.radius)])
            mask |= np.abs(image - level) <= self.width
        if self.opening:
            mask = ndimage.binary_opening(mask, iterations=self.opening)
        return _erase_around(mask, foreground, background, self.eraser)


def _erase_around(
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
