"""Segmentation by label names with an adapter bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from causal_sam.errors import CheckpointError, InputError
from causal_sam.imaging import FILE_ORDER
from causal_sam.prompting.encoder import SliceEncoder
from causal_sam.prompting.prediction import as_iou
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam.adapter_bundle import AdapterBundle, BundleMetadata
from causal_sam.sam.causal_sam import CausalSam, weights_hash
from causal_sam.sam.embedding import Embedding
from causal_sam.sam.label_prompt import LabelPrompt
from causal_sam.text import TextEncoder, canonical, load_text_encoder

# A name whose coarse probability is below this everywhere is not on the slice; the decoder is not run for it.
MIN_LIKELY = 0.1
# Components smaller than this share of the label's largest one are removed as false positives.
MIN_SHARE = 0.05
MAX_LABELS = 254


class LabelPrompter:
    """Prompts a model with the names of the labels of an adapter bundle.

    Args:
        prompt: trained prompt.
        metadata: metadata of the bundle.
        encoder: text encoder of the training.
        model: model of the training, with the adapters of the bundle.

    Raises:
        CheckpointError: the text encoder is another one.
    """

    def __init__(self, prompt: LabelPrompt, metadata: BundleMetadata, encoder: TextEncoder, model: CausalSam) -> None:
        if encoder.fingerprint != metadata.text_fingerprint:
            raise CheckpointError(
                f"The labels were trained with the text encoder {metadata.text_encoder}, and its weights are not those "
                f"of {encoder.name}: train them again with this one."
            )
        self.metadata = metadata
        self.model = model
        self._prompt = prompt
        self._encoder = encoder
        self._by_meaning = {canonical(name): name for name in metadata.names}

    @classmethod
    def from_bundle(cls, bundle: AdapterBundle, model: CausalSam) -> LabelPrompter:
        """Prepare the labels of an adapter bundle for a model without adapters.

        Raises:
            CheckpointError: there are none, they cannot be used with this model, or their text encoder is not there.
        """
        if bundle.labels is None:
            raise CheckpointError("This adapter bundle has no labels: give one that was trained on some.")
        prompt, adapted = bundle.labels.load(model)
        metadata = bundle.labels.metadata
        return cls(prompt, metadata, load_text_encoder(metadata.text_encoder), adapted)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that was trained, hexadecimal; what was computed with another digest is out of date."""
        parts = (weights_hash(self._prompt.state_dict()), self.model.adapter_version, *self.metadata.names)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def outputs_masks(self) -> bool:
        """True if the coarse masks are the answer; see `LabelPrompt`."""
        return self._prompt.outputs_masks

    def find(self, name: str) -> str | None:
        """Return the label that a name means, in any of its spellings; None if the bundle does not know it."""
        return self._by_meaning.get(canonical(name))

    def vectors(self, names: Sequence[str]) -> Tensor:
        """Return NxD vectors of names; all names of one structure have the same vector."""
        return name_vectors(names, self._encoder)

    @torch.inference_mode()
    def prompts(self, embedding: Embedding, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return tokens Nx1xC and logits Nx1xLxL of the coarse masks of names on one slice; see `LabelPrompt`."""
        model = self.model
        position = model.sam.prompt_encoder.get_dense_pe()
        tokens, coarse = self._prompt(embedding, position, self.vectors(names).to(model.device), model.mask_size)
        return tokens, coarse[0, :, None]


def is_known(name: str, labels: LabelPrompter | None) -> bool:
    """Return True if labels know a name."""
    return labels is not None and labels.find(name) is not None


def unknown_names(names: Sequence[str], learned: Sequence[str]) -> InputError:
    """Return the error for names that nothing knows."""
    were = "was" if len(names) == 1 else "were"
    return InputError(f"{', '.join(names)} {were} never learned; learned are {', '.join(learned) or 'none'}.")


def name_vectors(names: Sequence[str], encoder: TextEncoder) -> Tensor:
    """Return unit vectors NxD of the meanings of label names, so that synonyms have the same vector."""
    return encoder.encode([canonical(name) for name in names])


@dataclass(frozen=True)
class NamedPrediction:
    """Answer for a list of label names.

    Attributes:
        label_map: uint8 in the file's voxel order; values are positions in the list of names, counted from 1.
        predicted_iou: name -> the model's own estimate, mean over the slices with the label; found labels only.
    """

    label_map: NDArray[np.uint8]
    predicted_iou: dict[str, float]


def segment_named(
    encoder: SliceEncoder,
    slices: VolumeSlices,
    names: Sequence[str],
    labels: LabelPrompter,
    on_slice: Callable[[int], object] = lambda done: None,
) -> NamedPrediction:
    """Segment all slices of a volume by label names. A voxel belongs to the label with the highest logit.

    Args:
        encoder: encoder of the slices; its model is the one that the labels belong to.
        slices: whole.
        names: labels of the bundle, each once.
        labels: prompter of the bundle.
        on_slice: called before each slice with the number of slices done; what it raises ends the work.

    Raises:
        InputError: a name was never learned, or there is none or too many.
    """
    if not 1 <= len(names) <= MAX_LABELS:
        raise InputError(f"1 to {MAX_LABELS} labels can be segmented at a time, not {len(names)}.")
    if unknown := [name for name in names if not is_known(name, labels)]:
        raise unknown_names(unknown, labels.metadata.names)
    frame = slices.frame
    label_map = np.zeros(slices.volume.shape, np.uint8, order=FILE_ORDER)
    ious: dict[int, list[float]] = {n: [] for n in range(len(names))}
    for index in range(frame.count):
        on_slice(index)
        found = _segment_slice(encoder, slices, index, names, labels)
        if found is None:
            continue
        here, estimates = found
        frame.insert(here, label_map, index)
        for n, iou in estimates.items():
            ious[n].append(iou)
    for n in range(len(names)):
        _drop_small_parts(label_map, n + 1)
    present = np.flatnonzero(np.bincount(label_map.ravel(order="K"), minlength=len(names) + 1)[1:])
    return NamedPrediction(label_map, {names[n]: float(np.mean(ious[n])) for n in present.tolist()})


@torch.inference_mode()
def _segment_slice(
    encoder: SliceEncoder, slices: VolumeSlices, index: int, names: Sequence[str], labels: LabelPrompter
) -> tuple[NDArray[np.uint8], dict[int, float]] | None:
    """Return the canonical label map (rows, columns) of one slice and the estimated IoU of each label on it."""
    model = encoder.model
    embedding = encoder.embedding(slices, index).to(model.device)
    tokens, coarse = labels.prompts(embedding, names)
    likely = torch.nonzero(coarse.flatten(1).amax(1).sigmoid() > MIN_LIKELY).flatten()
    if not len(likely):
        return None
    decoded = model.decode(embedding, tokens=tokens[likely], mask_logits=coarse[likely])
    answers = coarse[likely] if labels.outputs_masks else decoded.logits
    logits = np.stack([slices.logits(one[0]) for one in answers.float().cpu()])
    best = logits.argmax(axis=0)
    inside = np.take_along_axis(logits, best[None], axis=0)[0] > 0
    values = (likely.cpu().numpy() + 1).astype(np.uint8)
    here = np.where(inside, values[best], 0).astype(np.uint8)
    shown = np.unique(best[inside]).tolist()
    return here, {int(likely[n]): as_iou(decoded.iou[n, 0]) for n in shown}


def _drop_small_parts(label_map: NDArray[np.uint8], value: int) -> None:
    """Remove the components of a label that are far smaller than its largest one, in place."""
    found = ndimage.find_objects((label_map == value).view(np.uint8))
    if not found:
        return
    part = label_map[found[0]]
    components, count = ndimage.label(part == value, structure=np.ones((3, 3, 3)))
    if count > 1:
        sizes = np.bincount(components.ravel())
        sizes[0] = 0
        part[(sizes < MIN_SHARE * sizes.max())[components] & (components > 0)] = 0
