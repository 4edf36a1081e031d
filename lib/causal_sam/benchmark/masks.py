"""Folders of masks that methods made of labelled images: FOLDER/SET/CASE/STRUCTURE.nii.gz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causal_sam.benchmark.cases import LabelledVolume
from causal_sam.benchmark.interactive.targets import Target
from causal_sam.errors import InputError
from causal_sam.imaging import Volume, read_label_map, write_mask


def save_mask(folder: Path, volume: Volume, target: Target, mask: NDArray[np.bool_]) -> None:
    """Write the mask (I, J, K) of a whole structure."""
    path = folder / target.group / target.case / f"{target.structure}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(mask, volume, path)


def saved_masks(folder: Path, labelled: LabelledVolume) -> dict[str, NDArray[np.bool_]]:
    """Read the masks of the structures of a case that are tested; structures without one are left out.

    Raises:
        InputError: a mask is not on the grid of the image.
    """
    paths = {name: folder / labelled.group / labelled.case / f"{name}.nii.gz" for name in labelled.tested}
    return {name: read_label_map(path, labelled.volume) > 0 for name, path in paths.items() if path.is_file()}


def check_masks(folder: Path) -> None:
    """Check that a folder has masks.

    Raises:
        InputError: there are none.
    """
    if not any(folder.glob("*/*/*.nii.gz")):
        raise InputError(
            f"There are no masks SET/CASE/STRUCTURE.nii.gz in {folder}: make some with benchmark interactive "
            "--save-masks."
        )
