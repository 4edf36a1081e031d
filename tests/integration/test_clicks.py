"""Clicks, boxes and refinement, as Slicer's and OHIF's plug-ins send them."""

from __future__ import annotations

import gzip
import io
import time
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest

from causal_sam.imaging.overlap import dice

from .conftest import ORIENTATIONS
from .images import Phantom
from .server import Server, from_address, read_nifti, read_nrrd

pytestmark = pytest.mark.integration

LIVER, SPLEEN = [30, 40, 5], [72, 42, 5]


def deepgrow(label: str, foreground: list, background: list | None = None, **options) -> dict:
    """What Slicer's plug-in puts into a deepgrow request, the options from ``/info/`` included."""
    return {
        "label": label,
        "foreground": foreground,
        "background": background or [],
        "reset": False,
        "plane": "auto",
        **options,
    }


def slices(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask.any(axis=(0, 1))).tolist()


def test_info_offers_the_tasks_and_labels_in_the_forms_that_clients_read(server: Server) -> None:
    info = server.info()
    assert info["labels"] == ["liver", "spleen", "right kidney"]  # OHIF appends to this list
    task = info["models"]["causal_sam"]
    assert (task["type"], task["dimension"]) == ("deepgrow", 3)
    assert task["labels"] == {"liver": 1, "spleen": 2, "right kidney": 3}
    assert task["config"]["reset"] is False
    assert task["config"]["plane"][0] == "auto"
    many = info["models"]["causal_sam_multilabel"]
    assert many["type"] == "deepedit"
    assert many["labels"] == {**task["labels"], "background": 255}  # no label has this value


def test_a_click_from_slicer_gives_the_mask_of_its_slice(server: Server, phantom: Phantom) -> None:
    mask, params = server.slicer(deepgrow("liver", [LIVER]), client_id="one-click")
    assert mask.shape == phantom.array.shape
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}  # Slicer takes the first label of the request for the value 1
    assert set(slices(mask)) <= {5}
    assert params["label"] == "liver"
    assert params["label_names"] == {"liver": 1}
    assert params["slices"] == slices(mask)
    assert params["labels"]["liver"]["updated_slices"] == [5]
    assert params["volume_ml"] == pytest.approx(np.count_nonzero(mask) * 2 * 2 * 5 / 1000, abs=0.001)
    assert 0 <= params["predicted_iou"] <= 1
    assert params["message"].startswith("liver: ")
    assert params["latencies"]["total"] >= params["latencies"]["infer"]


def test_answers_say_in_words_how_the_image_looks_once_that_is_known(server: Server) -> None:
    for _ in range(50):  # the description is made behind the requests
        _, params = server.slicer(deepgrow("liver", [LIVER]), client_id="style")
        if "style" in params:
            break
        time.sleep(0.1)
    assert params["style"]["source"] == "measured"
    assert params["style"]["sentence"].startswith("A CT image, with ")


@pytest.mark.parametrize("image", ["ct", "mr"])
def test_a_click_and_a_box_find_a_bright_organ(server: Server, phantom: Phantom, image: str) -> None:
    for name, (i, j, k) in phantom.centres.items():
        organ = phantom.organs[name][..., k]
        clicked, _ = server.slicer(deepgrow(name, [[i, j, k]]), image=image, client_id="click")
        assert clicked[i, j, k]
        assert np.count_nonzero(organ & (clicked[..., k] > 0)) > 0.5 * np.count_nonzero(clicked)
        rows, columns = (np.flatnonzero(organ.any(axis=axis)) for axis in (1, 0))
        roi = [rows[0], rows[-1], columns[0], columns[-1], k, k]
        boxed, _ = server.slicer(deepgrow(name, [], roi=[int(n) for n in roi]), image=image, client_id="box-organ")
        assert dice(boxed[..., k], organ) > 0.8


def test_the_same_clicks_give_the_same_mask_to_the_bit(server: Server) -> None:
    first, _ = server.slicer(deepgrow("liver", [LIVER, [30, 40, 6]]), client_id="same")
    second, params = server.slicer(deepgrow("liver", [[30, 40, 6], LIVER]), client_id="same")
    assert params["labels"]["liver"]["updated_slices"] == []
    np.testing.assert_array_equal(first, second)


def test_more_clicks_refine_their_slice_and_leave_the_others(server: Server) -> None:
    before, _ = server.slicer(deepgrow("liver", [LIVER, [30, 40, 3]]), client_id="refine")
    after, params = server.slicer(deepgrow("liver", [LIVER, [30, 40, 3]], [[60, 40, 5]]), client_id="refine")
    assert params["labels"]["liver"]["updated_slices"] == [5]
    np.testing.assert_array_equal(before[..., 3], after[..., 3])


def test_taking_a_click_back_decides_the_slice_from_the_others_alone(server: Server) -> None:
    once, _ = server.slicer(deepgrow("liver", [LIVER]), client_id="back")
    server.slicer(deepgrow("liver", [LIVER, [50, 60, 5]], [[20, 20, 5]]), client_id="back")
    again, _ = server.slicer(deepgrow("liver", [LIVER]), client_id="back")
    np.testing.assert_array_equal(once, again)


def test_slices_without_clicks_in_a_request_keep_their_mask(server: Server) -> None:
    first, _ = server.slicer(deepgrow("liver", [LIVER]), client_id="keep")
    both, _ = server.slicer(deepgrow("liver", [[30, 40, 7]]), client_id="keep")
    np.testing.assert_array_equal(first[..., 5], both[..., 5])


def test_labels_have_masks_of_their_own(server: Server) -> None:
    liver, _ = server.slicer(deepgrow("liver", [LIVER]), client_id="own")
    spleen, params = server.slicer(deepgrow("spleen", [[72, 42, 8]]), client_id="own")
    assert set(slices(spleen)) <= {8}
    assert params["label_names"] == {"spleen": 1}
    again, _ = server.slicer(deepgrow("liver", [LIVER]), client_id="own")
    np.testing.assert_array_equal(liver, again)


def test_a_label_that_the_server_does_not_know_is_segmented_too(server: Server) -> None:
    _, params = server.slicer(deepgrow("cyst in segment IV", [LIVER]), client_id="own-name")
    assert params["label_names"] == {"cyst in segment IV": 1}


def test_reset_starts_the_label_again_and_no_other(server: Server) -> None:
    fresh, _ = server.slicer(deepgrow("liver", [LIVER]), client_id="reset")
    spleen, _ = server.slicer(deepgrow("spleen", [SPLEEN]), client_id="reset")
    server.slicer(deepgrow("liver", [LIVER, [30, 45, 5], [30, 40, 2]], [[60, 40, 5]]), client_id="reset")
    for _ in range(2):  # OHIF sends the option as the user left it, with every request
        again, params = server.slicer(deepgrow("liver", [LIVER], reset=True), client_id="reset")
        assert params["labels"]["liver"]["updated_slices"] == [5]
        np.testing.assert_array_equal(fresh, again)
    still, params = server.slicer(deepgrow("spleen", [SPLEEN]), client_id="reset")
    assert params["labels"]["spleen"]["updated_slices"] == []
    np.testing.assert_array_equal(spleen, still)


def test_reset_alone_empties_the_label(server: Server) -> None:
    server.slicer(deepgrow("liver", [LIVER]), client_id="empty")
    mask, params = server.slicer(deepgrow("liver", [], reset=True), client_id="empty")
    assert not mask.any()
    assert params["slices"] == []


def test_what_slicer_sends_when_the_user_turns_to_another_label_forgets_nothing(server: Server) -> None:
    first, _ = server.slicer(deepgrow("liver", [LIVER]), client_id="state")
    server.slicer(deepgrow("spleen", [SPLEEN], reset_state=True), client_id="state")
    back, _ = server.slicer(deepgrow("liver", [[30, 40, 8]], reset_state=True), client_id="state")
    # To another label and back without a request for it: the server sees the same label twice.
    again, params = server.slicer(deepgrow("liver", [[30, 40, 8]], reset_state=True), client_id="state")
    assert params["labels"]["liver"]["updated_slices"] == []
    np.testing.assert_array_equal(again, back)
    np.testing.assert_array_equal(again[..., 5], first[..., 5])


def test_reset_of_slicers_many_lists_empties_the_current_label_alone(server: Server) -> None:
    lists = {"liver": [LIVER], "spleen": [SPLEEN], "right kidney": [], "label": "spleen"}
    before, _ = server.slicer(lists, model="causal_sam_multilabel", client_id="reset-many")
    lists |= {"liver": [], "spleen": [], "reset": True}
    after, _ = server.slicer(lists, model="causal_sam_multilabel", client_id="reset-many")
    np.testing.assert_array_equal(after == 1, before == 1)
    assert (before == 2).any()
    assert not (after == 2).any()


def test_a_click_for_one_label_leaves_another_as_it_is(server: Server, tmp_path: Path) -> None:
    """Clicks on the liver; then Slicer has its list of points empty, and the spleen is clicked on the same slice."""
    model = "causal_sam_multilabel"
    lists = {"liver": [LIVER, [30, 40, 7]], "spleen": [], "right kidney": [], "label": "liver"}
    liver, _ = server.slicer(lists, model=model, image="fresh5", client_id="one-label")
    assert slices(liver == 1) == [5, 7]
    lists |= {"liver": [], "spleen": [SPLEEN], "label": "spleen"}
    both, _ = server.slicer(lists, model=model, image="fresh5", client_id="one-label")
    np.testing.assert_array_equal(both == 1, (liver == 1) & (both != 2))
    np.testing.assert_array_equal(both[..., 7], liver[..., 7])
    assert (both == 2).any()
    # The same after the liver was accepted, from another client, and from OHIF, which has no list of the liver at all.
    path = tmp_path / "label.nii.gz"
    affine = nibabel.load(server.studies / "fresh5.nii.gz").affine
    nibabel.save(nibabel.Nifti1Image(both.astype(np.uint8), affine), path)
    info = {"label_info": [{"name": name, "idx": n} for n, name in enumerate(("liver", "spleen", "right kidney"), 1)]}
    server.client("one-label").save_label("fresh5", str(path), params=info)
    lists |= {"spleen": [SPLEEN, [72, 42, 7]]}
    for client in ("one-label", "another"):
        more, _ = server.slicer(lists, model=model, image="fresh5", client_id=client)
        np.testing.assert_array_equal(more == 1, both == 1)  # accepted, and nothing is clicked inside of it
    ohif = server.ohif({"background": [], "spleen": [SPLEEN, [72, 42, 8]]}, model=model, image="fresh5")
    np.testing.assert_array_equal(ohif == 1, both == 1)
    # A click inside of it says that this part is the spleen's.
    i, j, k = LIVER
    claimed, _ = server.slicer(
        {**lists, "spleen": [*lists["spleen"], LIVER]}, model=model, image="fresh5", client_id="one-label"
    )
    assert claimed[i, j, k] == 2
    np.testing.assert_array_equal(claimed == 1, (both == 1) & (claimed != 2))


def test_no_points_of_the_current_label_change_nothing(server: Server) -> None:
    before, _ = server.slicer(deepgrow("liver", [LIVER]), client_id="no-points")
    # The last point was removed and Update pressed; a client that was started again sends the same.
    empty = {**deepgrow("liver", []), "client_id": "no-points"}
    response = server.post(empty)
    assert response.status_code == 422
    assert "liver has a mask already, which stays as it is" in response.json()["detail"]
    lists = {"liver": [], "spleen": [SPLEEN], "right kidney": [], "label": "liver"}
    after, _ = server.slicer(lists, model="causal_sam_multilabel", client_id="no-points")
    np.testing.assert_array_equal((after == 1) | (after == 2), (before > 0) | (after == 2))


def test_a_new_click_of_a_client_that_has_forgotten_the_others_erases_nothing(server: Server) -> None:
    i, j, k = LIVER
    before, _ = server.slicer(deepgrow("liver", [LIVER]), client_id="forgetful")
    after, _ = server.slicer(deepgrow("liver", [[i + 10, j + 10, k]]), client_id="forgetful")
    assert after[i, j, k]
    assert after[i + 10, j + 10, k]
    assert np.count_nonzero(before & ~after) < 0.05 * np.count_nonzero(before)


def test_ohifs_row_background_is_refused(server: Server) -> None:
    same = {"foreground": [[10, 10, 5]], "background": [[10, 10, 5]], "reset": False, "plane": "auto"}
    response = server.post(same, output="image")
    assert response.status_code == 422
    assert "inside and as outside" in response.json()["detail"]
    response = server.post({"background": [[10, 10, 5]]}, model="causal_sam_multilabel", output="image")
    assert response.status_code == 422
    assert "do not say which structure" in response.json()["detail"]


def test_a_label_map_holds_labels_of_the_clients_own(server: Server) -> None:
    """Slicer's user adds the segment "cyst", clicks it with causal_sam, and goes on with the many-label task."""
    cyst, _ = server.slicer(deepgrow("cyst", [[50, 70, 5]]), client_id="own-label")
    lists = {"liver": [LIVER], "spleen": [], "right kidney": []}
    mask, answer = server.slicer({**lists, "label": "liver"}, model="causal_sam_multilabel", client_id="own-label")
    assert answer["label_names"] == {"liver": 1, "spleen": 2, "right kidney": 3, "cyst": 4}
    np.testing.assert_array_equal(mask == 4, (cyst > 0) & (mask != 1))
    # Of a segment that the server does not offer Slicer sends no points to that task.
    response = server.post({**lists, "label": "cyst"}, model="causal_sam_multilabel")
    assert response.status_code == 422
    assert "There is no label 'cyst'; this server has liver, spleen, right kidney." in response.json()["detail"]


def test_a_box_is_segmented_slice_by_slice_and_clipped_to_the_volume(server: Server, phantom: Phantom) -> None:
    # Slicer's box is in the order of the patient's axes, and may reach out of the volume.
    mask, params = server.slicer(deepgrow("liver", [], roi=[48, 12, 60, 20, 8, 30]), client_id="box")
    assert params["labels"]["liver"]["updated_slices"] == [8, 9]
    assert set(slices(mask)) <= {8, 9}
    ijk, _ = server.slicer(deepgrow("liver", [], roi=[12, 48, 20, 60, 8, 9]), client_id="box-sorted")
    np.testing.assert_array_equal(mask, ijk)


def test_slice_restricts_the_request_to_one_slice(server: Server) -> None:
    both = [LIVER, [30, 40, 7]]
    _, params = server.slicer(deepgrow("liver", both, slice=7), client_id="slice")
    assert params["labels"]["liver"]["updated_slices"] == [7]


def test_plane_chooses_which_slices_are_segmented(server: Server) -> None:
    mask, params = server.slicer(deepgrow("liver", [LIVER], plane="coronal"), client_id="plane")
    assert params["axis"] == 1
    assert set(np.flatnonzero(mask.any(axis=(0, 2)))) <= {40}


def test_ohif_sends_clicks_without_the_name_of_their_label(server: Server) -> None:
    liver = server.ohif({"foreground": [LIVER], "background": []}, image="fresh1")
    more = server.ohif({"foreground": [LIVER, [30, 40, 7]], "background": []}, image="fresh1")
    np.testing.assert_array_equal(liver[..., 5], more[..., 5])
    # The user turns to another label: its clicks come alone, with the background clicks that all labels share.
    spleen = server.ohif({"foreground": [[72, 42, 3]], "background": [[10, 10, 7]]}, image="fresh1")
    assert set(slices(spleen)) <= {3}
    # And back.
    again = server.ohif({"foreground": [LIVER, [30, 40, 7]], "background": []}, image="fresh1")
    np.testing.assert_array_equal(more, again)


def test_ohif_gets_an_uncompressed_nrrd_on_the_grid_of_the_image(server: Server, phantom: Phantom) -> None:
    params = {"foreground": [LIVER], "background": [], "result_extension": ".nrrd", "result_compress": False}
    response = server.post({**params, "result_dtype": "uint8", "restore_label_idx": False}, output="image")
    assert response.status_code == 200
    header = nrrd.read_header(io.BytesIO(response.content))
    assert header["encoding"] == "raw"
    assert header["type"] in ("uint8", "unsigned char", "uint8_t", "uchar")
    assert read_nrrd(response.content).shape == phantom.array.shape
    lps = np.diag([-1, -1, 1]) @ phantom.affine[:3, :3]
    np.testing.assert_allclose(header["space directions"].T, lps)


def test_keys_that_a_client_left_over_are_ignored(server: Server) -> None:
    plain, _ = server.slicer(deepgrow("liver", [LIVER]), client_id="plain")
    stale = deepgrow("liver", [LIVER], spleen=[[999, 999, 999]], note="an old note", largest_cc=True, points=[[1, 2]])
    mask, _ = server.slicer(stale, client_id="stale")
    np.testing.assert_array_equal(plain, mask)


def test_deepedit_from_slicer_gives_a_label_map_of_all_labels(server: Server) -> None:
    # Slicer sends a list for every label of /info/, with the clicks of the current and of all other segments.
    params = {"liver": [LIVER], "spleen": [SPLEEN], "right kidney": [], "label": "spleen", "plane": "auto"}
    mask, answer = server.slicer(params, model="causal_sam_multilabel", client_id="edit")
    assert answer["label_names"] == {"liver": 1, "spleen": 2, "right kidney": 3}  # Slicer maps values by position
    assert set(np.unique(mask)) <= {0, 1, 2}
    assert set(slices(mask)) <= {5}
    assert answer["label"] == "spleen"
    assert answer["labels"]["liver"]["updated_slices"] == [5]
    assert answer["labels"]["spleen"]["updated_slices"] == [5]
    assert answer["labels"]["right kidney"]["slices"] == []
    spleen, params = server.slicer(deepgrow("spleen", [SPLEEN], [LIVER]), client_id="edit")
    assert params["labels"]["spleen"]["updated_slices"] == []  # both tasks share the working mask
    np.testing.assert_array_equal(spleen > 0, mask == 2)  # the current label is drawn over the others


def test_deepedit_from_ohif_has_background_clicks_and_no_current_label(server: Server) -> None:
    params = {"plane": "auto", "reset": False}
    params["background"] = []
    params["liver"] = [LIVER]
    first = server.ohif(params, model="causal_sam_multilabel", image="fresh2")
    assert set(np.unique(first)) <= {0, 1}
    # The same object again: the list of an earlier label is still in it.
    params["spleen"] = [[72, 42, 7]]
    params["background"] = [[5, 5, 7]]
    second = server.ohif(params, model="causal_sam_multilabel", image="fresh2")
    assert set(np.unique(second)) <= {0, 1, 2}
    np.testing.assert_array_equal(first[..., 5], second[..., 5])


@pytest.mark.parametrize("output", ["image", "json", "all", None])
def test_every_form_of_output(server: Server, phantom: Phantom, output: str | None) -> None:
    response = server.post(deepgrow("liver", [LIVER]), output=output)
    assert response.status_code == 200
    kind = response.headers["content-type"]
    if output == "json":
        assert response.json()["label_names"] == {"liver": 1}
    elif output == "image":
        mask = read_nifti(response.content)
        assert mask.shape == phantom.array.shape
        np.testing.assert_allclose(mask.affine, phantom.affine)
    else:
        assert kind.startswith("multipart/form-data")
        assert b'name="params"' in response.content
        assert b'name="image"' in response.content


@pytest.mark.parametrize(("extension", "dtype"), [(".nii.gz", "uint16"), (".nii", "uint8"), (".nrrd", "int16")])
def test_results_in_the_extension_and_type_asked_for(server: Server, extension: str, dtype: str) -> None:
    asked = deepgrow("liver", [LIVER], result_extension=extension, result_dtype=dtype, result_compress=True)
    content = server.post(asked, output="image").content
    if extension == ".nrrd":
        assert read_nrrd(content).dtype == dtype
    else:
        content = gzip.decompress(content) if extension == ".nii.gz" else content
        assert nibabel.Nifti1Image.from_bytes(content).get_data_dtype() == dtype


def test_one_anatomy_in_three_orientations_gives_one_mask(server: Server, phantom: Phantom) -> None:
    i, j, k = phantom.centres["liver"]
    place = phantom.affine @ [i, j, k, 1]
    masks = []
    for codes in ORIENTATIONS:
        image = nibabel.load(server.studies / f"turned_{codes}.nii.gz")
        click = np.linalg.solve(image.affine, place)[:3].round().astype(int).tolist()
        response = server.post(deepgrow("liver", [click], plane="axial"), image=f"turned_{codes}", output="image")
        mask = read_nifti(response.content)
        np.testing.assert_allclose(mask.affine, image.affine)
        masks.append(np.asarray(nibabel.as_closest_canonical(mask).dataobj))
    assert masks[0].any()
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])


def test_clients_of_other_addresses_have_working_masks_of_their_own(server: Server) -> None:
    here, there = from_address("127.0.0.2"), from_address("127.0.0.3")
    server.post(deepgrow("liver", [LIVER]), session=here)
    other = server.post(deepgrow("liver", [[30, 40, 7]]), session=there).json()
    assert set(other["slices"]) <= {7}
    same = server.post(deepgrow("liver", [LIVER]), session=here).json()
    assert same["labels"]["liver"]["updated_slices"] == []


def test_a_session_has_an_image_and_a_working_mask_of_its_own(server: Server) -> None:
    client = server.client("session")
    session = client.create_session(str(server.studies / "ct.nii.gz"))["session_id"]
    _, params = client.infer("causal_sam", "ct", deepgrow("liver", [LIVER]), session_id=session)
    assert params["labels"]["liver"]["updated_slices"] == [5]
    _, params = client.infer("causal_sam", "ct", deepgrow("liver", [LIVER]), session_id=session)
    assert params["labels"]["liver"]["updated_slices"] == []
    _, params = client.infer("causal_sam", "ct", deepgrow("liver", [LIVER]))
    assert params["labels"]["liver"]["updated_slices"] == [5]


def test_an_uploaded_file_is_segmented(server: Server) -> None:
    _, params = server.client("upload").infer(
        "causal_sam", "", deepgrow("liver", [LIVER]), file=str(server.studies / "ct.nii.gz")
    )
    assert params["labels"]["liver"]["updated_slices"] == [5]


def test_voxels_that_are_not_numbers_are_tolerated(server: Server) -> None:
    assert server.post(deepgrow("liver", [LIVER]), image="some_nan").status_code == 200
