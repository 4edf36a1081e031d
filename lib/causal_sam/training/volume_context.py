"""The objective of the volume context: coarse masks by prompt and by name, on rendered bodies, with LAD."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from causal_sam.atomic import atomic_write
from causal_sam.phantom.bodies.label_maps import OUTSIDE
from causal_sam.style.lad import LadConfig, LadLoss, reversal_ramp
from causal_sam.training.adversary import train_adversary
from causal_sam.training.context_prompts import corrected, first_prompt
from causal_sam.training.context_targets import dice_of, is_union, mask_loss, name_weights, share_of_cells
from causal_sam.training.encoded_bodies import EncodedBody
from causal_sam.training.engine import Objective
from causal_sam.training.losses import label_map_loss
from causal_sam.training.pretraining import region_loss
from causal_sam.volume.context import Encode, read_names
from causal_sam.volume.network import FEATURE_STRIDE, WIDTHS, Context, ContextNetwork, GridGeometry
from causal_sam.volume.prompt_maps import GROUPS, nearest_cells

WEIGHTS = "context.safetensors"
# Share of the steps on the finer grid of a crop, as for small structures.
FINE_SHARE = 0.35
# Share of the steps on the coarse grid that see a window of it: cheaper, and the network may not rely on the borders.
WINDOW_SHARE = 0.75
FINE_CELLS, COARSE_CELLS = (8, 15), (12, 23)  # windows in cells of stride 8
MAX_SLICES = 22
# Smallest structure in cells.
MIN_CELLS = 5.0
STRUCTURES = 3
# Share of the structures that are prompted on a part of the grid around them: cheaper, and what users' crops are.
PART_SHARE = 0.7
MARGIN_CELLS, MARGIN_SLICES = (3, 11), (1, 7)
ROUNDS = ((1, 0.35), (2, 0.45), (3, 0.2))
# Smallest structure of the validation, in cells.
MIN_VALIDATED_CELLS = 40.0
MAX_VALIDATED_NAMES = 6
# Lowest mean Dice of a structure that counts as found by its name, and the number of held-out bodies that show it.
MIN_FOUND_DICE, MIN_FOUND_BODIES = 0.5, 3
# Cells whose descriptions are compared in each step.
PLACES = 400
MAX_NAMES, MAX_ABSENT = 14, 5
# Power of the structures' sizes in the loss of names: small ones count for more than their share of the cells.
AREA_POWER = 0.5
SLICES_FOR_LAD = 8
# Terms of the loss and their weights; LAD's own come on top.
TERMS = {"mask": 1.0, "certainty": 0.1, "name": 0.8, "regions": 0.2}
LAD = LadConfig(adversary=0.02, spread=0.3, invariance=0.3, anatomy=0.02, consistency=0.0, adversary_steps=1)


class VolumeContextObjective(Objective):
    """Trains `ContextNetwork` on encoded bodies.

    Args:
        encode: texts -> NxD unit vectors.
        text_dim: D.
        learning_rate: highest learning rate.
    """

    def __init__(self, encode: Encode, text_dim: int, learning_rate: float) -> None:
        super().__init__()
        self.network = ContextNetwork(text_dim)
        self.lad = LadLoss(WIDTHS[0], text_dim, LAD)
        self._encode, self._learning_rate = encode, learning_rate
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        """Start the random choices from another seed."""
        self._rng = np.random.default_rng(seed)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `Objective`; the adversary must keep up with the features all the time, so its rate stays."""
        return [
            {"params": [*self.network.parameters(), *self.lad.head_parameters], "lr": self._learning_rate},
            {"params": self.lad.adversary_parameters, "lr": 1e-3, "scheduled": False},
        ]

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """See `train_adversary`."""
        train_adversary(self.lad, optimizer)

    def forward(self, body: EncodedBody, progress: float) -> dict[str, Tensor]:
        """Return the loss of one body, and its terms.

        Args:
            body: in one style or in two.
            progress: completed share of the training, 0 to 1.
        """
        window, stride = self._window(body)
        labels = body.labels[window]
        present = {int(value) for value in labels.unique()}
        z, *sides = window
        rows, columns = (slice(side.start // FEATURE_STRIDE, side.stop // FEATURE_STRIDE) for side in sides)
        geometry = _geometry(body, window, stride)
        contexts = [self.network.encode(stack.crop(z, rows, columns), geometry, stride) for stack in body.stacks]
        names, targets = self._present_names(body, labels, stride)
        absent = [name for name in body.absent if name not in names]
        absent = [absent[n] for n in self._rng.permutation(len(absent))[:MAX_ABSENT]]
        vectors = self._encode([*names, *absent])
        logits = [self.network.name_logits(context, vectors) for context in contexts]
        parts: dict[str, list[Tensor]] = defaultdict(list)
        exclusive = self._exclusive(body, names)
        for found in logits:
            if exclusive:
                competing, truth = (maps[exclusive].flatten(1, 2)[None] for maps in (found, targets))
                parts["name"].append(label_map_loss(competing, truth, AREA_POWER))
            if absent:
                parts["name"].append(F.softplus(found[len(names) :]).mean())
        parts["regions"] = [self._region_loss(context, labels, stride) for context in contexts]
        for n, (row, target) in enumerate(self._structures(body, labels, present, names, targets, stride)):
            view = n % len(contexts)
            self._rounds(contexts[view], target, None if row is None else logits[view][row].detach(), parts)
        zero = torch.zeros(())
        means = {
            name: torch.stack(parts[name]).mean() if parts[name] else zero
            for name in (*TERMS, "dice_first", "dice_last")
        }
        loss = sum((weight * means[name] for name, weight in TERMS.items()), start=zero)
        invariance = zero
        if len(contexts) == 2 and names:
            lad, terms = self._lad_loss(body, contexts, vectors[: len(names)], targets, progress)
            loss, invariance = loss + lad, terms.invariance
        record = {name: mean.detach() for name, mean in means.items()}
        return {"loss": loss, **record, "invariance": invariance.detach()}

    def _lad_loss(
        self, body: EncodedBody, contexts: list[Context], vectors: Tensor, targets: Tensor, progress: float
    ) -> tuple[Tensor, Any]:
        """Return the LAD loss of some slices of a body in two styles: each slice counts as an anatomy."""
        count = targets.shape[1]
        chosen = torch.from_numpy(self._rng.permutation(count)[:SLICES_FOR_LAD].copy())
        features = torch.cat([context.features[0].transpose(0, 1)[chosen].float() for context in contexts])
        styles = self._encode(list(body.styles)).repeat_interleave(len(chosen), 0)
        truth = targets[:, chosen].transpose(0, 1)
        ramp = reversal_ramp(progress)
        with torch.autocast(features.device.type, enabled=False):
            terms = self.lad(features, styles, truth, vectors, features.new_zeros(0), ramp)
            return self.lad.weighted(terms, ramp), terms

    def _region_loss(self, context: Context, labels: Tensor, stride: int) -> Tensor:
        """Return the loss by which cells of one structure get descriptions alike, and those of others do not."""
        cells = labels[:, stride // 2 :: stride, stride // 2 :: stride].flatten()
        sizes = torch.bincount(cells.long())
        weights = (1 / sizes.clamp(min=1).double().sqrt())[cells.long()] * (cells > 0)
        if not weights.any():
            return context.descriptors.new_zeros(())
        generator = torch.Generator().manual_seed(int(self._rng.integers(2**31)))
        chosen = torch.multinomial(weights, PLACES, replacement=True, generator=generator).unique()
        groups = context.descriptors[0].flatten(1)[:, chosen].float().unflatten(0, (GROUPS, -1))
        return region_loss(F.normalize(groups, dim=1).flatten(0, 1)[None, :, None], cells[chosen][None, None])

    def _rounds(self, context: Context, target: Tensor, name: Tensor | None, parts: dict[str, list[Tensor]]) -> None:
        """Ask for a structure, and correct the answer some times."""
        rng = self._rng
        if rng.random() < PART_SHARE:
            part = self._around(target)
            context, target = context.crop(part), target[part]
            name = None if name is None else name[part]
        rounds = int(rng.choice([n for n, _ in ROUNDS], p=[share for _, share in ROUNDS]))
        prompts = first_prompt(target, name, rng)
        for n in range(rounds):
            is_learned = n in (0, rounds - 1)
            with torch.set_grad_enabled(is_learned and torch.is_grad_enabled()):
                logits, certainty = self.network.decode(context, prompts)
            found = certainty.new_tensor(dice_of(logits, target))
            if is_learned:
                parts["mask"].append(
                    mask_loss(logits, target) + 0.1 * _at_points(logits, prompts.foreground, prompts.background)
                )
                parts["certainty"].append(F.binary_cross_entropy_with_logits(certainty, found))
            if n == 0:
                parts["dice_first"].append(found)
            if n == rounds - 1:
                parts["dice_last"].append(found)
            else:
                prompts = corrected(prompts, target, logits.detach().sigmoid(), rng)

    def _around(self, target: Tensor) -> tuple[slice, slice, slice]:
        """Choose a part of the grid that holds a structure, with a random margin on each side."""
        cells = (target > 0).nonzero()
        low, high = cells.amin(0).tolist(), cells.amax(0).tolist()
        part = []
        for axis, side in enumerate(target.shape):
            before, after = self._rng.integers(*(MARGIN_CELLS if axis else MARGIN_SLICES), size=2)
            part.append(slice(max(0, low[axis] - int(before)), min(side, high[axis] + 1 + int(after))))
        z, y, x = part
        return z, y, x

    def _window(self, body: EncodedBody) -> tuple[tuple[slice, slice, slice], int]:
        """Choose the part of a body that a step sees, and the stride of its grid."""
        rng = self._rng
        count, height, width = body.labels.shape
        stride = 2 if rng.random() < FINE_SHARE else 4
        first = int(rng.integers(max(1, count - MAX_SLICES + 1)))
        slices = slice(first, min(count, first + MAX_SLICES))
        if stride == 4 and rng.random() >= WINDOW_SHARE:
            return (slices, slice(0, height), slice(0, width)), stride
        centre = self._some_voxel(body, body.labels[slices])
        window = [slices]
        for axis, side in ((1, height), (2, width)):
            size = FEATURE_STRIDE * int(rng.integers(*(FINE_CELLS if stride == 2 else COARSE_CELLS)))
            size = min(size, side)
            start = int(centre[axis] - size / 2 + rng.normal(0, size / 8)) // FEATURE_STRIDE * FEATURE_STRIDE
            start = min(max(start, 0), side - size)
            window.append(slice(start, start + size))
        z, y, x = window
        return (z, y, x), stride

    def _some_voxel(self, body: EncodedBody, labels: Tensor) -> np.ndarray:
        """Choose a voxel of a random structure; the middle if there is none."""
        coarse = labels[:, ::4, ::4]
        weights = name_weights(body.structures, coarse, 1.0)
        if weights:
            name = self._rng.choice(list(weights), p=list(weights.values()))
            inside = torch.isin(coarse, torch.tensor(body.structures[name], dtype=coarse.dtype))
        else:
            values = coarse.unique()
            values = values[values > OUTSIDE]
            if not len(values):
                return np.array(labels.shape) / 2
            inside = coarse == values[self._rng.integers(len(values))]
        cells = inside.nonzero()
        return cells[self._rng.integers(len(cells))].numpy() * np.array([1, 4, 4])

    def _present_names(self, body: EncodedBody, labels: Tensor, stride: int) -> tuple[list[str], Tensor]:
        """Return the names of some structures of a window, and NxZxYxX, the share of each cell that is inside."""
        weights = name_weights(body.structures, labels, MIN_CELLS * stride**2)
        names: list[str] = []
        if weights:
            count = min(MAX_NAMES, len(weights))
            names = self._rng.choice(list(weights), count, replace=False, p=list(weights.values())).tolist()
        targets = [share_of_cells(labels, body.structures[name], stride) for name in names]
        return names, torch.stack(targets) if targets else share_of_cells(labels, (), stride)[None][:0]

    def _exclusive(self, body: EncodedBody, names: Sequence[str]) -> list[int]:
        """Choose names whose structures have no voxel in common, so that they compete; return their numbers."""
        taken: set[int] = set()
        chosen = []
        for n, name in enumerate(names):
            values = set(body.structures[name])
            if not values & taken:
                chosen.append(n)
                taken |= values
        return chosen

    def _structures(
        self,
        body: EncodedBody,
        labels: Tensor,
        present: set[int],
        names: Sequence[str],
        targets: Tensor,
        stride: int,
    ) -> list[tuple[int | None, Tensor]]:
        """Choose the structures to prompt for: named ones, and ones without a name.

        Unions of structures, such as both kidneys, are left out: a click inside means the part that it is in.

        Returns:
            For each structure the index of its name, None without one, and its target.
        """
        rng = self._rng
        chosen: list[tuple[int | None, Tensor]] = []
        unnamed = [value for value in body.unnamed if value in present]
        single = [n for n, name in enumerate(names) if not is_union(name, body.structures)]
        if single:
            count = min(len(single), STRUCTURES - (1 if unnamed else 0))
            for n in rng.choice(single, count, replace=False):
                chosen.append((int(n), targets[n]))
        for n in rng.permutation(len(unnamed))[: STRUCTURES - len(chosen)]:
            target = share_of_cells(labels, (unnamed[n],), stride)
            if float(target.sum()) >= MIN_CELLS:
                chosen.append((None, target))
        return chosen

    def save_weights(self, path: Path, step: int, names: Iterable[str], found: Iterable[str]) -> None:
        """Write the weights of the network in half precision; the file appears whole or not at all.

        Args:
            path: safetensors file; the names in it stay.
            step: number of steps that were made.
            names: names that were trained.
            found: those that were found without another prompt on held-out bodies.
        """
        known = set(names) | (read_names(path) if path.is_file() else set())
        weights = {name: value.half().contiguous() for name, value in self.network.state_dict().items()}
        with atomic_write(path) as part:
            metadata = {"network": "context", "step": str(step), "names": "\n".join(sorted(known))}
            metadata["found"] = "\n".join(sorted(found))
            save_file(weights, part, metadata=metadata)


def _at_points(logits: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """Return the mean loss of the cells that were prompted."""
    losses = []
    for points, sign in ((foreground, -1.0), (background, 1.0)):
        if len(points):
            z, y, x = nearest_cells(points, logits.shape)
            losses.append(F.softplus(sign * logits[z, y, x]))
    return torch.cat(losses).mean() if losses else logits.new_zeros(())


def _geometry(body: EncodedBody, window: tuple[slice, slice, slice], stride: int) -> GridGeometry:
    step, row, column = body.spacing
    part = [(side.start, side.stop) for side in window]
    return GridGeometry.of_part(
        part, body.labels.shape, body.spacing, (step, row * stride, column * stride), body.plane
    )


@torch.inference_mode()
def validate(
    network: ContextNetwork, bodies: Sequence[EncodedBody], encode: Encode
) -> tuple[dict[str, float], list[str]]:
    """Measure Dice on the coarse grid of whole bodies: after one random click, after three, and by name.

    Args:
        network: network in any mode.
        bodies: bodies that are not trained on.
        encode: texts -> NxD unit vectors.

    Returns:
        Mean Dice under "click@1", "click@3" and "name"; and the names of the structures that are found by name alone.
    """
    scores: dict[str, list[float]] = {"click@1": [], "click@3": [], "name": []}
    by_name: dict[str, list[float]] = defaultdict(list)
    rng = np.random.default_rng(0)
    for body in bodies:
        whole = (slice(0, len(body.labels)), slice(0, body.labels.shape[1]), slice(0, body.labels.shape[2]))
        context = network.encode(body.stacks[0], _geometry(body, whole, 4), 4)
        targets = {name: share_of_cells(body.labels, values, 4) for name, values in body.structures.items()}
        targets = {name: target for name, target in targets.items() if float(target.sum()) >= MIN_VALIDATED_CELLS}
        if not targets:
            continue
        for name, logits in zip(targets, network.name_logits(context, encode([*targets])), strict=True):
            by_name[name].append(dice_of(logits, targets[name]))
        names = sorted(name for name in targets if not is_union(name, body.structures))
        for n in rng.permutation(len(names))[:MAX_VALIDATED_NAMES]:
            name = names[n]
            scores["name"].append(by_name[name][-1])
            prompts = first_prompt(targets[name], None, rng, kinds={"point": 1.0})
            for clicks in (1, 2, 3):
                logits, _ = network.decode(context, prompts)
                if clicks != 2:
                    scores[f"click@{clicks}"].append(dice_of(logits, targets[name]))
                prompts = corrected(prompts, targets[name], logits.sigmoid(), rng)
    found = [
        name
        for name, values in by_name.items()
        if len(values) >= MIN_FOUND_BODIES and np.mean(values) >= MIN_FOUND_DICE
    ]
    return {name: float(np.mean(values)) for name, values in scores.items() if values}, found
