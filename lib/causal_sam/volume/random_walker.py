"""A context without training: random walks over the coarse grid, on affinities of brightness and frozen embeddings.

Each cell gets the probability that a walker, who prefers steps between cells that look alike, reaches a foreground
prompt before a background prompt (Grady 2006, doi:10.1109/TPAMI.2006.233). Few prompts say little about cells far from
all of them, so each cell also has a weak tie to both sides by its likeness to the prompted places, a prior as in Grady
2005, doi:10.1109/CVPR.2005.239. It is the baseline of the context network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import cg
from torch import Tensor
from torch.nn import functional as F

from causal_sam.sam.embedding import Embedding
from causal_sam.volume.context import CoarseMask, Voxel
from causal_sam.volume.grid import Grid, SliceGeometry
from causal_sam.volume.network import FEATURE_STRIDE

# Differences of brightness (0 to 1) and of unit feature vectors at which two cells no longer look alike.
BRIGHTNESS_WIDTH, FEATURE_WIDTH = 0.06, 0.35
MIN_AFFINITY = 1e-4
# Weight of the prior beside an affinity of 1, and of the mask so far in the prior.
PRIOR_WEIGHT, MASK_WEIGHT = 0.004, 0.5
# Standard deviation in mm at which a cell no longer belongs to a prompted place by its looks alone.
REACH_MM = 60.0
MAX_STEPS, TOLERANCE = 200, 1e-3
LOGITS_PER_PROBABILITY = 12.0


class RandomWalkerContext:
    """Coarse masks of one volume by prompts; it knows no names. Thread-safe.

    Args:
        slices: geometry of the canonical slices in the encoder's input.
        embedding: slice index -> embedding by the frozen compact encoder.
    """

    def __init__(self, slices: SliceGeometry, embedding: Callable[[int], Embedding]) -> None:
        self.grid = Grid.whole(slices)
        self._embedding = embedding
        self._lock = threading.Lock()
        self._brightness = torch.empty(0)
        self._features = torch.empty(0)
        self._laplacian: sparse.csr_matrix | None = None

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        graph = 0 if self._laplacian is None else 12 * self._laplacian.nnz
        return graph + 4 * self._brightness.numel() + 2 * self._features.numel()

    def knows(self, name: str) -> bool:
        """Return False: nothing was trained."""
        return False

    def segment_named(self, names: Sequence[str]) -> dict[str, CoarseMask]:
        """Return nothing: no name is known."""
        return {}

    def prepare(self, on_slice: Callable[[int], object] = lambda done: None) -> None:
        """Compute the affinities of neighbouring cells, once; see `VolumeContext.prepare`."""
        described = []
        for done, index in enumerate(self.grid.indices):
            if self._laplacian is not None:
                return
            on_slice(done)
            described.append(self._described(index))
        with self._lock:
            if self._laplacian is None:
                self._brightness = torch.stack([brightness for brightness, _ in described])
                self._features = torch.stack([features for _, features in described])
                self._laplacian = self._graph()

    def segment(
        self,
        foreground: Sequence[Voxel] = (),
        background: Sequence[Voxel] = (),
        box: Sequence[int] | None = None,
        mask: NDArray[np.bool_] | None = None,
        name: str | None = None,
    ) -> CoarseMask:
        """Answer the prompts of one structure; see `VolumeContext.segment`. The name says nothing."""
        self.prepare()
        assert self._laplacian is not None
        shape = self.grid.shape
        seeds = np.full(shape, -1.0)
        inside, outside = self._cells(foreground), self._cells(background)
        if box is not None:
            ends = np.sort(self._cells([box[0::2], box[1::2]]), axis=0)
            within_box = np.zeros(shape, bool)
            within_box[tuple(slice(first, last + 1) for first, last in ends.T)] = True
            seeds[~within_box] = 0
            middle = [slice((2 * first + last) // 3, (first + 2 * last) // 3 + 1) for first, last in ends.T]
            seeds[tuple(middle)] = 1
            inside = np.concatenate([inside, [ends.sum(0) // 2]])
        prior = self._likeness(inside) * (1 - self._likeness(outside))
        if mask is not None and mask.any():
            prior = (1 - MASK_WEIGHT) * prior + MASK_WEIGHT * self.grid.from_voxels(mask).numpy()
        seeds[tuple(outside.T)] = 0
        seeds[tuple(inside.T)] = 1
        probability = self._solve(seeds.ravel(), prior.ravel()).reshape(shape)
        within = probability > 0.5
        certainty = float((2 * probability[within] - 1).mean()) if within.any() else 0.0
        logits = torch.from_numpy((LOGITS_PER_PROBABILITY * (probability - 0.5)).astype(np.float32))
        return CoarseMask(self.grid, logits, certainty)

    def correct(
        self,
        foreground: Sequence[Voxel],
        background: Sequence[Voxel],
        box: Sequence[int] | None,
        mask: NDArray[np.bool_],
        new: Sequence[Voxel],
        name: str | None = None,
    ) -> CoarseMask:
        """Answer all points given the mask so far; see `CoarseSegmenter.correct`."""
        return self.segment(foreground, background, box, mask, name)

    def _described(self, index: int) -> tuple[Tensor, Tensor]:
        """Return brightness YxX and unit features CxYxX of the cells of a slice."""
        embedding = self._embedding(index)
        rows, columns = (side // FEATURE_STRIDE for side in self.grid.slices.padded)
        scale = FEATURE_STRIDE // self.grid.stride
        brightness = F.avg_pool2d(embedding.skips[0][:, -1:], self.grid.stride // 2)
        features = F.interpolate(embedding.features, scale_factor=scale, mode="bilinear", align_corners=False)
        part = (0, slice(None), slice(0, scale * rows), slice(0, scale * columns))
        return brightness[part][0].float(), F.normalize(features[part].float(), dim=0).half()

    def _graph(self) -> sparse.csr_matrix:
        """Return the Laplacian of the graph of cells and their six neighbours."""
        number = np.arange(self._brightness.numel()).reshape(self.grid.shape)
        firsts, seconds, weights = [], [], []
        for axis, dimension in ((0, 0), (1, 2), (2, 3)):  # axes of the grid, and of the features ZxCxYxX
            count = self.grid.shape[axis]
            one, other = (
                self._features.narrow(dimension, start, max(count - 1, 0)) for start in (0, 1 if count > 1 else 0)
            )
            unlike = (2 - 2 * (one.float() * other.float()).sum(1)).clamp(min=0) / FEATURE_WIDTH**2
            step = torch.diff(self._brightness, dim=axis)
            affinity = torch.exp(-unlike - (step / BRIGHTNESS_WIDTH) ** 2).clamp(min=MIN_AFFINITY)
            firsts.append(np.take(number, range(count - 1), axis).ravel())
            seconds.append(np.take(number, range(1, count), axis).ravel())
            weights.append(affinity.numpy().ravel())
        first, second, weight = map(np.concatenate, (firsts, seconds, weights))
        size = number.size
        affinities = sparse.coo_matrix((weight, (first, second)), (size, size))
        affinities = (affinities + affinities.T).tocsr()
        return (sparse.diags(np.asarray(affinities.sum(1)).ravel()) - affinities).tocsr()

    def _cells(self, voxels: Sequence[Sequence[int]]) -> NDArray[np.intp]:
        """Return Nx3 cells that voxels lie in."""
        places = self.grid.positions(voxels).round().numpy().astype(np.intp)
        return places.clip(0, np.array(self.grid.shape) - 1)

    def _likeness(self, cells: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the likeness of all cells to some, 0 to 1, less with the distance; 0 without any."""
        likeness = np.zeros(self.grid.shape, np.float32)
        mm = [size * np.arange(n) for size, n in zip(self.grid.geometry.cell_mm, self.grid.shape, strict=True)]
        for z, y, x in cells.tolist():
            unlike = 2 - 2 * torch.einsum("zcyx,c->zyx", self._features.float(), self._features[z, :, y, x].float())
            unlike = unlike / (2 * FEATURE_WIDTH) ** 2
            unlike += ((self._brightness - self._brightness[z, y, x]) / (2 * BRIGHTNESS_WIDTH)) ** 2
            axes = (each - each[at] for each, at in zip(mm, (z, y, x), strict=True))
            far = sum(
                ((axis / REACH_MM) ** 2).reshape([-1 if n == a else 1 for n in range(3)]) for a, axis in enumerate(axes)
            )
            likeness = np.maximum(likeness, np.exp(-unlike.numpy() - far))
        return likeness

    def _solve(self, seeds: NDArray[np.float64], prior: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of each cell, given seeds (0 or 1; -1 where there is none) and the prior."""
        assert self._laplacian is not None
        free = seeds < 0
        known = np.where(free, 0.0, seeds)
        system = self._laplacian[free][:, free] + sparse.diags(np.full(int(free.sum()), PRIOR_WEIGHT))
        right = PRIOR_WEIGHT * prior[free] - (self._laplacian @ known)[free]
        jacobi = sparse.diags(1 / system.diagonal())
        found, _ = cg(system, right, x0=prior[free].astype(np.float64), rtol=TOLERANCE, maxiter=MAX_STEPS, M=jacobi)
        known[free] = found.clip(0, 1)
        return known
