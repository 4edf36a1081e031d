"""Pictures, single slices and images of several frames, through the server."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from monailabel.datastore.utils.convert import dicom_to_nifti

from causal_sam.imaging.overlap import dice

from .images import Phantom
from .server import Server, read_nifti

pytestmark = pytest.mark.integration

LIVER = {"label": "liver", "foreground": [[30, 40, 5]], "background": []}


def moved(organ: np.ndarray, frame: int) -> np.ndarray:
    """Where an organ is in a frame of the image "cine"."""
    return np.roll(organ, frame, axis=0)


@pytest.fixture(scope="module")
def single_slice(server: Server, phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sagittal DICOM image of one slice, as MONAI Label converts it for its clients."""
    image = SimpleITK.GetImageFromArray(phantom.array[..., 5].T[None])
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    image.SetSpacing((0.75, 1.5, 4.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    path = tmp_path_factory.mktemp("dicom") / "slice.dcm"
    SimpleITK.WriteImage(image, str(path))
    Path(dicom_to_nifti(str(path))).rename(server.studies / "slice.nii.gz")
    return "slice.nii.gz"


@pytest.mark.parametrize("click", [[30, 40, 0], [30, 40]])
def test_a_click_on_an_image_of_one_slice(
    server: Server, phantom: Phantom, single_slice: str, click: list[int]
) -> None:
    for image in ("colours", single_slice):
        response = server.post({**LIVER, "foreground": [click]}, image=image, output="image")
        assert response.status_code == 200, response.text
        mask = read_nifti(response.content)
        assert mask.shape == (96, 80, 1)
        assert dice(np.asarray(mask.dataobj)[..., 0] > 0, phantom.organs["liver"][..., 5]) > 0.6
    np.testing.assert_allclose(mask.affine, nibabel.load(server.studies / single_slice).affine, atol=1e-4)


def test_the_first_frame_is_segmented_unless_another_is_asked_for(server: Server, phantom: Phantom) -> None:
    assert server.info()["models"]["causal_sam"]["config"]["frame"] == 0
    for asked, frame in ((None, 0), (0, 0), ("", 0), ("2", 2), (2, 2)):
        params = {**LIVER, "client_id": f"frame {asked!r}"} | ({} if asked is None else {"frame": asked})
        mask, answer = server.slicer(params, image="cine", client_id=f"frame {asked!r}")
        assert mask.shape == phantom.array.shape
        assert (answer["frame"], answer["frames"]) == (frame, 3)
        assert answer["message"].endswith(f"; in frame {frame} of 0 to 2.")
        assert dice(mask[..., 5] > 0, moved(phantom.organs["liver"], frame)[..., 5]) > 0.6
    assert "frame" not in server.slicer(LIVER, client_id="still")[1]["message"]


def test_frames_have_working_masks_of_their_own(server: Server, phantom: Phantom) -> None:
    ask = {"image": "cine", "client_id": "two frames"}
    first, _ = server.slicer(LIVER, **ask)
    other, answer = server.slicer({**LIVER, "foreground": [[32, 40, 7]], "frame": "2"}, **ask)
    assert answer["slices"] == [7]
    assert not other[..., 5].any()
    again, answer = server.slicer(LIVER, **ask)
    assert answer["labels"]["liver"]["updated_slices"] == []
    np.testing.assert_array_equal(first, again)
    # The result of a frame that the server saves is none of another.
    assert server.post({**LIVER, "frame": 1, "save_label": True}, image="cine").status_code == 200
    _, answer = server.slicer({**LIVER, "foreground": [[30, 40, 3]]}, image="cine", client_id="later")
    assert answer["slices"] == [3]


def test_ohif_sends_the_frame_as_text(server: Server, phantom: Phantom) -> None:
    mask = server.ohif({"foreground": [[32, 40, 5]], "background": [], "frame": "2"}, image="cine")
    assert mask.shape == phantom.array.shape
    assert dice(mask[..., 5] > 0, moved(phantom.organs["liver"], 2)[..., 5]) > 0.6


def test_strokes_on_a_frame(server: Server, phantom: Phantom, tmp_path: Path) -> None:
    painted = np.zeros(phantom.array.shape, np.uint8)
    painted[24:41, 39:42, 5] = 2
    nibabel.save(nibabel.Nifti1Image(painted, phantom.affine), tmp_path / "strokes.nii.gz")
    info = [{"name": "liver", "id": 1}, {"name": "foreground_scribbles", "id": 2}]
    params = {"selected_label_name": "liver", "label_info": info, "frame": "2"}
    path, answer = server.client("strokes").infer(
        "causal_sam_scribbles", "cine", params, label_in=str(tmp_path / "strokes.nii.gz")
    )
    mask = np.asarray(nibabel.load(path).dataobj)
    Path(path).unlink()
    assert answer["frame"] == 2
    assert mask.shape == phantom.array.shape
    assert dice(mask[..., 5] > 0, moved(phantom.organs["liver"], 2)[..., 5]) > 0.6
