"""What all style interventions have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.style.slices import StyledSlices

# A value that a larger share of the voxels has to the bit was put there: by a brain mask or around a round field of
# view. Measured air is never that even.
CUT_AWAY_SHARE = 0.05


@dataclass(frozen=True)
class StyleIntervention(ABC):
    """One change of how an image was made, with its drawn parameters; what is imaged stays what and where it is.

    Attributes:
        name: of the kind, as in the registry.
        modalities: DICOM codes of the images that it fits, "" for unknown ones; empty for all.
        stage: when it happens between the patient and the picture; a scanner has its contrast before its noise.
        weight: how often it is chosen, in relation to the others.
    """

    name: ClassVar[str]
    modalities: ClassVar[frozenset[str]] = frozenset()
    stage: ClassVar[int]
    weight: ClassVar[float] = 1.0

    @classmethod
    @abstractmethod
    def draw(cls, slices: StyledSlices, rng: np.random.Generator) -> Self:
        """Draw parameters that change these slices visibly and leave their anatomy."""

    @classmethod
    def fits(cls, slices: StyledSlices) -> bool:
        return not cls.modalities or slices.acquisition.modality in cls.modalities

    def apply(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        """Return the slices in their other style, on the same grid.

        Args:
            slices: are left as they are. Empty ones have no style, and are returned as they came.
            rng: source of what differs from voxel to voxel, such as noise.

        Raises:
            InputError: the slices are of a modality where this does not happen.
        """
        if not self.fits(slices):
            raise InputError(
                f"The style intervention {self.name!r} does not fit {slices.array.shape[0]} slice(s) of modality "
                f"{slices.acquisition.modality or 'unknown'!r}."
            )
        if not (slices.array > slices.background).any():
            return slices
        styled = self._styled(slices, rng)
        cut_away = slices.array == slices.background
        if cut_away.mean() > CUT_AWAY_SHARE:
            # Cut away after the scan, so no fault of the scan reaches there.
            styled = replace(styled, array=np.where(cut_away, np.float32(styled.background), styled.array))
        return styled

    @abstractmethod
    def _styled(self, slices: StyledSlices, rng: np.random.Generator) -> StyledSlices:
        """Do what `apply` says for slices that it fits and that are not empty."""


def brightness_range(slices: StyledSlices) -> float:
    """Return how far the brightest tissue lies above the background, in the units of the image; above zero."""
    # The middle slice is enough, and takes a third of the time.
    tissue = slices.middle[slices.middle > slices.background]
    return max(float(np.percentile(tissue, 99.5)) - slices.background, 1e-6) if tissue.size else 1.0


def monai_seed(rng: np.random.Generator) -> int:
    """Return a seed for a transform of MONAI, which draws from a generator of its own."""
    return int(rng.integers(2**31))


def clipped_hu(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clip to what a CT scanner stores, -1024..3071 HU."""
    return np.clip(array, -1024, 3071)
