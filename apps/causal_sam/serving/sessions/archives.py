"""Unpacking archives of strangers: plain files only, under names of the server's, within limits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from causal_sam.errors import InputError
from causal_sam.imaging.limits import TooLargeError
from serving.sessions.uploads import copy_limited, stored_extension

MAX_FILES = 5000
_COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
)


def unpack(archive: Path, folder: Path, limit: int) -> list[Path]:
    """Write the files of an archive into a folder, numbered; folders within the archive are not kept.

    Args:
        archive: zip, or tar, also compressed.
        folder: empty folder to unpack into.
        limit: maximum number of bytes of all files together.

    Returns:
        The files.

    Raises:
        TooLargeError: there are more files or bytes than the limits allow.
        InputError: it is no such archive, is damaged or encrypted, or holds links, devices or nothing.
    """
    files: list[Path] = []
    left = limit
    try:
        for name, stream in _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive, limit):
            if len(files) == MAX_FILES:
                raise TooLargeError(f"The archive has more than {MAX_FILES} files.")
            path = folder / f"{len(files):05d}{stored_extension(name)}"
            left -= copy_limited(stream, path, left, "What the archive holds")
            files.append(path)
    except InputError:
        raise
    except (*_DAMAGED, zipfile.BadZipFile) as error:
        raise InputError("The archive cannot be unpacked: it is damaged, encrypted, or neither zip nor tar.") from error
    if not files:
        raise InputError("The archive holds no file.")
    return files


def _zip_members(archive: Path) -> Iterator[tuple[str, BinaryIO]]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            if (member.external_attr >> 16) & 0o170000 not in (0, 0o100000, 0o040000):
                raise _not_plain()
            if not member.is_dir():
                with opened.open(member) as stream:
                    yield member.filename, stream


def _tar_members(archive: Path, limit: int) -> Iterator[tuple[str, BinaryIO]]:
    with archive.open("rb") as raw:
        decompress = _COMPRESSIONS.get(raw.read(2))
        raw.seek(0)
        stream = raw if decompress is None else decompress(raw)
        # In one pass, and each read within limits: headers too may claim any size.
        with tarfile.open(fileobj=_Limited(stream, limit + 2**20 + MAX_FILES * 2**12), mode="r|") as opened:
            for member in opened:
                if not (member.isreg() or member.isdir()):
                    raise _not_plain()
                if member.isreg() and (file := opened.extractfile(member)) is not None:
                    yield member.name, file


def _not_plain() -> InputError:
    return InputError("The archive holds links or devices: put plain files into it.")


class _Limited(io.RawIOBase):
    """Reads so many bytes and no more."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise TooLargeError("The archive decompresses to more than what is allowed.")
        return data
