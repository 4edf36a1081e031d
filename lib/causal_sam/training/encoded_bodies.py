"""Encoded samples for the volume context: rendered bodies as stacks of slice embeddings, made in other processes."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from causal_sam.phantom.bodies import BodySample, BodySampler, LabelledBody
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.loading import load_model
from causal_sam.volume.network import FeatureStack, padded_picture, padded_side

ENCODED_AT_ONCE = 4
# Number of grid slices between neighbouring slices of the file: the neighbours that the encoder sees lie this much
# closer than the next slice of the grid.
SLICES_PER_STEP = (1, 1, 2, 3, 5)
# Bodies that are made at the start however slow the training is, so that its first steps see different ones.
MIN_BODIES = 8


@dataclass(frozen=True, kw_only=True)
class EncodedBody(LabelledBody):
    """A rendered body with the embeddings of its slices in V styles.

    Its labels are on the pixels of the encoder's input; rows and columns are whole cells of its features.

    Attributes:
        stacks: V stacks, in half precision.
    """

    stacks: tuple[FeatureStack, ...]


@torch.inference_mode()
def encode_body(model: CausalSam, sample: BodySample, rng: np.random.Generator) -> EncodedBody:
    """Encode the slices of a sample as `causal_sam.prompting` encodes those of a real volume.

    Args:
        model: the frozen compact model.
        sample: rendered body.
        rng: source of randomness.
    """
    rows, columns = sample.labels.shape[1:]
    scale = model.image_size / max(rows, columns)
    height, width = (max(1, round(side * scale)) for side in (rows, columns))
    stacks = []
    for channels, wide in zip(with_neighbours(sample.images, rng), sample.wide, strict=True):
        pictures, wide = (padded_picture(x, height, width) for x in (channels, wide[:, None]))
        parts = zip(pictures.split(ENCODED_AT_ONCE), wide.split(ENCODED_AT_ONCE), strict=True)
        stacks.append(FeatureStack.joined(FeatureStack.of(model.encode(part), own) for part, own in parts))
    return EncodedBody(
        stacks=tuple(stacks),
        labels=scaled_labels(sample.labels, (height, width), (padded_side(height), padded_side(width))),
        structures=sample.structures,
        absent=sample.absent,
        unnamed=sample.unnamed,
        spacing=(sample.spacing[0], sample.spacing[1] * rows / height, sample.spacing[2] * columns / width),
        plane=sample.plane,
        styles=sample.styles,
    )


def with_neighbours(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Put the slices before and behind beside each slice, as far away as in a file with slices in between.

    Args:
        images: VxZxHxW.
        rng: source of randomness.

    Returns:
        VxZx3xHxW.
    """
    share = 1 / int(rng.choice(SLICES_PER_STEP))
    previous = torch.cat([images[:, :1], images[:, :-1]], 1)
    following = torch.cat([images[:, 1:], images[:, -1:]], 1)
    return torch.stack([images.lerp(previous, share), images, images.lerp(following, share)], 2)


def scaled_labels(labels: Tensor, size: tuple[int, int], whole: tuple[int, int]) -> Tensor:
    """Scale labels ZxHxW to a size, by the nearest voxel, and pad them with 0 to another size."""
    scaled = labels.new_zeros(len(labels), *whole)
    y, x = (((torch.arange(n) + 0.5) * (side / n)).long() for n, side in zip(size, labels.shape[1:], strict=True))
    scaled[:, : size[0], : size[1]] = labels[:, y[:, None], x]
    return scaled


class EncodedBodies(IterableDataset):
    """Stream of encoded bodies without end.

    Args:
        folders: folders of label maps, see `BodySampler`.
        seed: seed of all random choices; each worker has its own samples.
        paired: share of the bodies in two styles.
    """

    def __init__(self, folders: Sequence[Path], seed: int, paired: float) -> None:
        super().__init__()
        self._folders, self._seed, self._paired = list(folders), seed, paired

    def __iter__(self) -> Iterator[EncodedBody]:
        info = torch.utils.data.get_worker_info()
        if info:  # one process for each core
            torch.set_num_threads(1)
        rng = np.random.default_rng([self._seed, info.id if info else 0])
        model = load_model("compact", device="cpu")
        sampler = BodySampler(self._folders, styles=2)
        while True:
            sample = sampler.sample(rng)
            if rng.random() >= self._paired:  # rendering is cheap, encoding is not
                sample = replace(sample, images=sample.images[:1], wide=sample.wide[:1], styles=sample.styles[:1])
            yield encode_body(model, sample, rng)


class NamedStructures(Protocol):
    """Anything made of a body, with the names of its structures."""

    @property
    def structures(self) -> Collection[str]:
        """Names."""


Body = TypeVar("Body", bound=NamedStructures)


class Reservoir(Generic[Body]):
    """The newest bodies of a stream, from which training draws without waiting for the next.

    Args:
        bodies: stream.
        size: number of bodies that are kept.
        workers: processes that make bodies.
        reuse: steps for each body that is made; those who make them pause if training is slower.
        seed: seed of the draws.

    Attributes:
        made, drawn: number of bodies that were made, and of draws.
        names: names of structures in all bodies so far.
    """

    def __init__(self, bodies: IterableDataset[Body], size: int, workers: int, reuse: float, seed: int) -> None:
        # Not forked: this process has threads, and a forked one would wait for their locks without end.
        self._loader = DataLoader(
            bodies, batch_size=None, num_workers=workers, prefetch_factor=1, multiprocessing_context="spawn"
        )
        self._kept: deque[Body] = deque(maxlen=size)
        self._fresh: deque[Body] = deque(maxlen=size)
        self._arrived = threading.Condition()
        self._random = random.Random(seed)
        self._error: BaseException | None = None
        self._reuse = reuse
        self.made = self.drawn = 0
        self.names: set[str] = set()
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        try:
            for body in self._loader:
                with self._arrived:
                    self._fresh.append(body)
                    self.made += 1
                    self.names.update(body.structures)
                    self._arrived.notify_all()
                    self._arrived.wait_for(lambda: self.made < MIN_BODIES or self.drawn >= self._reuse * self.made)
        except BaseException as error:
            with self._arrived:
                self._error = error
                self._arrived.notify_all()

    def __iter__(self) -> Iterator[Body]:
        while True:
            with self._arrived:
                while not self._kept and not self._fresh and self._error is None:
                    self._arrived.wait()
                if self._error is not None:
                    raise self._error
                if self._fresh:
                    self._kept.append(self._fresh.popleft())
                    body = self._kept[-1]
                else:
                    body = self._random.choice(self._kept)
                self.drawn += 1
                self._arrived.notify_all()
            yield body
