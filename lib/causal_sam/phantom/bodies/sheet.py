"""Contact sheets of samples, to be looked at: ``python -m causal_sam.phantom.bodies.sheet OUT.png FOLDER ...``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from causal_sam.phantom.bodies.samples import BodySample, BodySampler

TILE = 200


def contact_sheet(samples: Sequence[BodySample], slices: int = 4) -> Image.Image:
    """Return a picture with a row for each sample: slices of each style, the labels' outlines on the last slices."""
    rows = [_row(sample, slices) for sample in samples]
    width = max(row.shape[1] for row in rows)
    return Image.fromarray(np.concatenate([np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows]))


def _row(sample: BodySample, slices: int) -> NDArray[np.uint8]:
    labels = sample.labels.cpu().numpy()
    chosen = np.linspace(0.1, 0.9, slices) * (len(labels) - 1)
    tiles = []
    for image in sample.images.cpu().numpy():
        tiles += [_tile(image[round(k)], None) for k in chosen]
    tiles += [_tile(sample.images[0, round(k)].cpu().numpy(), labels[round(k)]) for k in chosen[slices // 3 :: 2]]
    row = Image.fromarray(np.concatenate(tiles, axis=1))
    ImageDraw.Draw(row).text((3, 3), f"{sample.plane} {'x'.join(map(str, labels.shape))} {sample.styles[0]}", "yellow")
    return np.asarray(row)


def _tile(slice_: NDArray, labels: NDArray | None) -> NDArray[np.uint8]:
    picture = np.repeat((255 * slice_).astype(np.uint8)[..., None], 3, axis=2)
    if labels is not None:
        colours = np.random.default_rng(0).integers(60, 256, (int(labels.max()) + 1, 3), dtype=np.uint8)
        border = np.zeros(labels.shape, bool)
        border[1:] |= labels[1:] != labels[:-1]
        border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
        picture[border] = colours[labels[border]]
    size = np.array(picture.shape[1::-1]) * TILE / max(picture.shape[:2])
    tile = Image.new("RGB", (TILE, TILE))
    tile.paste(Image.fromarray(picture).resize(tuple(size.astype(int)), Image.Resampling.BILINEAR))
    return np.asarray(tile)


def main() -> None:
    """Draw a contact sheet of random samples."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sampler = BodySampler(options.folders)
    rng = np.random.default_rng(options.seed)
    contact_sheet([sampler.sample(rng) for _ in range(options.samples)]).save(options.out)


if __name__ == "__main__":
    main()
