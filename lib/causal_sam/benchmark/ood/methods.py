"""The methods compared: a U-Net, and our model with adapters, without LAD, with its parts, and with all of it."""

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

from causal_sam.benchmark.interactive import ModelMethod
from causal_sam.benchmark.ood.clock import StepClock
from causal_sam.benchmark.ood.features import Features, pooled_features
from causal_sam.benchmark.ood.report import OURS, REFERENCE
from causal_sam.benchmark.ood.unet import UNetMethod
from causal_sam.imaging import SliceFrame, Volume
from causal_sam.learning.lad_training import Learner, TrainingConfig, batches, make_trainer
from causal_sam.learning.views import LabelledSlices
from causal_sam.prompting import NamedLabels, Predictor
from causal_sam.prompting.named import name_vectors
from causal_sam.sam import load_model
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.style.lad import NO_LAD, LadConfig
from causal_sam.text import TextEncoder


@dataclass(frozen=True)
class Setup:
    """What all methods of a comparison share.

    Attributes:
        model: name of the model, with its own weights.
        image_size: side S of its input in pixels; None for the model's own. Only "compact" takes others.
        encoder: text encoder.
        config: of training; each method has its own terms of LAD.
        prompt: "name", or "click" where the targets show other structures.
        progress: called with the share of the training that is done.
    """

    model: str
    image_size: int | None
    encoder: TextEncoder
    config: TrainingConfig
    prompt: str = "name"
    progress: Callable[[float], object] = lambda done: None

    @cached_property
    def size_and_device(self) -> tuple[int, torch.device]:
        """Side of the model's input in pixels, and the device that it runs on; the model is loaded once to tell."""
        model = self.load()
        return model.image_size, model.device

    def load(self) -> CausalSam:
        """Load the model anew, without adapters.

        Raises:
            InputError: it does not take images of this size.
        """
        return load_model(self.model, image_size=self.image_size)


class Trained(Protocol):
    """What training leaves.

    Attributes:
        step_seconds: median time of a step, with making its images.
        trainable_share: parameters that were trained, as a share of all.
    """

    step_seconds: float
    trainable_share: float

    def segment(self, volume: Volume, names: Sequence[str]) -> NDArray[np.uint8]:
        """Label map in the volume's voxel order, without any click: positions of the names, counted from 1."""

    def segment_clicked(self, volume: Volume, frame: SliceFrame, index: int, voxel: tuple) -> NDArray[np.bool_]:
        """Mask of a structure that was clicked once on slice ``index``; rows x columns, canonical."""

    def features(self, labelled: LabelledSlices, names: Sequence[str]) -> Features:
        """Features of the slices of a scan."""


class Method(Protocol):
    """A way to train.

    Attributes:
        name: as the report has it.
    """

    name: str

    def train(self, setup: Setup, cases: list[LabelledSlices], names: Sequence[str], seed: int) -> Trained:
        """Train on labelled slices."""


@dataclass(frozen=True)
class SamMethod:
    """Our model with adapters.

    Attributes:
        name: as the report has it.
        styled: whether each anatomy is seen under a second style.
        lad: which terms of LAD count.
        language: whether styles have the vectors of their descriptions, or random ones.
    """

    name: str
    styled: bool = False
    lad: LadConfig = field(default=NO_LAD)
    language: bool = True

    def train(self, setup: Setup, cases: list[LabelledSlices], names: Sequence[str], seed: int) -> TrainedSam:
        """See `Method`."""
        torch.manual_seed(seed)
        model = setup.load()
        clicked = 1.0 if setup.prompt == "click" else setup.config.clicked
        config = replace(setup.config, lad=self.lad, seed=seed, clicked=clicked)
        prompt = new_label_prompt(model, setup.encoder.dimension)
        learner = Learner(model, prompt, name_vectors(names, setup.encoder), config)
        encode = setup.encoder.encode if self.language else RandomVectors(setup.encoder.dimension, seed)
        loader = batches(cases, model.image_size, encode, config, styled=self.styled, seed=seed)
        clock = StepClock(setup.progress)
        trainer, _ = make_trainer(learner, loader)
        clock.attach(trainer)
        trainer.run()
        model.requires_grad_(False).eval()
        # Embeddings of other adapters are not these.
        model.adapter_version = f"{self.name} {seed}"
        labels = NamedLabels(prompt.eval(), learner.taught(names, setup.encoder, {}), setup.encoder, model)
        return TrainedSam(model, labels, clock.step_seconds, learner.trainable_share)


class TrainedSam:
    """Our model after training; see `Trained`."""

    def __init__(self, model: CausalSam, labels: NamedLabels, step_seconds: float, trainable_share: float) -> None:
        self.step_seconds, self.trainable_share = step_seconds, trainable_share
        self._model, self._labels = model, labels
        self._predictor = Predictor(model, ahead=0)

    def segment(self, volume: Volume, names: Sequence[str]) -> NDArray[np.uint8]:
        """See `Trained`."""
        return self._predictor.for_volume(volume, "auto").predict_named(names, self._labels).label_map

    def segment_clicked(self, volume: Volume, frame: SliceFrame, index: int, voxel: tuple) -> NDArray[np.bool_]:
        """See `Trained`."""
        return ModelMethod(self._model.name, self._predictor).on_slice(volume, frame, index)([voxel], [])

    @torch.inference_mode()
    def features(self, labelled: LabelledSlices, names: Sequence[str]) -> Features:
        """See `Trained`."""
        return pooled_features(labelled, names, self._model.image_size, lambda x: self._model.encode(x).features)


class RandomVectors:
    """A random unit vector for each text, the same for the same text: style without language.

    Args:
        dimension: length of the vectors.
        seed: other vectors for another one.
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
