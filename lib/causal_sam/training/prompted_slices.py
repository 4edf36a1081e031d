"""Encoded slices of rendered bodies with structures to segment, for training of what follows the frozen encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import IterableDataset, get_worker_info

from causal_sam.phantom.bodies import BodySample, BodySampler
from causal_sam.phantom.samples import Sample, samples
from causal_sam.prompting.slices import MASK_PROMPT_LOGIT
from causal_sam.prompting.volume_mask import coarse_mask_prompts
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.embedding import Embedding, joined
from causal_sam.sam.loading import load_model
from causal_sam.text.loading import load_text_encoder
from causal_sam.training.coarse_masks import MASK_STRIDE, degraded
from causal_sam.training.context_prompts import first_prompt
from causal_sam.training.context_targets import choose_structures, share_of_cells
from causal_sam.training.encoded_bodies import ENCODED_AT_ONCE, scaled_labels, with_neighbours
from causal_sam.training.style_pairs import padded
from causal_sam.volume.context import CONTEXT_WEIGHTS, ContextModel
from causal_sam.volume.network import FeatureStack, GridGeometry, padded_picture

# Most slices of a body; structures that are chosen, slices of each, and other structures on a slice.
MAX_SLICES, STRUCTURES, SLICES, BESIDE = 20, 5, 2, 2
# Share of the slices that are shown on a crop around the structure, as the predictor does with small ones; side of the
# crop relative to the structure; smallest side in pixels of the rendered slice, and the largest share of the slice.
CROP_SHARE, CROP_SIDES, MIN_CROP, MAX_CROP_SHARE = 0.35, (2.2, 5.0), 40, 0.55
# Smallest structure on a slice in pixels of the input.
MIN_PIXELS = 40
# Stride of the context's grid in pixels of the input.
CONTEXT_STRIDE = 4
# Share of the bodies in whose place slices of random shapes are given, so that these are not forgotten; their number.
PHANTOM_SHARE, PHANTOMS = 0.15, 10


@dataclass(frozen=True, kw_only=True)
class PromptedSlice:
    """A slice in V styles with K structures to segment.

    Attributes:
        embeddings: V embeddings by the frozen encoder, in half precision.
        styles: V descriptions.
        names: K names; "" for a structure without one.
        masks: KxSxS uint8.
        neighbours: KxSxS uint8, the same structures on a neighbouring slice; may be empty.
        coarse: KxLxL half-precision logits of coarse masks.
        ended: SxS uint8, structure of a neighbouring slice, or of a coarse mask, that is not on this one; may be empty.
        ended_coarse: LxL half-precision logits of its coarse mask.
    """

    embeddings: tuple[Embedding, ...]
    styles: tuple[str, ...]
    names: tuple[str, ...]
    masks: NDArray[np.uint8]
    neighbours: NDArray[np.uint8]
    coarse: Tensor
    ended: NDArray[np.uint8]
    ended_coarse: Tensor


@dataclass(frozen=True)
class SlicesOfBody:
    """Slices of one body.

    Attributes:
        slices: the slices.
        structures: names of their structures.
    """

    slices: tuple[PromptedSlice, ...]
    structures: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Encoded:
    """A body with all of its slices encoded in the first style.

    Attributes:
        sample: the body.
        channels: VxZx3xHxW, slices with their neighbours in all styles.
        embedding: embedding of all slices in the first style.
        size: height and width of a slice in pixels of the input.
        chosen: label values of the structures to segment, with their names.
        coarse: for each of these, logits Zxhxw of the volume context.
    """

    sample: BodySample
    channels: Tensor
    embedding: Embedding
    size: tuple[int, int]
    chosen: list[tuple[str, tuple[int, ...]]]
    coarse: list[Tensor]


class SliceMaker:
    """Makes slices of bodies, with coarse masks by the volume context of the package.

    Args:
        model: the compact model; its encoder is used.
        context: the network; None to degrade true masks only.
    """

    def __init__(self, model: CausalSam, context: ContextModel | None) -> None:
        self.model, self.context = model, context

    @torch.inference_mode()
    def of_body(self, sample: BodySample, rng: np.random.Generator) -> SlicesOfBody:
        """Return slices of some structures of a body."""
        body = self._encoded(_some_slices(sample, rng), rng)
        slices = []
        for n, (_, values) in enumerate(body.chosen):
            table = torch.tensor(values, dtype=sample.labels.dtype)
            there = torch.nonzero(torch.isin(body.sample.labels, table).flatten(1).sum(1)).flatten().tolist()
            for index in rng.permutation(there)[:SLICES].tolist():
                crop = self._crop(body, index, table, rng) if rng.random() < CROP_SHARE else None
                one = self._slice(body, index, n, crop, rng)
                if one is not None:
                    slices.append(one)
        return SlicesOfBody(tuple(slices), tuple(name for one in slices for name in one.names if name))

    @torch.inference_mode()
    def of_shapes(self, drawn: Sequence[Sample], rng: np.random.Generator) -> SlicesOfBody:
        """Return slices with random shapes, in one style."""
        slices = []
        for sample in drawn:
            embedding = _half(self.model.encode(torch.from_numpy(sample.image)[None]))
            masks = sample.masks
            if not masks.any((1, 2)).all():
                continue
            slices.append(
                PromptedSlice(
                    embeddings=(embedding,),
                    styles=("",),
                    names=("",) * len(masks),
                    masks=masks,
                    neighbours=sample.neighbours,
                    coarse=torch.cat([degraded(mask, rng) for mask in masks]).half(),
                    ended=sample.ended,
                    ended_coarse=_ended_coarse(sample.ended, rng),
                )
            )
        return SlicesOfBody(tuple(slices), ())

    def _encoded(self, sample: BodySample, rng: np.random.Generator) -> _Encoded:
        rows, columns = sample.labels.shape[1:]
        scale = self.model.image_size / max(rows, columns)
        size = (max(1, round(rows * scale)), max(1, round(columns * scale)))
        channels = with_neighbours(sample.images, rng)
        pictures = padded_picture(channels[0], *size)
        embedding = joined([_half(self.model.encode(part)) for part in pictures.split(ENCODED_AT_ONCE)])
        chosen = choose_structures(sample, STRUCTURES, MIN_PIXELS, rng)
        coarse = self._context_masks(sample, embedding, size, chosen, rng)
        return _Encoded(sample=sample, channels=channels, embedding=embedding, size=size, chosen=chosen, coarse=coarse)

    def _context_masks(
        self,
        sample: BodySample,
        embedding: Embedding,
        size: tuple[int, int],
        chosen: Sequence[tuple[str, tuple[int, ...]]],
        rng: np.random.Generator,
    ) -> list[Tensor]:
        """Return what the context answers to one random click on each structure; [] without a context."""
        if self.context is None or not chosen:
            return []
        network = self.context.network
        full = Embedding(embedding.features.float(), tuple(skip.float() for skip in embedding.skips))
        stack = FeatureStack.of(full, padded_picture(sample.wide[0][:, None], *size))
        height, width = (4 * side for side in stack.skip4.shape[-2:])
        labels = scaled_labels(sample.labels, size, (height, width))
        step, row, column = sample.spacing
        mm = (step, row * sample.labels.shape[1] / size[0], column * sample.labels.shape[2] / size[1])
        cell = (step, mm[1] * CONTEXT_STRIDE, mm[2] * CONTEXT_STRIDE)
        part = [(0, side) for side in labels.shape]
        geometry = GridGeometry.of_part(part, labels.shape, mm, cell, sample.plane)
        masks = []
        with torch.autocast("cpu", torch.bfloat16, enabled=self.context.in_bfloat16):
            context = network.encode(stack, geometry, CONTEXT_STRIDE)
            for _, values in chosen:
                target = share_of_cells(labels, values, CONTEXT_STRIDE)
                if target.any():
                    logits, _ = network.decode(context, first_prompt(target, None, rng, kinds={"point": 1.0}))
                    masks.append(logits)
                else:
                    masks.append(target - MASK_PROMPT_LOGIT)
        return masks

    def _crop(self, body: _Encoded, index: int, values: Tensor, rng: np.random.Generator) -> tuple[slice, slice] | None:
        """Choose rows and columns around a structure of a slice; None if the whole slice shows it well enough."""
        inside = torch.isin(body.sample.labels[index], values).nonzero()
        low, high = inside.amin(0).numpy(), inside.amax(0).numpy() + 1
        shape = body.sample.labels.shape[1:]
        side = max(MIN_CROP, round(float((high - low).max()) * float(rng.uniform(*CROP_SIDES))))
        if side > MAX_CROP_SHARE * max(shape):
            return None
        part = []
        for first, end, whole in zip(low, high, shape, strict=True):
            start = round((first + end - side) / 2 + float(rng.normal(0, side / 12)))
            start = max(0, min(start, whole - side))
            part.append(slice(start, min(start + side, whole)))
        return part[0], part[1]

    def _slice(
        self,
        body: _Encoded,
        index: int,
        number: int,
        crop: tuple[slice, slice] | None,
        rng: np.random.Generator,
    ) -> PromptedSlice | None:
        """Return a slice with one of the chosen structures and others beside it; None if it is too small there."""
        sample, image_size = body.sample, self.model.image_size
        beside = sample.labels[min(max(index + int(rng.choice([-1, 1])), 0), len(sample.labels) - 1)]
        area = crop or (slice(None), slice(None))
        height, width = body.size
        if crop is not None:
            rows, columns = (part.stop - part.start for part in crop)
            scale = image_size / max(rows, columns)
            height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
        here, near = (
            padded(scaled_labels(labels[area][None], (height, width), (height, width))[0].numpy(), image_size)
            for labels in (sample.labels[index], beside)
        )
        masks = [np.isin(here, values).astype(np.uint8) for _, values in body.chosen]
        if masks[number].sum() < MIN_PIXELS:
            return None
        others = [n for n in rng.permutation(len(masks)) if n != number and masks[n].sum() >= MIN_PIXELS]
        shown = [number, *(int(n) for n in others[:BESIDE])]
        coarse = []
        for n in shown:
            real = self._whole_prompt(body, n, index) if crop is None and rng.random() < 0.6 else None
            coarse.append(degraded(masks[n], rng) if real is None else real)
        neighbours = [np.isin(near, body.chosen[n][1]).astype(np.uint8) for n in range(len(masks))]
        ended, ended_coarse = self._ended(body, index, crop, masks, neighbours, rng)
        return PromptedSlice(
            embeddings=self._embeddings(body, index, area, (height, width), crop is None),
            styles=sample.styles,
            names=tuple(body.chosen[n][0] for n in shown),
            masks=np.stack([masks[n] for n in shown]),
            neighbours=np.stack([neighbours[n] for n in shown]),
            coarse=torch.cat(coarse).half(),
            ended=ended,
            ended_coarse=ended_coarse,
        )

    def _whole_prompt(self, body: _Encoded, number: int, index: int) -> Tensor | None:
        """Return the context's mask of a structure on a whole slice, 1xLxL; None if it found nothing there."""
        if not body.coarse or not bool((body.coarse[number][index] > 0).any()):
            return None
        scale = CONTEXT_STRIDE // MASK_STRIDE
        return coarse_mask_prompts(body.coarse[number][index][None], scale, self.model.mask_size)

    def _ended(
        self,
        body: _Encoded,
        index: int,
        crop: tuple[slice, slice] | None,
        masks: Sequence[NDArray[np.uint8]],
        neighbours: Sequence[NDArray[np.uint8]],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.uint8], Tensor]:
        """Return a structure that is not on a slice, but on its neighbour or in a coarse mask, and its coarse mask."""
        for n in rng.permutation(len(masks)).tolist():
            if masks[n].any():
                continue
            real = self._whole_prompt(body, n, index) if crop is None else None
            if real is not None:
                grown = F.interpolate(real[None], scale_factor=2.0, mode="bilinear")[0, 0]
                return (grown > 0).numpy().astype(np.uint8), real[0].half()
            if neighbours[n].any():
                return neighbours[n], _ended_coarse(neighbours[n], rng)
        return np.zeros_like(masks[0]), _ended_coarse(np.zeros_like(masks[0]), rng)

    def _embeddings(
        self, body: _Encoded, index: int, area: tuple[slice, slice], size: tuple[int, int], is_whole: bool
    ) -> tuple[Embedding, ...]:
        """Return the embeddings of a part of a slice in all styles."""
        first = 1 if is_whole else 0
        images = body.channels[first:, index][..., area[0], area[1]]
        found = [body.embedding.at(torch.tensor([index]))] if is_whole else []
        if len(images):
            shown = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
            encoded = _half(self.model.encode(shown))
            found += [encoded.at(torch.tensor([n])) for n in range(len(images))]
        return tuple(found)


class PromptedSlices(IterableDataset):
    """Stream of slices of bodies without end.

    Args:
        folders: folders of label maps, see `BodySampler`.
        seed: seed of all random choices; each worker has its own samples.
        styles: number of styles of a slice.
        shapes: share of random shapes in place of bodies.
    """

    def __init__(self, folders: Sequence[Path], seed: int, styles: int = 2, shapes: float = PHANTOM_SHARE) -> None:
        super().__init__()
        self._folders, self._seed, self._styles, self._shapes = list(folders), seed, styles, shapes

    def __iter__(self) -> Iterator[SlicesOfBody]:
        cv2.setNumThreads(1)
        info = get_worker_info()
        if info:  # one process for each core
            torch.set_num_threads(1)
        worker = info.id if info else 0
        rng = np.random.default_rng([self._seed, worker])
        model = load_model("compact", device="cpu")
        context = ContextModel.load(load_text_encoder().encode) if CONTEXT_WEIGHTS.is_file() else None
        maker = SliceMaker(model, context)
        sampler = BodySampler(self._folders, styles=self._styles)
        shapes = samples(model.image_size, 2, self._seed * 97 + worker)
        while True:
            if rng.random() < self._shapes:
                made = maker.of_shapes([next(shapes) for _ in range(PHANTOMS)], rng)
            else:
                made = maker.of_body(sampler.sample(rng), rng)
            if made.slices:
                yield made


def _some_slices(sample: BodySample, rng: np.random.Generator) -> BodySample:
    """Return at most `MAX_SLICES` consecutive slices of a body."""
    first = int(rng.integers(max(1, len(sample.labels) - MAX_SLICES + 1)))
    part = slice(first, first + MAX_SLICES)
    return replace(sample, images=sample.images[:, part], wide=sample.wide[:, part], labels=sample.labels[part])


def _half(embedding: Embedding) -> Embedding:
    return Embedding(embedding.features.half(), tuple(skip.half() for skip in embedding.skips))


def _ended_coarse(ended: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """Return the coarse mask of a structure that is not on a slice: LxL, or zeros without one."""
    side = ended.shape[0] // 2
    return degraded(ended, rng)[0].half() if ended.any() else torch.zeros(side, side, dtype=torch.float16)
