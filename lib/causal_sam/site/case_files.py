"""Files of the cases of an update: slices to train on, which all processes read, and volumes to measure on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causal_sam.imaging import Volume
from causal_sam.imaging.intensity import IntensityWindow
from causal_sam.site.publish_gate import Case
from causal_sam.style import Acquisition, StyledSlices
from causal_sam.training.style_pairs import LabelledSlices


def save_slices(folder: Path, files: str, case: LabelledSlices) -> None:
    """Write the slices of a case.

    Args:
        folder: folder of the files.
        files: beginning of their names.
        case: the slices.

    Raises:
        OSError: they cannot be written.
    """
    _save_array(folder / f"{files}-image.npy", case.slices.array)
    _save_array(folder / f"{files}-labels.npy", case.label_map)
    header = {
        "spacing": case.slices.spacing,
        "acquisition": asdict(case.slices.acquisition),
        "background": case.slices.background,
        "window": asdict(case.window),
    }
    (folder / f"{files}.json").write_text(json.dumps(header, default=float))


def _save_array(path: Path, array: NDArray) -> None:
    """Write an array as `numpy.save` does, which does not say why it cannot write."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


def load_slices(folder: Path, files: str, known: Sequence[bool]) -> LabelledSlices:
    """Read the slices of a case; processes on one machine share its arrays.

    Args:
        folder: folder of the files.
        files: beginning of their names.
        known: True for each label that was annotated in the case.
    """
    header = json.loads((folder / f"{files}.json").read_text())
    acquisition = header["acquisition"]
    if acquisition["pixel_spacing"] is not None:
        acquisition["pixel_spacing"] = tuple(acquisition["pixel_spacing"])
    image = np.load(folder / f"{files}-image.npy", mmap_mode="r")
    depth, height, width = header["spacing"]
    slices = StyledSlices(image, (depth, height, width), Acquisition(**acquisition), header["background"])
    label_map = np.load(folder / f"{files}-labels.npy", mmap_mode="r")
    return LabelledSlices(slices, IntensityWindow(**header["window"]), label_map, np.array(known, bool))


def save_case(folder: Path, files: str, volume: Volume, structures: Mapping[str, NDArray[np.bool_]]) -> None:
    """Write a case to measure on, an image and its masks."""
    masks = {f"mask {name}": mask for name, mask in structures.items()}
    with (folder / f"{files}.npz").open("wb") as file:
        np.savez_compressed(file, array=volume.array, affine=volume.affine, modality=volume.modality, **masks)


def load_case(folder: Path, files: str) -> Case:
    """Read a case to measure on."""
    with np.load(folder / f"{files}.npz") as file:
        volume = Volume(file["array"], file["affine"], str(file["modality"]))
        return volume, {key.removeprefix("mask "): file[key] for key in file.files if key.startswith("mask ")}
