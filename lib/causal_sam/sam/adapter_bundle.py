"""The adapter bundle: one file with all that training changed of a model, and what it says about itself.

A bundle has up to two parts. The labels are a `LabelPrompt`, and the adapters (LoRA) that were trained with it if the
model got any. The film modulates the mask decoder by notes. Training writes bundles, a version of the adapter store is
one, and `ModelSpec.bundle` is one that comes with the model.

The file is safetensors. Weights of the adapters begin with ``adapters/``, those of the film with ``film/``, the others
are the label prompt's. The header's entry ``causal_sam`` is JSON: the fields of `BundleMetadata` if there are labels,
and those of `FilmMetadata` under ``film`` if there is a film.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from causal_sam.atomic import atomic_write
from causal_sam.errors import CheckpointError, InputError
from causal_sam.sam.adapters import AdapterConfig, adapted_copy, adapter_weights
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.film import Film
from causal_sam.sam.label_prompt import LabelPrompt

logger = logging.getLogger(__name__)

_METADATA, _FILM = "causal_sam", "film"
_ADAPTER_PREFIX, _FILM_PREFIX = "adapters/", "film/"
_Weights = dict[str, Tensor]


@dataclass(frozen=True)
class BundleMetadata:
    """Metadata of a bundle about its labels.

    Attributes:
        names: names of the labels that the prompt was trained on; for others it guesses.
        text_encoder: name of the text encoder whose vectors the prompt takes.
        text_fingerprint: fingerprint of the text encoder's weights.
        encoder_hash: `CausalSam.encoder_hash` of the model that it was trained with.
        text_dim: length of the names' vectors.
        embed_dim: channels of the embedding.
        slices: label -> number of slices that it was trained on.
        skip_channels: channels of the embedding's skips that the coarse masks use.
        adapters: size of the adapters that were trained with it; None if the model was left as it is.
        decoder_hash: `CausalSam.decoder_hash` of that model; "" in bundles of earlier releases.
    """

    names: tuple[str, ...]
    text_encoder: str
    text_fingerprint: str
    encoder_hash: str
    text_dim: int
    embed_dim: int
    slices: dict[str, int]
    skip_channels: tuple[int, ...] = ()
    adapters: AdapterConfig | None = None
    decoder_hash: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BundleMetadata:
        """Restore the metadata from a JSON object."""
        adapters, skips = values.get("adapters"), values.get("skip_channels", ())
        restored = {
            "names": tuple(values["names"]),
            "skip_channels": tuple(skips),
            "adapters": None if adapters is None else AdapterConfig(**adapters),
        }
        return cls(**{**values, **restored})

    def with_more(self, slices: dict[str, int]) -> BundleMetadata:
        """Return the metadata after further training on ``slices`` slices of each label."""
        names = dict.fromkeys((*self.names, *slices))
        total = {name: self.slices.get(name, 0) + slices.get(name, 0) for name in names}
        return replace(self, names=tuple(names), slices=total)


@dataclass(frozen=True)
class FilmMetadata:
    """Metadata of a bundle about its FiLM part.

    Attributes:
        text_dim: length of the sentences' vectors.
        channels: channels of each level that is modulated.
        text_fingerprint: fingerprint of the text encoder's weights.
        decoder_hash: `CausalSam.decoder_hash` of the model that it was trained with.
    """

    text_dim: int
    channels: tuple[int, ...]
    text_fingerprint: str
    decoder_hash: str


@dataclass(frozen=True, eq=False)
class LabelPart:
    """The labels of a bundle.

    Attributes:
        metadata: see there.
        prompt: weights of the `LabelPrompt`.
        adapters: weights of the adapters; {} if there are none.
        source: name of the file, for messages.
    """

    metadata: BundleMetadata
    prompt: _Weights
    adapters: _Weights
    source: str = "the new adapter bundle"

    @classmethod
    def from_training(cls, prompt: LabelPrompt, metadata: BundleMetadata, model: CausalSam) -> LabelPart:
        """Take a trained prompt, and the adapters of its model if the metadata says that it has any."""
        return cls(metadata, prompt.state_dict(), {} if metadata.adapters is None else adapter_weights(model))

    def load(self, model: CausalSam) -> tuple[LabelPrompt, CausalSam]:
        """Make the prompt for a model.

        Args:
            model: without adapters; the prompt is put on its device.

        Returns:
            The prompt in evaluation mode, and the model that it belongs to: ``model`` itself, or one with adapters that
            shares its frozen weights.

        Raises:
            CheckpointError: the labels belong to another model, or are damaged.
        """
        metadata = self.metadata
        prompt = LabelPrompt(metadata.text_dim, metadata.embed_dim, metadata.skip_channels)
        try:
            prompt.load_state_dict(self.prompt)
        except RuntimeError as error:
            raise _damaged(self.source) from error
        if metadata.encoder_hash != model.encoder_hash():
            raise CheckpointError(
                f"The labels of {self.source} were trained with other weights than those of {model.name}: train them "
                "again, or start with the checkpoint that they were trained with."
            )
        if metadata.adapters is not None:
            if metadata.decoder_hash != model.decoder_hash():
                # Names are found by the encoder, and stay; the mask decoder that clicks use has adapters too.
                logger.warning(
                    "The adapters of %s were trained with another mask decoder than that of %s: train them again.",
                    self.source,
                    model.name,
                )
            model = adapted_copy(model, metadata.adapters, self.adapters)
        return prompt.to(model.device).eval(), model


@dataclass(frozen=True, eq=False)
class FilmPart:
    """The film of a bundle.

    Attributes:
        metadata: see there.
        weights: weights of the `Film`.
        source: name of the file, for messages.
    """

    metadata: FilmMetadata
    weights: _Weights
    source: str = "the new adapter bundle"

    @classmethod
    def from_training(cls, film: Film, model: CausalSam, text_fingerprint: str) -> FilmPart:
        """Take a trained film.

        Args:
            film: trained.
            model: whose decoder it was trained with.
            text_fingerprint: fingerprint of the text encoder whose vectors it takes.
        """
        metadata = FilmMetadata(film.text_dim, film.channels, text_fingerprint, model.decoder_hash())
        return cls(metadata, film.state_dict())

    def fits(self, model: CausalSam) -> bool:
        """Return True if the film was trained with the mask decoder of ``model``."""
        return self.metadata.decoder_hash == model.decoder_hash()

    def load(self, model: CausalSam, text_fingerprint: str) -> Film:
        """Make the film for a model, in evaluation mode on its device.

        Args:
            model: whose decoder it modulates.
            text_fingerprint: fingerprint of the text encoder whose vectors it takes.

        Raises:
            CheckpointError: it belongs to another mask decoder or text encoder, or is damaged.
        """
        film = self.for_any_decoder(text_fingerprint)
        if not self.fits(model):
            raise CheckpointError(f"{self.source} was trained with another mask decoder than that of {model.name}.")
        return film.to(model.device).eval()

    def for_any_decoder(self, text_fingerprint: str) -> Film:
        """Make the film without a model, to go on training it with another mask decoder.

        Args:
            text_fingerprint: fingerprint of the text encoder whose vectors it takes.

        Raises:
            CheckpointError: it belongs to another text encoder, or is damaged.
        """
        film = Film(self.metadata.text_dim, self.metadata.channels)
        try:
            film.load_state_dict(self.weights)
        except RuntimeError as error:
            raise _damaged(self.source) from error
        if self.metadata.text_fingerprint != text_fingerprint:
            raise CheckpointError(f"{self.source} was trained with another text encoder: load that one.")
        return film


@dataclass(frozen=True, eq=False)
class AdapterBundle:
    """Trained parts of a model.

    Attributes:
        labels: the names that it can segment by, with the adapters; None if there are none.
        film: the modulation of its decoder by notes; None if there is none.
    """

    labels: LabelPart | None = None
    film: FilmPart | None = None

    @classmethod
    def read(cls, path: Path) -> AdapterBundle:
        """Read a bundle.

        Raises:
            CheckpointError: there is no such file, or it is damaged or something else.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = json.loads((file.metadata() or {})[_METADATA])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
            if "decoder_hash" in metadata and "names" not in metadata:
                logger.warning("%s is a film alone, as earlier releases wrote it: adapter bundles replace it.", path)
                metadata, weights = {_FILM: metadata}, {_FILM_PREFIX + name: weights[name] for name in weights}
            about_film = metadata.pop(_FILM, None)
            film_weights, adapters = _taken(weights, _FILM_PREFIX), _taken(weights, _ADAPTER_PREFIX)
            labels = film = None
            if metadata:
                labels = LabelPart(BundleMetadata.from_dict(metadata), weights, adapters, path.name)
            if about_film is not None:
                about_film["channels"] = tuple(about_film["channels"])
                film = FilmPart(FilmMetadata(**about_film), film_weights, path.name)
        except FileNotFoundError:
            raise CheckpointError(f"There is no adapter bundle {path}.") from None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, InputError) as error:
            raise _damaged(path.name) from error
        return cls(labels, film)

    def write(self, path: Path) -> None:
        """Write the bundle; the file appears whole or not at all."""
        metadata: dict[str, Any] = {}
        weights: _Weights = {}
        if self.labels is not None:
            metadata |= asdict(self.labels.metadata)
            weights |= self.labels.prompt | {_ADAPTER_PREFIX + name: w for name, w in self.labels.adapters.items()}
        if self.film is not None:
            metadata[_FILM] = asdict(self.film.metadata)
            weights |= {_FILM_PREFIX + name: weight for name, weight in self.film.weights.items()}
        weights = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
        with atomic_write(path) as part:
            save_file(weights, part, metadata={_METADATA: json.dumps(metadata)})


def shipped_film(model: CausalSam) -> FilmPart | None:
    """Return the film that comes with a model; None if it has none, or has the mask decoder of another checkpoint."""
    film = None if model.spec.bundle is None else AdapterBundle.read(model.spec.bundle).film
    return film if film is not None and film.fits(model) else None


def fitting_film(bundle: AdapterBundle, model: CausalSam) -> FilmPart | None:
    """Return the film of a bundle; None if it has none, or one of another mask decoder, as after an upgrade."""
    film = bundle.film
    if film is not None and not film.fits(model):
        logger.warning("The film of %s was trained with another mask decoder and is not used.", film.source)
        return None
    return film


def _taken(weights: _Weights, prefix: str) -> _Weights:
    """Take the weights with a prefix out of ``weights``, and return them without it."""
    return {name.removeprefix(prefix): weights.pop(name) for name in list(weights) if name.startswith(prefix)}


def _damaged(source: str) -> CheckpointError:
    return CheckpointError(f"{source} is not an adapter bundle, or is damaged: give a file that training wrote.")
