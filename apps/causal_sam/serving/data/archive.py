"""The archive of the images, a DICOMweb server: asked with limits, and downloaded from whole or not at all."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from monailabel.datastore.utils.dicom import dicom_web_download_series
from requests.adapters import HTTPAdapter

from causal_sam.errors import InputError, NotFoundError

CONNECT_SECONDS = 5.0
# Until the first, and between any two pieces of an answer.
QUERY_SECONDS = 10.0
# Archives put a large series together before they send it.
RETRIEVE_SECONDS = 60.0
PART, OLD = ".part", ".old"


class ArchiveError(InputError):
    """The archive does not do what it should; no fault of the client."""

    status = 502


@dataclass(frozen=True)
class ArchivedSeries:
    """A series as the archive has it now.

    Attributes:
        study: its StudyInstanceUID.
        uid: its SeriesInstanceUID.
        count: number of its instances.
        instances: their SOPInstanceUIDs; an archive that limits its answers leaves some out.
    """

    study: str
    uid: str
    count: int
    instances: frozenset[str]

    def is_in(self, folder: Path) -> bool:
        """Return True if a folder has these instances and no others, in files named by their UIDs."""
        downloaded = {file.stem for file in folder.glob("*.dcm")}
        return len(downloaded) == self.count and self.instances <= downloaded


class _LimitedAdapter(HTTPAdapter):
    """Waits for an answer no longer than it should take."""

    def send(self, request, *arguments, timeout=None, **options):
        is_retrieval = "multipart" in request.headers.get("Accept", "")
        limit = (CONNECT_SECONDS, RETRIEVE_SECONDS if is_retrieval else QUERY_SECONDS)
        return super().send(request, *arguments, timeout=timeout or limit, **options)


def limit_waiting(client: DICOMwebClient) -> None:
    """Let a client of an archive fail soon where it would try again for half a minute, or wait for ever."""
    client.set_http_retry_params(retry=False)
    for scheme in ("http://", "https://"):
        client._session.mount(scheme, _LimitedAdapter())


def find_series(client: DICOMwebClient, series: str) -> ArchivedSeries:
    """Ask the archive for a series.

    Raises:
        NotFoundError: it has no such series.
        requests.RequestException: it does not answer as it should.
    """
    answers = [
        pydicom.Dataset.from_json(found)
        for found in client.search_for_series(search_filters={"SeriesInstanceUID": series})
    ]
    for found in answers:
        if found.get("SeriesInstanceUID") == series:
            study = str(found.StudyInstanceUID)
            instances = frozenset(
                str(pydicom.Dataset.from_json(instance).SOPInstanceUID)
                for instance in client.search_for_instances(study, series)
            )
            count = int(found.get("NumberOfSeriesRelatedInstances") or len(instances))
            return ArchivedSeries(study, series, count, instances)
    raise NotFoundError(f"The DICOMweb server has no series {series}.")


def download(client: DICOMwebClient, series: ArchivedSeries, folder: Path, *, by_frame: bool) -> None:
    """Download a series into a folder, which then holds it and nothing else; it changes whole or not at all.

    Raises:
        ArchiveError: the archive sent less than it has.
        requests.RequestException: it does not answer as it should.
    """
    part, old = (folder.with_name(f".{folder.name}{suffix}") for suffix in (PART, OLD))
    for left in (part, old):  # by a server that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        dicom_web_download_series(series.study, series.uid, str(part), client, by_frame)
        arrived = sum(1 for _ in part.glob("*.dcm"))
        if arrived < series.count:
            raise ArchiveError(
                f"The server that holds the images sent {arrived} of the {series.count} images of series {series.uid}; "
                "try again."
            )
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def describe_failure(error: requests.RequestException) -> tuple[int, str]:
    """Return the HTTP status and the sentence that tell a client of a failure of the archive."""
    archive = "The server that holds the images"
    if isinstance(error, requests.Timeout):
        return 504, f"{archive} does not answer in time; try again later."
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return 502, f"{archive} answers {error.response.status_code} {error.response.reason}; its operator has to look."
    if isinstance(error, requests.ConnectionError):
        return 502, f"{archive} cannot be reached, or broke off its answer; try again later."
    return 502, f"{archive} does not answer as it should ({type(error).__name__})."
