"""Latency of encoding, clicks and volumes, and peak memory, for several models."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from causal_sam.errors import CheckpointError
from causal_sam.imaging import Volume
from causal_sam.imaging.overlap import dice
from causal_sam.phantom.samples import samples
from causal_sam.prompting import EmbeddingCache, Predictor
from causal_sam.sam import MODELS, CausalSam, load_model
from causal_sam.simulation.annotator import deepest_point

# Slices that a volume is timed on; slower models are timed on one, and the rest is calculated.
VOLUME_SLICES = 20
PATIENCE_SECONDS = 30.0
CACHE_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Latency:
    """Times of one model on one machine, medians in seconds.

    Attributes:
        model: name of the model.
        weights: "own", or "random" if the weights are not on this machine; times do not depend on them.
        parameters: number of parameters.
        weight_mb: size of all weights in memory, in 10^6 bytes.
        threads: number of CPU threads.
        device: device of the model.
        precision: precision of the encoder.
        load: time to build the model and read its weights.
        encode: time to encode one slice.
        decode: time to decode one click on an encoded slice into low-resolution masks.
        click: time of a further click on a slice through the predictor, everything included.
        first_click: time of the first click on a slice: encoding, decoding and, for a small structure, zoom.
        volume: time to encode all slices of a volume.
        volume_slices: number of these slices.
        volume_estimated: True if ``volume`` is extrapolated from one slice.
        peak_mb: peak resident memory of a process that does all of this, in 10^6 bytes.
        peak_before_mb: peak resident memory before the model is built, in 10^6 bytes.
    """

    model: str
    weights: str
    parameters: int
    weight_mb: float
    threads: int
    device: str
    precision: str
    load: float
    encode: float
    decode: float
    click: float
    first_click: float
    volume: float
    volume_slices: int
    volume_estimated: bool
    peak_mb: float
    peak_before_mb: float


def measure(model: str, repeats: int, threads: int | None) -> Latency:
    """Measure one model in a separate process, so that its memory is not mixed with another model's.

    Args:
        model: name in `MODELS`. Weights that would have to be downloaded are replaced by random ones.
        repeats: measurements of each time; slow operations are measured fewer times, at least once.
        threads: number of CPU threads; None for PyTorch's default.

    Raises:
        InputError: the model does not exist.
    """
    # Unlike a pool of multiprocessing, this says so if the process is killed.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
        return alone.submit(_measure_here, model, repeats, threads).result()


@dataclass(frozen=True)
class PrecisionError:
    """Difference between the optimised model and the same model in float32 with PyTorch's default memory layout.

    Attributes:
        largest_logit: largest absolute difference of the slices' logits.
        mean_dice: mean Dice of the two masks.
        smallest_dice: smallest Dice of the two masks.
        clicks: number of clicks compared.
    """

    largest_logit: float
    mean_dice: float
    smallest_dice: float
    clicks: int


def precision_error(model: CausalSam, clicks: int) -> PrecisionError:
    """Compare the optimised model with the same model without optimisations, on generated slices.

    Args:
        model: model on any device.
        clicks: number of slices, each clicked once.
    """
    plain = CausalSam(model.spec.build(), model.name)
    plain.load_state_dict(model.state_dict())
    plain.eval()
    differences, overlaps = [], []
    for sample in islice(samples(model.image_size, 1, seed=1), clicks):
        row, column = deepest_point(sample.masks[0])
        points, labels = torch.tensor([[[column, row]]]), torch.ones(1, 1)
        image = torch.from_numpy(sample.image)[None]
        with torch.inference_mode():
            optimised = model.decode(model.encode(image), points=points, point_labels=labels, multimask=True)
            reference = plain.decode(plain.encode(image), points=points, point_labels=labels, multimask=True)
        best = int(optimised.iou[0].argmax())
        differences.append(float((optimised.logits.cpu() - reference.logits).abs().max()))
        overlaps.append(dice(optimised.logits[0, best].cpu().numpy() > 0, reference.logits[0, best].numpy() > 0))
    return PrecisionError(max(differences), float(np.mean(overlaps)), min(overlaps), clicks)


def _measure_here(name: str, repeats: int, threads: int | None) -> Latency:
    if threads is not None:
        torch.set_num_threads(threads)
    peak_before = peak_mb()
    begin = time.perf_counter()
    try:
        model, weights = load_model(name, download=False), "own"
    except CheckpointError:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model, weights = CausalSam(MODELS[name].build(), name).to(device).eval(), "random"
    load = time.perf_counter() - begin
    volume, voxel = _volume()
    predictor = Predictor(model, EmbeddingCache(CACHE_BYTES), prefetch_slices=0)
    predictor.set_volume(volume)
    image = predictor.slices.image(voxel[2])
    points, ones = predictor.slices.points((voxel,))[None].to(model.device), torch.ones(1, 1, device=model.device)
    with torch.inference_mode():
        encode = _seconds(lambda: _synchronised(model.encode(image).features), repeats)
        embedding = model.encode(image)
        decode = _seconds(
            lambda: _synchronised(model.decode(embedding, points=points, point_labels=ones, multimask=True).logits),
            repeats,
        )

    def first_click() -> None:
        Predictor(model, EmbeddingCache(CACHE_BYTES), prefetch_slices=0).for_volume(volume).predict([voxel])

    first = _seconds(first_click, repeats)
    answer = predictor.predict([voxel])
    previous = {index: part.low_res_logits for index, part in answer.slices.items()}
    beside = (voxel[0] + 1, voxel[1], voxel[2])
    predictor.predict([voxel, beside], previous=previous)  # encodes the crop of a small structure
    click = _seconds(lambda: predictor.predict([voxel, beside], previous=previous), repeats)
    count = volume.shape[2]
    estimated = encode * count > PATIENCE_SECONDS
    whole = encode * count if estimated else _seconds(lambda: _encode_all(model, predictor, count), 1)
    return Latency(
        model=name,
        weights=weights,
        parameters=sum(p.numel() for p in model.parameters()),
        weight_mb=sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6,
        threads=torch.get_num_threads(),
        device=str(model.device),
        precision="bfloat16" if model.encodes_in_bfloat16 else "float32",
        load=load,
        encode=encode,
        decode=decode,
        click=click,
        first_click=first,
        volume=whole,
        volume_slices=count,
        volume_estimated=estimated,
        peak_mb=peak_mb(),
        peak_before_mb=peak_before,
    )


def _volume() -> tuple[Volume, tuple[int, int, int]]:
    """Return a generated volume of 256x256 slices, and a voxel in the middle of a structure."""
    drawn = list(islice(samples(256, 1, seed=0), -(-VOLUME_SLICES // 3)))
    array = np.concatenate([sample.image for sample in drawn])[:VOLUME_SLICES].transpose(2, 1, 0)
    row, column = deepest_point(drawn[0].masks[0])
    # Columns towards the patient's left and rows towards posterior, as the model sees them.
    return Volume(np.ascontiguousarray(array), np.diag([-1.0, -1.0, 3.0, 1.0]), "MR"), (column, row, 1)


def _encode_all(model: CausalSam, predictor: Predictor, count: int) -> None:
    with torch.inference_mode():
        for index in range(count):
            _synchronised(model.encode(predictor.slices.image(index)).features)


def _seconds(act: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of an operation after a warm-up; a slow operation runs only once."""
    begin = time.perf_counter()
    act()
    first = time.perf_counter() - begin
    if first > PATIENCE_SECONDS / 6:
        return first
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        act()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def _synchronised(tensor: torch.Tensor) -> None:
    """Wait until a GPU is done."""
    if tensor.is_cuda:
        torch.cuda.synchronize()


def peak_mb(who: int = resource.RUSAGE_SELF) -> float:
    """Return the peak resident memory of this process in 10^6 bytes, or with ``RUSAGE_CHILDREN`` of its largest child.

    Linux counts in KiB, macOS in bytes.
    """
    peak = resource.getrusage(who).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
