"""Teach a model the names of labels: train its `LabelPrompt` on labelled slices; all else of the model stays frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.losses import DiceCELoss
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from causal_sam.imaging import Volume
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.label_prompt import MAX_COARSE_LOGIT, LabelPrompt
from causal_sam.training.augmentation import expose, move
from causal_sam.training.losses import LabelMapLoss

# Share of the masks learnt from the decoder whose label is on the slice.
DECODED_PRESENT = 0.8
# Power of the labels' areas in the loss of drafts: small ones must be found at all, and not be drawn too large.
AREA_POWER = 0.5


@dataclass(frozen=True)
class Lesson:
    """A labelled slice, as the model sees it.

    Attributes:
        image: float32 3xSxS in [0, 1], zero in the padding.
        label_map: uint8 1xSxS, the position of each label's name among those taught, counted from 1.
        known: bool N, which labels were annotated in the case; what the label map lacks is absent for these alone.
    """

    image: NDArray[np.float32]
    label_map: NDArray[np.uint8]
    known: NDArray[np.bool_]


def label_map_of(
    structures: dict[str, NDArray[np.bool_]], names: Sequence[str], shape: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Draw masks of one shape into a label map whose values are the positions of their names, counted from 1.

    Of masks that overlap, the one with the later name is on top; names without a mask are left out.
    """
    label_map = np.zeros(shape, np.uint8)
    for value, name in enumerate(names, start=1):
        if name in structures:
            label_map[structures[name]] = value
    return label_map


def lessons_of(
    volume: Volume, structures: dict[str, NDArray[np.bool_]], names: Sequence[str], image_size: int, plane: str = "auto"
) -> list[Lesson]:
    """Make lessons of the slices of a labelled volume; slices without any of the labels are kept too.

    Args:
        volume: the image.
        structures: name -> mask in the volume's voxel order; only those in ``names`` count.
        names: the labels to be taught.
        image_size: side S of the model's input.
        plane: of the slices.
    """
    slices = VolumeSlices(volume, plane, image_size)
    known = np.array([name in structures for name in names])
    label_map = label_map_of(structures, names, volume.shape)
    lessons = []
    for index in range(slices.frame.count):
        image = np.zeros((3, image_size, image_size), np.float32)
        image[:, : slices.height, : slices.width] = slices.image(index)[0].numpy()
        shown = np.ascontiguousarray(slices.frame.extract(label_map, index))
        fitted = np.zeros((1, image_size, image_size), np.uint8)
        scaled = F.interpolate(torch.from_numpy(shown)[None, None], (slices.height, slices.width), mode="nearest-exact")
        fitted[:, : slices.height, : slices.width] = scaled[0].numpy()
        lessons.append(Lesson(image, fitted, known))
    return lessons


class LabelTeacher:
    """Trains a `LabelPrompt`.

    Args:
        model: all of it is frozen from here on.
        prompt: trained in place.
        vectors: NxD, of the names to be taught, in the order of the lessons' values.
        learning_rate: of AdamW.
        seed: of augmentation and choice of names.
    """

    def __init__(
        self, model: CausalSam, prompt: LabelPrompt, vectors: Tensor, learning_rate: float = 3e-3, seed: int = 0
    ) -> None:
        self.model, self.prompt = model.requires_grad_(False), prompt
        self._vectors = vectors.to(model.device)
        self._rng = np.random.default_rng(seed)
        self._optimizer = torch.optim.AdamW(prompt.parameters(), lr=learning_rate, weight_decay=0.01)
        self._map_loss, self._mask_loss = LabelMapLoss(), DiceCELoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)
        self._move, self._expose = move(model.image_size, seed), expose(seed)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Change the learning rate, as a schedule does between steps."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate

    def step(self, lessons: Sequence[Lesson]) -> float:
        """Learn from a few lessons at once, each augmented anew; return their loss."""
        self.prompt.train()
        augmented = [self._move({"image": self._expose(lesson.image), "label": lesson.label_map}) for lesson in lessons]
        images, label_maps = (
            torch.stack([torch.as_tensor(one[key]).as_subclass(Tensor) for one in augmented])
            for key in ("image", "label")
        )
        known = torch.from_numpy(np.stack([lesson.known for lesson in lessons]))
        loss = self.loss(images.clamp(0, 1), label_maps, known)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.prompt.parameters(), 1.0)
        self._optimizer.step()
        return loss.item()

    def loss(self, images: Tensor, label_maps: Tensor, known: Tensor) -> Tensor:
        """Loss of the drafts of all names that are known of each case, and of the decoder's mask of one of them.

        Drafts cost next to nothing and must find the place; what the decoder makes of them is learnt beside it.

        Args:
            images: Bx3xSxS in [0, 1].
            label_maps: Bx1xSxS, values as in `Lesson`.
            known: bool BxN.
        """
        model = self.model
        with torch.no_grad():
            embedding = model.encode(images)
        position = model.sam.prompt_encoder.get_dense_pe()
        tokens, drafts = self.prompt(embedding, position, self._vectors, model.mask_size)
        values = torch.arange(1, len(self._vectors) + 1, device=model.device)[:, None, None]
        target = F.adaptive_avg_pool2d((label_maps.to(model.device) == values).float(), model.mask_size)
        # Nothing is found where nothing is known, and so nothing is learnt there.
        asked = known.to(model.device)[..., None, None]
        total = self._map_loss(drafts.where(asked, drafts.new_tensor(-MAX_COARSE_LOGIT)), target * asked, AREA_POWER)
        b, n = self._choose(target.flatten(2).any(2).cpu().numpy(), known.numpy())
        decoded = model.decode(
            embedding.at(torch.tensor([b])), tokens=tokens[n : n + 1], mask_logits=drafts[b, n][None, None]
        )
        return total + self._mask_loss(decoded.logits.float(), target[b, n][None, None])

    def _choose(self, present: NDArray[np.bool_], known: NDArray[np.bool_]) -> tuple[int, int]:
        """A slice and a name to decode, mostly one that is there."""
        wanted = present & known if self._rng.random() < DECODED_PRESENT else known & ~present
        pairs = np.argwhere(wanted if wanted.any() else known)
        b, n = pairs[self._rng.integers(len(pairs))].tolist()
        return b, n
