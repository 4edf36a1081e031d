"""Interface through which a session carries out the plan of a note."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from causal_sam.prompting.prompts import Voxel
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.prompting.slots import OnSlice
from causal_sam.volume.context import CoarseMask

Mask = NDArray[np.bool_]


class PlanCorrector(Protocol):
    """Carries out the plan of a note, as `causal_sam.correction.corrector.Corrector` does."""

    def carry_out(
        self,
        plan: Any,
        slices: VolumeSlices,
        masks: Mapping[str, Mask],
        on_slice: OnSlice,
        *,
        locked: Collection[str],
        coarse: Mapping[str, CoarseMask],
        clicked: Mapping[str, Sequence[Voxel]],
        confirm: bool,
    ) -> Any:
        """Return an object whose ``masks`` are those of the labels that changed, by name."""
