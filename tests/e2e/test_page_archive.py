"""The browser page on a DICOM archive: a series from the list to the segmentation in the archive."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

pytest.importorskip("playwright.sync_api", reason="the end-to-end tests need the package playwright")

from playwright.sync_api import Browser, expect

from .conftest import ARTIFACTS
from .page import CausalSamPage
from .series import Segmentations, Series, read_segments
from .studies import Study
from .test_ohif import inmost, largest_slice

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]

LABEL = "liver"


def test_a_series_of_the_archive_from_the_list_to_its_segmentation(
    browser: Browser, server: str, orthanc_url: str, ct: Study
) -> None:
    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in ct.dicom.rglob("*.dcm")]
    images.sort(key=lambda image: image.ImagePositionPatient[2])
    series = Series(str(images[0].SeriesInstanceUID), ct.dicom, np.eye(4), images)
    segmentations = Segmentations(orthanc_url)
    known = {str(each.SOPInstanceUID) for each in segmentations.of(series)}
    page = CausalSamPage(browser, f"{server}/causal-sam/", "archivist")
    page.open(series.uid)
    expect(page.case(series.uid).locator("img")).to_have_count(1)  # the thumbnail, once the series is fetched
    page.choose("Point", LABEL)
    voxel = inmost(ct.organs[LABEL], largest_slice(ct.organs[LABEL]))
    page.drag(voxel)
    masks = page.masks(series.uid)
    assert masks[LABEL][voxel]
    assert page.shown(series.uid) == {name: mask.sum() for name, mask in masks.items()}
    page.button("Accept").click()
    assert f"Accepted: {LABEL}" in page.wait()
    page.picture(ARTIFACTS / "page-archive.png")
    (segmentation,) = [each for each in segmentations.of(series) if str(each.SOPInstanceUID) not in known]
    np.testing.assert_array_equal(read_segments(segmentation, series)[LABEL], masks[LABEL])
    expect(page.case(series.uid)).to_contain_text("accepted by archivist")
    page.close()
    assert (page.errors, page.foreign) == ([], [])
