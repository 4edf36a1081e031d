"""What clicks say about every pixel: likeness in brightness, and what hangs together with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from causal_sam.sam.compact.guidance import BRIGHTNESS_WIDTHS, GUIDANCE_CHANNELS, Guidance

SIZE = 32
# Places of the maps: brightness, probability, then for foreground and background the clicks, the likenesses and the
# description's, then the mask's likenesses, and last what hangs together with foreground and background clicks.
EACH = 2 + len(BRIGHTNESS_WIDTHS)
CLICKS, LIKENESS = 2, 3
MASK_LIKENESS = 2 + 2 * EACH
PATHS = GUIDANCE_CHANNELS - 2


@pytest.fixture(scope="module")
def guidance() -> Guidance:
    torch.manual_seed(0)
    return Guidance((3, 4)).eval()


def skips(brightness: Tensor) -> tuple[Tensor, Tensor]:
    """Skips of an encoder that sees nothing but brightness."""
    return torch.cat([torch.zeros(1, 2, SIZE, SIZE), brightness[None, None]], 1), torch.zeros(
        1, 4, SIZE // 2, SIZE // 2
    )


def two_blocks() -> Tensor:
    """Two bright blocks of the same brightness, apart from each other on dark ground."""
    image = torch.full((SIZE, SIZE), 0.1)
    image[8:24, 2:12] = image[8:24, 20:30] = 0.8
    return image


def at(row: int, column: int) -> list[float]:
    return [(column + 0.5) * 2 / SIZE - 1, (row + 0.5) * 2 / SIZE - 1]


def draw(guidance: Guidance, image: Tensor, positions: list, labels: list, mask: Tensor | None = None) -> Tensor:
    with torch.inference_mode():
        places = torch.tensor(positions).reshape(1, -1, 2)
        return guidance(skips(image), places, torch.tensor(labels).reshape(1, -1), mask)[0]


def test_likeness_is_high_wherever_it_looks_the_same(guidance):
    maps = draw(guidance, two_blocks(), [at(16, 6)], [1.0])
    assert maps.shape == (GUIDANCE_CHANNELS, SIZE, SIZE)
    alike = maps[LIKENESS]
    assert alike[16, 6] > 0.99
    assert alike[16, 25] > 0.99
    assert alike[16, 16] < 0.01


def test_only_what_is_joined_hangs_together(guidance):
    maps = draw(guidance, two_blocks(), [at(16, 6)], [1.0])
    joined = maps[PATHS]
    assert joined[16, 6] > 0.9
    assert joined[12, 8] > 0.9
    assert joined[16, 25] < 0.1
    assert not maps[PATHS + 1].any()


def test_a_bridge_joins_as_much_as_its_weakest_pixel(guidance):
    image = two_blocks()
    image[12:20, 12:20] = 0.7
    joined = draw(guidance, image, [at(16, 6)], [1.0])[PATHS]
    assert joined[16, 25] == pytest.approx(1 - 0.1 / 0.25, abs=0.05)


def test_background_clicks_have_maps_of_their_own(guidance):
    maps = draw(guidance, two_blocks(), [at(16, 6), at(16, 25)], [1.0, 0.0])
    foreground, background = maps[CLICKS], maps[CLICKS + EACH]
    assert divmod(int(foreground.argmax()), SIZE) == (16, 6)
    assert divmod(int(background.argmax()), SIZE) == (16, 25)
    assert maps[PATHS][16, 25] < 0.1 < 0.9 < maps[PATHS + 1][16, 25]


def test_without_clicks_the_mask_says_what_it_looks_like(guidance):
    mask = torch.full((1, 1, SIZE, SIZE), -8.0)
    mask[..., 10:22, 3:11] = 8
    maps = draw(guidance, two_blocks(), [], [], mask)
    assert maps[MASK_LIKENESS][16, 25] > 0.8
    assert maps[MASK_LIKENESS][16, 16] < 0.05
    assert not maps[CLICKS].any()
    nothing = draw(guidance, two_blocks(), [], [])
    assert not nothing[MASK_LIKENESS : MASK_LIKENESS + len(BRIGHTNESS_WIDTHS) + 1].any()


def test_description_learns_and_all_is_finite(guidance):
    image = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 1, SIZE, SIZE)
    places = torch.tensor([[at(3, 3), at(20, 9), [0.0, 0.0]]])
    maps = guidance(skips(image), places, torch.tensor([[1.0, 0.0, -1.0]]), mask)
    assert torch.isfinite(maps).all()
    maps.sum().backward()
    assert guidance.describe.weight.grad.abs().sum() > 0
