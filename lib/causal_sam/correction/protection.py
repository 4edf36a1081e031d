"""Voxels that no act of a plan may change."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from causal_sam.correction.region import Region, kept_part
from causal_sam.imaging import Volume
from causal_sam.notes.schema import Plan


@dataclass(frozen=True, eq=False)
class Protection:
    """Labels that a plan keeps and labels that are locked: no act of the plan changes them.

    Attributes:
        plan: plan with acts `keep`.
        locked: labels that no act may change.
        originals: label -> (I, J, K) mask before the plan, on which the sides of acts `keep` are found.
    """

    plan: Plan = field(default_factory=lambda: Plan.model_construct())
    locked: Collection[str] = ()
    originals: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def in_region(
        self, label: str, region: Region, volume: Volume, masks: Mapping[str, NDArray[np.bool_]]
    ) -> tuple[NDArray[np.bool_], dict[str, float]]:
        """Return where the mask of a label must stay as it is.

        It must not grow into labels that are locked or that the plan keeps. If it is one of these itself, it must not
        change at all, or not where the plan keeps it: on one side, or on some slices.

        Args:
            label: label with a mask.
            region: region of an act on the label.
            volume: image.
            masks: label -> (I, J, K) mask of all labels, after the acts so far.

        Returns:
            The protected voxels of the region's box, and for each other label that the region reaches into and that
            stays as it is the volume of that part in ml.
        """
        protected = np.zeros_like(masks[label][region.box])
        if label in self.locked:
            return ~protected, {}
        spared, allowed = {}, region.weight > 0
        keeps = [act for act in self.plan.interventions if act.action == "keep"]
        own = masks[label][region.box]
        for name in sorted({*self.locked, *(act.label for act in keeps)} - {label}):
            if name not in masks or not (there := masks[name][region.box] & ~own).any():
                continue
            protected |= there
            if reached := np.count_nonzero(there & allowed):
                spared[name] = reached * volume.voxel_ml
        for act in keeps:
            if act.label == label:
                protected |= kept_part(act, volume, self.originals[label], region.box)
        return protected, spared
