"""A small DICOMweb archive on this machine that can be slow, refuse, and send less than it has."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pydicom

BOUNDARY = "boundary-of-parts"


@dataclass
class StubArchive:
    """What the archive has and how it behaves; both can be changed while it runs.

    Attributes:
        url: its base address.
        files: the instances, by SOPInstanceUID.
        status: of every answer.
        wait: seconds before each answer.
        sent: how many instances of a series it sends; None for all of them.
        cut_off: send half of the announced bytes of a series.
        listed: how many instances it lists; None for all of them.
        body: what every answer is, in place of DICOM.
        requests: method and path of each request.
        stored: the instances that were stored.
        failing_store: refuse to store, in an answer of status 200.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    wait: float = 0.0
    sent: int | None = None
    cut_off: bool = False
    listed: int | None = None
    body: bytes | None = None
    requests: list[str] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    failing_store: bool = False

    def add(self, *paths: Path) -> None:
        """Take DICOM files."""
        for path in paths:
            self.files[str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)] = path.read_bytes()

    def headers(self, series: str | None = None) -> list[pydicom.Dataset]:
        """Headers of the instances, of one series or of all."""
        all_of_them = [pydicom.dcmread(pydicom.filebase.DicomBytesIO(file)) for file in self.files.values()]
        return [header for header in all_of_them if series in (None, header.SeriesInstanceUID)]


class _Handler(BaseHTTPRequestHandler):
    archive: StubArchive

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        archive = self.archive
        archive.requests.append(f"GET {self.path}")
        time.sleep(archive.wait)
        if archive.status != 200:
            return self._answer(b"", "text/plain")
        if archive.body is not None:
            return self._answer(archive.body, "text/html")
        address = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        if address.path.endswith("/instances"):
            series = re.search(r"/series/([\d.]+)", address.path)[1]
            return self._json(archive.headers(series)[: archive.listed], ("SOPInstanceUID",))
        if address.path.endswith("/metadata"):
            return self._json(archive.headers(re.search(r"/series/([\d.]+)", address.path)[1]))
        if address.path.endswith("/series"):
            return self._series(query)
        return self._retrieved(re.search(r"/series/([\d.]+)", address.path)[1])

    def do_POST(self) -> None:
        archive = self.archive
        archive.requests.append(f"POST {self.path}")
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        archive.stored.append(content)
        if archive.status != 200:
            return self._answer(b"", "text/plain")
        failed = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [272]}}]}}
        return self._answer(json.dumps(failed if archive.failing_store else {}).encode(), "application/dicom+json")

    def _series(self, query: dict[str, str]) -> None:
        found = {}
        for header in self.archive.headers():
            asked = (("SeriesInstanceUID", header.SeriesInstanceUID), ("Modality", header.Modality))
            if all(query.get(keyword, value) == value for keyword, value in asked):
                header.NumberOfSeriesRelatedInstances = len(self.archive.headers(header.SeriesInstanceUID))
                found[header.SeriesInstanceUID] = header
        always = ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances", "PatientID")
        asked_for = parse_qs(urlsplit(self.path).query).get("includefield", [])
        return self._json(list(found.values()), (*always, *asked_for))

    def _json(self, headers: list[pydicom.Dataset], keywords: tuple[str, ...] | None = None) -> None:
        shown = []
        for header in headers:
            part = pydicom.Dataset()
            for element in header:
                if element.tag.group != 0x7FE0 and (keywords is None or element.keyword in keywords):
                    part.add(element)
            shown.append(part.to_json_dict())
        self._answer(json.dumps(shown).encode(), "application/dicom+json")

    def _retrieved(self, series: str) -> None:
        uids = [str(header.SOPInstanceUID) for header in self.archive.headers(series)][: self.archive.sent]
        parts = b"".join(
            f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + self.archive.files[uid] + b"\r\n"
            for uid in uids
        )
        content = parts + f"--{BOUNDARY}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
        self._answer(content, kind, len(content) // 2 if self.archive.cut_off else None)

    def _answer(self, content: bytes, kind: str, sent: int | None = None) -> None:
        self.send_response(self.archive.status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:sent])


@contextmanager
def stub_archive() -> Iterator[StubArchive]:
    """Run an empty archive."""
    archive = StubArchive()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"archive": archive}))
    archive.url = f"http://127.0.0.1:{server.server_port}/dicom-web"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
