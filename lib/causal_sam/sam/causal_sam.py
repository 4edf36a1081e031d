"""The model: a SAM of any size with one way to encode slices and one way to decode prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from causal_sam.errors import InputError
from causal_sam.sam.embedding import Embedding, Window
from causal_sam.sam.registry import MODELS, ModelSpec

BASE_VERSION = "base"


class Decoded(NamedTuple):
    """Decoder output of B prompts.

    Attributes:
        logits: BxMxLxL on the mask grid, which covers the whole padded SxS input; positive is inside.
        iou: BxM predicted intersection over union of each mask.
    """

    logits: Tensor
    iou: Tensor


class CausalSam(nn.Module):
    """A frozen SAM image encoder with SAM's prompt encoder and mask decoder.

    Coordinates are pixels of the square SxS input frame, (x, y) with (0, 0) the centre of the first pixel; a smaller
    slice lies in its top left corner.

    Args:
        sam: any of `segment_anything`'s models, or the compact one.
        name: its name in the registry.

    Attributes:
        adapter_version: `weights_hash` of the loaded adapters, or "base".
        encodes_in_bfloat16: True if the encoder runs under autocast; the embedding is float32 in any case.
    """

    def __init__(self, sam: Sam, name: str) -> None:
        super().__init__()
        self.sam = sam
        self.name = name
        self.adapter_version = BASE_VERSION
        self.encodes_in_bfloat16 = False
        self.sam.image_encoder.requires_grad_(False)

    @property
    def image_size(self) -> int:
        """Side S of the square input frame in pixels."""
        return self.sam.image_encoder.img_size

    @property
    def mask_size(self) -> int:
        """Side L of the mask grid."""
        return self.sam.prompt_encoder.mask_input_size[0]

    @property
    def spec(self) -> ModelSpec:
        """Capabilities of the model."""
        return MODELS[self.name]

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.sam.device

    def encode(self, images: Tensor) -> Embedding:
        """Encode slices.

        Args:
            images: Bx3xhxw in [0, 1], h and w at most S; channels are the previous, this and the next slice.

        Returns:
            The embedding of the slices, padded to SxS with zeros on the right and below.

        Raises:
            InputError: the shape does not fit.
        """
        if images.ndim != 4 or images.shape[1] != 3 or max(images.shape[-2:]) > self.image_size:
            shape = "x".join(map(str, images.shape))
            raise InputError(f"Images must be Bx3xhxw with h and w at most {self.image_size}, not {shape}.")
        frames = self.sam.preprocess(images.to(self.device) * 255.0)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.encodes_in_bfloat16):
            encoded = self.sam.image_encoder(frames)
        embedding = encoded if isinstance(encoded, Embedding) else Embedding(encoded)
        if self.encodes_in_bfloat16:
            embedding = Embedding(embedding.features.float(), tuple(skip.float() for skip in embedding.skips))
        return embedding

    def decode(
        self,
        embedding: Embedding,
        *,
        points: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        mask_logits: Tensor | None = None,
        tokens: Tensor | None = None,
        multimask: bool = False,
    ) -> Decoded:
        """Decode B prompts on the slice of ``embedding``. Prompts may be on any device.

        Args:
            embedding: embedding of one slice (shared by the B prompts), or of B slices (compact model); on the model's
                device.
            points: BxNx2 (x, y) in pixels of the input frame.
            point_labels: BxN; 1 foreground, 0 background, -1 padding. Needed with ``points``.
            boxes: Bx4 (x0, y0, x1, y1), corners inclusive, in the same pixels.
            mask_logits: Bx1xLxL logits of an earlier mask of the same slice.
            tokens: BxNxC further prompt tokens, such as those of label names.
            multimask: True for the three hypotheses instead of the single answer, for one ambiguous click.

        Raises:
            InputError: there is no prompt at all.
        """
        everything = self.decode_all(
            embedding, points=points, point_labels=point_labels, boxes=boxes, mask_logits=mask_logits, tokens=tokens
        )
        chosen = slice(1, None) if multimask else slice(0, 1)
        return Decoded(everything.logits[:, chosen], everything.iou[:, chosen])

    def decode_all(
        self,
        embedding: Embedding,
        *,
        points: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        mask_logits: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Decoded:
        """Decode B prompts into all four masks: the single answer, then the three hypotheses. See `decode`."""
        prompts = [prompt for prompt in (points, boxes, mask_logits, tokens) if prompt is not None]
        if not prompts:
            raise InputError("Give at least one click, box, mask or label name: nothing was prompted.")
        batch, device = len(prompts[0]), self.device
        points, point_labels, boxes, mask_logits, tokens = (
            None if prompt is None else prompt.to(device)
            for prompt in (points, point_labels, boxes, mask_logits, tokens)
        )
        clicks = None if points is None else (points, point_labels)
        extra = {}
        if embedding.skips:
            extra["guidance"] = self.sam.prompt_encoder.guide(embedding.skips, clicks, mask_logits, batch)
        sparse, dense = self.sam.prompt_encoder(points=clicks, boxes=boxes, masks=mask_logits, **extra)
        if tokens is not None:
            sparse = torch.cat([sparse.expand(batch, -1, -1), tokens], 1)
            dense = dense.expand(batch, -1, -1, -1)
        if embedding.skips:
            extra["skips"] = embedding.skips
        logits, iou = self.sam.mask_decoder.predict_masks(
            image_embeddings=embedding.features,
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            **extra,
        )
        return Decoded(logits, iou)

    def decode_masks(self, embedding: Embedding, mask_logits: Tensor, window: Window) -> Tensor:
        """Decode mask prompts of B slices on a part of them, which takes less time than the whole.

        Args:
            embedding: embedding of B slices, of a model that decodes several slices at a time (the compact one).
            mask_logits: Bx1xLxL logits of the masks.
            window: the part.

        Returns:
            BxHxW logits on the mask grid of the window.
        """
        scale = self.mask_size // embedding.features.shape[-1]
        prompt_encoder, part = self.sam.prompt_encoder, embedding.cut(window)
        masks = window.of(mask_logits.to(self.device), scale)
        guidance = prompt_encoder.guide(part.skips, None, masks, len(masks))
        sparse, dense = prompt_encoder(points=None, boxes=None, masks=masks, guidance=guidance)
        logits, _ = self.sam.mask_decoder.predict_masks(
            image_embeddings=part.features,
            image_pe=window.of(prompt_encoder.get_dense_pe()),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            skips=part.skips,
            guidance=guidance,
        )
        return logits[:, 0]

    def upscale(self, logits: Tensor) -> Tensor:
        """Interpolate BxMxLxL logits to the BxMxSxS input frame."""
        return F.interpolate(logits, (self.image_size, self.image_size), mode="bilinear", align_corners=False)

    def encoder_hash(self) -> str:
        """SHA-256 of the frozen weights of the image encoder; adapters do not count."""
        return _frozen_hash(self.sam.image_encoder)

    def decoder_hash(self) -> str:
        """SHA-256 of the frozen weights of the mask decoder; adapters do not count."""
        return _frozen_hash(self.sam.mask_decoder)


def _frozen_hash(module: nn.Module) -> str:
    weights = module.state_dict()
    # peft keeps the frozen part of an adapted layer as its base_layer.
    return weights_hash({key.replace(".base_layer.", "."): weights[key] for key in weights if ".lora_" not in key})


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights, by name, shape, type and bytes."""
    digest = hashlib.sha256()
    for key, tensor in sorted(weights.items()):
        digest.update(f"{key}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
        # Flatten first: the memory layout, such as channels-last, must not change the hash.
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
