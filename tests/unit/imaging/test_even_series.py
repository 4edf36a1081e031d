"""What makes a DICOM series a volume: parallel slices, evenly spaced, one above the other; all else is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from causal_sam.errors import InputError
from causal_sam.imaging import read_volume

from .dicom_files import AXIAL, SERIES, make_affine, write_dicom, write_enhanced, write_report, write_slices
from .grids import positions

ODD = Path(__file__).resolve().parents[4] / "shared" / "data" / "dicom_odd"
Place = tuple[float, float, float]


def column(*heights: float) -> list[Place]:
    return [(10.0, -20.0, height) for height in heights]


EVEN = column(*np.arange(-40, 60, 5.0))
FILES = r"\d{3}\.dcm"
# Places of slices, and what the sentence says.
UNEVEN = {
    "gantry tilt": ([(10, -20 + 0.27 * z, z) for _, _, z in EVEN], rf"tilted gantry\): {FILES} lies 25\.65 mm beside"),
    "tilt of half a degree": ([(10 + 0.0087 * z, -20, z) for _, _, z in EVEN], "tilted gantry"),
    "one slice pushed aside": ([*EVEN[:7], (10.3, -20, -5), *EVEN[8:]], r"tilted gantry\): 007\.dcm lies 0\.30 mm"),
    "drifting spacing": (
        column(*np.arange(0, 48, 4.0), *np.arange(49, 149, 5.0)),
        rf"4\.00 mm lie between {FILES} \(at 0\.00 mm\) and {FILES} \(at 4\.00 mm\), 5\.00 mm elsewhere\.",
    ),
    "spacing that grows slowly": (column(*np.cumsum(5 + 0.002 * np.arange(20))), rf"{FILES} lies 0\.\d\d mm from"),
    "a missing slice": ([*EVEN[:4], *EVEN[5:]], r"10\.00 mm lie between 003\.dcm .* 004\.dcm .*a slice is missing"),
    "two missing slices": ([*EVEN[:4], *EVEN[6:]], "15.00 mm lie between .*a slice is missing"),
    "the second slice is missing": ([EVEN[0], *EVEN[2:]], "10.00 mm lie between .*a slice is missing"),
    "a slice in between": ([*EVEN, *column(2.5)], "2.50 mm lie between"),
    "a copy under another number": ([*EVEN, EVEN[3]], r"several slices at the same place .*: 003\.dcm, 020\.dcm\)"),
    "a copy that is a little off": ([*EVEN, *column(EVEN[3][2] + 0.005)], "several slices at the same place"),
}


@pytest.mark.parametrize("name", UNEVEN)
def test_a_series_that_is_no_even_stack_is_refused(name: str, tmp_path: Path) -> None:
    places, sentence = UNEVEN[name]
    for plane, directions in SERIES.items():
        for backwards in (False, True) if plane == "axial" else (False,):
            folder = tmp_path / f"{plane} {backwards}"
            write_slices(folder, places[::-1] if backwards else places, directions)
            with pytest.raises(InputError, match="" if backwards else sentence) as error:
                read_volume(folder)
            assert re.search(FILES, str(error.value)), "it names a file"
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.002, 0.008, 0.013, 0.05, 0.3])
def test_the_tolerance_is_a_hundredth_of_the_spacing(share: float, tmp_path: Path) -> None:
    for axis in range(3):
        places = np.array(EVEN)
        places[8, axis] += share * 5.0
        folder = tmp_path / f"{axis}"
        write_slices(folder, places.tolist())
        if share < 0.01:
            assert read_volume(folder).shape == (6, 8, 20)
        else:
            with pytest.raises(InputError, match=r"not evenly spaced|tilted gantry"):
                read_volume(folder)


@pytest.mark.parametrize("directions", SERIES.values(), ids=SERIES)
def test_rounded_headers_are_even(directions: np.ndarray, tmp_path: Path) -> None:
    """Positions of two decimals and directions of four, over 25 cm; every slice is where its own file says."""
    lps = np.diag([-1.0, -1.0, 1.0]) @ directions
    files = write_slices(tmp_path / "a", column(*np.arange(0, 250, 5.0)), directions)
    files += write_slices(tmp_path / "b", column(*np.arange(50) * 0.625), directions)
    for file in files:
        header = pydicom.dcmread(file)
        header.ImagePositionPatient = [f"{number:.2f}" for number in header.ImagePositionPatient]
        header.ImageOrientationPatient = [f"{number:.4f}" for number in (*lps[:, 0], *lps[:, 1])]
        header.save_as(file)
    for name in "ab":
        volume = read_volume(tmp_path / name)
        where = positions(volume.affine, volume.shape)[0, 0] * (-1, -1, 1)
        told = [pydicom.dcmread(file).ImagePositionPatient for file in files if file.parent.name == name]
        np.testing.assert_allclose(where, np.array(told, float), atol=0.05)


def scout(folder: Path, **elements: object) -> None:
    write_slices(folder, column(0), prefix="scout", **elements)


MIXED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a localizer of another direction": (
        lambda folder: scout(folder, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
        r"not parallel: scout000\.dcm lies in another direction than the rest\.",
    ),
    "a localizer of the same direction": (
        lambda folder: scout(folder, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        r"scout000\.dcm in series is a localizer",
    ),
    "slices a few degrees askew": (
        lambda folder: scout(folder, ImageOrientationPatient=[1, 0, 0, 0, 0.9994, 0.0349]),
        r"not parallel: scout000\.dcm",
    ),
    "a slice of another size": (
        lambda folder: scout(folder, shape=(8, 7)),
        r"differ in size \(8 x 6 and 8 x 7\): scout000\.dcm",
    ),
    "a slice of other pixels": (lambda folder: scout(folder, PixelSpacing=[0.8, 0.8]), r"pixel spacing: scout000\.dcm"),
    "a slice without position": (
        lambda folder: scout(folder, ImagePositionPatient=None),
        r"scout000\.dcm has no valid ImagePositionPatient",
    ),
    "a picture in colour": (
        lambda folder: write_dicom(
            folder / "screen.dcm",
            np.zeros((8, 6, 3), np.uint8),
            PhotometricInterpretation="RGB",
            SamplesPerPixel=3,
            BitsAllocated=8,
            BitsStored=8,
            HighBit=7,
            PlanarConfiguration=0,
        ),
        r"grey and coloured: screen\.dcm",
    ),
    "another series": (lambda folder: scout(folder, SeriesInstanceUID=generate_uid()), "holds 2 DICOM series"),
    "a file of several frames": (
        lambda folder: write_enhanced(folder / "e.dcm", np.zeros((6, 8, 3, 1), np.int16), make_affine()),
        r"e\.dcm holds several frames and lies beside other files",
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_does_not_belong_to_the_series_is_named(name: str, tmp_path: Path) -> None:
    add, sentence = MIXED[name]
    write_slices(tmp_path / "series", EVEN)
    write_report(tmp_path / "series" / "report.dcm")
    assert read_volume(tmp_path / "series").shape == (6, 8, 20)
    add(tmp_path / "series")
    with pytest.raises(InputError, match=sentence):
        read_volume(tmp_path / "series")


def test_series_of_one_and_of_two_slices(tmp_path: Path) -> None:
    write_slices(tmp_path / "one", column(7))
    assert read_volume(tmp_path / "one").spacing == pytest.approx((0.7, 0.7, 4.0))
    write_slices(tmp_path / "two", column(7, 9))
    assert read_volume(tmp_path / "two").spacing == pytest.approx((0.7, 0.7, 2.0))
    write_slices(tmp_path / "tilted", [(0, 0, 7), (0, 1, 9)])
    with pytest.raises(InputError, match="tilted gantry"):
        read_volume(tmp_path / "tilted")


@pytest.mark.parametrize("name", [name for name in UNEVEN if "copy" not in name])
def test_frames_of_one_file_are_tested_in_the_same_way(name: str, tmp_path: Path) -> None:
    places, _ = UNEVEN[name]
    array = np.zeros((6, 8, len(places), 1), np.int16)
    lps = np.diag([-1.0, -1.0, 1.0]) @ AXIAL

    for backwards in (False, True):
        order = [(k, 0) for k in range(len(places))][:: -1 if backwards else 1]
        groups = write_enhanced(tmp_path / "a.dcm", array, make_affine(), order=order)
        header = pydicom.dcmread(tmp_path / "a.dcm")
        for group, (k, _) in zip(header.PerFrameFunctionalGroupsSequence, order, strict=True):
            group.PlanePositionSequence[0].ImagePositionPatient = list(lps @ places[k])
        assert len(groups) == len(places)
        header.save_as(tmp_path / "a.dcm")
        with pytest.raises(InputError, match=r"frame \d+ of a\.dcm"):
            read_volume(tmp_path / "a.dcm")


@pytest.mark.skipif(not ODD.is_dir(), reason="the odd DICOM files of shared/data are not here")
@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        ("gantrytilting/001", r"tilted gantry\): IM-0001-0004\.dcm lies 3\.63 mm"),
        ("sliceincrement/001", r"10\.00 mm lie between IM-0001-0009-0001\.dcm .* a slice is missing"),
        ("sliceincrement/002", r"1\.50 mm lie between IM-0001-0003\.dcm .* a slice is missing"),
        ("sliceorientation/001", r"pixel spacing|not parallel"),
    ],
)
def test_real_series_that_are_no_even_stack(folder: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_volume(ODD / "uneven" / folder)
