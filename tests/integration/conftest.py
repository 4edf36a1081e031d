"""One server for all integration tests, on a folder of small made-up images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from .images import Phantom, make_phantom
from .server import Server, running_server

ORIENTATIONS = ("RAS", "LPS", "SAL")
SLOW_SLICES = 40


def _save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    return make_phantom()


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory, phantom: Phantom) -> Path:
    """Images by id: ct, mr, three orientations of ct, cine, colours, two slow ones, some that cannot be segmented."""
    folder = tmp_path_factory.mktemp("site") / "studies"
    folder.mkdir()
    _save(folder / "ct.nii.gz", phantom.array, phantom.affine)
    for number in range(1, 11):  # images that one test has to itself
        _save(folder / f"fresh{number}.nii.gz", phantom.array, phantom.affine)
    i = np.arange(phantom.array.shape[0])[:, None, None]
    signal = np.where(phantom.array > -500, 300 + 2.0 * phantom.array, 0) * (1 + 0.003 * i)
    _save(folder / "mr.nii.gz", signal.astype(np.float32), phantom.affine)
    image = nibabel.Nifti1Image(phantom.array, phantom.affine)
    for codes in ORIENTATIONS:
        target = nibabel.orientations.axcodes2ornt(codes)
        turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), target)
        nibabel.save(image.as_reoriented(turn), folder / f"turned_{codes}.nii.gz")
    # Frame n is the image, moved by n voxels along i.
    cine = np.stack([np.roll(phantom.array, frame, axis=0) for frame in range(3)], axis=-1)
    _save(folder / "cine.nii.gz", cine, phantom.affine)
    _save(folder / "vectors_in_time.nii.gz", np.stack([cine, cine], axis=-1), phantom.affine)
    # Slice 5 in false colours.
    grey = np.clip(phantom.array[..., 5].T + 60, 0, 255).astype(np.uint8)
    Image.fromarray(np.stack([grey, grey // 2, 255 - grey], axis=-1)).save(folder / "colours.png")
    for number in (1, 2):
        slow = make_phantom(SLOW_SLICES, seed=number)
        _save(folder / f"slow{number}.nii.gz", slow.array, slow.affine)
    holes = phantom.array.astype(np.float32)
    _save(folder / "all_nan.nii.gz", np.full_like(holes, np.nan), phantom.affine)
    holes[:8] = np.nan
    _save(folder / "some_nan.nii.gz", holes, phantom.affine)
    whole = (folder / "ct.nii.gz").read_bytes()
    (folder / "broken.nii.gz").write_bytes(whole[: len(whole) // 2])
    outside = folder.parent / "secret.nii.gz"
    outside.write_bytes(whole)
    (folder / "more").mkdir()
    (folder / "more" / "inside.nii.gz").write_bytes(whole)
    (folder / "more" / "leads_out.nii.gz").symlink_to(outside)
    return folder


@pytest.fixture(scope="session")
def server(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Most tests are about what happens on the slices that were clicked; those about volumes ask for them.
    conf = {"labels": "liver,spleen,right kidney", "extent": "slice"}
    home = studies.parent / "home"
    home.mkdir()
    with running_server(studies, tmp_path_factory.mktemp("server"), conf, variables={"HOME": str(home)}) as started:
        yield started
