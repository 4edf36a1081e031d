"""`BodySampler`: training samples of named anatomies with random appearance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from causal_sam.errors import InputError
from causal_sam.phantom.bodies.appearance import description, finish, normalised, random_style
from causal_sam.phantom.bodies.geometry import FieldOfView, random_affine, sample_positions
from causal_sam.phantom.bodies.label_maps import Anatomy, read_anatomies
from causal_sam.phantom.bodies.names import contents, mirrored, unions
from causal_sam.phantom.bodies.regions import Region, pick, regions

MAX_ABSENT = 60
# Fewest voxels of a structure that counts as present.
MIN_VOXELS = 4


@dataclass(frozen=True)
class BodySample:
    """Slices of an anatomy in several styles.

    Slices, rows and columns run as those of `causal_sam.imaging.frames.SliceFrame`.

    Attributes:
        images: VxZxHxW float32 in [0, 1]: the anatomy in V styles, normalised as real images are.
        wide: VxZxHxW float32 in [0, 1]: for CT -1000 to 1000 HU; otherwise equal to ``images``.
        labels: ZxHxW int16; 0 is unlabelled (unknown, not background), 1 is certainly outside of the body.
        structures: name -> labels, of all structures in this sample, unions among them. A structure is labelled
            completely: no unlabelled voxel belongs to it.
        absent: names of structures that are certainly not in this sample; a random choice.
        unnamed: labels of shapes without a name.
        spacing: distance in mm of slices, rows and columns.
        plane: axial, coronal or sagittal.
        styles: description of each style.
    """

    images: Tensor
    wide: Tensor
    labels: Tensor
    structures: dict[str, tuple[int, ...]]
    absent: tuple[str, ...]
    unnamed: tuple[int, ...]
    spacing: tuple[float, float, float]
    plane: str
    styles: tuple[str, ...]


class BodySampler:
    """Makes samples of all label maps in some folders.

    Args:
        folders: see `read_anatomies`.
        device: where samples are made and lie.
        styles: number of styles of a sample, 1 at least.

    Raises:
        InputError: there is no label map of a region that is known.
    """

    def __init__(self, folders: Sequence[Path], device: torch.device | str = "cpu", styles: int = 2) -> None:
        self.device, self.styles = torch.device(device), styles
        anatomies = [_Prepared(anatomy, self.device) for anatomy in read_anatomies(folders)]
        self._choices = {
            name: [own for own in anatomies if region.anchors_of(own.anatomy)] for name, region in regions().items()
        }
        self._choices = {name: own for name, own in self._choices.items() if own}
        if not self._choices:
            raise InputError("None of the label maps has a structure of a region that is sampled.")

    def sample(self, rng: np.random.Generator) -> BodySample:
        """Return a random sample; equal states of ``rng`` give equal samples."""
        names = list(self._choices)
        name = pick(rng, names, [regions()[own].weight for own in names])
        region = regions()[name]
        own = self._choices[name][int(rng.integers(len(self._choices[name])))]
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        view = region.field_of_view(own.anatomy, rng)
        is_mirrored = region.mirror and rng.random() < 0.5
        places = self._voxels(own, view, region, is_mirrored, rng)
        codes = own.codes_at(places)
        labels = own.labels[codes]

        images, wide, styles = [], [], []
        kinds = [pick(rng, ("CT", "MR", "random"), region.styles) for _ in range(self.styles)]
        looks = [random_style(own.anatomy, kind, rng) for kind in kinds]
        means = self._partial_volumes(own, places, view, [look.levels for look in looks], rng)
        for look, mean in zip(looks, means, strict=True):
            image = finish(look, mean, codes, generator, rng)
            shown, wider = normalised(look, image)
            images.append(shown)
            wide.append(wider)
            styles.append(description(look, shown, codes, view.thickness, view.spacing[1]))
        structures, absent = own.structures(labels, is_mirrored)
        others = contents()["only_in_trunk" if name in ("brain", "fetus") else "only_in_head"]
        if name in ("brain", "fetus", "abdomen", "pelvis", "legs"):
            absent = [*absent, *(other for other in others if other not in own.known)]
        absent = [absent[int(i)] for i in rng.permutation(len(absent))[:MAX_ABSENT]]
        return BodySample(
            torch.stack(images),
            torch.stack(wide),
            labels,
            structures,
            tuple(absent),
            (),
            view.spacing,
            view.plane,
            tuple(styles),
        )

    def _voxels(
        self, own: _Prepared, view: FieldOfView, region: Region, is_mirrored: bool, rng: np.random.Generator
    ) -> Tensor:
        """Return 3xZxHxW float32: the place of each voxel of the sample in voxels of the anatomy."""
        affine = random_affine(rng)
        places = sample_positions(view, affine, region.stretch, rng, self.device)
        if is_mirrored:
            places[0] = 2 * float(view.centre[0]) - places[0]
        return places.div_(own.spacing)

    def _partial_volumes(
        self, own: _Prepared, places: Tensor, view: FieldOfView, levels: Sequence[NDArray], rng: np.random.Generator
    ) -> list[Tensor]:
        """Return the mean brightness of each voxel by several points of it, one result for each style."""
        count = 4 if view.thickness > 3 * view.spacing[1] else 3
        tables = [torch.from_numpy(level).to(self.device) for level in levels]
        totals = [torch.zeros(places.shape[1:], device=self.device) for _ in levels]
        # Points spread over the voxel, or over one of the anatomy if that is larger.
        size = np.array([view.thickness, view.spacing[1], view.spacing[2]])
        cell = np.abs(view.axes / view.spacing) @ size
        cell = np.maximum(cell, own.anatomy.spacing) / own.anatomy.spacing
        spread = (np.stack([rng.permutation(count) for _ in range(3)], 1) + 0.5) / count - 0.5
        for offset in spread * cell:
            codes = own.codes_at(
                places + torch.tensor(offset, dtype=torch.float32, device=self.device)[:, None, None, None]
            )
            for total, table in zip(totals, tables, strict=True):
                total += table[codes]
        return [total / count for total in totals]


class _Prepared:
    """An anatomy on the device, with what does not change between samples."""

    def __init__(self, anatomy: Anatomy, device: torch.device) -> None:
        self.anatomy = anatomy
        self.flat = anatomy.codes.to(device).flatten()
        self.labels = torch.from_numpy(anatomy.code_labels).to(device)
        self.spacing = torch.from_numpy(anatomy.spacing).to(device)[:, None, None, None]
        self.parts = unions(anatomy.known)
        self.known = anatomy.known | self.parts.keys()

    def codes_at(self, places: Tensor) -> Tensor:
        """Return the code at each place: 3xZxHxW in voxels -> ZxHxW int32. Borders go on outside of the map."""
        shape = self.anatomy.codes.shape
        index = places[0].to(torch.int32).clamp_(0, shape[0] - 1)
        for axis in (1, 2):
            index = index.mul_(shape[axis]).add_(places[axis].to(torch.int32).clamp_(0, shape[axis] - 1))
        return self.flat[index].to(torch.int32)

    def structures(self, labels: Tensor, is_mirrored: bool) -> tuple[dict[str, tuple[int, ...]], list[str]]:
        """Return the structures in a sample and those that the map labels, but that are not there."""
        counts = torch.bincount(labels.flatten().to(torch.int32), minlength=int(self.labels.max()) + 1).cpu().numpy()
        by_name: dict[str, tuple[int, ...]] = {}
        for label, name in self.anatomy.names.items():
            if name:
                by_name[name] = (*by_name.get(name, ()), label)
        for name, parts in self.parts.items():
            by_name[name] = tuple(label for part in sorted(parts) for label in by_name[part])
        present, absent = {}, []
        for name, own in by_name.items():
            shown = mirrored(name) if is_mirrored else name
            if counts[list(own)].sum() >= MIN_VOXELS:
                present[shown] = tuple(label for label in own if counts[label])
            elif not counts[list(own)].any():
                absent.append(shown)
        return present, absent
