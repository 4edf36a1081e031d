"""Mask decoder of the compact model: SAM's transformer and mask tokens, with fine features and guidance."""

from __future__ import annotations

import torch
from segment_anything.modeling.mask_decoder import MLP, MaskDecoder
from segment_anything.modeling.transformer import TwoWayTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from causal_sam.sam.compact.guidance import GUIDANCE_CHANNELS
from causal_sam.sam.compact.image_encoder import SKIP_CHANNELS, ResidualBlock


class CompactMaskDecoder(MaskDecoder):
    """SAM's mask decoder that reads the encoder's skip features, and the prompts' guidance, while it upscales.

    Tokens and hypotheses are SAM's: token 0 answers unambiguous prompts, tokens 1 to 3 are the three hypotheses of an
    ambiguous one. The predicted IoU is read from each mask itself (how sure its pixels are, how large it is, what
    features it holds) beside its token: from tokens alone a small model learns next to nothing about it.

    Args:
        transformer_dim: channels C of the embedding.
        skip_channels: channels of the skips at stride 2 and stride 4.
        widths: channels of the upscaled features at stride 2 and stride 4.
    """

    def __init__(
        self,
        transformer_dim: int = 128,
        skip_channels: tuple[int, int] = SKIP_CHANNELS,
        widths: tuple[int, int] = (24, 48),
    ) -> None:
        super().__init__(
            transformer_dim=transformer_dim,
            transformer=TwoWayTransformer(depth=2, embedding_dim=transformer_dim, num_heads=4, mlp_dim=512),
            iou_head_hidden_dim=128,
        )
        # SAM's plain upscaling and its hypernetworks are replaced by ones that fit the fine features.
        del self.output_upscaling
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(transformer_dim, transformer_dim, widths[0], 3) for _ in range(self.num_mask_tokens)
        )
        self.iou_prediction_head = MLP(2 * transformer_dim + 2 * widths[0] + 2, 128, 1, 3)
        self.refine8 = ResidualBlock(transformer_dim, hidden=transformer_dim // 2)
        self.up4 = nn.ConvTranspose2d(transformer_dim, widths[1], kernel_size=2, stride=2)
        self.fuse4 = nn.Conv2d(widths[1] + skip_channels[1], widths[1], 1)
        self.refine4 = ResidualBlock(widths[1])
        self.up2 = nn.ConvTranspose2d(widths[1], widths[0], kernel_size=2, stride=2)
        self.fuse2 = nn.Conv2d(widths[0] + skip_channels[0], widths[0], 1)
        self.refine2 = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        self.guide4 = nn.Conv2d(GUIDANCE_CHANNELS, widths[1], 3, padding=1)
        self.guide2 = nn.Conv2d(GUIDANCE_CHANNELS, widths[0], 3, padding=1)
        self.polish2 = ResidualBlock(widths[0])
        # Guidance has no influence at first: the decoder learns how far to trust it.
        for layer in (self.guide4, self.guide2):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        nn.init.zeros_(self.polish2.norm2.weight)

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        skips: tuple[Tensor, Tensor],
        guidance: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompts.

        Args:
            image_embeddings: 1xCxhxw, shared by all prompts, or BxCxhxw, one for each prompt.
            image_pe: 1xCxhxw.
            sparse_prompt_embeddings: BxNxC.
            dense_prompt_embeddings: BxCxhxw.
            multimask_output: three hypotheses if true, else the single mask of token 0.
            skips: fine features 1 or B x c2 x 4h x 4w and 1 or B x c4 x 2h x 2w.
            guidance: B x `GUIDANCE_CHANNELS` x4hx4w, from the prompt encoder.

        Returns:
            Logits Bx(3 or 1)x4hx4w and predicted IoU Bx(3 or 1).
        """
        masks, iou = self.predict_masks(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings, skips, guidance
        )
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        return masks[:, chosen], iou[:, chosen]

    def predict_masks(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        skips: tuple[Tensor, Tensor],
        guidance: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the masks of all four tokens, Bx4x4hx4w, and their predicted IoU, Bx4."""
        batch = sparse_prompt_embeddings.shape[0]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([output_tokens.expand(batch, -1, -1), sparse_prompt_embeddings], dim=1)
        source = image_embeddings + dense_prompt_embeddings
        _, channels, height, width = source.shape

        tokens, source = self.transformer(source, image_pe.expand(batch, -1, -1, -1), tokens)
        iou_token = tokens[:, 0]
        mask_tokens = tokens[:, 1 : 1 + self.num_mask_tokens]

        x = self.refine8(source.transpose(1, 2).reshape(batch, channels, height, width))
        x = self._join(self.up4(x), skips[1], self.fuse4) + self.guide4(F.avg_pool2d(guidance, 2))
        x = self.refine4(F.relu(x))
        x = self._join(self.up2(x), skips[0], self.fuse2) + self.guide2(guidance)
        x = self.polish2(F.relu(x + self.refine2(F.relu(x))))

        weights = torch.stack([mlp(mask_tokens[:, n]) for n, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        pixels = x.flatten(2)
        masks = weights @ pixels
        iou = self._predict_iou(iou_token, mask_tokens, masks.detach(), pixels.detach())
        return masks.unflatten(2, x.shape[-2:]), iou

    def _predict_iou(self, iou_token: Tensor, mask_tokens: Tensor, masks: Tensor, pixels: Tensor) -> Tensor:
        """Predict how well each mask overlaps with the truth.

        Args:
            iou_token: BxC.
            mask_tokens: BxMxC.
            masks: BxMxN logits of N pixels.
            pixels: BxcxN features of the same pixels.

        Returns:
            BxM.
        """
        probability = masks.sigmoid()
        inside = (masks > 0).to(masks.dtype)
        area = inside.sum(-1, keepdim=True)
        agreed = (probability * inside).sum(-1, keepdim=True)
        # Expected IoU if each pixel is inside with its predicted probability.
        expected = agreed / (area + (probability * (1 - inside)).sum(-1, keepdim=True)).clamp(min=1)
        unsure = probability * (1 - probability)
        held = inside @ pixels.transpose(1, 2) / area.clamp(min=1)
        doubted = unsure @ pixels.transpose(1, 2) / unsure.sum(-1, keepdim=True).clamp(min=1)
        share = (area / masks.shape[-1]).sqrt()
        known = torch.cat(
            [iou_token[:, None].expand_as(mask_tokens), mask_tokens, held, doubted, expected, share], dim=-1
        )
        return self.iou_prediction_head(known).squeeze(-1)

    @staticmethod
    def _join(x: Tensor, skip: Tensor, fuse: nn.Conv2d) -> Tensor:
        return fuse(torch.cat([x, skip.expand(x.shape[0], -1, -1, -1)], dim=1))
