"""Damaged and odd headers: each is read as it stands or refused in one sentence, and nothing else happens."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from causal_sam.errors import InputError
from causal_sam.imaging import Volume, intensity_window, read_volume

from .dicom_files import damage, make_affine, rewrite, without_meta, write_dicom, write_enhanced, write_series
from .grids import make_affine as grid_affine
from .grids import to_itk
from .nifti_files import nifti

ODD = Path(__file__).resolve().parents[4] / "shared" / "data" / "dicom_odd"
ARRAY = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
GREY = (ARRAY[:, :, 0] % 250).astype(np.uint8)


def write_itk(path: Path) -> None:
    sitk.WriteImage(to_itk(Volume(ARRAY, grid_affine((1.0, 2.0, 3.0)))), str(path))


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.nii": lambda path: path.write_bytes(nifti(ARRAY)),
    "a.nii.gz": lambda path: path.write_bytes(gzip.compress(nifti(ARRAY))),
    "a.nrrd": write_itk,
    "a.mha": write_itk,
    "a.dcm": lambda path: write_dicom(path, ARRAY[:, :, 0], ImagePositionPatient=[1, 2, 3], PixelSpacing=[1, 2]),
    "enhanced.dcm": lambda path: write_enhanced(path, ARRAY[..., None], make_affine()),
    "a.png": lambda path: Image.fromarray(GREY).save(path),
    "a.tif": lambda path: Image.fromarray(GREY).save(path),
    "a.jpg": lambda path: Image.fromarray(GREY).save(path),
    "a.bmp": lambda path: Image.fromarray(GREY).save(path),
}
bits = st.builds(lambda bit: ("flip", bit), st.integers(0, 7))
garbage = st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"nan ", b"1e99", b"-1\\ ", b""])
changes = st.lists(
    st.tuples(st.integers(0, 2**12), st.one_of(bits, garbage, st.binary(min_size=1, max_size=8))),
    min_size=1,
    max_size=8,
)


def changed(content: bytes, places: list) -> bytes:
    """Bits flipped, and bytes written over others, in the first 1 kB, where the headers are."""
    data = bytearray(content)
    for place, change in places:
        at = place % min(len(data), 1024)
        if isinstance(change, tuple):
            data[at] ^= 1 << change[1]
        else:
            data[at : at + max(len(change), 1)] = change
    return bytes(data)


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_header_gives_a_volume_or_a_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    content = path.read_bytes()
    assert read_volume(path).shape[0] in (5, 6)
    sentences = set()

    @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
    @given(changes)
    def check(places: list) -> None:
        path.write_bytes(changed(content, places))
        try:
            volume = read_volume(path)
        except InputError as error:
            sentences.add(str(error))
        else:
            assert np.isfinite(volume.affine).all()

    check()
    assert sentences
    for sentence in sentences:
        assert "\n" not in sentence
        assert str(tmp_path) not in sentence


# Values of one slice's header; the series is read as if it were not damaged, or the sentence names the element.
READ = [
    ("InstanceNumber", b"1A"),
    ("InstanceNumber", rb"1\2"),
    ("InstanceNumber", b""),
    ("KVP", b"12O"),
    ("EchoTime", b"1,5"),
    ("SliceThickness", b"4mm"),
    ("RescaleSlope", b""),
    ("NumberOfFrames", b""),
    ("ImageType", b""),
]
REFUSED = [
    ("PixelSpacing", rb"0,7\0,7"),
    ("PixelSpacing", b"0.7"),
    ("ImagePositionPatient", rb"1,5\2\3"),
    ("ImagePositionPatient", rb"1\2"),
    ("ImagePositionPatient", b""),
    ("ImageOrientationPatient", rb"1\0\0\1\0\0"),
    ("ImageOrientationPatient", rb"nan\0\0\0\1\0"),
    ("ImageOrientationPatient", rb"0\0\0\0\0\0"),
    ("RescaleSlope", b"abc"),
    ("RescaleSlope", rb"1\2"),
    ("RescaleIntercept", b"-1024,0"),
    ("NumberOfFrames", b"1A"),
    ("NumberOfFrames", b"0"),
    ("Rows", b"\x05\0\x05\0"),
    ("Rows", b"\0\0"),
]


@pytest.mark.parametrize(("keyword", "value"), READ, ids=str)
def test_an_image_does_without_damaged_values_that_it_does_not_need(keyword: str, value: bytes, tmp_path: Path) -> None:
    files = write_series(tmp_path / "series", ARRAY, make_affine())
    for file in files[1:2]:
        damage(file, keyword, value)
    assert np.array_equal(read_volume(tmp_path / "series").array, ARRAY)
    damage(files[0], keyword, value)
    assert np.array_equal(read_volume(files[0]).array, ARRAY[:, :, :1])


@pytest.mark.parametrize(("keyword", "value"), REFUSED, ids=str)
def test_a_damaged_value_that_an_image_needs_is_named(keyword: str, value: bytes, tmp_path: Path) -> None:
    files = write_series(tmp_path / "series", ARRAY, make_affine())
    damage(files[1], keyword, value)
    with pytest.raises(InputError, match=rf"^001\.dcm has no valid {keyword}"):
        read_volume(tmp_path / "series")


@pytest.mark.parametrize("implicit", [False, True])
def test_files_without_preamble(implicit: bool, tmp_path: Path) -> None:
    files = write_series(tmp_path / "series", ARRAY, make_affine())
    for file in files:
        without_meta(file, implicit=implicit)
        assert file.read_bytes()[:1] == b"\x08"
    assert np.array_equal(read_volume(tmp_path / "series").array, ARRAY)
    assert np.array_equal(read_volume(files[0]).array, ARRAY[:, :, :1])
    write_enhanced(tmp_path / "e", ARRAY[..., None], make_affine())
    without_meta(tmp_path / "e", implicit=implicit)
    assert np.array_equal(read_volume(tmp_path / "e").array, ARRAY)


def test_mosaics_are_refused(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", ARRAY[:, :, 0], Modality="MR", ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    write_dicom(tmp_path / "b.dcm", ARRAY[:, :, 0], Modality="MR", Manufacturer="SIEMENS")
    rewrite(tmp_path / "b.dcm", lambda header: header.add_new(0x0019100A, "US", 35))
    for name in "ab":
        with pytest.raises(InputError, match=rf"{name}\.dcm is a mosaic: all slices lie side by side"):
            read_volume(tmp_path / f"{name}.dcm")


# Air, fat, soft tissue and bone in Hounsfield units.
BODY = np.random.default_rng(1).choice([-1000, -100, 40, 60, 700], (16, 16, 4), p=[0.4, 0.1, 0.3, 0.15, 0.05])


@pytest.mark.parametrize(
    ("stored", "elements", "is_ct"),
    [
        (BODY.astype(np.int16), {}, True),
        ((BODY + 1024).astype(np.uint16), {"RescaleSlope": 1, "RescaleIntercept": -1024}, True),
        ((BODY + 1024).astype(np.uint16), {}, False),
        ((BODY + 1024).astype(np.uint16), {"RescaleSlope": 1, "RescaleIntercept": 0}, False),
        ((BODY + 1024).astype(np.uint16), {"BitsStored": 12, "HighBit": 11}, False),
        ((BODY.clip(-160, 240) + 160).astype(np.uint16), {}, False),
        (BODY.clip(-100, 240).astype(np.int16), {}, True),
    ],
    ids=["signed", "rescaled", "offset", "offset and told to be none", "12 bits", "windowed", "cropped"],
)
def test_what_is_called_ct_is_shown_by_its_values(
    stored: np.ndarray, elements: dict, is_ct: bool, tmp_path: Path
) -> None:
    write_series(tmp_path / "ct", stored, make_affine(), **elements)
    volume = read_volume(tmp_path / "ct")
    assert volume.modality == ("CT" if is_ct else "")
    assert np.array_equal(volume.array, stored + elements.get("RescaleIntercept", 0))
    shown = intensity_window(volume).apply(volume.array)
    soft, bone, air = (shown[value == BODY].mean() for value in (40, 700, -1000))
    assert air < soft <= bone
    assert 0.1 < soft < 0.95, "soft tissue is neither black nor white"


def test_slices_of_different_signs_and_slopes_keep_their_values(tmp_path: Path) -> None:
    files = write_series(tmp_path / "a", ARRAY, make_affine())
    unsigned = write_series(tmp_path / "b", (ARRAY + 40000).astype(np.uint16), make_affine(), RescaleIntercept=-40000)
    unsigned[1].replace(files[1])
    assert np.array_equal(read_volume(tmp_path / "a").array, ARRAY)


@pytest.mark.skipif(not ODD.is_dir(), reason="the odd DICOM files of shared/data are not here")
def test_real_files_in_seven_transfer_syntaxes_have_the_same_voxels(tmp_path: Path) -> None:
    """They are mosaics, and refused as such; without the word they are single pictures."""
    pictures = []
    for path in sorted((ODD / "syntaxes" / "In").glob("*.dcm")):
        with pytest.raises(InputError, match="is a mosaic"):
            read_volume(path)
        header = pydicom.dcmread(path)
        header.ImageType = ["ORIGINAL", "PRIMARY"]
        header.remove_private_tags()
        header.save_as(tmp_path / path.name)
        pictures.append(read_volume(tmp_path / path.name).array)
    assert len(pictures) == 9
    assert pictures[0].max() == 2362
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)


@pytest.mark.parametrize("name", ["a.dcm", "a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.hdr", "a.img", "a.mgz", "a.gii"])
def test_what_is_no_image_is_told_in_a_sentence(name: str, tmp_path: Path) -> None:
    for content in (b"", b"\0" * 600, b"a text\n" * 99, b"\x08\0\x05\0", b"<?xml version='1.0'?>"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=re.escape(name)) as error:
            read_volume(tmp_path / name)
        assert "\n" not in str(error.value)
