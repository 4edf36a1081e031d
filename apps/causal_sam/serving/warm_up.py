"""Warm up before the first click: compiled kernels, file writers and their plug-ins are slow on first use."""

from __future__ import annotations

import gc
import logging
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from monailabel.transform.writer import write_itk

from causal_sam.imaging import Volume, write_mask
from serving.models import PredictorPool

logger = logging.getLogger(__name__)


def warm_up(predictors: PredictorPool) -> None:
    """Segment a small image made up here, and write masks in the formats that clients ask for."""
    begin = time.monotonic()
    ramp = np.linspace(-100, 200, 64 * 64 * 3, dtype=np.float32).reshape(64, 64, 3)
    volume = Volume(ramp, np.eye(4), modality="CT", tags={}, source=None)
    with predictors.inference_slots.hold():
        mask = predictors.base().for_volume(volume, "axial").predict([(32, 32, 1)]).mask
    with tempfile.TemporaryDirectory() as folder:
        for extension in (".nrrd", ".nii.gz"):
            write_mask(mask, volume, Path(folder) / f"mask{extension}")
        # MONAI Label's own writer takes seconds to load its plug-ins; it converts what OHIF saves.
        write_itk(mask.astype(np.uint8), str(Path(folder) / "itk.nii.gz"), volume.affine, None, True)
    predictors.current_bundle()
    logger.info("Warmed up in %.1f s.", time.monotonic() - begin)


def start_warm_up(predictors: PredictorPool) -> threading.Thread:
    """Warm up in the background; requests that come meanwhile are answered, only slower."""

    def run() -> None:
        try:
            warm_up(predictors)
        except Exception:
            logger.exception("Warming up failed; the first request will show whether the server works.")
        # A full collection walks all objects there are, those of torch for a second in which nobody gets an answer,
        # and a request with many small lists causes one. Objects that are loaded now stay for good: leave them out.
        gc.collect()
        gc.freeze()

    thread = threading.Thread(target=run, name="causal-sam-warm-up", daemon=True)
    thread.start()
    return thread
