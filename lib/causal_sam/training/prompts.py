"""Prompts for pretraining as an annotator would give them: a first one, then clicks on the errors of the answers."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from causal_sam.simulation.annotator import Click, deepest_point, next_click

KINDS = {"click": 0.5, "box": 0.1, "mask": 0.17, "neighbour": 0.2, "empty": 0.03}
# The same where coarse masks of a volume context are prompts too.
KINDS_WITH_COARSE = {"click": 0.42, "box": 0.06, "mask": 0.1, "neighbour": 0.12, "empty": 0.02, "coarse": 0.28}
# Share of the structures followed from a neighbouring slice that end there, where the sample has such.
ENDED = 0.5


class CoarseMasks(NamedTuple):
    """Coarse masks of N structures by a volume context, as logits Nx1xLxL.

    Attributes:
        present: of structures that are on the slice.
        ended: of structures that are not.
    """

    present: Tensor
    ended: Tensor


class SimulatedPrompts:
    """Prompts of N structures that grow by one click a round, as tensors for the prompt encoder."""

    def __init__(
        self,
        truth: np.ndarray,
        neighbours: np.ndarray,
        ended: np.ndarray,
        rng: np.random.Generator,
        coarse: CoarseMasks | None = None,
    ) -> None:
        """Draw the first prompts.

        These are a click, a box, an earlier, wrong mask together with its correction, or nothing but a mask: that of a
        neighbouring slice, as when a structure is followed through a volume, or a coarse one of a volume context.

        Args:
            truth: NxSxS uint8.
            neighbours: NxSxS uint8, of the same structures.
            ended: NxSxS uint8, structures whose mask on this slice is empty, but not that of the neighbouring slice or
                the coarse one; or empty.
            rng: source of randomness.
            coarse: coarse masks; None if no prompt is to be one.
        """
        kinds = KINDS if coarse is None else KINDS_WITH_COARSE
        self.truth, self.rng = truth, rng
        self.coordinates: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.boxes: Tensor | None = None
        self.mask_logits: Tensor | None = None
        self.kind = rng.choice(list(kinds), p=list(kinds.values()))
        if self.kind == "click":
            self.click(np.zeros_like(truth))
        elif self.kind == "box":
            self.boxes = torch.from_numpy(np.stack([self._box(t) for t in truth]))
        elif self.kind == "coarse" and coarse is not None:
            ends = self._end(ended)
            self.mask_logits = torch.where(torch.from_numpy(ends)[:, None], coarse.ended, coarse.present)
            self.wrong = np.where(ends, ended, truth)
        elif self.kind == "neighbour":
            ends = self._end(ended)
            present = neighbours.any(axis=(1, 2), keepdims=True)
            self.wrong = np.where(ends, ended, np.where(present, neighbours, truth))
            self._show(self.wrong)
        else:
            wrong = np.stack([self._spoil(t) for t in truth])
            if self.kind == "empty":  # all of the mask is wrong, as on a slice beyond the end of the structure
                wrong |= truth
                self.truth = truth = np.zeros_like(truth)
            self.wrong = wrong
            self._show(wrong)
            self.click(wrong)

    @property
    def ambiguous(self) -> bool:
        """One click and nothing else: it may mean a lesion, its organ or the body."""
        return self.kind == "click" and len(self.coordinates) == 1

    @property
    def points(self) -> tuple[Tensor, Tensor] | None:
        """Nxk x2 (x, y) and Nxk labels, or None."""
        return (torch.stack(self.coordinates, 1), torch.stack(self.labels, 1)) if self.coordinates else None

    def click(self, masks: np.ndarray) -> None:
        """Add to each structure the click that corrects ``masks`` (NxSxS); a perfect mask is clicked once more."""
        coordinates, labels = [], []
        for n, (truth, mask) in enumerate(zip(self.truth, masks, strict=True)):
            click = next_click(truth, mask, self.rng)
            if click is None:
                inside = truth if truth.any() else self.wrong[n]
                click = Click(*deepest_point(inside, self.rng), foreground=bool(truth.any()))
            row, column, foreground = click
            coordinates.append((float(column), float(row)))
            labels.append(float(foreground))
        self.coordinates.append(torch.tensor(coordinates))
        self.labels.append(torch.tensor(labels))

    def _end(self, ended: np.ndarray) -> np.ndarray:
        """Replace some structures by ones that are not on this slice, and return which: bool Nx1x1."""
        ends = ended.any(axis=(1, 2), keepdims=True) & (self.rng.random((len(ended), 1, 1)) < ENDED)
        self.truth = np.where(ends, 0, self.truth).astype(np.uint8)
        return ends

    def _show(self, masks: np.ndarray) -> None:
        """Make NxSxS masks the mask prompt, more or less sure of themselves."""
        logits = torch.from_numpy(masks.astype(np.float32))[:, None] * 10 - 5
        self.mask_logits = F.avg_pool2d(logits, 2) * float(self.rng.uniform(0.4, 2))

    def _box(self, truth: np.ndarray) -> np.ndarray:
        rows, columns = np.nonzero(truth.any(1))[0], np.nonzero(truth.any(0))[0]
        box = np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float32)
        sides = np.tile(box[2:] - box[:2] + 1, 2)
        # People draw boxes up to a tenth too wide or too narrow.
        return np.clip(box + self.rng.normal(0, 0.05, 4) * sides, 0, truth.shape[0] - 1).astype(np.float32)

    def _spoil(self, truth: np.ndarray) -> np.ndarray:
        """A wrong mask of the structure: eroded, dilated, shifted, cut or with a neighbour added."""
        size = truth.shape[0]
        mask = truth.copy()
        radius = int(self.rng.integers(1, max(3, size // 20)))
        kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        for act in self.rng.choice(5, size=2, replace=False):
            if act == 0:
                mask = cv2.erode(mask, kernel)
            elif act == 1:
                mask = cv2.dilate(mask, kernel)
            elif act == 2:
                mask = np.roll(mask, self.rng.integers(-radius, radius + 1, 2), axis=(0, 1))
            else:
                centre = np.array(deepest_point(truth, self.rng)) + self.rng.normal(0, 2 * radius, 2)
                disk = cv2.circle(np.zeros_like(mask), (int(centre[1]), int(centre[0])), 3 * radius, (1,), -1)
                mask = mask & ~disk & 1 if act == 3 else mask | disk
        return mask
