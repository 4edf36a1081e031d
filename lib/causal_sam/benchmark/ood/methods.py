"""The compared methods: a U-Net, and our model with adapters without LAD, with parts of LAD and with all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from causal_sam.benchmark.interactive.methods import ModelMethod
from causal_sam.benchmark.ood.clock import StepClock
from causal_sam.benchmark.ood.features import Features, pooled_features
from causal_sam.benchmark.ood.report import OURS, REFERENCE
from causal_sam.benchmark.ood.unet import UNetMethod
from causal_sam.imaging import SliceFrame, Volume
from causal_sam.prompting import LabelPrompter, Predictor
from causal_sam.prompting.named import name_vectors
from causal_sam.sam import load_model
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.style.lad import NO_LAD, LadConfig
from causal_sam.text import TextEncoder
from causal_sam.training.adapters import AdapterObjective, TrainingConfig, adapter_engine, batches
from causal_sam.training.style_pairs import LabelledSlices


@dataclass(frozen=True)
class Setup:
    """Settings that all methods of a comparison share.

    Attributes:
        model: name of the model.
        image_size: side S of the model's input in pixels; None for the model's default.
        encoder: text encoder.
        config: configuration of the training; each method sets its own terms of LAD.
        prompt: "name", or "click" if the targets have other structures than the sources.
        progress: called with the completed share of the training, 0 to 1.
    """

    model: str
    image_size: int | None
    encoder: TextEncoder
    config: TrainingConfig
    prompt: str = "name"
    progress: Callable[[float], object] = lambda done: None

    @cached_property
    def size_and_device(self) -> tuple[int, torch.device]:
        """Side of the model's input in pixels, and the model's device; found by loading the model once."""
        model = self.load()
        return model.image_size, model.device

    def load(self) -> CausalSam:
        """Load the model without adapters.

        Raises:
            InputError: the model does not support this image size.
        """
        return load_model(self.model, image_size=self.image_size)


class Trained(Protocol):
    """A trained method.

    Attributes:
        step_seconds: median seconds per step, including making the images.
        trainable_share: share of the parameters that were trained, 0 to 1.
    """

    step_seconds: float
    trainable_share: float

    def segment(self, volume: Volume, names: Sequence[str]) -> NDArray[np.uint8]:
        """Segment by name; return a label map in the volume's voxel order with positions of the names from 1."""

    def segment_clicked(self, volume: Volume, frame: SliceFrame, index: int, voxel: tuple) -> NDArray[np.bool_]:
        """Segment one structure on slice ``index`` from one click; return rows x columns, canonical."""

    def features(self, labelled: LabelledSlices, names: Sequence[str]) -> Features:
        """Return the pooled features of the slices of a scan."""


class Method(Protocol):
    """A method to compare."""

    @property
    def name(self) -> str:
        """Name in the report."""

    def train(self, setup: Setup, cases: list[LabelledSlices], names: Sequence[str], seed: int) -> Trained:
        """Train on labelled slices."""


@dataclass(frozen=True)
class SamMethod:
    """Our model with adapters.

    Attributes:
        name: name in the report.
        styled: True if training shows each anatomy in a second style.
        lad: weights of the terms of LAD.
        language: True if style vectors come from the text encoder, False for random vectors.
    """

    name: str
    styled: bool = False
    lad: LadConfig = field(default=NO_LAD)
    language: bool = True

    def train(self, setup: Setup, cases: list[LabelledSlices], names: Sequence[str], seed: int) -> TrainedSam:
        torch.manual_seed(seed)
        model = setup.load()
        clicked = 1.0 if setup.prompt == "click" else setup.config.clicked
        config = replace(setup.config, lad=self.lad, seed=seed, clicked=clicked)
        prompt = new_label_prompt(model, setup.encoder.dimension)
        objective = AdapterObjective(model, prompt, name_vectors(names, setup.encoder), config)
        encode = setup.encoder.encode if self.language else RandomVectors(setup.encoder.dimension, seed)
        loader = batches(cases, model.image_size, encode, config, styled=self.styled, seed=seed)
        clock = StepClock(setup.progress)
        engine = adapter_engine(objective)
        clock.attach(engine.trainer)
        engine.run(loader)
        model.requires_grad_(False).eval()
        # Cached embeddings of other adapters must not be used.
        model.adapter_version = f"{self.name} {seed}"
        labels = LabelPrompter(prompt.eval(), objective.metadata(names, setup.encoder, {}), setup.encoder, model)
        return TrainedSam(model, labels, clock.step_seconds, objective.trainable_share)


class TrainedSam:
    """Our model after training; see `Trained`."""

    def __init__(self, model: CausalSam, labels: LabelPrompter, step_seconds: float, trainable_share: float) -> None:
        self.step_seconds, self.trainable_share = step_seconds, trainable_share
        self._model, self._labels = model, labels
        self._predictor = Predictor(model, prefetch_slices=0)

    def segment(self, volume: Volume, names: Sequence[str]) -> NDArray[np.uint8]:
        return self._predictor.for_volume(volume, "auto").predict_named(names, self._labels).label_map

    def segment_clicked(self, volume: Volume, frame: SliceFrame, index: int, voxel: tuple) -> NDArray[np.bool_]:
        return ModelMethod(self._model.name, self._predictor).on_slice(volume, frame, index).click(voxel, inside=True)

    @torch.inference_mode()
    def features(self, labelled: LabelledSlices, names: Sequence[str]) -> Features:
        return pooled_features(labelled, names, self._model.image_size, lambda x: self._model.encode(x).features.cpu())


class RandomVectors:
    """Random unit vectors in place of text embeddings; equal texts have equal vectors.

    Args:
        dimension: length of the vectors.
        seed: seed of the vectors.
    """

    def __init__(self, dimension: int, seed: int) -> None:
        self._dimension, self._seed = dimension, seed

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return NxD vectors."""
        vectors = []
        for text in texts:
            digest = hashlib.sha256(f"{self._seed}:{text}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            vectors.append(torch.randn(self._dimension, generator=generator))
        return F.normalize(torch.stack(vectors), dim=1)


METHODS: dict[str, Method] = {
    "unet": UNetMethod("U-Net"),
    "adapters": SamMethod(REFERENCE),
    "augmented": SamMethod("+ style augmentation", styled=True),
    "random": SamMethod("+ LAD, random vectors", styled=True, lad=LadConfig(), language=False),
    "lad": SamMethod(OURS, styled=True, lad=LadConfig()),
}
