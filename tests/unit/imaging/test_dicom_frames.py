"""Multi-frame DICOM: slices lie where their frames say, points in time are chosen, the rest is refused."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    JPEGBaseline8Bit,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
)

from causal_sam.errors import InputError
from causal_sam.imaging import read_volume, write_mask
from causal_sam.imaging.colour import luminance

from .dicom_files import (
    CORONAL,
    OBLIQUE,
    PATIENT,
    SERIES,
    make_affine,
    rewrite,
    write_dicom,
    write_enhanced,
    write_series,
)
from .grids import positions

SHAPE = (6, 5, 4, 3)
CINE = {"SOPClassUID": UltrasoundMultiFrameImageStorage, "Modality": "US", "FrameTime": 40}
BITS = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


@pytest.fixture
def array() -> np.ndarray:
    """No two voxels have the same value."""
    return np.random.default_rng(0).permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)


@pytest.mark.parametrize("directions", SERIES.values(), ids=SERIES)
@pytest.mark.parametrize("kind", [EnhancedCTImageStorage, EnhancedMRImageStorage], ids=["CT", "MR"])
@pytest.mark.parametrize("backwards", [False, True])
def test_slices_are_the_grid_that_itk_makes_of_them(directions, kind, backwards, array, tmp_path):
    order = [(k, 0) for k in range(4)][:: -1 if backwards else 1]
    path, array = tmp_path / "a.dcm", array - np.int16(300)  # there is air in it
    write_enhanced(path, array, make_affine(directions), order=order, SOPClassUID=kind, Modality="CT")
    volume = read_volume(path)
    assert (volume.modality, volume.frame, volume.frames, volume.source) == ("CT", 0, 1, path)
    image = sitk.ReadImage(str(path))
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(image).T)
    assert np.array_equal(volume.array, array[:, :, :: -1 if backwards else 1, 0])
    where = positions(volume.affine, volume.shape) * (-1, -1, 1)
    for voxel in [(0, 0, 0), (5, 0, 0), (0, 4, 0), (0, 0, 3)]:
        np.testing.assert_allclose(where[voxel], image.TransformIndexToPhysicalPoint(voxel), atol=1e-4)


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("directions", SERIES.values(), ids=SERIES)
def test_every_voxel_and_its_mask_lie_where_the_frame_says(directions, extension, array, tmp_path):
    """Also where the frames are in no order, which ITK would take as it comes."""
    order = [(2, 0), (0, 0), (3, 0), (1, 0)]
    groups = write_enhanced(tmp_path / "a.dcm", array, make_affine(directions), order=order)
    volume = read_volume(tmp_path / "a.dcm")
    mask = sitk.ReadImage(str(write_mask(volume.array % 7, volume, tmp_path / f"mask{extension}")))
    for (k, _), group in zip(order, groups, strict=True):
        index = next(n for n in range(4) if np.array_equal(volume.array[:, :, n], array[:, :, k, 0]))
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        np.testing.assert_allclose(positions(volume.affine, volume.shape)[0, 0, index] * (-1, -1, 1), place, atol=1e-4)
        np.testing.assert_allclose(mask.TransformIndexToPhysicalPoint((0, 0, index)), place, atol=1e-3)
        assert np.array_equal(sitk.GetArrayFromImage(mask)[index].T, array[:, :, k, 0] % 7)
    np.testing.assert_allclose(volume.spacing, (0.75, 1.5, 4.0), atol=1e-6)


def test_slices_that_lie_askew(array, tmp_path):
    """As with a tilted gantry: the normal is not the way from slice to slice."""
    affine = make_affine()
    affine[1, 2] = 1.5
    write_enhanced(tmp_path / "a.dcm", array[..., :1], affine)
    with pytest.raises(InputError, match=r"tilted gantry\): frame 4 of a\.dcm lies 4\.50 mm beside"):
        read_volume(tmp_path / "a.dcm")


ORDERS = {
    "slice by slice": [(k, t) for k in range(4) for t in range(3)],
    "time by time": [(k, t) for t in range(3) for k in range(4)],
    "backwards": [(k, t) for t in range(3) for k in (3, 2, 1, 0)],
    "mixed": random.Random(0).sample([(k, t) for k in range(4) for t in range(3)], 12),
}


@pytest.mark.parametrize(
    ("order", "dimensions"),
    # Without dimensions nothing says of mixed frames which is when.
    [(name, dimensions) for name in ORDERS for dimensions in (True, False) if dimensions or name != "mixed"],
)
def test_points_in_time_are_chosen(order, dimensions, array, tmp_path):
    order = ORDERS[order]
    write_enhanced(tmp_path / "a.dcm", array, make_affine(OBLIQUE), order=order, dimensions=dimensions)
    for t in range(3):
        volume = read_volume(tmp_path / "a.dcm", t)
        assert (volume.frame, volume.frames, volume.shape) == (t, 3, SHAPE[:3])
        sign = -1 if order[-1][0] < order[0][0] else 1
        assert np.array_equal(volume.array, array[:, :, ::sign, t])
        first = 3 if sign < 0 else 0
        np.testing.assert_allclose(volume.affine @ [0, 0, first, 1], make_affine(OBLIQUE)[:, 3], atol=1e-4)
    with pytest.raises(InputError, match=r"^a\.dcm has 3 frames: frame must be in 0\.\.2, not 3\.$"):
        read_volume(tmp_path / "a.dcm", 3)


def test_frames_that_all_lie_at_one_place(array, tmp_path):
    """Cine MR of a slice, which GDCM by itself refuses."""
    write_enhanced(tmp_path / "a.dcm", array[:, :, :1], make_affine(OBLIQUE))
    for t in range(3):
        volume = read_volume(tmp_path / "a.dcm", t)
        assert (volume.frame, volume.frames) == (t, 3)
        assert np.array_equal(volume.array, array[:, :, :1, t])
        np.testing.assert_allclose(volume.affine, make_affine(OBLIQUE), atol=1e-6)


def test_a_single_frame_with_functional_groups(array, tmp_path):
    write_enhanced(tmp_path / "a.dcm", array[:, :, :1, :1], make_affine(CORONAL))
    volume = read_volume(tmp_path / "a.dcm")
    assert np.array_equal(volume.array, array[:, :, :1, 0])
    np.testing.assert_allclose(volume.affine, make_affine(CORONAL), atol=1e-6)


@pytest.mark.parametrize(
    ("rescale", "dtype"),
    [
        ((1, 0), np.int16),
        ((2, -1024), np.int32),
        ((0.25, 3.5), np.float64),
        ({(k, t): (k + 1, 10 * t) for k in range(4) for t in range(3)}, np.int32),
        ({(k, t): (0.5 + k, -t / 4) for k in range(4) for t in range(3)}, np.float64),
    ],
    ids=["none", "whole", "broken", "each its own", "each its own, broken"],
)
def test_stored_values_become_those_of_the_modality(rescale, dtype, array, tmp_path):
    write_enhanced(tmp_path / "a.dcm", array, make_affine(), rescale=rescale)
    for t in range(3):
        volume = read_volume(tmp_path / "a.dcm", t)
        assert volume.array.dtype == dtype
        for k in range(4):
            slope, intercept = rescale[k, t] if isinstance(rescale, dict) else rescale
            assert np.array_equal(volume.array[:, :, k], array[:, :, k, t] * float(slope) + intercept)


def test_compressed_frames(array, tmp_path):
    write_enhanced(tmp_path / "a.dcm", array.astype(np.uint16), make_affine(), Modality="CT")
    rewrite(tmp_path / "a.dcm", lambda header: header.compress(RLELossless))
    assert np.array_equal(read_volume(tmp_path / "a.dcm", 1).array, array[..., 1])


def test_cine_without_positions(array, tmp_path):
    frames = np.moveaxis(array[:, :, 0], -1, 0).swapaxes(1, 2)
    write_dicom(tmp_path / "a.dcm", frames, NumberOfFrames=3, PixelSpacing=[1.5, 0.75], SliceThickness=2, **CINE)
    for t in range(3):
        volume = read_volume(tmp_path / "a.dcm", t)
        assert (volume.modality, volume.frame, volume.frames) == ("US", t, 3)
        assert np.array_equal(volume.array, array[:, :, :1, t])
        # Time is no place: the grid of a frame is that of the first.
        np.testing.assert_allclose(volume.affine, np.diag([-0.75, -1.5, 2.0, 1.0]))


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("modality", ["US", "CT"])
def test_cine_in_colour(photometric, modality, tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (3, 5, 6, 3)).astype(np.uint8)
    stored = colours
    if photometric == "YBR_FULL":
        stored = np.stack([np.asarray(Image.fromarray(frame).convert("YCbCr")) for frame in colours])
    elements = {**CINE, **BITS, "SamplesPerPixel": 3, "PlanarConfiguration": 0, "Modality": modality}
    write_dicom(tmp_path / "a.dcm", stored, NumberOfFrames=3, PhotometricInterpretation=photometric, **elements)
    for t in range(3):
        volume = read_volume(tmp_path / "a.dcm", t)
        assert volume.shape == (6, 5, 1)
        assert volume.modality == ("" if modality == "CT" else "US")  # brightness is no Hounsfield unit
        assert np.abs(volume.array[:, :, 0].T.astype(int) - luminance(colours[t])).max() <= 2


def test_compressed_colour(tmp_path):
    rows, columns = np.mgrid[:16, :16]
    colours = np.stack([16 * columns, 16 * rows, 255 - 8 * columns - 7 * rows], axis=-1).astype(np.uint8)
    encoded = []
    for frame in (colours, colours[::-1]):
        stream = io.BytesIO()
        Image.fromarray(frame).save(stream, "JPEG", quality=95, subsampling=1)
        encoded.append(stream.getvalue())
    elements = {**CINE, **BITS, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    stored = np.stack([colours, colours])
    write_dicom(tmp_path / "a.dcm", stored, NumberOfFrames=2, PhotometricInterpretation="YBR_FULL_422", **elements)

    def compress(header):
        header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        header.PixelData = encapsulate(encoded)
        header["PixelData"].is_undefined_length = True

    rewrite(tmp_path / "a.dcm", compress)
    grey = luminance(colours).astype(int)
    for t in range(2):
        assert np.abs(read_volume(tmp_path / "a.dcm", t).array[:, :, 0].T - grey[:: -1 if t else 1]).max() <= 4


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "PALETTE COLOR"])
def test_a_series_in_colour(photometric, tmp_path):
    indices = np.random.default_rng(0).integers(0, 256, (6, 5, 4)).astype(np.uint8)
    palette = np.random.default_rng(1).integers(0, 256, (256, 3)).astype(np.uint8)
    elements = {**BITS, "Modality": "MR", "PhotometricInterpretation": photometric}
    if photometric == "PALETTE COLOR":
        for colour, band in zip(("Red", "Green", "Blue"), palette.T, strict=True):
            elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
            elements[f"{colour}PaletteColorLookupTableData"] = band.tobytes()
        stored = indices
    else:
        elements |= {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
        stored = palette[indices]  # i, j, k, colour
        if photometric == "YBR_FULL":
            stored = np.asarray(Image.fromarray(stored.reshape(-1, 1, 3)).convert("YCbCr")).reshape(stored.shape)
    write_series(tmp_path / "series", stored, make_affine(OBLIQUE), **elements)
    volume = read_volume(tmp_path / "series")
    assert volume.array.dtype == np.uint8
    assert np.abs(volume.array.astype(int) - luminance(palette[indices])).max() <= 2
    np.testing.assert_allclose(volume.affine, make_affine(OBLIQUE), atol=1e-4)
    assert np.array_equal(read_volume(tmp_path / "series" / "002.dcm").array[..., 0], volume.array[..., 2])


def test_one_file_in_a_folder_of_its_own(array, tmp_path):
    (tmp_path / "series").mkdir()
    write_enhanced(tmp_path / "series" / "a", array, make_affine())
    volume = read_volume(tmp_path / "series", 2)
    assert np.array_equal(volume.array, array[..., 2])
    assert volume.source == tmp_path / "series"


def test_nothing_of_the_file_stays_behind(array, tmp_path, monkeypatch):
    copies = tmp_path / "temporary"
    copies.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(copies))
    written = []
    keep = pydicom.dcmwrite

    def look(path, header, **options):
        written.append(str(header))
        keep(path, header, **options)

    write_enhanced(tmp_path / "a.dcm", array, make_affine())
    monkeypatch.setattr(pydicom, "dcmwrite", look)
    read_volume(tmp_path / "a.dcm")
    assert len(written) == 1
    assert not any(secret in written[0] for secret in PATIENT.values())
    assert list(copies.iterdir()) == []


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_volume(path)
    message = str(error.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert str(path.parent) not in message
    assert not any(secret in message for secret in PATIENT.values())
    return message


def drop_position(header: pydicom.Dataset) -> None:
    del header.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence


def lose_group(header: pydicom.Dataset) -> None:
    del header.PerFrameFunctionalGroupsSequence[-1]


def turn_a_frame(header: pydicom.Dataset) -> None:
    turned = pydicom.Dataset()
    turned.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    header.PerFrameFunctionalGroupsSequence[1].PlaneOrientationSequence = [turned]


def lose_orientation(header: pydicom.Dataset) -> None:
    del header.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence


@pytest.mark.parametrize(
    ("order", "change", "sentence"),
    [
        ([(0, 0), (2, 0), (3, 0)], None, "a.dcm is not evenly spaced: 8.00 mm"),
        ([(0, 0), (1, 0), (1, 1)], None, "several slices at the same place (304.00 mm"),
        (None, drop_position, "a.dcm has no valid ImagePositionPatient"),
        (None, lose_group, "a.dcm has no valid ImagePositionPatient"),
        (None, lose_orientation, "a.dcm has no valid ImageOrientationPatient"),
        (None, turn_a_frame, "not parallel"),
        (None, lambda header: setattr(header, "Modality", "SEG"), "a.dcm is a segmentation"),
    ],
)
def test_frames_that_are_no_volume(order, change, sentence, array, tmp_path):
    write_enhanced(tmp_path / "a.dcm", array, make_affine(), order=order)
    if change is not None:
        rewrite(tmp_path / "a.dcm", change)
    assert sentence in refusal(tmp_path / "a.dcm")


def test_a_damaged_position(array, tmp_path):
    path = tmp_path / "a.dcm"
    write_enhanced(path, array, make_affine())
    path.write_bytes(path.read_bytes().replace(b"304.0", b"30a.0"))
    assert "a.dcm" in refusal(path)


@pytest.mark.parametrize("pointer", [0x00540080, [0x00540010, 0x00540080], 0x3004000C])
def test_slices_that_say_their_places_in_another_way(pointer, array, tmp_path):
    """Nuclear medicine and dose: their frames are no points in time."""
    frames = np.moveaxis(array[:, :, 0], -1, 0).swapaxes(1, 2)
    write_dicom(tmp_path / "a.dcm", frames, NumberOfFrames=3, Modality="NM", FrameIncrementPointer=pointer)
    assert "does not say where its frames lie" in refusal(tmp_path / "a.dcm")


@pytest.mark.parametrize("keyword", ["PlanePositionVolumeSequence", "PlanePositionSlideSequence"])
def test_frames_of_other_volumes(keyword, array, tmp_path):
    """Ultrasound in 3D, and the tiles of a microscope."""

    def change(header):
        for group in header.PerFrameFunctionalGroupsSequence:
            del group.PlanePositionSequence
            setattr(group, keyword, [pydicom.Dataset()])

    write_enhanced(tmp_path / "a.dcm", array, make_affine())
    rewrite(tmp_path / "a.dcm", change)
    assert "does not say where its frames lie" in refusal(tmp_path / "a.dcm")


@pytest.mark.filterwarnings("ignore:End of file")
@pytest.mark.parametrize("keep", [0.3, 0.95, 0.99])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_was_cut_off(keep, compressed, array, tmp_path):
    path = tmp_path / "a.dcm"
    write_enhanced(path, array.astype(np.uint16), make_affine())
    if compressed:
        rewrite(path, lambda header: header.compress(RLELossless))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert "a.dcm" in refusal(path)


def test_several_files_of_several_frames(array, tmp_path):
    (tmp_path / "series").mkdir()
    for name in ("a.dcm", "b.dcm"):
        write_enhanced(tmp_path / "series" / name, array, make_affine())
    assert refusal(tmp_path / "series").startswith("a.dcm holds several frames and lies beside other files")


def test_grey_and_coloured_slices(array, tmp_path):
    write_series(tmp_path / "series", array[..., 0], make_affine())
    rewrite(tmp_path / "series" / "002.dcm", lambda h: setattr(h, "PhotometricInterpretation", "PALETTE COLOR"))
    assert "grey and coloured" in refusal(tmp_path / "series")
