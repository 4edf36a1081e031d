"""Loading of models onto a device."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.progress import Progress

from causal_sam.errors import InputError
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.checkpoints import fetch_checkpoint, fit_state_dict, load_state_dict
from causal_sam.sam.registry import MODELS


def load_model(
    name: str,
    checkpoint: Path | str | None = None,
    *,
    image_size: int | None = None,
    device: torch.device | str | None = None,
    cache_dir: Path | None = None,
    download: bool = True,
    progress: Progress | None = None,
) -> CausalSam:
    """Load a model with its weights, ready for inference.

    Args:
        name: one of `MODELS`.
        checkpoint: weights to use instead of the published ones; same names and shapes.
        image_size: side of the input in pixels; by default that of the weights.
        device: default the first GPU if there is one, else the CPU.
        cache_dir: folder of downloaded checkpoints; default `causal_sam.sam.checkpoints.checkpoint_dir`.
        download: False to use files only that are there already.
        progress: shows the download; by default a bar on the standard error stream.

    Returns:
        The model in evaluation mode, its encoder frozen.

    Raises:
        InputError: there is no model of this name, or it does not take images of this size.
        CheckpointError: the weights are missing, damaged, or those of another model.
    """
    spec = MODELS.get(name)
    if spec is None:
        raise InputError(f"There is no model '{name}': choose one of {', '.join(MODELS)}.")
    if image_size is not None and (spec.set_image_size is None or image_size % 16 or image_size < 64):
        able = " and ".join(spec.name for spec in MODELS.values() if spec.set_image_size is not None)
        raise InputError(f"Only {able} takes images of another size, a multiple of 16 from 64 on, not {image_size}.")
    if checkpoint is not None:
        path = Path(checkpoint)
    elif isinstance(spec.checkpoint, Path):
        path = spec.checkpoint
    else:
        path = fetch_checkpoint(spec.checkpoint, cache_dir, progress, download=download)
    weights = load_state_dict(path)
    sam = spec.build()
    fit_state_dict(sam, weights, name, path)
    if image_size is not None and spec.set_image_size is not None:
        spec.set_image_size(sam, image_size)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = CausalSam(sam, name).to(device).eval()
    if model.device.type == "cpu":
        # A tenth faster on CPUs; results differ in the last digits of float32 only.
        model.to(memory_format=torch.channels_last)
        model.encodes_in_bfloat16 = has_bfloat16_units()
    return model


def checked_device(value: str) -> str | None:
    """Check the name of a device; None stands for ``auto``, which is a GPU if there is one.

    Raises:
        InputError: there is no such device.
    """
    if value == "auto":
        return None
    try:
        device = torch.device(value)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device must be auto, cpu, cuda, cuda:N or mps, not {value!r}.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {value} is not there: this machine has {torch.cuda.device_count()} CUDA devices.")
    return value


def has_bfloat16_units() -> bool:
    """Return True if the processor has instructions for bfloat16; emulation is several times as slow as float32."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def trains_in_mixed_precision(device: str | torch.device) -> bool:
    """Return True if training on a device is faster with mixed precision: on a GPU, or with bfloat16 instructions."""
    return torch.device(device).type == "cuda" or has_bfloat16_units()
