"""A scene: the anatomy in a field of view, before it is imaged."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from causal_sam.imaging.frames import DISPLAY
from causal_sam.phantom.bodies.fields import smooth_field
from causal_sam.phantom.bodies.geometry import FieldOfView
from causal_sam.phantom.bodies.label_maps import OUTSIDE_CODE, Anatomy
from causal_sam.phantom.bodies.lesions import Lesion

# Patient axis (right, anterior, superior) that gas in the bowel rises along when a patient lies on the back.
ANTERIOR = 1


@dataclass
class Scene:
    """An anatomy in a field of view.

    Attributes:
        anatomy: the anatomy.
        view: its slices.
        places: 3xZxHxW float32, the place of each voxel in voxels of the anatomy, in RAS order.
        codes: ZxHxW int32, the code at the middle of each voxel.
        labels: ZxHxW int16.
        lesions: lesions that were inserted.
    """

    anatomy: Anatomy
    view: FieldOfView
    places: Tensor
    codes: Tensor
    labels: Tensor
    lesions: list[Lesion] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Device of the scene."""
        return self.codes.device

    @cached_property
    def body(self) -> Tensor:
        """ZxHxW bool, True inside of the body."""
        return self.codes != OUTSIDE_CODE

    @property
    def anterior_axis(self) -> int:
        """Axis of ZxHxW that runs along the body's depth, to posterior except in coronal views."""
        return next(own for own, (patient, _) in enumerate(DISPLAY[self.view.plane]) if patient == ANTERIOR)

    def smooth_field(self, wave: float, rng: np.random.Generator) -> Tensor:
        """Return a smooth field of about standard normal numbers, ZxHxW, with a wavelength in mm."""
        return smooth_field(self.codes.shape, self.view.spacing, wave, rng).to(self.device)
