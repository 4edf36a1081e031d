"""The command line as a person uses it: reports, JSON, one sentence for each mistake."""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from causal_sam.cli import app
from causal_sam.cli.doctor import needed_packages, pinned_versions
from causal_sam.cli.files import app_folder, requirements_file
from causal_sam.cli.serve import check_port, holds_images, join_conf, server_command, server_environment, with_hosts
from causal_sam.errors import InputError
from causal_sam.imaging.overlap import dice

SHAPE = (40, 32, 6)
SLICE = ("--extent", "slice")
POINT = ("--point", "20,16,3")
VOXEL_ML = 1.0 * 1.0 * 4.0 / 1000


@pytest.fixture
def cli():
    """Run the command in this process; keyword ``code`` is the expected exit code."""

    def run(*args: object, code: int = 0):
        result = CliRunner().invoke(app, [str(arg) for arg in args])
        assert result.exit_code == code, f"{result.output}{result.exception!r}"
        return result

    return run


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small CT: a bright cylinder in a darker body, 1 x 1 x 4 mm."""
    i, j = np.ogrid[: SHAPE[0], : SHAPE[1]]
    array = np.full(SHAPE, -1000, np.int16)
    array[4:36, 4:28] = 20
    array[(i - 20) ** 2 + (j - 16) ** 2 < 49] = 150
    path = tmp_path / "phantom.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 4.0, 1.0])), path)
    return path


def mask_of(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def test_segment_writes_a_mask_on_the_image_grid_and_reports_it(cli, image, tmp_path):
    output = tmp_path / "liver.nii.gz"
    result = cli("segment", image, "--point", "20,16,3", *SLICE, "-o", output, "--json", "--label", "liver")
    report = json.loads(result.stdout)
    mask = mask_of(output)
    assert mask.shape == SHAPE
    np.testing.assert_array_equal(nibabel.load(output).affine, nibabel.load(image).affine)
    assert report["label"] == "liver"
    assert report["slices"] == [3]
    assert report["axis"] == "k"
    assert report["voxels"] == mask.sum()
    assert report["volume_ml"] == pytest.approx(mask.sum() * VOXEL_ML, abs=1e-3)
    assert set(np.flatnonzero(mask.any(axis=(0, 1)))) <= {3}
    assert 0 < report["seconds"]["predict"] <= report["seconds"]["total"]
    assert np.isfinite(report["predicted_iou"])


def test_segment_takes_several_points_and_a_box(cli, image, tmp_path):
    output = tmp_path / "mask.nrrd"
    prompts = ["--point", "20,16,1", "--point", "22,16,1", "--negative", "8,8,1", "--box", "10,30,8,24,3,4"]
    prompts += SLICE
    report = json.loads(cli("segment", image, *prompts, "-o", output, "--json").stdout)
    assert report["slices"] == [1, 3, 4]
    assert output.is_file()


def test_segment_in_words(cli, image, tmp_path):
    output = tmp_path / "mask.nii"
    said = cli("segment", image, "--point", "20,16,3", "--label", "right kidney", "-o", output, *SLICE).stdout
    voxels = int(mask_of(output).sum())
    assert said.startswith(f"right kidney: {round(voxels * VOXEL_ML, 3)} ml ({voxels} voxels) on k = 3\n")
    assert "predicted IoU" in said
    assert str(output) in said


def test_segment_in_another_plane(cli, image, tmp_path):
    report = json.loads(
        cli("segment", image, *POINT, "--plane", "coronal", "-o", tmp_path / "m.nii", "--json", *SLICE).stdout
    )
    assert report["axis"] == "j"
    assert report["slices"] == [16]


def test_segment_follows_the_structure_through_the_volume(cli, image, tmp_path):
    array = np.asarray(nibabel.load(image).dataobj)
    report = json.loads(cli("segment", image, *POINT, "-o", tmp_path / "whole.nii", "--json").stdout)
    mask = mask_of(tmp_path / "whole.nii")
    assert report["slices"] == np.flatnonzero(mask.any(axis=(0, 1))).tolist()
    assert report["voxels"] == mask.sum()
    assert dice(mask > 0, array == 150) > 0.8
    # A box of several slices is the limit, one of a single slice only says where the structure is on it.
    for last, slices in ((3, [2, 3]), (2, None)):
        box = f"12,28,8,24,2,{last}"
        report = json.loads(cli("segment", image, "--box", box, "-o", tmp_path / "box.nii", "--json").stdout)
        assert report["slices"] == slices if slices else len(report["slices"]) > 2


def test_segment_one_frame_of_several(cli, image, tmp_path):
    still = nibabel.load(image)
    frames = np.stack([np.roll(np.asarray(still.dataobj), 8 * frame, axis=0) for frame in range(2)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(frames, still.affine), tmp_path / "cine.nii.gz")
    moved = ["--point", "28,16,3", *SLICE, "-o", tmp_path / "moved.nii"]
    report = json.loads(cli("segment", tmp_path / "cine.nii.gz", "--frame", 1, *moved, "--json").stdout)
    assert (report["frame"], report["frames"]) == (1, 2)
    mask = mask_of(tmp_path / "moved.nii")
    assert mask.shape == SHAPE
    assert dice(mask[..., 3] > 0, frames[..., 3, 1] == 150) > 0.8
    said = cli("segment", tmp_path / "cine.nii.gz", *POINT, *SLICE, "-o", tmp_path / "still.nii").stdout
    assert "on k = 3, in frame 0 of 0 to 1\n" in said
    assert dice(mask_of(tmp_path / "still.nii")[..., 3] > 0, frames[..., 3, 0] == 150) > 0.8


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "nothing was prompted"),
        ([*POINT, "--frame", "1"], "phantom.nii.gz has one frame"),
        (["--point", "20,16"], "--point takes 3 numbers"),
        (["--point", "20,x,3"], "--point takes 3 numbers"),
        (["--point", "400,16,3"], "outside the volume"),
        (["--point", "nan,16,3"], "not finite"),
        (["--negative", "20,16,3"], "alone on slice"),
        (["--box", "1,2,3"], "--box takes 6 numbers"),
        (["--box", "30,10,8,24,3,4"], "ends before it begins"),
        (["--point", "20,16,3", "--plane", "oblique"], "oblique"),
        (["--point", "20,16,3", "--model", "vit_x"], "vit_x"),
        (["--point", "20,16,3", "--checkpoint", "nowhere.pth"], "no checkpoint file"),
    ],
)
def test_segment_says_in_one_sentence_what_is_wrong(cli, image, tmp_path, options, sentence):
    output = tmp_path / "mask.nii.gz"
    result = cli("segment", image, *options, "-o", output, code=2)
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not result.stdout
    assert not output.exists()


@pytest.mark.parametrize(
    ("name", "sentence"), [("mask.jpg", "written as"), ("missing/mask.nii", "does not exist"), ("phantom.nii.gz", "-o")]
)
def test_segment_refuses_an_output_it_cannot_write(cli, image, tmp_path, name, sentence):
    before = image.read_bytes()
    result = cli("segment", image, "--point", "20,16,3", "-o", tmp_path / name, code=2)
    assert sentence in result.stderr
    assert image.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [image.name]


def test_segment_of_a_broken_or_absent_image(cli, tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"not an image")
    assert "broken.nii.gz" in cli("segment", broken, "--point", "1,1,1", "-o", tmp_path / "m.nii", code=2).stderr
    assert "absent.nii" in cli("segment", "absent.nii", "--point", "1,1,1", "-o", tmp_path / "m.nii", code=2).stderr


def test_help_comes_without_loading_the_model_libraries():
    heavy = "torch", "monai", "monailabel", "SimpleITK", "nibabel"
    code = f"""
import sys
from typer.testing import CliRunner
from causal_sam.cli import app
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
print([name for name in {heavy!r} if name in sys.modules])
"""
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "[]"


def test_version(cli):
    assert cli("--version").stdout.strip() == f"causal-sam {metadata.version('causal-sam')}"


def test_doctor_reports_as_json(cli):
    report = json.loads(cli("doctor", "--json").stdout)
    assert report["healthy"]
    checks = {check["part"]: check for check in report["checks"]}
    assert checks["monailabel"]["state"] == "ok"
    assert checks["model compact"]["state"] == "ok"
    assert {"Python", "processor", "GPU", "model vit_b", "Orthanc", "Chromium", "cache folder"} <= checks.keys()
    assert all(check["advice"] for check in report["checks"] if check["state"] in ("optional", "missing"))


def test_doctor_finds_checkpoints_where_the_cache_is(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("CAUSAL_SAM_CACHE", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "sam_vit_b_01ec64.pth").write_bytes(b"cut off")
    checks = {check["part"]: check for check in json.loads(cli("doctor", "--json").stdout)["checks"]}
    assert checks["model vit_b"]["state"] == "different"
    assert checks["model vit_l"]["state"] == "optional"
    assert str(tmp_path) in checks["model vit_l"]["advice"]


def test_doctor_fails_when_something_needed_is_missing(cli, tmp_path, monkeypatch):
    versions = requirements_file().read_text() + "\nnot-a-package-of-this-world==1.0\n"
    (tmp_path / "requirements.txt").write_text(versions.replace("nibabel==", "nibabel==99."))
    module = importlib.import_module("causal_sam.cli.doctor")  # the package's attribute of that name is the command
    monkeypatch.setattr(module, "requirements_file", lambda: tmp_path / "requirements.txt")
    monkeypatch.setattr(module, "needed_packages", lambda: {"not-a-package-of-this-world"})
    report = json.loads(cli("doctor", "--json", code=1).stdout)
    checks = {check["part"]: check for check in report["checks"]}
    assert not report["healthy"]
    assert checks["not-a-package-of-this-world"]["state"] == "missing"
    assert checks["nibabel"]["state"] == "different"
    assert "MISSING" in cli("doctor", code=1).stdout


def test_needed_packages_are_those_of_no_extra():
    assert {"torch", "monailabel", "segment-anything"} <= needed_packages()
    assert not {"pytest", "ruff", "playwright"} & needed_packages()


def test_pins_leave_comments_and_options_out():
    assert pinned_versions("# a==1\nmonai==1.6.1\n-e .\npynrrd==1.1.3") == {"monai": "1.6.1", "pynrrd": "1.1.3"}


def test_serve_command_reaches_the_app():
    command = server_command("/data", "127.0.0.1", 8123, {"plane": "axial", "model": "vit_b"})
    assert command[:4] == [sys.executable, "-m", "monailabel.main", "start_server"]
    assert (Path(command[command.index("--app") + 1]) / "main.py").is_file()
    assert command[-6:] == ["--conf", "plane", "axial", "--conf", "model", "vit_b"]


def test_server_lists_mr():
    environment = server_environment({"HOME": "/home/a"})
    assert json.loads(environment["MONAI_LABEL_DICOMWEB_SEARCH_FILTER"]) == {"Modality": "CT,MR"}
    assert environment["HOME"] == "/home/a"


def test_server_keeps_what_the_user_has_set():
    chosen = '{"Modality": "PT"}'
    environment = server_environment({"MONAI_LABEL_DICOMWEB_SEARCH_FILTER": chosen})
    assert environment["MONAI_LABEL_DICOMWEB_SEARCH_FILTER"] == chosen


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        (["--conf", "labels", "liver,right kidney"], ["--conf", "labels=liver,right kidney"]),
        (["--conf", "plane=axial", "--port", "1"], ["--conf", "plane=axial", "--port", "1"]),
        (["--conf", "plane"], ["--conf", "plane"]),
        (["--conf"], ["--conf"]),
    ],
)
def test_conf_takes_key_and_value_as_two_words_or_one(given, joined):
    assert join_conf(given) == joined


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--studies", "/no/such/folder"], "no folder"),
        (["--studies", "http://127.0.0.1:9/dicom-web"], "No DICOMweb server answers"),
        (["--conf", "plane"], "--conf takes a key and a value"),
    ],
)
def test_serve_says_what_is_wrong_before_it_starts(cli, options, sentence):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = cli("serve", "--port", port, *options, code=2)
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_serve_refuses_a_port_in_use(cli, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in cli("serve", "--studies", tmp_path, "--port", port, code=2).stderr
        with pytest.raises(InputError, match="choose another --port"):
            check_port("127.0.0.1", port)


def test_a_folder_of_dicom_files_holds_no_images_for_monai_label(image, tmp_path):
    dicom = tmp_path / "dicom"
    dicom.mkdir()
    (dicom / "0001.dcm").touch()
    assert not holds_images(dicom)
    assert holds_images(image.parent)


def test_app_folder_holds_the_app():
    assert (app_folder() / "main.py").is_file()


def test_the_server_answers_to_the_address_it_listens_on() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert with_hosts({"model": "compact"}, host) == {"model": "compact"}
    for host in ("192.168.1.20", "seg.hospital.org", "fe80::1"):
        assert with_hosts({}, host) == {"hosts": host}
        assert with_hosts({"hosts": "other.org"}, host) == {"hosts": "other.org"}
    for host in ("0.0.0.0", "::"):
        for said in ({"hosts": "seg.hospital.org"}, {"config": "server.yaml"}):
            assert with_hosts(said, host) == said
        with pytest.raises(InputError, match="--conf hosts"):
            with_hosts({}, host)
