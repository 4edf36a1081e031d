"""Public data sets in their own layouts: every voxel of every mask, and what is said of a folder that is none."""

from __future__ import annotations

import json
import logging

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation
from unit.imaging.dicom_files import AXIAL, CORONAL, OBLIQUE, make_affine, rewrite, write_series
from unit.imaging.grids import ORIENTATIONS

from causal_sam.data_sets import acdc, amos, btcv, chaos, ibsr
from causal_sam.data_sets.case import Case
from causal_sam.data_sets.cases import read_cases
from causal_sam.data_sets.layouts import LAYOUTS, Kind
from causal_sam.errors import InputError
from causal_sam.text.lexicon import canonical

SHAPE = (7, 6, 5)
GREYS = {"liver": (55, 63, 70), "right kidney": (110, 126, 135), "left kidney": (175, 189, 200), "spleen": (240, 255)}
# Flipped axes, axes in another order, and oblique ones.
AFFINES = {
    "ras": np.diag([1.0, 1.0, 2.5, 1.0]),
    "lps": np.array([[-1.0, 0, 0, 40], [0, -1.2, 0, 30], [0, 0, 3, -10], [0, 0, 0, 1]]),
    "inferior": np.array([[0.0, 0, 3, 5], [-1, 0, 0, 9], [0, -2, 0, 7], [0, 0, 0, 1]]),
    "oblique": nibabel.affines.from_matvec(
        Rotation.from_euler("xyz", (15, -20, 30), degrees=True).as_matrix() * (0.8, 0.9, 3.0), (4, -5, 6)
    ),
}


def write(path, array, affine=AFFINES["lps"]):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def draw(seed=0):
    return np.random.default_rng(seed).integers(-900, 900, SHAPE).astype(np.int16)


def draw_labels(values, seed=1):
    """Return a label map in which each of the values, and 0, is somewhere."""
    labels = np.random.default_rng(seed).choice([0, *values], SHAPE).astype(np.uint8)
    labels.flat[: len(values)] = list(values)
    return labels


def check(case, image, labels, names):
    """Everything read is what was written, in the order of the image's voxels."""
    volume, structures = case.read()
    assert np.array_equal(volume.array, image)
    assert set(structures) == set(names.values())
    for value, name in names.items():
        assert np.array_equal(structures[name], np.isin(labels, value)), name
    return volume


@pytest.mark.parametrize("names", [btcv.ORGANS, amos.ORGANS, chaos.CT_LABELS, chaos.MR_LABELS])
def test_names_are_the_common_ones(names):
    assert [name for name in names.values() if canonical(name) != name] in ([], ["prostate/uterus"])


def test_each_layout_is_described():
    assert [Kind.AUTO, *LAYOUTS] == list(Kind)


@pytest.mark.parametrize("root", [".", "RawData/Training"])
@pytest.mark.parametrize("folders", [("img", "label"), ("imagesTr", "labelsTr")])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_btcv(tmp_path, caplog, root, folders, affine):
    image, labels = draw(), draw_labels(range(1, 14))
    write(tmp_path / root / folders[0] / "img0007.nii.gz", image, affine)
    write(tmp_path / root / folders[0] / "img0008.nii.gz", image, affine)
    write(tmp_path / root / folders[1] / "label0007.nii.gz", labels, affine)
    for kind in ("auto", "btcv"):
        (case,) = read_cases(tmp_path, kind)
        assert (case.group, case.name) == ("BTCV", "0007")
        volume = check(case, image, labels, btcv.ORGANS)
        assert volume.modality == "CT"
        assert np.allclose(volume.affine, affine, atol=1e-5)
    assert "Left out of BTCV, since the image or the label map is missing: img0008." in caplog.text


def test_amos(tmp_path, caplog):
    image, labels = draw(), draw_labels(range(1, 16))
    for part, name in (("Tr", "amos_0500"), ("Tr", "amos_0501"), ("Va", "amos_0008")):
        write(tmp_path / f"images{part}" / f"{name}.nii.gz", image, AFFINES["oblique"])
        write(tmp_path / f"labels{part}" / f"{name}.nii.gz", labels, AFFINES["oblique"])
    write(tmp_path / "imagesVa" / "amos_0009.nii.gz", image)
    # The list that lies with it has misspelt names.
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": {"0": "CT"}, "labels": {"8": "arota"}}))
    cases = read_cases(tmp_path)
    assert [(case.group, case.name) for case in cases] == [("AMOS", "0500"), ("AMOS", "0501"), ("AMOS", "0008")]
    assert [check(case, image, labels, amos.ORGANS).modality for case in cases] == ["CT", "MR", "CT"]
    assert "amos_0009" in caplog.text


UNTIL_2021 = ("_flair", "_t1", "_t1ce", "_t2", "_seg"), {1: "necrosis", 2: "edema", 4: "enhancing tumor"}
SINCE_2023 = ("-t2f", "-t1n", "-t1c", "-t2w", "-seg"), {1: "necrosis", 2: "edema", 3: "enhancing tumor"}
SEQUENCES = ["FLAIR", "T1", "T1 post-contrast", "T2"]


@pytest.mark.parametrize(
    ("folder", "naming", "ending"),
    [
        ("BraTS20_Training_001", UNTIL_2021, ".nii"),
        ("MICCAI/HGG/BraTS19_2013_10_1", UNTIL_2021, ".nii.gz"),
        ("BraTS2021_Training_Data/BraTS2021_00000", UNTIL_2021, ".nii.gz"),
        ("BraTS-GLI-00000-000", SINCE_2023, ".nii.gz"),
    ],
)
def test_brats(tmp_path, folder, naming, ending):
    place = tmp_path / folder
    suffixes, names = naming
    assert all(canonical(name) == name for name in names.values())
    images, labels = [draw(seed) for seed in range(4)], draw_labels(names)
    for suffix, array in zip(suffixes, [*images, labels], strict=True):
        write(place / f"{place.name}{suffix}{ending}", array)
    cases = read_cases(tmp_path)
    assert [case.sequence for case in cases] == SEQUENCES
    assert {(case.group, case.name) for case in cases} == {("BraTS", place.name)}
    for case, image in zip(cases, images, strict=True):
        volume = check(case, image, labels, names)
        assert (volume.modality, volume.tags["SequenceName"]) == ("MR", case.sequence)


def test_brats_without_a_label_or_a_sequence(tmp_path, caplog):
    for name in ("_t1", "_seg"):
        write(tmp_path / "BraTS20_Training_001" / f"BraTS20_Training_001{name}.nii", draw_labels([1]))
    write(tmp_path / "BraTS20_Training_355" / "BraTS20_Training_355_t1.nii", draw())
    write(tmp_path / "BraTS20_Training_355" / "W39_1998.09.19_Segm.nii", draw_labels([1]))
    (case,) = read_cases(tmp_path)
    assert (case.name, case.sequence) == ("BraTS20_Training_001", "T1")
    assert "Left out of BraTS, since the image or the label map is missing: BraTS20_Training_355." in caplog.text


def write_pictures(folder, greys, names, bits=8):
    """Write slices k of an (I, J, K) array as pictures; ``names`` gives their names in that order."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        picture = Image.fromarray(greys[:, :, k].T)
        (picture if bits == 8 else picture.convert("1")).save(folder / name)


@pytest.mark.parametrize("bits", [1, 8])
@pytest.mark.parametrize(
    "numbers",
    [range(SHAPE[2]), range(SHAPE[2])[::-1], (3, 0, 4, 1, 2)],
    ids=["along the slices", "against the slices", "shuffled"],
)
@pytest.mark.parametrize("directions", [AXIAL, CORONAL, OBLIQUE], ids=["axial", "coronal", "oblique"])
def test_chaos_ct(tmp_path, directions, numbers, bits):
    """The pictures are in the order of the files' names, whatever their places and instance numbers."""
    image, liver = draw(), 255 * draw_labels([1])
    place = tmp_path / "Train_Sets" / "CT" / "14"
    names = [f"i{n:04},0000b.dcm" for n in numbers]
    write_series(place / "DICOM_anon", image, make_affine(directions), names=names)
    write_pictures(place / "Ground", liver, [f"liver_GT_{n:03}.png" for n in numbers], bits)
    for directory in (tmp_path, tmp_path / "Train_Sets"):
        (case,) = read_cases(directory)
        assert (case.group, case.name) == ("CHAOS", "CT 14")
        volume = check(case, image, liver, {255: "liver"})
        assert volume.modality == "CT"
        assert np.allclose(volume.affine, make_affine(directions), atol=1e-5)


def test_chaos_mr(tmp_path, caplog):
    rng = np.random.default_rng(3)
    greys = [0, *(grey for band in GREYS.values() for grey in band)]
    t1, t2 = (rng.choice(greys, SHAPE).astype(np.uint8) for _ in range(2))
    in_phase, out_of_phase, spir = (np.abs(draw(seed)) for seed in range(3))
    mr = tmp_path / "Train_Sets" / "MR"
    for case, affine in (("2", make_affine(AXIAL)), ("10", make_affine(OBLIQUE))):
        for folder, image, numbers in (
            ("T1DUAL/DICOM_anon/InPhase", in_phase, (10, 8, 6, 4, 2)),
            ("T1DUAL/DICOM_anon/OutPhase", out_of_phase, (9, 7, 5, 3, 1)),
            ("T2SPIR/DICOM_anon", spir, (1, 2, 3, 4, 5)),
        ):
            names = [f"IMG-0004-{n:05}.dcm" for n in numbers]
            write_series(mr / case / folder, image, affine, names=names, Modality="MR", EchoTime=4.6)
        write_pictures(mr / case / "T2SPIR" / "Ground", t2, [f"IMG-0004-{n:05}.png" for n in (1, 2, 3, 4, 5)])
    write_pictures(mr / "10" / "T1DUAL" / "Ground", t1, [f"IMG-0004-{n:05}.png" for n in (10, 8, 6, 4, 2)])
    (mr / "2" / "T2SPIR" / "Ground" / "._IMG.png").write_bytes(b"left by a Mac")
    cases = read_cases(tmp_path)
    assert [(case.name, case.sequence) for case in cases] == [
        ("MR 2", "T2 SPIR"),
        ("MR 10", "T1 in phase"),
        ("MR 10", "T1 out of phase"),
        ("MR 10", "T2 SPIR"),
    ]
    assert (
        "Left out of CHAOS, since the image or the label map is missing: MR 2 T1 in phase, MR 2 T1 out of phase."
        in caplog.text
    )
    bands = {tuple(values): name for name, values in GREYS.items()}
    images = [spir, in_phase, out_of_phase, spir]
    for case, image, truth in zip(cases, images, [t2, t1, t1, t2], strict=True):
        volume = check(case, image, truth, bands)
        assert volume.modality == "MR"
        assert volume.tags["SequenceName"] == case.sequence
        assert volume.tags["EchoTime"] == 4.6


def chaos_case(tmp_path, greys):
    place = tmp_path / "Train_Sets" / "MR" / "1" / "T2SPIR"
    names = [f"IMG-0002-{n:05}" for n in range(1, 6)]
    write_series(place / "DICOM_anon", draw(), make_affine(), names=[f"{name}.dcm" for name in names], Modality="MR")
    write_pictures(place / "Ground", greys, [f"{name}.png" for name in names])
    return place, read_cases(tmp_path, "chaos")[0]


def test_chaos_tag_of_the_file_is_kept(tmp_path):
    place, case = chaos_case(tmp_path, draw_labels([63]))
    for file in (place / "DICOM_anon").iterdir():
        rewrite(file, lambda header: setattr(header, "SequenceName", "tse2d"))
    assert case.read()[0].tags["SequenceName"] == "tse2d"


def test_chaos_pictures_that_do_not_fit(tmp_path):
    place, case = chaos_case(tmp_path, draw_labels([63, 90, 91]))
    with pytest.raises(InputError, match=r"Ground has 90, 91, and the values of CHAOS are 0 and 63, 126, 189, 252"):
        case.read()
    wrong = place / "Ground" / "IMG-0002-00003.png"
    Image.new("L", (9, 8)).save(wrong)
    with pytest.raises(InputError, match=r"00003.png is 9 x 8 pixels, and the slices of .*DICOM_anon are 7 x 6"):
        case.read()
    wrong.unlink()
    with pytest.raises(InputError, match=r"has 4 pictures, and .*DICOM_anon has 5 slices in 5 DICOM files"):
        case.read()


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_nnunet_channels(tmp_path, affine):
    images, labels = [draw(seed) for seed in range(3)], draw_labels([1, 2, 3, 4])
    for number, image in enumerate(images):
        write(tmp_path / "imagesTr" / f"BraTS_001_{number:04}.nii.gz", image, affine)
    write(tmp_path / "labelsTr" / "BraTS_001.nii.gz", labels, affine)
    names = {(1, 2, 3): "whole tumor", (2, 3): "tumor core", 3: "enhancing tumor"}
    description = {
        "channel_names": {"0": "T1gd", "1": "MR_perfusion", "2": "noNorm"},
        "labels": {"background": 0, **{name: value for value, name in names.items()}, "ignore": 4},
        "regions_class_order": [1, 2, 3],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    cases = read_cases(tmp_path)
    assert [(case.name, case.modality, case.sequence) for case in cases] == [
        ("BraTS_001", "MR", "T1 post-contrast"),
        ("BraTS_001", "MR", "perfusion"),
        ("BraTS_001", "", "noNorm"),
    ]
    for case, image in zip(cases, images, strict=True):
        check(case, image, labels, names)
    write(tmp_path / "imagesTr" / "BraTS_001_0003.nii.gz", images[0], affine)
    with pytest.raises(InputError, match=r"channel 3, and dataset.json names 0 \(MR T1 post-contrast\), 1"):
        read_cases(tmp_path)


def test_nnunet_channels_without_a_description(tmp_path):
    for number in range(2):
        write(tmp_path / "images" / f"p_{number:04}.nii.gz", draw(number))
    write(tmp_path / "labels" / "p.nii.gz", draw_labels([2]))
    cases = read_cases(tmp_path)
    assert [case.sequence for case in cases] == ["", "channel 1"]
    check(cases[1], draw(1), draw_labels([2]), {2: "label 2"})


def test_decathlon_frames(tmp_path):
    """As Task01_BrainTumour: the sequences are frames of one file."""
    images, labels = [draw(seed) for seed in range(4)], draw_labels([1, 2])
    write(tmp_path / "imagesTr" / "BRATS_457.nii.gz", np.stack(images, axis=-1))
    write(tmp_path / "labelsTr" / "BRATS_457.nii.gz", labels)
    description = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "enhancing tumour"},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    cases = read_cases(tmp_path)
    assert [case.sequence for case in cases] == SEQUENCES
    for case, image in zip(cases, images, strict=True):
        volume = check(case, image, labels, {1: "edema", 2: "enhancing tumour"})
        assert (volume.modality, volume.tags["SequenceName"]) == ("MR", case.sequence)
    write(tmp_path / "imagesTr" / "BRATS_457.nii.gz", np.stack(images[:3], axis=-1))
    with pytest.raises(InputError, match="has 3 frames, and its data set names 4 channels"):
        read_cases(tmp_path)[0].read()


def test_values_that_the_data_set_does_not_have(tmp_path):
    write(tmp_path / "img" / "img0001.nii.gz", draw())
    write(tmp_path / "label" / "label0001.nii.gz", draw_labels([1, 14, 15, 16, 17, 18, 19, 20]))
    with pytest.raises(InputError, match=r"label0001.* has 14, 15, 16, 17, 18 and 2 more, and the values of BTCV are"):
        read_cases(tmp_path)[0].read()


def test_names_without_reading(tmp_path):
    write(tmp_path / "img" / "img0001.nii.gz", draw())
    write(tmp_path / "label" / "label0001.nii.gz", draw_labels([1]))
    (case,) = read_cases(tmp_path)
    case.label.unlink()
    assert case.names() == list(btcv.ORGANS.values())
    write(tmp_path / "pairs" / "p.nii.gz", draw())
    write(tmp_path / "pairs" / "p_seg.nii.gz", draw_labels([5, 2]))
    assert read_cases(tmp_path / "pairs")[0].names() == ["label 2", "label 5"]


def test_labels_on_another_grid(tmp_path):
    write(tmp_path / "img" / "img0001.nii.gz", draw())
    write(tmp_path / "label" / "label0001.nii.gz", draw_labels([1]), AFFINES["lps"] @ np.diag([1, 1, 2.0, 1]))
    with pytest.raises(InputError, match=r"label0001.*not on the grid of its image img0001.*another size"):
        read_cases(tmp_path)[0].read()


def test_label_maps_of_dicom_images_as_converters_write_them(tmp_path):
    array, labels = draw(), draw_labels([1])
    for name, directions in {"axial": AXIAL, "coronal": CORONAL, "oblique": OBLIQUE}.items():
        write_series(tmp_path / name, array, make_affine(directions))
        label = nibabel.Nifti1Image(labels, make_affine(directions))
        for number, orientation in enumerate(ORIENTATIONS):
            nibabel.save(label.as_reoriented(orientation), tmp_path / "label.nii.gz")
            case = Case("x", f"{name} {number}", tmp_path / name, tmp_path / "label.nii.gz", labels={1: "liver"})
            check(case, array, labels, {1: "liver"})


@pytest.mark.parametrize("kind", [kind for kind in LAYOUTS if kind != Kind.BRATS])
def test_a_folder_that_is_another_data_set(tmp_path, kind):
    for suffix in ("t1", "seg"):
        write(tmp_path / "BraTS2021_00000" / f"BraTS2021_00000_{suffix}.nii.gz", draw_labels([1]))
    with pytest.raises(InputError, match=rf" is not {kind} \(.*\): there is no .*; it looks like brats\.$"):
        read_cases(tmp_path, kind)


def test_a_folder_that_is_nothing_known(tmp_path):
    with pytest.raises(InputError, match=r"is not amos .*: there is no imagesTr/amos_0001.*; it holds nothing\.$"):
        read_cases(tmp_path, "amos")
    (tmp_path / "BraTS20_Training_001").mkdir()
    write(tmp_path / "BraTS20_Training_001" / "BraTS20_Training_001_t1.nii", draw())
    with pytest.raises(InputError, match=r"there is no BraTS20_Training_001/…seg.*it holds BraTS20_Training_001\.$"):
        read_cases(tmp_path, "brats")
    write_series(tmp_path / "CT" / "1" / "DICOM_anon", draw(), make_affine())
    with pytest.raises(InputError, match=r"there is no PNG in CT/1/Ground"):
        read_cases(tmp_path, "chaos")
    with pytest.raises(InputError, match=r"no labelled images\. Known layouts: chaos: Train_Sets.* \| brats: "):
        read_cases(tmp_path)
    with pytest.raises(InputError, match=r"no kind of data set 'lits': it must be one of auto, chaos"):
        read_cases(tmp_path, "lits")


def test_a_list_of_cases_comes_first(tmp_path, caplog):
    """It is there because somebody wanted those cases and names."""
    write(tmp_path / "img" / "img0001.nii.gz", draw())
    write(tmp_path / "label" / "label0001.nii.gz", draw_labels([1, 2]))
    entry = {"set": "mine", "case": "1", "image": "img/img0001.nii.gz", "label": "label/label0001.nii.gz"}
    entries = [entry | {"labels": {"1": "milt"}}, {"set": "mine", "case": "2", "image": None}]
    (tmp_path / "cases.json").write_text(json.dumps(entries))
    with caplog.at_level(logging.WARNING):
        (case,) = read_cases(tmp_path)
    check(case, draw(), draw_labels([1, 2]), {1: "milt"})
    assert "mine/2" in caplog.text
    assert read_cases(tmp_path, "btcv")[0].group == "BTCV"


def test_acdc_has_what_people_drew(tmp_path):
    image, labels = draw(), draw_labels(acdc.STRUCTURES)
    scribbles = np.full(SHAPE, 4, np.uint8)
    scribbles[0, 0], scribbles[1, 1], scribbles[2, 2] = 1, 2, 0
    for folder, array in (("imagesTr", image), ("labelsTr", labels), ("scribblesTr", scribbles)):
        write(tmp_path / folder / "patient003_frame15.nii.gz", array)
    (case,) = read_cases(tmp_path)
    assert (case.group, case.name) == ("ACDC", "patient003_frame15")
    volume = check(case, image, labels, acdc.STRUCTURES)
    drawn = case.read_scribbles(volume)
    assert set(drawn) == {"right ventricle of the heart", "myocardium"}
    inside, outside = drawn["myocardium"]
    assert np.array_equal(inside, scribbles == 2)
    assert np.array_equal(outside, (scribbles == 0) | (scribbles == 1))
    (tmp_path / "scribblesTr" / "patient003_frame15.nii.gz").unlink()
    with pytest.raises(InputError, match="is not acdc"):
        read_cases(tmp_path, Kind.ACDC)


def test_ibsr_brains_without_labels_are_left_out(tmp_path, caplog):
    image, labels = draw(), draw_labels(ibsr.TISSUES)
    write(tmp_path / "IBSR_01" / "IBSR_01.nii.gz", image)
    write(tmp_path / "IBSR_01" / "IBSR_01_seg.nii.gz", labels[..., None])
    write(tmp_path / "IBSR_02" / "IBSR_02.nii.gz", image)
    (case,) = read_cases(tmp_path)
    assert (case.group, case.name, case.modality, case.sequence) == ("IBSR", "IBSR_01", "MR", "T1")
    check(case, image, labels, ibsr.TISSUES)
    assert "IBSR_02" in caplog.text
