"""nnInteractive (Isensee et al. 2025, arXiv 2503.08373) as a baseline, where its package and weights are installed.

The package is under Apache-2.0; its weights are under CC BY-NC-SA 4.0, so not for commercial use. Neither comes with
Causal-SAM, and nothing is downloaded.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from causal_sam.benchmark.interactive.options import Prompt
from causal_sam.errors import InputError
from causal_sam.imaging import Volume

WEIGHTS_VARIABLE = "NNINTERACTIVE_MODEL_DIR"  # of the package itself
WEIGHTS_FOLDER = "~/.nninteractive"
INSTALL = (
    "Install it with 'pip install nnInteractive' and its weights with 'nninteractive-download-model'; the weights are "
    "under CC BY-NC-SA 4.0, so not for commercial use."
)


@dataclass(frozen=True)
class NnInteractive:
    """nnInteractive on whole volumes.

    Raises:
        InputError: the package or its weights are not installed.
    """

    name: ClassVar[str] = "nninteractive"
    dimensions: ClassVar[frozenset[int]] = frozenset({3})
    prompts: ClassVar[frozenset[Prompt]] = frozenset({Prompt.CLICK, Prompt.BOX})

    def __post_init__(self) -> None:
        self._session  # noqa: B018  # fails early

    def image(self, volume: Volume) -> NDArray:
        """Return the voxels of a volume as they are, since the method normalises them itself."""
        return volume.array

    def begin(self, image: NDArray, spacing: Sequence[float]) -> NnInteractiveSession:
        """Start on an image (I, J, K); its spacing is not used. Sessions that began before end."""
        self._session.set_image(np.ascontiguousarray(image, np.float32)[None])
        return NnInteractiveSession(self._session, image.shape)

    @cached_property
    def _session(self) -> Any:
        try:
            inference = importlib.import_module("nnInteractive.inference.inference_session")
        except ImportError as error:
            raise InputError(f"The baseline nninteractive is not installed. {INSTALL}") from error
        folder = Path(os.environ.get(WEIGHTS_VARIABLE, WEIGHTS_FOLDER)).expanduser() / "models"
        models = sorted(folder.glob("nnInteractive_*"))
        if not models:
            raise InputError(f"The baseline nninteractive has no weights in {folder}. {INSTALL}")
        session = inference.nnInteractiveInferenceSession(
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            torch_n_threads=torch.get_num_threads(),
            do_autozoom=True,
        )
        session.initialize_from_trained_model_folder(str(models[-1]))
        return session


class NnInteractiveSession:
    """nnInteractive at work on one structure; its masks have the shape of the image."""

    def __init__(self, session: Any, shape: tuple[int, ...]) -> None:
        self._session = session
        self._mask = torch.zeros(shape, dtype=torch.uint8)
        session.set_target_buffer(self._mask)

    def click(self, place: tuple[int, ...], *, inside: bool) -> NDArray[np.bool_]:
        """Click a voxel and return the new mask."""
        self._session.add_point_interaction(place, include_interaction=inside)
        return self._mask.numpy() > 0

    def box(self, box: Sequence[int]) -> NDArray[np.bool_]:
        """Draw a box (i0, i1, j0, j1, k0, k1), ends inclusive and on one slice, and return the new mask."""
        ends = [[first, last + 1] for first, last in zip(box[::2], box[1::2], strict=True)]
        self._session.add_bbox_interaction(ends, include_interaction=True)
        return self._mask.numpy() > 0
