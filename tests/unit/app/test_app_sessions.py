"""Sessions and uploads on disk: only what the server chose becomes a path, and nothing stays that was refused."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import stat
import tarfile
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import pytest
from fastapi import UploadFile

from causal_sam.errors import InputError
from causal_sam.imaging.limits import TooLargeError
from serving.sessions.archives import MAX_FILES, unpack
from serving.sessions.store import SessionLimits, SessionStore, TooManySessionsError
from serving.sessions.uploads import received, stored_extension

pytestmark = pytest.mark.unit

LIMITS = SessionLimits(count=3, image_bytes=10_000, total_bytes=20_000, expiry=100)
NRRD = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n"


def upload(name: str = "image.nii.gz", content: bytes = b"voxels") -> UploadFile:
    return UploadFile(io.BytesIO(content), filename=name)


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path / "sessions", LIMITS)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_session_keeps_its_image_under_a_name_of_the_servers(store: SessionStore) -> None:
    session = store.add_session([upload("../../My Patient.v2.nii.gz")])
    assert session.image == store.folder / session.name / "image" / "image.nii.gz"
    assert session.image.read_bytes() == b"voxels"
    assert store.get_session(session.name) == session
    said = session.to_json()
    assert said["image"] == "image.nii.gz"
    assert str(store.folder) not in json.dumps(said)
    store.remove_session(session.name)
    assert store.get_session(session.name) is None
    assert names(store.folder) == []


def test_the_files_of_a_series_lie_in_a_folder(store: SessionStore) -> None:
    session = store.add_session([upload(f"IM{i}", bytes([i])) for i in range(1, 4)])
    assert session.image.is_dir()
    assert names(session.image) == ["00000.dcm", "00001.dcm", "00002.dcm"]
    with pytest.raises(InputError, match="one DICOM series"):
        store.add_session([upload("a.nii"), upload("b.nii")])
    with pytest.raises(InputError, match="one DICOM series"):
        store.add_session([upload("a.mhd"), upload("a.raw")])


def test_only_known_extensions_stay_of_a_name() -> None:
    for name, extension in {
        "a.nii": ".nii",
        "A.NII.GZ": ".nii.gz",
        "x.y.nrrd": ".nrrd",
        "label.bin": ".bin",
        "1.2.840.113": ".dcm",
        "noext": ".dcm",
        "x.nii/../../etc": ".dcm",
        "x." + "y" * 5000: ".dcm",
        "x.nii\0.sh": ".dcm",
        "": ".nii.gz",
        None: ".nii.gz",
    }.items():
        assert stored_extension(name) == extension


def test_ids_that_are_no_sessions_neither_open_nor_delete_anything(store: SessionStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "session.json").write_text(json.dumps({"image": "", "create_ts": 1, "expiry": 1}))
    (victim / "meta.info").write_text(json.dumps({"image": "/nowhere", "path": str(victim)}))
    (victim / "image").mkdir()
    session = store.add_session([upload()])
    before = names(tmp_path)
    for bad in (
        *(str(victim), "../victim", "..", ".", "", "/", "/etc", "~", "x" * 5000, "\0", "\ud800"),
        *(session.name.upper(), f"{session.name}/", f"{session.name}/image", f" {session.name}", f"{session.name}\n"),
        f"{session.name}.part",
    ):
        assert store.get_session(bad) is None
        store.remove_session(bad)
        assert names(tmp_path) == before


def test_planted_descriptions_lead_nowhere_else(store: SessionStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    session = store.add_session([upload()])
    folder = store.folder / session.name
    (folder / "image" / "link.nii").symlink_to(secret)
    for image in (
        str(secret),
        "../../secret",
        "../session.json",
        "..",
        ".",
        "link.nii",
        "a\0b",
        "gone.nii",
        5,
        None,
        [],
    ):
        (folder / "session.json").write_text(json.dumps({"image": image, "create_ts": 1, "expiry": 50}))
        assert store.get_session(session.name) is None
    for text in ("", "{", "[]", "null", '{"image": "image.nii.gz"}', '{"image": "a", "create_ts": "x", "expiry": 1}'):
        (folder / "session.json").write_text(text)
        assert store.get_session(session.name) is None


def test_uploads_that_name_another_file_are_refused(store: SessionStore) -> None:
    for name in ("a.nrrd", "a.nhdr"):
        for data in (b"/etc/passwd", b"session.json", b"../session.json", b"LIST\nx.raw"):
            with pytest.raises(InputError):
                store.add_session([upload(name, NRRD + b"data file: " + data + b"\n\n")])
    for name in ("a.mha", "a.mhd"):
        with pytest.raises(InputError):
            store.add_session([upload(name, b"NDims = 3\nDimSize = 1 1 1\nElementDataFile = /etc/passwd\n")])
    with pytest.raises(InputError, match="empty"):
        store.add_session([upload(content=b"")])
    assert names(store.folder) == []


def test_there_are_so_many_sessions_and_bytes_and_no_more(store: SessionStore) -> None:
    with pytest.raises(TooLargeError, match="10000 bytes"):
        store.add_session([upload(content=bytes(10_001))])
    with pytest.raises(TooLargeError):
        store.add_session([upload(f"{i}", bytes(4000)) for i in range(3)])
    assert names(store.folder) == []
    kept = [store.add_session([upload(content=bytes(9000))]) for _ in range(2)]
    with pytest.raises(TooManySessionsError, match="20000 bytes"):
        store.add_session([upload(content=bytes(9000))])
    kept.append(store.add_session([upload()]))
    with pytest.raises(TooManySessionsError, match="3 sessions") as refused:
        store.add_session([upload()])
    assert refused.value.status == 429
    assert sorted(path.name for path in store.folder.iterdir()) == sorted(session.name for session in kept)


def test_many_at_once_do_not_pass_the_limit(store: SessionStore) -> None:
    answers: list[object] = []

    def add() -> None:
        try:
            answers.append(store.add_session([upload()]))
        except TooManySessionsError as error:
            answers.append(error)

    threads = [threading.Thread(target=add) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(not isinstance(answer, Exception) for answer in answers) == LIMITS.count
    assert len(answers) == 12


def test_what_nobody_uses_expires_and_nothing_else_goes(store: SessionStore) -> None:
    store.folder.mkdir()
    strangers = [store.folder / "notes", store.folder / "0000"]
    for folder in strangers:
        folder.mkdir()
        (folder / "keep").write_text("mine")
    old, used, short = (store.add_session([upload()], expiry) for expiry in (0, 0, 60))
    torn = store.folder / f"{old.name[:-1]}{'0' if old.name[-1] != '0' else '1'}.part"
    torn.mkdir()
    long_ago = time.time() - 90
    for session in (old, used, short):
        os.utime(store.folder / session.name / "session.json", (long_ago, long_ago))
    os.utime(torn, (long_ago - 20, long_ago - 20))
    assert store.get_session(used.name) is not None  # which counts as a use
    os.utime(store.folder / old.name / "session.json", (long_ago - 20, long_ago - 20))
    assert store.remove_expired() == 3
    assert sorted(path.name for path in store.folder.iterdir()) == sorted(["notes", "0000", used.name])
    assert short.expiry == 60
    assert store.add_session([upload()], 10**9).expiry == LIMITS.expiry


def test_others_of_this_machine_cannot_read_sessions_and_uploads(store: SessionStore) -> None:
    before = os.umask(0)
    try:
        session = store.add_session([upload()])
        with received(upload(), "image") as path:
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    for folder in (store.folder, store.folder / session.name, session.image.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_upload_is_gone_after_its_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with received(upload("../x/../label.bin", b"ab"), "label") as path:
        assert path.name == "label.bin"
        assert names(path.parent) == ["label.bin"]
    with pytest.raises(ZeroDivisionError), received(upload(), "image"):
        1 / 0  # noqa: B018
    with pytest.raises(InputError), received(upload(content=b""), "image"):
        pytest.fail("empty")
    assert names(tmp_path) == []


# Archives


def tar(members: dict[str, bytes], mode: str = "w", change: dict[str, object] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in (change or {}).items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zipped(members: dict[str, bytes], attributes: int = 0) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = attributes
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


HOSTILE = ("/etc/cron.d/x", "../../x", "a/../../x", "..\\x", "C:\\x", "\u202ex", "con", "a" * 3000, "./x", ".bashrc")


def test_archives_give_plain_files_of_the_servers_names(store: SessionStore, tmp_path: Path) -> None:
    wide = SessionStore(store.folder, SessionLimits(100, 10**6, 10**8, 100))
    for archive in (
        tar(dict.fromkeys(HOSTILE, b"1")),
        tar(dict.fromkeys(HOSTILE, b"1"), "w:gz"),
        tar(dict.fromkeys(HOSTILE, b"1"), "w:bz2"),
        tar(dict.fromkeys(HOSTILE, b"1"), "w:xz"),
        zipped(dict.fromkeys(HOSTILE, b"1")),
    ):
        session = wide.add_session([upload("a.zip", archive)], is_archive=True)
        assert names(store.folder / session.name) == [
            "image",
            *(f"image/{number:05d}.dcm" for number in range(len(HOSTILE))),
            "session.json",
        ]
    one = wide.add_session([upload("a.zip", zipped({"folder/": b"", "folder/case.nii": b"1"}))], is_archive=True)
    assert one.image.name == "00000.nii"
    assert [path.name for path in tmp_path.iterdir()] == ["sessions"]


def test_links_and_devices_are_refused(store: SessionStore) -> None:
    archives = [
        tar({"x": b""}, change={"type": kind, "linkname": target})
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
        for target in ("/etc/passwd", "../../x", "y")
    ]
    archives.append(zipped({"x": b"/etc/passwd"}, 0o120777 << 16))
    for archive in archives:
        with pytest.raises(InputError):
            store.add_session([upload("a.tar", archive)], is_archive=True)
    assert names(store.folder) == []


def test_archives_larger_than_the_limit_are_not_unpacked(tmp_path: Path) -> None:
    zeros = bytes(2**26)
    bomb = tar({"x": zeros})
    header = tarfile.TarInfo("x")
    header.pax_headers = {"comment": "x" * 3 * 10**7}
    long_header = io.BytesIO()
    with tarfile.open(fileobj=long_header, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(header)
    for number, content in enumerate(
        (
            zipped({"x": zeros}),
            zipped({str(i): bytes(10_000) for i in range(20)}),
            gzip.compress(bomb),
            bz2.compress(bomb),
            lzma.compress(bomb),
            gzip.compress(gzip.compress(bomb)),
            gzip.compress(long_header.getvalue()),
            tar({f"{i}": b"" for i in range(MAX_FILES + 1)}),
            b"",
            b"no archive",
            zipped({}),
            tar({}),
            zipped({"x": b"1" * 1000})[:-40],
            gzip.compress(tar({"x": os.urandom(5000)}))[:-3000],
        )
    ):
        path, folder = tmp_path / f"{number}", tmp_path / f"{number}.out"
        path.write_bytes(content)
        folder.mkdir()
        with pytest.raises(InputError):
            unpack(path, folder, 100_000)
        assert sum(file.stat().st_size for file in folder.iterdir()) <= 100_000 + 2**20
