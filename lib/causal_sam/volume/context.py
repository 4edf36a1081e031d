"""The context of one volume: computed once, then it answers prompts and names with coarse masks in 3D."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from cachetools import LRUCache
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from causal_sam.sam.embedding import Embedding
from causal_sam.sam.loading import has_bfloat16_units
from causal_sam.text import canonical
from causal_sam.volume.corrections import CorrectionModel, Evidence, gather_evidence
from causal_sam.volume.grid import Grid, SliceGeometry
from causal_sam.volume.network import Context, ContextNetwork, FeatureStack, padded_picture
from causal_sam.volume.prompt_maps import GridPrompts, nearest_cells

CONTEXT_WEIGHTS = Path(__file__).parent / "weights" / "context.safetensors"
Voxel = tuple[int, int, int]
Encode = Callable[[Sequence[str]], Tensor]
# Logit of voxels that a coarse mask does not cover.
OUTSIDE = -8.0
# A structure whose mask is at most this many cells wide is looked at again on the finer grid, with a margin in cells.
MAX_CELLS_TO_REFINE, MARGIN = 22, 4
MARGIN_SLICES = 2
# Finer grids that are kept: clicks on one structure mostly need the same.
FINE_GRIDS = 4


@dataclass(frozen=True)
class CoarseMask:
    """A coarse mask in 3D.

    Attributes:
        grid: its grid, over all of the volume or a part.
        logits: ZxYxX; positive is inside.
        certainty: expected Dice, 0 to 1.
    """

    grid: Grid
    logits: Tensor
    certainty: float

    def slice_logits(self, index: int, area: tuple[slice, slice] = (slice(None), slice(None))) -> NDArray[np.float32]:
        """Interpolate the logits at every voxel of a slice, or of some rows and columns: float32, canonical."""
        return self.grid.slice_logits(self.logits, index, OUTSIDE, area)

    def indices(self) -> tuple[int, ...]:
        """Return the voxel indices of the slices where any voxel may be inside, ascending."""
        return tuple(n for n in range(self.grid.slices.frame.count) if self._reaches(n))

    def mask(self) -> NDArray[np.bool_]:
        """Return the mask, bool (I, J, K) in the file's order."""
        frame = self.grid.slices.frame
        mask = np.zeros(frame.volume_shape, bool)
        for index in self.indices():
            frame.insert(self.slice_logits(index) > 0, mask, index)
        return mask

    def _reaches(self, index: int) -> bool:
        if not self.grid.covers(index):
            return False
        z = self.grid.slice_position(index)
        low, high = int(np.floor(z)), int(np.ceil(z))
        return bool((self.logits[max(low, 0) : min(high, len(self.logits) - 1) + 1] > 0).any())


@dataclass(frozen=True, eq=False)
class _VoxelPrompts:
    """Prompts of a request in voxels, see `VolumeContext.segment`; the name is one that was trained."""

    foreground: Sequence[Voxel]
    background: Sequence[Voxel]
    box: Sequence[int] | None
    mask: NDArray[np.bool_] | None
    name: str | None


class ContextModel:
    """The trained network with the names that it knows; shared by all volumes.

    Args:
        network: in evaluation mode.
        names: names that it was trained on.
        found: those whose structures it finds without any other prompt.
        encode: names as they were trained -> NxD unit vectors of the text encoder that it was trained with.
        corrections: decides which cells a correcting click means.
    """

    def __init__(
        self,
        network: ContextNetwork,
        names: Iterable[str],
        found: Iterable[str],
        encode: Encode,
        corrections: CorrectionModel | None = None,
    ) -> None:
        self.network, self.encode = network.eval(), encode
        for part in (network.trunk, network.decoder):  # convolutions in 3D are faster with the channels last
            part.to(memory_format=torch.channels_last_3d)
        self.corrections = corrections or CorrectionModel.load()
        self._names = dict[str, str]()
        for name in sorted(names):  # of several spellings of one structure, the canonical one
            spelled = canonical(name)
            if name == spelled or spelled not in self._names:
                self._names[spelled] = name
        self._found = {canonical(name) for name in found}
        self.in_bfloat16 = has_bfloat16_units()

    def trained_name(self, name: str) -> str | None:
        """Return a name, in any spelling, as it was trained; None if it was not."""
        return self._names.get(canonical(name))

    def finds(self, name: str) -> bool:
        """Return True if the network finds a structure by its name alone, in any spelling."""
        return canonical(name) in self._found

    @classmethod
    def load(cls, encode: Encode, path: Path = CONTEXT_WEIGHTS) -> ContextModel:
        """Load weights.

        Args:
            encode: names -> NxD unit vectors.
            path: safetensors with the names in its metadata.
        """
        network = ContextNetwork()
        network.load_state_dict({key: value.float() for key, value in load_file(path).items()})
        return cls(network, read_names(path), read_names(path, "found"), encode)


def read_names(path: Path, key: Literal["names", "found"] = "names") -> set[str]:
    """Return the names that the weights in a file were trained on, or those that they find without another prompt."""
    with safe_open(path, "pt") as file:
        names = (file.metadata() or {}).get(key, "")
    return set(filter(None, names.split("\n")))


class VolumeContext:
    """Coarse masks of one volume by prompts and by names; thread-safe.

    Args:
        model: the trained network.
        slices: geometry of the canonical slices in the encoder's input.
        embedding: slice index -> embedding by the frozen encoder, without adapters.
        wide: slice index -> float32 (rows, columns) brightness in [0, 1] in the wide window.
    """

    def __init__(
        self,
        model: ContextModel,
        slices: SliceGeometry,
        embedding: Callable[[int], Embedding],
        wide: Callable[[int], NDArray[np.float32]],
    ) -> None:
        self.model = model
        self.grid = Grid.whole(slices)
        self._embedding, self._wide = embedding, wide
        self._lock = threading.Lock()
        self._stack: FeatureStack | None = None
        self._context: Context | None = None
        self._names: dict[str, Tensor] = {}
        self._fine: LRUCache[Grid, Context] = LRUCache(FINE_GRIDS)
        self._nbytes = 0

    @property
    def is_ready(self) -> bool:
        """True if `prepare` has run."""
        return self._context is not None

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self._nbytes

    def knows(self, name: str) -> bool:
        """Return True if the network finds a structure by its name alone, in any spelling."""
        return self.model.finds(name)

    def prepare(self, on_slice: Callable[[int], object] = lambda done: None) -> None:
        """Compute the context, once; later calls return at once. Several may compute it side by side: one is kept.

        Args:
            on_slice: called before each slice with the number of slices done; what it raises ends the work.
        """
        parts, slices = [], self.grid.slices
        for done, index in enumerate(self.grid.indices):
            if self.is_ready:
                return
            on_slice(done)
            wide = torch.from_numpy(np.ascontiguousarray(self._wide(index)))[None, None]
            wide = padded_picture(wide, slices.height, slices.width)
            parts.append(FeatureStack.of(self._embedding(index), wide))
        with self._lock:
            if self._context is None:
                self._stack = FeatureStack.joined(parts)  # in half precision, which autocast cannot join
                with self._inference():
                    self._context = self._encode(self.grid)

    def segment(
        self,
        foreground: Sequence[Voxel] = (),
        background: Sequence[Voxel] = (),
        box: Sequence[int] | None = None,
        mask: NDArray[np.bool_] | None = None,
        name: str | None = None,
    ) -> CoarseMask:
        """Answer the prompts of one structure.

        Args:
            foreground: voxels (i, j, k) inside the structure.
            background: voxels (i, j, k) outside of it.
            box: (i0, i1, j0, j1, k0, k1), both ends inclusive.
            mask: bool (I, J, K), the mask so far.
            name: name of the label; used if the network knows it and finds it at one of the foreground points.
        """
        self.prepare()
        with self._lock, self._inference():
            so_far = mask if mask is not None and mask.any() else None
            prompts = _VoxelPrompts(foreground, background, box, so_far, self._useful_name(name, foreground))
            return self._answer(prompts)[0]

    def correct(
        self,
        foreground: Sequence[Voxel],
        background: Sequence[Voxel],
        box: Sequence[int] | None,
        mask: NDArray[np.bool_],
        new: Sequence[Voxel],
        name: str | None = None,
    ) -> CoarseMask:
        """Answer points of one kind that contradict a mask; see `CoarseSegmenter.correct`."""
        answer, evidence = self.evidence(foreground, background, box, mask, new, name)
        logits = self.model.corrections.logits(evidence, is_foreground=not mask[new[0]])
        return replace(answer, logits=logits)

    def evidence(
        self,
        foreground: Sequence[Voxel],
        background: Sequence[Voxel],
        box: Sequence[int] | None,
        mask: NDArray[np.bool_],
        new: Sequence[Voxel],
        name: str | None = None,
    ) -> tuple[CoarseMask, Evidence]:
        """Return what `correct` decides from: the answer of the network, and the evidence on the same grid."""
        self.prepare()
        with self._lock, self._inference():
            assert self._context is not None
            prompts = _VoxelPrompts(foreground, background, box, mask, self._useful_name(name, foreground))
            answer, context = self._answer(prompts)
            on_grid, places = self._on_grid(answer.grid, prompts), answer.grid.positions(new)
            assert on_grid.mask is not None
            if answer.grid.is_cut(on_grid.mask > 0, self.grid) or not answer.grid.holds(places).all():
                answer, context = self._decode(self.grid, self._context, prompts), self._context
                on_grid, places = self._on_grid(self.grid, prompts), self.grid.positions(new)
            free = self._decode(answer.grid, context, replace(prompts, mask=None))
            with torch.autocast("cpu", enabled=False):
                is_foreground = not mask[new[0]]
                return answer, gather_evidence(context, on_grid, places, is_foreground, answer.logits, free.logits)

    def segment_named(self, names: Sequence[str]) -> dict[str, CoarseMask]:
        """Segment structures by their names alone.

        Args:
            names: names that the network was trained on, in any spelling.
        """
        self.prepare()
        with self._lock, self._inference():
            found = {}
            for name in names:
                trained = self.model.trained_name(name)
                assert trained is not None, f"the network was not trained on {name}"
                logits = self._name_logits(trained)
                inside = logits.sigmoid()
                mean = float((inside * (inside > 0.5)).sum() / (inside > 0.5).sum().clamp(min=1))
                # On held-out rendered bodies the mean probability is 0.75 where Dice is 0.55: its square says as much.
                found[name] = CoarseMask(self.grid, logits, mean**2)
            return found

    @contextmanager
    def _inference(self) -> Iterator[None]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.model.in_bfloat16):
            yield
        kept = [*(self._stack or ()), *self._names.values()]
        for context in (self._context, *self._fine.values()):
            kept += [] if context is None else context[:4]
        self._nbytes = sum(x.numel() * x.element_size() for x in kept)

    def _encode(self, grid: Grid) -> Context:
        assert self._stack is not None
        order = {index: n for n, index in enumerate(self.grid.indices)}
        slices = slice(order[grid.indices[0]], order[grid.indices[-1]] + 1)
        part = self._stack.crop(slices, slice(*grid.rows), slice(*grid.columns))
        return self.model.network.encode(part, grid.geometry, grid.stride)

    def _answer(self, prompts: _VoxelPrompts) -> tuple[CoarseMask, Context]:
        """Answer prompts, on a finer grid if the structure is small; return the context of the grid too."""
        assert self._context is not None
        answer = self._decode(self.grid, self._context, prompts)
        fine = self._fine_grid(answer)
        if fine is None or not fine.holds(fine.positions(prompts.foreground)).all():
            return answer, self._context
        context = self._fine.get(fine)
        if context is None:
            context = self._encode(fine)
            self._fine[fine] = context
        finer = self._decode(fine, context, prompts, answer)
        return (answer, self._context) if fine.is_cut(finer.logits > 0, self.grid) else (finer, context)

    def _useful_name(self, name: str | None, foreground: Sequence[Voxel]) -> str | None:
        """Return a name as it was trained; None if it was not, or if its map does not reach the points.

        Where the network takes something else for the structure, the points say more.
        """
        trained = None if name is None else self.model.trained_name(name)
        if trained is not None and foreground and not self._is_found(trained, foreground):
            return None
        return trained

    def _is_found(self, name: str, points: Sequence[Voxel]) -> bool:
        """Return True if the map of a name reaches a point."""
        logits = self._name_logits(name)
        z, y, x = nearest_cells(self.grid.positions(points), logits.shape)
        return bool((logits[z, y, x] > 0).any())

    def _name_logits(self, name: str) -> Tensor:
        logits = self._names.get(name)
        if logits is None:
            assert self._context is not None
            logits = self.model.network.name_logits(self._context, self.model.encode([name]))[0]
            self._names[name] = logits
        return logits

    def _decode(
        self, grid: Grid, context: Context, prompts: _VoxelPrompts, coarse: CoarseMask | None = None
    ) -> CoarseMask:
        """Answer prompts on a grid; without a mask so far a coarser answer stands for it."""
        logits, certainty = self.model.network.decode(context, self._on_grid(grid, prompts, coarse))
        return CoarseMask(grid, logits, float(certainty.sigmoid()))

    def _on_grid(self, grid: Grid, prompts: _VoxelPrompts, coarse: CoarseMask | None = None) -> GridPrompts:
        """Return prompts in cells of a grid."""
        so_far = None
        if prompts.mask is not None:
            so_far = grid.from_voxels(prompts.mask)
        elif coarse is not None:
            so_far = coarse.grid.resampled(coarse.logits, grid).sigmoid()
        box, name = prompts.box, prompts.name
        # One outside of a finer grid says nothing about it, and would be taken for one at its border.
        background = grid.positions(prompts.background)
        return GridPrompts(
            grid.positions(prompts.foreground),
            background[grid.holds(background)],
            None if box is None else grid.positions([box[0::2], box[1::2]]).sort(0).values,
            so_far,
            None if name is None else self.grid.resampled(self._name_logits(name), grid),
        )

    def _fine_grid(self, answer: CoarseMask) -> Grid | None:
        """Return the finer grid for a small structure; None for a large one."""
        cells = (answer.logits > 0).nonzero()
        if not len(cells):
            return None
        low, high = cells.amin(0), cells.amax(0)
        if int((high - low)[1:].max()) >= MAX_CELLS_TO_REFINE:
            return None
        first, last = max(0, int(low[0]) - MARGIN_SLICES), int(high[0]) + MARGIN_SLICES + 1
        return self.grid.around(low - MARGIN, high + MARGIN, self.grid.indices[first:last])
