"""Methods that the benchmark compares: models through `InteractiveSession`, and baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from causal_sam.benchmark.baselines import Baseline
from causal_sam.benchmark.interactive.options import Prompt
from causal_sam.imaging import SliceFrame, Volume
from causal_sam.prompting import InteractiveSession, LabelPrompter, Predictor
from causal_sam.prompting.prompts import Box, Strokes, Voxel

Mask = NDArray[np.bool_]
STRUCTURE = "structure"


class Interaction(Protocol):
    """A method at work on one structure; each prompt adds to those before and returns the new mask."""

    def click(self, voxel: Voxel, *, inside: bool) -> Mask:
        """Click a voxel of the volume."""

    def box(self, box: Box) -> Mask:
        """Draw a box on one slice."""

    def scribble(self, strokes: Strokes) -> Mask:
        """Draw inside and outside of the structure."""


class Method(Protocol):
    """A method that makes masks from prompts.

    Attributes:
        name: name in the report.
        prompts: first prompts that it takes.
    """

    name: str
    prompts: frozenset[Prompt]

    def on_slice(self, volume: Volume, frame: SliceFrame, index: int, structure: str = STRUCTURE) -> Interaction:
        """Start on a slice; masks of the interaction are rows x columns of the slice, canonical."""

    def on_volume(self, volume: Volume, structure: str = STRUCTURE) -> Interaction | None:
        """Start on a volume; masks of the interaction have its shape. None for 2D methods."""

    def by_name(self, volume: Volume, names: Sequence[str]) -> dict[str, Mask]:
        """Segment structures by their names alone; those that are not known are left out."""


class ModelMethod:
    """A model through `InteractiveSession`, as in the app.

    Args:
        name: name in the report.
        predictor: predictor of the model.
        labels: prompter for the names that the model knows; None if it knows none.
        says_name: True if clicks come with the name of the structure, as all clients send it.
    """

    prompts = frozenset(Prompt)

    def __init__(
        self, name: str, predictor: Predictor, labels: LabelPrompter | None = None, *, says_name: bool = True
    ) -> None:
        self.name = name
        self._predictor, self._labels, self._says_name = predictor, labels, says_name

    def on_slice(self, volume: Volume, frame: SliceFrame, index: int, structure: str = STRUCTURE) -> Interaction:
        return OnSlice(self._begin(volume, structure, follow=False), frame, index)

    def on_volume(self, volume: Volume, structure: str = STRUCTURE) -> Interaction:
        return self._begin(volume, structure, follow=True)

    def by_name(self, volume: Volume, names: Sequence[str]) -> dict[str, Mask]:
        labels, predictor = self._labels, self._predictor.for_volume(volume)
        known = {name: (labels and labels.find(name)) or name for name in names if predictor.knows_name(name, labels)}
        if not known:
            return {}
        session = InteractiveSession(predictor)
        session.segment_by_name(list(dict.fromkeys(known.values())), labels)
        return {name: session.mask(label) for name, label in known.items()}

    def _begin(self, volume: Volume, structure: str, *, follow: bool) -> _ModelInteraction:
        session = InteractiveSession(self._predictor.for_volume(volume))
        return _ModelInteraction(session, structure if self._says_name else STRUCTURE, follow=follow)


class _ModelInteraction:
    def __init__(self, session: InteractiveSession, label: str, *, follow: bool) -> None:
        self._session, self._label, self._follow = session, label, follow

    def click(self, voxel: Voxel, *, inside: bool) -> Mask:
        return self._session.add_point(self._label, voxel, positive=inside, follow=self._follow).mask

    def box(self, box: Box) -> Mask:
        return self._session.add_box(self._label, box, follow=self._follow).mask

    def scribble(self, strokes: Strokes) -> Mask:
        return self._session.add_scribble(self._label, strokes, follow=self._follow).mask


class BaselineMethod:
    """A baseline. Its coordinates on a slice are rows and columns, canonical."""

    def __init__(self, baseline: Baseline) -> None:
        self.name, self.prompts = baseline.name, baseline.prompts
        self._baseline = baseline

    def on_slice(self, volume: Volume, frame: SliceFrame, index: int, structure: str = STRUCTURE) -> Interaction:
        image = np.ascontiguousarray(frame.extract(self._baseline.image(volume), index))
        return _BaselineInteraction(self._baseline.begin(image, frame.spacing_rc), lambda v: frame.to_slice(v)[1:])

    def on_volume(self, volume: Volume, structure: str = STRUCTURE) -> Interaction | None:
        if 3 not in self._baseline.dimensions:
            return None
        return _BaselineInteraction(self._baseline.begin(self._baseline.image(volume), volume.spacing), lambda v: v)

    def by_name(self, volume: Volume, names: Sequence[str]) -> dict[str, Mask]:
        return {}


class _BaselineInteraction:
    def __init__(self, session: Any, place: Callable[[Voxel], tuple[int, ...]]) -> None:
        self._session, self._place = session, place

    def click(self, voxel: Voxel, *, inside: bool) -> Mask:
        return self._session.click(self._place(voxel), inside=inside)

    def box(self, box: Box) -> Mask:
        return self._session.box(box)

    def scribble(self, strokes: Strokes) -> Mask:
        return self._session.scribble(strokes)


class OnSlice:
    """An interaction with a volume, of which one slice is shown."""

    def __init__(self, interaction: Interaction, frame: SliceFrame, index: int) -> None:
        self._interaction, self._frame, self._index = interaction, frame, index

    def click(self, voxel: Voxel, *, inside: bool) -> Mask:
        return self._frame.extract(self._interaction.click(voxel, inside=inside), self._index)

    def box(self, box: Box) -> Mask:
        return self._frame.extract(self._interaction.box(box), self._index)

    def scribble(self, strokes: Strokes) -> Mask:
        return self._frame.extract(self._interaction.scribble(strokes), self._index)
