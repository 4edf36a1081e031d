"""Labels that are about to be saved: checked, aligned and named before any data store takes them.

The data store must always be able to read again what is said about them.

MONAI Label stores the bytes that a client sends. A label that nobody can read, or on another grid, would be accepted
and never used; and the client alone knows, now, which value is which structure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from monailabel.interfaces.datastore import DefaultLabelTag
from numpy.typing import NDArray

from causal_sam.errors import InputError
from causal_sam.export.segmented_volume import Segment, SegmentedVolume
from causal_sam.imaging import Volume, write_mask
from causal_sam.imaging.label_maps import present_values, read_label_map
from causal_sam.imaging.label_names import named_values, value_problem, values_by_name
from causal_sam.site.label_files import CHECKSUM
from serving.data.index import storable
from serving.data.label_colors import label_color
from serving.data.label_set import checked_label
from serving.requests.identifiers import checked_identifier

# OHIF sends its voxels alone.
RAW = ".bin"
SEGMENTATION_NRRD = (".nrrd", ".nhdr")


@dataclass(frozen=True)
class IncomingLabel:
    """A label that may be saved.

    Attributes:
        image: the image that it belongs to.
        label_map: (I, J, K) values from 0 to 65535 in the voxel order of ``image``.
        info: information from the client; ``label_info`` names the values, in the one form in which stores keep it.
    """

    image: Volume
    label_map: NDArray[np.integer]
    info: dict[str, Any]

    def segmented(self) -> SegmentedVolume:
        """Return the label map with the names and colours of its values.

        Raises:
            InputError: it is empty.
        """
        entries = {entry["idx"]: entry for entry in self.info.get("label_info", ())}
        segments = []
        for number, value in enumerate(present_values(self.label_map), start=1):
            entry = entries.get(value, {"name": f"label {value}"})
            segments.append(Segment(entry["name"], value, label_color(entry["name"], number, entry.get("color"))))
        return SegmentedVolume(self.image, self.label_map, tuple(segments))

    def write(self, folder: Path) -> Path:
        """Write the label map as NIfTI into a folder."""
        return write_mask(self.label_map, self.image, folder / "label.nii.gz")


def checked_tag(tag: Any) -> str:
    """Check the tag of a label, which is the name of a folder.

    Raises:
        InputError: it cannot be used.
    """
    return checked_identifier(tag.value if isinstance(tag, DefaultLabelTag) else tag or "final", "label tag")


def checked_info(info: Mapping[str, Any] | None) -> dict[str, Any]:
    """Check what a client says about a label: it must be readable later, and its names be names of structures.

    Raises:
        InputError: it cannot be used.
    """
    checked = storable(info or {}, "label's params")
    checked.pop(CHECKSUM, None)  # is the server's own to say
    if problem := value_problem(checked):
        raise InputError(problem)
    for name, _ in named_values(checked):
        checked_label(name)
    return checked


def check_label(path: Path, image: Volume, info: Mapping[str, Any], tag: str) -> IncomingLabel:
    """Check a label before it is saved.

    Flips, permutations and parts of the image's grid are put into its voxel order. Names come from ``info``, in any of
    the forms that clients use, or else from the file, if it is a segmentation of 3D Slicer. A value without a name
    stays without one.

    Args:
        path: file from the client: any image format, or ``.bin`` with one byte for each voxel of the image.
        image: (I, J, K) the image that it belongs to.
        info: information from the client.
        tag: "final" for a label that a person accepted.

    Raises:
        InputError: the label cannot be read, has layers, values that are no labels or another grid; its names are
            unfit; or it is final and empty.
    """
    label_map = read_sent(path, image)
    present = present_values(label_map)
    if tag == DefaultLabelTag.FINAL and not present:
        raise InputError("The label has no voxel, so there is nothing to store.")
    named = named_values(info) or _named_in_file(path)
    return IncomingLabel(image, label_map, _with_names(info, named, present))


def _with_names(info: Mapping[str, Any], named: Iterable[tuple[str, int]], present: list[int]) -> dict[str, Any]:
    """Return ``info`` with one ``label_info``: names with voxels by value, then the names that have none."""
    # Several segments may have one name.
    values = values_by_name({(name, value): value for name, value in named}, present)
    names: dict[int, str] = {}
    for (name, _), value in values.items():
        checked_label(name)
        if value in present and names.setdefault(value, name) != name:
            raise InputError(f"Value {value} of the label has two names, {names[value]} and {name}; give it one.")
    absent = [(name, value) for (name, _), value in values.items() if value not in present]
    given = info.get("label_info")
    given = [entry for entry in given if isinstance(entry, dict)] if isinstance(given, list) else []
    more = {str(entry.get("name")).strip(): entry for entry in given}
    entries = [(names[value], value) for value in present if value in names] + absent
    rest = {key: value for key, value in info.items() if key != "label_info"}
    return rest | {"label_info": [{**more.get(name, {}), "name": name, "idx": value} for name, value in entries]}


def _named_in_file(path: Path) -> list[tuple[str, int]]:
    """Names and values that 3D Slicer writes into the header of a segmentation."""
    if path.suffix.lower() not in SEGMENTATION_NRRD:
        return []
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    header = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    found = []
    number = 0
    while (name := header.get(f"Segment{number}_Name")) is not None:
        found.append({"name": name, "idx": header.get(f"Segment{number}_LabelValue", str(number + 1))})
        number += 1
    return named_values({"label_info": found})


def read_sent(path: Path, image: Volume) -> NDArray[np.integer]:
    """Read a label map as a client sent it: any image format, or ``.bin`` with one byte for each voxel of the image.

    Raises:
        InputError: it cannot be read, is no label map, or its voxels are not those of the image.
    """
    if path.suffix.lower() != RAW:
        try:
            return read_label_map(path, image)
        except InputError as error:
            # MONAI Label gave the file a name of its own, which tells the client nothing.
            raise InputError(str(error).replace(path.name, "The label")) from error
    size = path.stat().st_size
    if size != image.array.size:
        raise InputError(
            f"A label in raw bytes must have one byte for each of the {image.array.size} voxels of its image, "
            f"not {size} bytes."
        )
    return np.fromfile(path, np.uint8).reshape(image.shape, order="F")
