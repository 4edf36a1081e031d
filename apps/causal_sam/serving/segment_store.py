"""The data store of a DICOMweb server: accepted labels become DICOM SEG with their names and codes, and come back so.

MONAI Label's own store names the segments by their position in the client's list, not by their value, gives all of
them the code of the spleen, and takes a DICOM SEG back without names and without the slices that it leaves out.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pydicom
import requests
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.datastore.utils.convert import dicom_to_nifti, nifti_to_dicom_seg
from monailabel.datastore.utils.dicom import dicom_web_download_series, dicom_web_upload_dcm
from monailabel.interfaces.datastore import DefaultLabelTag
from numpy.typing import NDArray

from causal_sam.errors import CausalSamError, InputError
from causal_sam.imaging import Volume, read_label_map, read_volume, write_mask
from causal_sam.imaging.directions import RAS_LPS
from serving.images import ImageFinder
from serving.keyed_locks import KeyedLocks
from serving.segments import complete_segmentation, for_converter, named_segments

logger = logging.getLogger(__name__)

RAW = ".bin"
# In a label's info, when it was written: of several in the archive the newest one counts.
WRITTEN_KEY = "written"
# A slice that is farther than this from where the volume has it, in voxels, is in the place of another one.
SLICE_TOLERANCE = 0.5


class SegmentStore(DICOMWebDatastore):
    """MONAI Label's store of a DICOMweb server, which keeps names, codes and places of labels; made by `take_over`.

    Attributes:
        indices: the label set, name -> value; for label maps whose client did not say what its values mean.
    """

    indices: Mapping[str, int] = MappingProxyType({})
    _fetching = KeyedLocks()

    @classmethod
    def take_over(cls, store: DICOMWebDatastore) -> SegmentStore:
        """Give this class to a store that MONAI Label made: it knows how to sign in to all kinds of servers."""
        store.__class__ = cls
        return store

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Save a label; a final one is stored in the archive as DICOM SEG too.

        Args:
            image_id: the series.
            label_filename: NIfTI, NRRD or MetaImage on the grid of the image, or raw bytes in the order of its voxels.
            label_tag: what kind of label it is.
            label_info: what the client said about it.
            label_id: unused, as in MONAI Label.

        Returns:
            The id of the label, which is that of the image.

        Raises:
            NotFoundError: the archive has no such series.
            InputError: the label cannot be read, is not on the grid, or is empty; or the series is no even stack.
            CausalSamError: the label cannot be converted, or the archive refuses it.
            requests.RequestException: the archive does not answer as it should.
        """
        if label_tag != DefaultLabelTag.FINAL:
            return super().save_label(image_id, label_filename, label_tag, label_info, label_id)
        image = read_volume(ImageFinder(self, self.name()).find(image_id).path)
        self._check_slices(image_id, image)
        label_map = _read_label(Path(label_filename), image)
        present = [int(value) for value in np.unique(label_map) if value != 0]
        if not present:
            raise InputError("The label has no voxel, so there is nothing to store.")
        segments = named_segments(label_info, present, self.indices)
        written = f"{datetime.now():%Y%m%d%H%M%S}"
        with tempfile.TemporaryDirectory() as folder:
            path = str(write_mask(label_map, image, Path(folder) / "label.nii.gz"))
            series = self._store_segmentation(image_id, path, segments[: len(present)])
            of_image = self.get_image_info(image_id)
            info = {key: of_image.get(key) for key in ("Modality", "PatientID", "StudyInstanceUID")}
            info |= {"SeriesInstanceUID": series, WRITTEN_KEY: written, "label_info": segments}
            return LocalDatastore.save_label(self, image_id, path, label_tag, {**label_info, **info})

    def get_image_uri(self, image_id: str) -> str:
        """Return the file of a series, fetched from the archive if it is not here.

        A series that is still being fetched, also in the background, looks complete to MONAI Label: others wait for it.
        """
        with self._fetching.hold(image_id):
            return super().get_image_uri(image_id)

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """Return the file of a label, which is on the grid of its image.

        Args:
            label_id: that of the image; with ``image_id``, the series of a DICOM SEG in the archive.
            label_tag: what kind of label it is.
            image_id: the series that the DICOM SEG belongs to.
        """
        if image_id and label_tag == DefaultLabelTag.FINAL:
            self._take_from_archive(label_id, image_id)
        return LocalDatastore.get_label_uri(self, image_id or label_id, label_tag)

    def take_accepted(self) -> None:
        """Bring what the archive holds as labels into the folder, with their images; what cannot be read is logged.

        MONAI Label's own way to do so gives up at the first one that cannot be read.

        Raises:
            requests.RequestException: the archive does not answer as it should.
        """
        finder = ImageFinder(self, self.name())
        for image_id, series in self._segmentations():
            try:
                finder.find(image_id)
                self.get_label_uri(series, DefaultLabelTag.FINAL, image_id)
            except (InputError, requests.RequestException) as error:
                logger.warning("The label of series %s is left out: %s", image_id, error)

    def _segmentations(self) -> Iterator[tuple[str, str]]:
        """Series of the listed images, with those of the DICOM SEG of them that the archive holds."""
        listed = set(self.list_images())
        for found in self._client.search_for_series(search_filters={"Modality": "SEG"}):
            segmentation = pydicom.Dataset.from_json(found)
            study, series = str(segmentation.StudyInstanceUID), str(segmentation.SeriesInstanceUID)
            header = pydicom.Dataset.from_json(self._client.retrieve_series_metadata(study, series)[0])
            for referenced in header.get("ReferencedSeriesSequence", [])[:1]:
                if str(referenced.SeriesInstanceUID) in listed:
                    yield str(referenced.SeriesInstanceUID), series

    def _store_segmentation(self, image_id: str, path: str, segments: list[dict[str, Any]]) -> str:
        """Convert a label map to DICOM SEG and store it in the archive; return its series."""
        images = str(Path(self._datastore.image_path(), image_id))
        converted = Path(nifti_to_dicom_seg(images, path, [for_converter(segment) for segment in segments]))
        if not converted.is_file():
            raise CausalSamError("The label could not be converted to DICOM SEG; the server's log says why.")
        try:
            complete_segmentation(converted, [segment["name"] for segment in segments])
            series = dicom_web_upload_dcm(str(converted), self._client)
        finally:
            converted.unlink()
        if not series:
            raise CausalSamError("The server that holds the images did not take the label.")
        return series

    def _take_from_archive(self, series: str, image_id: str) -> None:
        """Make a DICOM SEG the final label of an image, unless a newer one is."""
        known = self.get_label_info(image_id, DefaultLabelTag.FINAL)
        if known.get("SeriesInstanceUID") == series:
            return
        folder = Path(self._datastore.label_path(DefaultLabelTag.FINAL), series)
        if not folder.is_dir() or not any(folder.iterdir()):
            dicom_web_download_series(None, series, str(folder), self._client, self._fetch_by_frame)
        try:
            header = pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True)
            written = f"{header.ContentDate}{header.ContentTime}".partition(".")[0]
            if written > known.get(WRITTEN_KEY, ""):
                self._take_segmentation(folder, image_id, {**self._dicom_info(series), WRITTEN_KEY: written}, header)
        except Exception as error:  # foreign objects fail in their own ways, and one of them must not hide the others
            logger.warning("The DICOM SEG of series %s is not used: %s", series, error)

    def _take_segmentation(self, folder: Path, image_id: str, info: dict[str, Any], header: pydicom.Dataset) -> None:
        image = read_volume(Path(self.get_image_uri(image_id)))
        converted = Path(dicom_to_nifti(str(folder), is_seg=True))
        try:
            label_map = read_label_map(converted, image)
        finally:
            converted.unlink()
        info["label_info"] = [
            {"name": segment.SegmentLabel, "idx": int(segment.SegmentNumber)} for segment in header.SegmentSequence
        ]
        with tempfile.TemporaryDirectory() as temporary:
            path = write_mask(label_map, image, Path(temporary) / "label.nii.gz")
            LocalDatastore.save_label(self, image_id, str(path), DefaultLabelTag.FINAL, info)

    def _check_slices(self, image_id: str, image: Volume) -> None:
        """Refuse a series whose slices are not where its volume has them, for its label would be stored elsewhere.

        MONAI Label makes a straight, even stack of any series, also of one with a tilted gantry or a missing slice.
        """
        to_voxel = np.linalg.inv(RAS_LPS @ image.affine)
        for file in Path(self._datastore.image_path(), image_id).iterdir():
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["ImagePositionPatient"])
            if "ImagePositionPatient" in header:  # not at the top of a file of several frames
                i, j, k, _ = to_voxel @ [*map(float, header.ImagePositionPatient), 1.0]
                if max(abs(i), abs(j), abs(k - round(k))) > SLICE_TOLERANCE:
                    raise InputError(
                        f"The label of series {image_id} is not stored: its slices are not stacked evenly (tilted "
                        "gantry, or a missing slice), and the DICOM SEG would have them in the wrong place."
                    )


def _read_label(path: Path, image: Volume) -> NDArray[np.integer]:
    """Read a label map into the voxel order of its image."""
    if path.suffix != RAW:
        return read_label_map(path, image)
    voxels = np.fromfile(path, np.uint8)
    if voxels.size != image.array.size:
        raise InputError(
            f"A label in raw bytes must have one byte for each of the {image.array.size} voxels of its image, "
            f"not {voxels.size} bytes."
        )
    return voxels.reshape(image.shape, order="F")
