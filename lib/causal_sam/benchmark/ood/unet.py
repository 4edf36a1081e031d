"""Baseline: MONAI's U-Net, trained on the same slices with the same number of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from numpy.typing import NDArray
from torch import Tensor

from causal_sam.benchmark.ood.clock import StepClock
from causal_sam.benchmark.ood.features import Features, pooled_features
from causal_sam.imaging import FILE_ORDER, SliceFrame, Volume
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.simulation.annotator import deepest_point
from causal_sam.training.adapters import batches
from causal_sam.training.style_pairs import LabelledSlices

if TYPE_CHECKING:
    from causal_sam.benchmark.ood.methods import Setup

CHANNELS = (16, 32, 64, 128, 256)
LEARNING_RATE = 2e-3
# Standard deviation of a click in the input, as a share of the image's side.
CLICK_SIZE = 0.02


@dataclass(frozen=True)
class UNetMethod:
    """MONAI's residual 2D U-Net, trained from scratch. A click is a fourth channel beside the three slices.

    Attributes:
        name: name in the report.
    """

    name: str

    def train(self, setup: Setup, cases: list[LabelledSlices], names: Sequence[str], seed: int) -> TrainedUNet:
        torch.manual_seed(seed)
        clicked = setup.prompt == "click"
        size, device = setup.size_and_device
        network = UNet(
            2, 4 if clicked else 3, 1 if clicked else len(names) + 1, CHANNELS, (2, 2, 2, 2), num_res_units=2
        )
        network.to(device)
        loss = DiceCELoss(sigmoid=clicked, softmax=not clicked, to_onehot_y=not clicked, batch=True)
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.01)
        steps = setup.config.steps
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        rng = np.random.default_rng(seed)

        def update(engine: Any, batch: dict[str, Tensor]) -> dict[str, float]:
            network.train()
            images, labels = batch["image"], batch["label"]
            if clicked:
                images, labels = _with_random_click(images, labels, rng)
            with torch.autocast(device.type, enabled=setup.config.amp):
                logits = network(images.to(device))
            value = loss(logits.float(), labels.to(device))
            optimizer.zero_grad(set_to_none=True)
            if engine.scaler is None:
                value.backward()
                optimizer.step()
            else:
                engine.scaler.scale(value).backward()
                engine.scaler.step(optimizer)
                engine.scaler.update()
            schedule.step()
            return {"loss": value.item()}

        loader = batches(cases, size, setup.encoder.encode, setup.config, styled=False, seed=seed)
        clock = StepClock(setup.progress)
        trainer = SupervisedTrainer(
            device=device,
            max_epochs=1,
            epoch_length=steps,
            train_data_loader=loader,
            network=network,
            optimizer=optimizer,
            loss_function=loss,
            iteration_update=update,
            amp=setup.config.amp and device.type == "cuda",
            decollate=False,
        )
        clock.attach(trainer)
        trainer.run()
        return TrainedUNet(network.eval(), size, clock.step_seconds)


class TrainedUNet:
    """The U-Net after training; see `Trained`."""

    trainable_share = 1.0

    def __init__(self, network: UNet, image_size: int, step_seconds: float) -> None:
        self.step_seconds = step_seconds
        self._network, self._size = network, image_size

    @torch.inference_mode()
    def segment(self, volume: Volume, names: Sequence[str]) -> NDArray[np.uint8]:
        slices = VolumeSlices(volume, "auto", self._size)
        label_map = np.zeros(volume.shape, np.uint8, order=FILE_ORDER)
        for index in range(slices.frame.count):
            logits = self._network(self._padded(slices, index))[0].cpu()
            best = np.stack([slices.logits(channel) for channel in logits]).argmax(axis=0)
            slices.frame.insert(best.astype(np.uint8), label_map, index)
        return label_map

    @torch.inference_mode()
    def segment_clicked(self, volume: Volume, frame: SliceFrame, index: int, voxel: tuple) -> NDArray[np.bool_]:
        slices = VolumeSlices(volume, "auto", self._size)
        x, y = slices.points((voxel,))[0].tolist()
        image = torch.cat([self._padded(slices, index), _draw_clicks([(y, x)], self._size).to(self._device)], dim=1)
        return slices.logits(self._network(image)[0, 0].cpu()) > 0

    @torch.inference_mode()
    def features(self, labelled: LabelledSlices, names: Sequence[str]) -> Features:
        """See `Trained`; features of the encoder's third level, which has a stride of 8 like compact's embedding."""
        kept: list[Tensor] = []
        blocks: Any = self._network.model
        level = blocks[1].submodule[1].submodule[1].submodule[0]
        handle = level.register_forward_hook(lambda module, given, output: kept.append(output))

        def encode(images: Tensor) -> Tensor:
            kept.clear()
            blank = [torch.zeros_like(images[:, :1])] if self._network.in_channels == 4 else []
            self._network(torch.cat([images, *blank], dim=1).to(self._device))
            return kept[0].cpu()

        try:
            return pooled_features(labelled, names, self._size, encode)
        finally:
            handle.remove()

    @property
    def _device(self) -> torch.device:
        return next(self._network.parameters()).device

    def _padded(self, slices: VolumeSlices, index: int) -> Tensor:
        image = torch.zeros(1, 3, self._size, self._size)
        image[:, :, : slices.height, : slices.width] = slices.image(index)
        return image.to(self._device)


def _with_random_click(images: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw one structure of each slice and a click on it; slices without structures are dropped unless all are."""
    clicks, masks, kept = [], [], []
    for n, label_map in enumerate(labels[:, 0].numpy()):
        present = np.unique(label_map[label_map > 0])
        if len(present):
            mask = label_map == rng.choice(present)
            clicks.append(deepest_point(mask, rng))
            masks.append(torch.from_numpy(mask))
            kept.append(n)
    if not kept:
        return torch.cat([images, torch.zeros_like(images[:, :1])], dim=1), torch.zeros_like(labels)
    return torch.cat([images[kept], _draw_clicks(clicks, images.shape[-1])], dim=1), torch.stack(masks)[:, None]


def _draw_clicks(clicks: Sequence[tuple[float, float]], size: int) -> Tensor:
    """Draw each click (row, column) as a Gaussian, Nx1xSxS."""
    grid = torch.arange(size, dtype=torch.float32)
    scale = 2 * (CLICK_SIZE * size) ** 2
    rows, columns = torch.tensor(clicks, dtype=torch.float32).T
    along_rows = torch.exp(-((grid - rows[:, None]) ** 2) / scale)
    along_columns = torch.exp(-((grid - columns[:, None]) ** 2) / scale)
    return (along_rows[:, :, None] * along_columns[:, None, :])[:, None]
