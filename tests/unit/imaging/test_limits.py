"""Image files from strangers: claims of any size, and voxels that lie in other files."""

from __future__ import annotations

import contextlib
import gzip
import struct
import tracemalloc
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from causal_sam.errors import InputError
from causal_sam.imaging import read_volume
from causal_sam.imaging.limits import TooLargeError

pytestmark = pytest.mark.unit

NRRD = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n"
META = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"
SECRET = bytes(range(1, 65))
BESIDE = b"\7" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with voxels beside the header, and a secret outside of it."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(SECRET)
    (folder / "beside.raw").write_bytes(BESIDE)
    (folder / "LIST").write_bytes(BESIDE)
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    (folder / "sub").mkdir()
    (folder / "sub" / "inside.raw").write_bytes(SECRET)
    return folder


def write(folder: Path, name: str, header: str, body: bytes = b"") -> Path:
    path = folder / name
    path.write_bytes(header.encode() + body)
    return path


def outside(folder: Path) -> list[str]:
    """Names under which a header could reach the secret."""
    secret = folder.parent / "secret.raw"
    return [
        str(secret),
        "../secret.raw",
        "./../secret.raw",
        "sub/../../secret.raw",
        "sub/inside.raw",
        "./beside.raw",
        "link.raw",
        f"file://{secret}",
        "http://127.0.0.1:9/secret.raw",
        "~/secret.raw",
        "..\\secret.raw",
        "-",
        ".",
        "..",
        "LIST",
        "LIST\n../secret.raw",
        "LIST 3\n../secret.raw",
        "LIST 2\nbeside.raw\n../secret.raw",
        "../sec%cet.raw 114 114 1",
        "%s%s%n 1 2 1",
        "beside.raw 1 2 1",
        "",
    ]


@pytest.mark.parametrize("extension", ["nrrd", "nhdr"])
def test_nrrd_headers_reach_no_file_but_one_beside_them(folder: Path, extension: str) -> None:
    for key in ("data file", "datafile", "Data File", "DATA FILE", " data file", "data  file"):
        for name in outside(folder):
            for end in ("\n", "\n\n", "\r\n\r\n", "\r\r"):
                header = f"{NRRD}{key}: {name}".replace("\n", end[: len(end) // 2] or end) + end
                path = write(folder, f"case.{extension}", header, BESIDE)
                with pytest.raises(InputError) as refused:
                    read_volume(path)
                assert str(folder) not in str(refused.value)
    assert (read_volume(write(folder, f"case.{extension}", f"{NRRD}data file: beside.raw\n\n")).array == 7).all()
    two = f"{NRRD}data file: beside.raw\ndata file: ../secret.raw\n\n"
    with pytest.raises(InputError, match="several data files"):
        read_volume(write(folder, f"case.{extension}", two))


@pytest.mark.parametrize("extension", ["mha", "mhd"])
def test_meta_image_headers_reach_no_file_but_one_beside_them(folder: Path, extension: str) -> None:
    for key in (
        "ElementDataFile =",
        "ElementDataFile:",
        "ElementDataFile  =  ",
        " ElementDataFile =",
        "\nElementDataFile =",
    ):
        for name in outside(folder):
            with pytest.raises(InputError):
                read_volume(write(folder, f"case.{extension}", f"{META}{key} {name}\n", BESIDE))
    assert (read_volume(write(folder, f"case.{extension}", f"{META}ElementDataFile = beside.raw\n")).array == 7).all()


def test_what_another_reader_would_take_for_the_data_file_is_refused(folder: Path) -> None:
    real = "ElementDataFile = ../secret.raw\n"
    for trick in (
        f"NRRD0004\n{META}{real}",
        f"{META}Offset = 0 0\nElementDataFile = LOCAL\n{real}",
        f"{META}ElementSpacing = 1\nElementDataFile = LOCAL\n{real}",
        f"{META}TransformMatrix = 1 0 0 0 1 0\nElementDataFile = LOCAL\n{real}",
        f"{META}Comment =\nElementDataFile = LOCAL\n{real}",
        f"{META}Comment\nElementDataFile = LOCAL\n{real}",
        f"{META}{'x' * 600}{real}ElementDataFile = LOCAL\n",
        f"{META}\0\n{real}",
        f"DimSize = 4 4\nElementDataFile = LOCAL\nObjectType = Image\nNDims = 3\n{META}{real}",
    ):
        with pytest.raises(InputError):
            read_volume(write(folder, "case.mha", trick, BESIDE))


def test_a_file_is_read_as_what_it_is_named(folder: Path) -> None:
    """ITK would go by the content, and reads files beside some of its formats."""
    image = sitk.GetImageFromArray(np.ones((4, 5, 6), np.uint8))
    same = [{"nrrd", "nhdr"}, {"mha", "mhd"}, {"tif", "png"}, {"nii", "nii.gz", "hdr", "img"}]
    for written in ("a.vtk", "a.gipl", "a.hdr", "a.nii", "a.mha", "a.nrrd", "a.tif", "a.png"):
        sitk.WriteImage(image[..., 0] if written.endswith("png") else image, str(folder / written))
        for extension in ("nrrd", "nhdr", "mha", "mhd", "nii", "nii.gz", "png", "hdr", "img", "xyz"):
            if any({written[2:], extension} <= formats for formats in same):
                continue
            path = folder / f"other.{extension}"
            path.write_bytes((folder / written).read_bytes())
            with pytest.raises(InputError):
                read_volume(path)


def test_a_picture_that_is_postscript_is_not_run(folder: Path) -> None:
    with pytest.raises(InputError, match="not a readable picture"):
        read_volume(write(folder, "case.png", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"))


def nifti(folder: Path, name: str, shape: tuple[int, int, int], code: int, body: bytes = b"") -> Path:
    header = bytearray(nibabel.Nifti1Image(np.zeros((1, 1, 1), np.uint8), np.eye(4)).to_bytes()[:352])
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, code, {2: 8, 64: 64}[code])
    content = bytes(header) + body
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder / name


def dicom(folder: Path, rows: int, columns: int, frames: int, pixels: bytes = bytes(64)) -> pydicom.Dataset:
    image = pydicom.Dataset()
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, pydicom.uid.generate_uid()
    image.Rows, image.Columns, image.NumberOfFrames = rows, columns, frames
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation, image.SamplesPerPixel = 7, 0, 1
    image.PhotometricInterpretation, image.PixelData = "MONOCHROME2", pixels
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.is_little_endian, image.is_implicit_VR = True, False
    return image


def test_claims_beyond_the_limit_are_refused_before_memory_is_taken(folder: Path) -> None:
    huge = "100000 100000 100000"
    dicom(folder, 65535, 65535, 100_000).save_as(folder / "a.dcm", write_like_original=False)
    claims = [
        write(folder, "a.nrrd", f"{NRRD}\n".replace("4 4 4", huge)),
        write(folder, "b.nrrd", f"{NRRD}\n".replace("4 4 4", huge).replace("raw", "gzip"), gzip.compress(bytes(64))),
        write(folder, "c.nrrd", f"{NRRD}data file: beside.raw\n\n".replace("4 4 4", "4 1000000 1000000")),
        write(folder, "a.mha", f"{META}ElementDataFile = LOCAL\n".replace("4 4 4", huge)),
        write(folder, "b.mha", f"{META}ElementNumberOfChannels = 1000000000\nElementDataFile = LOCAL\n"),
        nifti(folder, "a.nii", (32767,) * 3, 2),
        nifti(folder, "a.nii.gz", (32767,) * 3, 2),
        folder / "a.dcm",
    ]
    tracemalloc.start()
    for path in claims:
        with pytest.raises(TooLargeError, match="at most 1073741824 are read here") as refused:
            read_volume(path)
        assert refused.value.status == 413
    # Within the limit, but more than so few bytes can hold.
    for path in (nifti(folder, "b.nii.gz", (1000, 1000, 1000), 64), nifti(folder, "b.nii", (1000, 1000, 1000), 64)):
        with pytest.raises(InputError):
            read_volume(path)
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


def test_the_limit_is_the_callers(folder: Path) -> None:
    for path in (
        write(folder, "a.nrrd", f"{NRRD}\n", bytes(64)),
        write(folder, "a.mha", f"{META}ElementDataFile = LOCAL\n", bytes(64)),
        nifti(folder, "a.nii.gz", (4, 4, 4), 2, bytes(64)),
    ):
        assert read_volume(path, max_voxels=64).shape == (4, 4, 4)
        with pytest.raises(TooLargeError, match="claims 4 x 4 x 4 voxels; at most 63"):
            read_volume(path, max_voxels=63)
    dicom(folder, 8, 8, 1).save_as(folder / "a.dcm", write_like_original=False)
    assert read_volume(folder / "a.dcm", max_voxels=64).shape == (8, 8, 1)
    with pytest.raises(TooLargeError):
        read_volume(folder / "a.dcm", max_voxels=63)


def test_a_deflated_dicom_file_is_inflated_within_limits(folder: Path) -> None:
    image = dicom(folder, 8, 8, 1)
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.save_as(folder / "good.dcm", write_like_original=False)
    assert read_volume(folder / "good.dcm").shape == (8, 8, 1)
    whole = (folder / "good.dcm").read_bytes()
    start = 144 + struct.unpack_from("<I", whole, 140)[0]
    bomb = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(2**24)
    with (folder / "bomb.dcm").open("wb") as file:
        file.write(whole[:start])
        for _ in range(20):
            file.write(bomb.compress(zeros))
        file.write(bomb.flush())
    with pytest.raises(TooLargeError, match="inflates to more"):
        read_volume(folder / "bomb.dcm")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["nrrd", "mha", "nii", "nii.gz", "png", "dcm"]),
    cuts=st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=0, max_size=8)), max_size=4),
)
def test_damaged_headers_raise_nothing_but_input_errors(folder: Path, kind: str, cuts: list[tuple[int, bytes]]) -> None:
    if kind == "dcm":
        dicom(folder, 8, 8, 1).save_as(folder / "x.dcm", write_like_original=False)
    else:
        size = (6, 5) if kind == "png" else (4, 5, 6)
        sitk.WriteImage(sitk.GetImageFromArray(np.ones(size, np.uint8)), str(folder / f"x.{kind}"))
    path = folder / f"x.{kind}"
    content = bytearray(path.read_bytes())
    for place, new in cuts:
        content[place : place + len(new)] = new
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        read_volume(path)
