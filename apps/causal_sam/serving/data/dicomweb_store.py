"""Data store on a DICOMweb server: it fetches whole series, and writes and reads labels as DICOM SEG.

MONAI Label's own store accepts an incomplete series as complete, names segments by their position in the client's list
and gives every segment the code of the spleen. When it reads a DICOM SEG, it loses the names of the segments and the
slices that have no frames.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import requests
from cachetools import TTLCache, cached
from dicomweb_client import DICOMwebClient
from filelock import FileLock
from highdicom.seg import Segmentation
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from causal_sam.errors import InputError, NotFoundError
from causal_sam.export.dicom_seg import write_dicom_seg
from causal_sam.export.source_images import SourceImages
from causal_sam.imaging import Volume, read_volume, write_mask
from causal_sam.imaging.writing import write_image
from causal_sam.site.accepted import frame_in_info
from serving.data.archive import ArchiveError, download, find_series, limit_waiting
from serving.data.dicom_seg import read_dicom_seg
from serving.data.folder_store import FolderStore
from serving.data.incoming_labels import check_label, checked_info, checked_tag

logger = logging.getLogger(__name__)

UID = re.compile(r"[0-9]+(\.[0-9]+)*")
MAX_UID = 64
# In a label's info, when it was written: of several in the archive the newest one counts.
WRITTEN_KEY = "written"
# Seconds before a local series is compared with the archive again.
COMPARED_SECONDS = 30.0
MAX_COMPARED = 4096
_OF_TITLE = ("PatientID", "SeriesDescription", "StudyDate")
_OF_IMAGE = ("StudyDate", "StudyTime", "Modality", "PatientID", "StudyInstanceUID")


class DicomWebStore(DICOMWebDatastore, FolderStore):
    """MONAI Label's store of a DICOMweb server, which keeps names, codes and places of labels.

    What it has fetched is a folder with images and labels as any other: see `FolderStore`.

    Args:
        client: client for the server.
        search_filter: DICOM keyword -> value that listed series must have.
        cache_path: folder for what is fetched; None for one in the user's cache.
        fetch_by_frame: fetch pixels apart from headers, for servers that send no whole files.
        convert_to_nifti: give clients NIfTI files, not folders of DICOM files.
    """

    def __init__(
        self,
        client: DICOMwebClient,
        search_filter: dict[str, Any],
        cache_path: str | None = None,
        fetch_by_frame: bool = False,
        convert_to_nifti: bool = True,
    ) -> None:
        limit_waiting(client)
        # Series that were compared with the archive's a short time ago.
        self._compared: TTLCache[str, bool] = TTLCache(MAX_COMPARED, COMPARED_SECONDS)
        super().__init__(client, search_filter, cache_path, fetch_by_frame, convert_to_nifti)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Save a label; a final one is stored in the archive as DICOM SEG too.

        Args:
            image_id: the series.
            label_filename: an image file, or raw bytes in the order of the image's voxels.
            label_tag: tag of the label.
            label_info: information from the client.
            label_id: unused, as in MONAI Label.

        Returns:
            The id of the label, which is that of the image.

        Raises:
            NotFoundError: the archive has no such series.
            InputError: the label is none of this image, or the series cannot have one; see `check_label`.
            ArchiveError: the archive refuses it.
            requests.RequestException: the archive does not answer as it should.
        """
        label_tag, label_info = checked_tag(label_tag), checked_info(label_info)
        self._index.refuse_if_read_only()
        label = check_label(Path(label_filename), self._image(image_id), label_info, label_tag)
        info = label.info
        if label_tag == DefaultLabelTag.FINAL:
            made = write_dicom_seg(label.segmented(), self.source_images(image_id, frame_in_info(info) or 0))
            self._store(made)
            info = info | _info_of(made) | {WRITTEN_KEY: _written(made)}
        with tempfile.TemporaryDirectory() as folder:
            return self.store_label(image_id, label.write(Path(folder)), label_tag, info)

    def write_result(self, image_id: str, result: Path, info: dict[str, Any], path: Path) -> None:
        """Write the result of an inference as DICOM SEG, which nobody stores.

        Args:
            image_id: the series.
            result: the label map.
            info: names of its values, as in `save_label`.
            path: the file.

        Raises:
            InputError: the result is empty, or the series cannot have a segmentation.
        """
        label = check_label(result, self._image(image_id), info, DefaultLabelTag.FINAL)
        made = write_dicom_seg(label.segmented(), self.source_images(image_id, frame_in_info(info) or 0))
        made.save_as(path)

    def source_images(self, image_id: str, frame: int = 0) -> SourceImages:
        """Read the headers of a series that is fetched already.

        Args:
            image_id: the series.
            frame: index of the stack, where several images lie at each place.

        Raises:
            InputError: its slices are no even stack.
        """
        return SourceImages.read(self._files(image_id), frame)

    def get_image_uri(self, image_id: str) -> str:
        """Return the file of a series, fetched from the archive unless what is here is what the archive has.

        Raises:
            NotFoundError: the archive has no such series.
            InputError: the series is no even stack, or cannot be read.
            requests.RequestException: the archive does not answer as it should, and the series is not here.
        """
        if len(image_id) > MAX_UID or not UID.fullmatch(image_id):  # it becomes the name of a folder
            raise NotFoundError(f"The DICOMweb server has no series {image_id[:MAX_UID]!r}: that is no UID.")
        files = self._files(image_id)
        # One lock for all threads and servers that share the folder.
        with FileLock(files.with_name(f".{image_id}.lock")):
            if image_id not in self._compared:
                self._fetch(image_id, files)
                self._compared[image_id] = True
            return str(self._converted(image_id, files) if self._convert_to_nifti else files)

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """Return the file of a label, which is on the grid of its image.

        Args:
            label_id: id of the image; with ``image_id``, the series of a DICOM SEG in the archive.
            label_tag: tag of the label.
            image_id: the series that the DICOM SEG belongs to.
        """
        if image_id and label_tag == DefaultLabelTag.FINAL:
            self._take_from_archive(label_id, image_id)
        return FolderStore.get_label_uri(self, image_id or label_id, label_tag)

    @cached(cache=TTLCache(maxsize=16, ttl=settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY))
    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """List the images that the archive has a DICOM SEG of."""
        return list(dict.fromkeys(image_id for image_id, _ in self._segmentations()))

    @cached(cache=TTLCache(maxsize=16, ttl=settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY))
    def titles(self) -> dict[str, str]:
        """Return what people call the listed series, as far as the archive says it: patient, description and date.

        Raises:
            requests.RequestException: the archive does not answer as it should.
        """
        found = self._client.search_for_series(search_filters=self._search_filter, fields=list(_OF_TITLE))
        series = [pydicom.Dataset.from_json(each) for each in found]
        return {
            str(each.SeriesInstanceUID): " · ".join(filter(None, (str(each.get(key) or "") for key in _OF_TITLE)))
            for each in series
        }

    def take_accepted(self) -> None:
        """Bring what the archive holds as labels into the folder, with their images; what cannot be read is logged.

        MONAI Label's own way to do so gives up at the first one that cannot be read, and deletes labels that the
        archive does not list.

        Raises:
            requests.RequestException: the archive does not answer as it should.
        """
        for image_id, series in self._segmentations():
            try:
                self.get_image_uri(image_id)
                self.get_label_uri(series, DefaultLabelTag.FINAL, image_id)
            except (InputError, requests.RequestException) as error:
                logger.warning("The label of series %s is left out: %s", image_id, error)

    _download_labeled_data = take_accepted

    def _segmentations(self) -> Iterator[tuple[str, str]]:
        """Yield (image series, SEG series) for each DICOM SEG in the archive that refers to a listed image."""
        listed = set(self.list_images())
        for found in self._client.search_for_series(search_filters={"Modality": "SEG"}):
            segmentation = pydicom.Dataset.from_json(found)
            study, series = str(segmentation.StudyInstanceUID), str(segmentation.SeriesInstanceUID)
            try:
                header = pydicom.Dataset.from_json(self._client.retrieve_series_metadata(study, series)[0])
                referenced = [str(each.SeriesInstanceUID) for each in header.get("ReferencedSeriesSequence") or []]
            except Exception as error:  # foreign objects fail in their own ways, and one must not hide the others
                logger.warning("The DICOM SEG of series %s is not used: %s", series, error)
                continue
            yield from ((image_id, series) for image_id in referenced if image_id in listed)

    def _files(self, image_id: str) -> Path:
        return Path(self._datastore.image_path(), image_id)

    def _image(self, image_id: str) -> Volume:
        return read_volume(Path(self.get_image_uri(image_id)))

    def _fetch(self, image_id: str, files: Path) -> None:
        """Bring the files of a series up to date."""
        try:
            archived = find_series(self._client, image_id)
        except requests.RequestException as error:
            if not files.is_dir():
                raise
            logger.warning("Series %s is used as it was fetched: the archive does not answer (%s).", image_id, error)
            return
        if not archived.is_in(files):
            if files.is_dir():
                logger.warning("Series %s is fetched again: the archive has other images of it now.", image_id)
            download(self._client, archived, files, by_frame=self._fetch_by_frame)

    def _converted(self, image_id: str, files: Path) -> Path:
        """Return the series as a NIfTI file, converted again if the files are newer."""
        image = files.with_name(f"{image_id}.nii.gz")
        if image.exists() and image.stat().st_mtime_ns >= files.stat().st_mtime_ns:
            return image
        first = read_volume(files)
        frames = [first, *(read_volume(files, frame) for frame in range(1, first.frames))]
        with tempfile.TemporaryDirectory() as folder:
            made = write_image(frames, Path(folder) / "image.nii.gz")
            header = pydicom.dcmread(next(files.glob("*.dcm")), stop_before_pixels=True)
            FolderStore.add_image(self, image_id, str(made), _info_of(header))
        return image

    def _store(self, segmentation: Segmentation) -> None:
        """Store a DICOM SEG in the archive."""
        answer = self._client.store_instances([segmentation])
        if failed := answer.get("FailedSOPSequence"):
            reason = failed[0].get("FailureReason", "without a reason")
            raise ArchiveError(f"The server that holds the images did not take the label ({reason}).")

    def _take_from_archive(self, series: str, image_id: str) -> None:
        """Make a DICOM SEG the final label of an image, unless a newer one is."""
        known = self.get_label_info(image_id, DefaultLabelTag.FINAL)
        if known.get("SeriesInstanceUID") == series:
            return
        folder = Path(self._datastore.label_path(DefaultLabelTag.FINAL), series)
        if not folder.is_dir():
            download(self._client, find_series(self._client, series), folder, by_frame=self._fetch_by_frame)
        try:
            headers = {file: pydicom.dcmread(file, stop_before_pixels=True) for file in folder.glob("*.dcm")}
            newest = max(headers, key=lambda file: _written(headers[file]))
            header, written = headers[newest], _written(headers[newest])
            if known and written <= known.get(WRITTEN_KEY, ""):
                return
            image = self._image(image_id)
            label_map, segments = read_dicom_seg(newest, image)
            info = _info_of(header) | {WRITTEN_KEY: written, "label_info": segments}
            with tempfile.TemporaryDirectory() as temporary:
                path = write_mask(label_map, image, Path(temporary) / "label.nii.gz")
                self.store_label(image_id, path, DefaultLabelTag.FINAL.value, info)
        except Exception as error:  # foreign objects fail in their own ways, and one of them must not hide the others
            logger.warning("The DICOM SEG of series %s is not used: %s", series, error)


def _info_of(header: pydicom.Dataset) -> dict[str, str]:
    """Return the entry that MONAI Label keeps for a series."""
    info = {keyword: str(header.get(keyword) or "UNK") for keyword in _OF_IMAGE}
    return {"SeriesInstanceUID": str(header.SeriesInstanceUID), **info}


def _written(header: pydicom.Dataset) -> str:
    return f"{header.get('ContentDate', '')}{header.get('ContentTime', '')}".partition(".")[0]
