"""The compact model: a small network with SAM's prompts and outputs, quick on a laptop CPU."""

from __future__ import annotations

from segment_anything.modeling import Sam

from causal_sam.sam.compact.image_encoder import PIXEL_MEAN, PIXEL_STD, SKIP_CHANNELS, CompactImageEncoder
from causal_sam.sam.compact.mask_decoder import CompactMaskDecoder
from causal_sam.sam.compact.prompt_encoder import CompactPromptEncoder

IMAGE_SIZE = 256
STRIDE = 8
EMBED_DIM = 128

__all__ = [
    "SKIP_CHANNELS",
    "CompactImageEncoder",
    "CompactMaskDecoder",
    "CompactPromptEncoder",
    "build_compact",
    "set_image_size",
]


def build_compact(image_size: int = IMAGE_SIZE) -> Sam:
    """Build the compact model with random weights.

    Args:
        image_size: side of the square input in pixels, a multiple of 16. The weights fit any size; the shipped
            ones were trained for 256 last.
    """
    grid = (image_size // STRIDE, image_size // STRIDE)
    return Sam(
        image_encoder=CompactImageEncoder(image_size, EMBED_DIM),
        prompt_encoder=CompactPromptEncoder(EMBED_DIM, grid, (image_size, image_size), mask_in_chans=16),
        mask_decoder=CompactMaskDecoder(EMBED_DIM),
        pixel_mean=[PIXEL_MEAN] * 3,
        pixel_std=[PIXEL_STD] * 3,
    )


def set_image_size(sam: Sam, image_size: int) -> None:
    """Let a compact model take inputs of another size, in place.

    No weight depends on the size; relative positions are interpolated by `segment_anything`. Training starts on
    small images with this.

    Args:
        sam: result of `build_compact`.
        image_size: new side of the square input in pixels, a multiple of 16.
    """
    grid = (image_size // STRIDE, image_size // STRIDE)
    sam.image_encoder.img_size = image_size
    sam.prompt_encoder.image_embedding_size = grid
    sam.prompt_encoder.input_image_size = (image_size, image_size)
    sam.prompt_encoder.mask_input_size = (4 * grid[0], 4 * grid[1])
