"""Undo, redo and locks as clients send them, and that a restart of the server loses none of it."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from .images import Phantom
from .server import Server, running_server

pytestmark = pytest.mark.integration

LIVER, SPLEEN = [30, 40, 5], [72, 42, 5]
CONF = {"labels": "liver,spleen", "extent": "slice"}


def click(
    server: Server, *points: list[int], label: str = "liver", client_id: str = "user-xyz", **options
) -> tuple[np.ndarray, dict]:
    params = {"label": label, "foreground": list(points), "background": [], **options}
    return server.slicer(params, client_id=client_id)


def test_clients_offer_undo_and_redo(server: Server) -> None:
    for name, task in server.info()["models"].items():
        if name.startswith("causal_sam"):
            assert (task["config"]["undo"], task["config"]["redo"]) == (False, False), name


@pytest.mark.timeout(1200)
def test_a_session_survives_a_restart(phantom: Phantom, tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    nibabel.save(nibabel.Nifti1Image(phantom.array, phantom.affine), studies / "ct.nii.gz")
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    sessions = studies / "causal_sam_journal" / "sessions"
    with running_server(studies, tmp_path / "first", CONF) as server:
        first, _ = click(server, LIVER)
        (session,) = sessions.iterdir()
        second, _ = click(server, LIVER, [30, 40, 7], locked=["spleen"])
        server.post({"label": "liver", "foreground": [LIVER]}, image="", files={"file": ("ct.nii.gz", image(studies))})
        other, _ = click(server, SPLEEN, label="spleen", client_id="other")
        (others,) = {*sessions.iterdir()} - {session}  # an upload for one request leaves none
    assert {path.stat().st_mode & 0o777 for path in (sessions, session)} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in session.iterdir()} == {0o600}
    assert "user-xyz" not in session.name
    next(others.glob("*.state")).write_bytes(b'{"mask":')
    with running_server(studies, tmp_path / "second", CONF) as server:
        shown, answer = click(server, LIVER, [30, 40, 7])
        np.testing.assert_array_equal(shown, second)
        assert answer["labels"]["liver"]["updated_slices"] == []
        undone, answer = click(server, undo=True)
        np.testing.assert_array_equal(undone, first)
        assert answer["message"] == "Undone: prompts for liver."
        refused = server.post({"label": "spleen", "foreground": [SPLEEN], "redo": True, "undo": True})
        assert refused.status_code == 422
        # The damaged one of another user is begun anew, and said once.
        fresh, _ = click(server, SPLEEN, label="spleen", client_id="other")
        np.testing.assert_array_equal(fresh, other)
        assert server.log.read_text().count("cannot be used, and a new one is begun") == 1


def image(studies: Path) -> bytes:
    return (studies / "ct.nii.gz").read_bytes()
