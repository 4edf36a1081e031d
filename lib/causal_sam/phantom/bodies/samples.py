"""`BodySampler`: training samples of named anatomies with random appearance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from causal_sam.errors import InputError
from causal_sam.phantom.bodies.appearance import description, normalised, random_style
from causal_sam.phantom.bodies.devices import Metal, insert_metal
from causal_sam.phantom.bodies.filling import read_anatomies
from causal_sam.phantom.bodies.geometry import sample_positions
from causal_sam.phantom.bodies.label_maps import OUTSIDE, OUTSIDE_CODE, Anatomy
from causal_sam.phantom.bodies.lesions import NAMES as LESION_NAMES
from causal_sam.phantom.bodies.lesions import insert_lesions, structures_with
from causal_sam.phantom.bodies.names import mirrored, unions
from causal_sam.phantom.bodies.regions import Region, pick, regions
from causal_sam.phantom.bodies.rendering import partial_volumes, random_variation, render
from causal_sam.phantom.bodies.scene import Scene
from causal_sam.phantom.bodies.shapes import random_anatomy

SHAPES = "shapes"
KINDS = ("CT", "MR", "random")
MAX_ABSENT = 60
# Shares of the samples of a trunk without arms, and of all with metal.
ARMLESS_SHARE, METAL_SHARE = 0.85, 0.05
# Fewest voxels of a structure that counts as present.
MIN_VOXELS = 4


@dataclass(frozen=True, kw_only=True)
class LabelledBody:
    """Labels of an anatomy in a field of view, and the styles in which it is imaged.

    Slices, rows and columns run as those of `causal_sam.imaging.frames.SliceFrame`.

    Attributes:
        labels: ZxHxW int16; 0 is unlabelled (unknown, not background), 1 is certainly outside of the body.
        structures: name -> labels of all structures in the field of view, unions among them. A structure is labelled
            completely: no unlabelled voxel belongs to it.
        absent: names of structures that are certainly not in the field of view; a random choice.
        unnamed: labels of shapes without a name.
        spacing: distance in mm of slices, rows and columns.
        plane: axial, coronal or sagittal.
        styles: description of each style.
    """

    labels: Tensor
    structures: dict[str, tuple[int, ...]]
    absent: tuple[str, ...]
    unnamed: tuple[int, ...]
    spacing: tuple[float, float, float]
    plane: str
    styles: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BodySample(LabelledBody):
    """Slices of an anatomy in V styles.

    Attributes:
        images: VxZxHxW float32 in [0, 1]: the anatomy in each style, normalised as real images are.
        wide: VxZxHxW float32 in [0, 1]: for CT -1000 to 1000 HU; otherwise equal to ``images``.
    """

    images: Tensor
    wide: Tensor


class BodySampler:
    """Makes samples of all label maps in some folders.

    Args:
        folders: see `read_label_maps`.
        device: where samples are made and lie.
        styles: number of styles of a sample, 1 at least.

    Raises:
        InputError: there is no label map of a region that is known.
    """

    def __init__(self, folders: Sequence[Path], device: torch.device | str = "cpu", styles: int = 2) -> None:
        self.device, self.styles = torch.device(device), styles
        sources = [_Source(anatomy, self.device) for anatomy in read_anatomies(folders)]
        choices = {
            name: [own for own in sources if area.anchors_of(own.anatomy)]
            for name, area in regions().items()
            if name != SHAPES
        }
        self._sources = {name: own for name, own in choices.items() if own}
        if not self._sources:
            raise InputError("None of the label maps has a structure of a region that is sampled.")

    def sample(self, rng: np.random.Generator) -> BodySample:
        """Return a random sample; equal states of ``rng`` give equal samples."""
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        names = [SHAPES, *self._sources]
        name = pick(rng, names, [regions()[own].weight for own in names])
        region = regions()[name]
        if name == SHAPES:
            source = _Source(random_anatomy(rng), self.device)
        else:
            source = self._sources[name][int(rng.integers(len(self._sources[name])))]
        is_stripped = bool(source.brain_labels) and rng.random() < region.stripped
        view = region.field_of_view(source.anatomy, rng, source.brain_box if is_stripped else None)
        is_mirrored = region.mirror and rng.random() < 0.5
        codes_at = source.codes_without_arms if rng.random() < ARMLESS_SHARE else source.codes_at
        places = sample_positions(view, source.anatomy, region.stretch, is_mirrored, rng, self.device)
        codes = codes_at(places)
        scene = Scene(source.anatomy, view, places, codes, source.labels[codes])

        insert_lesions(scene, "brain" in name, rng)
        metal = insert_metal(scene, rng) if rng.random() < METAL_SHARE else None
        brain = source.brain(scene, rng) if is_stripped else None
        if brain is not None:
            scene.labels[~brain] = OUTSIDE
        images, wide, styles = self._images(scene, region, codes_at, metal, brain, generator, rng)
        structures, absent = source.structures(scene, is_mirrored)
        absent += region.absent_in(source.known | structures.keys())
        order = rng.permutation(len(absent))[:MAX_ABSENT]
        unnamed = [label for label in source.unnamed(scene.labels) if name == SHAPES]
        return BodySample(
            images=images,
            wide=wide,
            labels=scene.labels,
            structures=structures,
            absent=tuple(absent[int(i)] for i in order),
            unnamed=(*unnamed, *([metal.label] if metal and bool((scene.labels == metal.label).any()) else [])),
            spacing=view.spacing,
            plane=view.plane,
            styles=styles,
        )

    def _images(
        self,
        scene: Scene,
        region: Region,
        codes_at: Callable[[Tensor], Tensor],
        metal: Metal | None,
        brain: Tensor | None,
        generator: torch.Generator,
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Return the images of a scene in all styles, those in the wide window, and the texts of the styles."""
        kinds = [pick(rng, KINDS, region.styles) for _ in range(self.styles)]
        looks = [random_style(scene.anatomy, kind, rng) for kind in kinds]
        means = partial_volumes(scene, codes_at, [look.levels for look in looks], rng)
        variation = random_variation(scene, metal, rng)
        images, wide, texts = [], [], []
        for look, mean in zip(looks, means, strict=True):
            image = render(scene, look, mean, variation, generator, rng)
            if brain is None:
                shown, wider = normalised(look, image)
            else:
                # As in public data sets of brains: exactly 0 outside.
                low = -1000.0 if look.modality == "CT" else float(image.amin())
                shown, wider = (own * brain for own in normalised(look, torch.where(brain, image, low)))
            images.append(shown)
            wide.append(wider)
            body = scene.body if brain is None else brain
            texts.append(description(look, shown, body, scene.view.thickness, scene.view.spacing[1]))
        return torch.stack(images), torch.stack(wide), tuple(texts)


class _Source:
    """An anatomy on the device, with what does not change between samples."""

    def __init__(self, anatomy: Anatomy, device: torch.device) -> None:
        self.anatomy = anatomy
        self.labels = torch.from_numpy(anatomy.code_labels).to(device)
        self.parts = unions(anatomy.known)
        self.known = anatomy.known | self.parts.keys()
        self._flat = torch.from_numpy(anatomy.codes).to(device).flatten()
        armless = np.arange(len(anatomy.code_labels), dtype=np.int32)
        armless[list(anatomy.arms)] = OUTSIDE_CODE
        self._armless = torch.from_numpy(armless).to(device) if anatomy.arms else None

    def codes_at(self, places: Tensor) -> Tensor:
        """Return the code at each place: 3xZxHxW in voxels -> ZxHxW int32. Borders go on outside of the map."""
        shape = self.anatomy.codes.shape
        index = places[0].to(torch.int32).clamp_(0, shape[0] - 1)
        for axis in (1, 2):
            index = index.mul_(shape[axis]).add_(places[axis].to(torch.int32).clamp_(0, shape[axis] - 1))
        return self._flat[index].to(torch.int32)

    def codes_without_arms(self, places: Tensor) -> Tensor:
        """Return the same for a body whose arms are not in the field of view."""
        codes = self.codes_at(places)
        return codes if self._armless is None else self._armless[codes]

    @cached_property
    def brain_labels(self) -> list[int]:
        """Labels of all parts of the brain; none if the map does not label it completely."""
        return self.anatomy.labels_of(self.parts.get("brain", ()))

    @cached_property
    def brain_box(self) -> NDArray[np.float32]:
        """First and last corner of the brain in mm."""
        boxes = np.stack([self.anatomy.boxes[label] for label in self.brain_labels])
        return np.stack([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)])

    def brain(self, scene: Scene, rng: np.random.Generator) -> Tensor:
        """Return the brain of a head, with some of the fluid around it: ZxHxW bool."""
        inside = [*self.brain_labels, *(own.label for own in scene.lesions)]
        brain = torch.isin(scene.labels, torch.tensor(inside, dtype=torch.int16, device=scene.device))
        wide = int(rng.integers(0, 4))
        if wide:
            grown = F.max_pool2d(brain[:, None].float(), 2 * wide + 1, 1, wide)[:, 0] > 0
            fluid = self.anatomy.labels_of(("cerebrospinal fluid", "fetal extra-axial csf"))
            brain |= grown & torch.isin(scene.labels, torch.tensor(fluid, dtype=torch.int16, device=scene.device))
        return brain

    def unnamed(self, labels: Tensor) -> list[int]:
        """Return the labels in a sample that have no name."""
        present = torch.unique(labels).tolist()
        return [label for label in present if self.anatomy.names.get(label) == ""]

    def structures(self, scene: Scene, is_mirrored: bool) -> tuple[dict[str, tuple[int, ...]], list[str]]:
        """Return the structures in a sample, and those that are known not to be there."""
        top = int(self.labels.max())
        counts = torch.bincount(scene.labels.flatten().clamp_max(top + 1).to(torch.int32), minlength=top + 2)
        counted = counts.cpu().numpy()
        by_name: dict[str, tuple[int, ...]] = {}
        for label, name in self.anatomy.names.items():
            if name:
                by_name[name] = (*by_name.get(name, ()), label)
        for name, parts in self.parts.items():
            by_name[name] = tuple(label for part in sorted(parts) for label in by_name[part])
        present, absent = {}, []
        for name, own in by_name.items():
            shown = mirrored(name) if is_mirrored else name
            if counted[list(own)].sum() >= MIN_VOXELS:
                present[shown] = tuple(label for label in own if counted[label])
            elif not counted[list(own)].any():
                absent.append(shown)
        present = structures_with(scene, present)
        return present, [name for name in (*absent, *LESION_NAMES) if name not in present]
