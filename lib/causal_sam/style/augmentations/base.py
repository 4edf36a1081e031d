"""Base class of style augmentations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.style.slices import StyledSlices

# A value that a larger share of the voxels has exactly comes from masking, by a brain mask or a circular field of view;
# measured air has noise.
MASKED_SHARE = 0.05


@dataclass(frozen=True)
class StyleAugmentation(ABC):
    """A change of the acquisition with drawn parameters, which preserves the anatomy.

    Subclasses give the attributes as keyword arguments of the class statement.

    Attributes:
        name: name in the registry.
        modalities: DICOM codes of suitable images, "" for unknown modality; empty for all.
        stage: position in the imaging chain; contrast, for example, precedes noise.
        weight: relative frequency in random choices.
    """

    name: ClassVar[str]
    modalities: ClassVar[frozenset[str]]
    stage: ClassVar[int]
    weight: ClassVar[float]

    def __init_subclass__(
        cls, *, name: str, stage: int, modalities: frozenset[str] = frozenset(), weight: float = 1.0
    ) -> None:
        super().__init_subclass__()
        cls.name, cls.modalities, cls.stage, cls.weight = name, modalities, stage, weight

    @classmethod
    @abstractmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        """Draw parameters that change these slices visibly and preserve their anatomy."""

    @classmethod
    def fits(cls, slices: StyledSlices) -> bool:
        return not cls.modalities or slices.acquisition.modality in cls.modalities

    def apply(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        """Return the slices in the new style, on the same grid.

        Args:
            slices: slices, which are not modified; empty ones are returned unchanged.
            rng: source of randomness for voxels, such as noise.

        Raises:
            InputError: the augmentation does not fit the modality of the slices.
        """
        if not self.fits(slices):
            raise InputError(
                f"The style augmentation {self.name!r} does not fit {slices.array.shape[0]} slice(s) of modality "
                f"{slices.acquisition.modality or 'unknown'!r}."
            )
        if not (slices.array > slices.background).any():
            return slices
        styled = self._styled(slices, rng)
        masked = slices.array == slices.background
        if masked.mean() > MASKED_SHARE:
            # The mask was applied after the scan, so that no artefact reaches masked voxels.
            styled = replace(styled, array=np.where(masked, np.float32(styled.background), styled.array))
        return styled

    @abstractmethod
    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        """Implement `apply` for suitable slices that are not empty."""


def brightness_range(slices: StyledSlices) -> float:
    """Return the brightness of the brightest tissue above the background, in the units of the image; positive."""
    # The middle slice is sufficient.
    tissue = slices.middle[slices.middle > slices.background]
    return max(float(np.percentile(tissue, 99.5)) - slices.background, 1e-6) if tissue.size else 1.0


def monai_seed(rng: np.random.Generator) -> int:
    """Return a seed for a transform of MONAI, which has its own generator."""
    return int(rng.integers(2**31))


def clipped_hu(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clip to the range that CT scanners store, -1024 to 3071 HU."""
    return np.clip(array, -1024, 3071)
