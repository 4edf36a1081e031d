"""The models by name: a new one is one entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from causal_sam.errors import InputError
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.checkpoints import CheckpointFile, fetch_checkpoint, fit_state_dict, load_state_dict
from causal_sam.sam.compact import build_compact, set_image_size

WEIGHTS = Path(__file__).parent / "weights"
COMPACT_WEIGHTS = WEIGHTS / "compact.safetensors"
COMPACT_FILM = WEIGHTS / "compact_film.safetensors"


@dataclass(frozen=True)
class ModelSpec:
    """What is needed to make a model.

    Attributes:
        name: in the registry.
        build: makes the network with random weights.
        checkpoint: its weights as a `CheckpointFile` to download, or as a file of this package.
        description: one sentence for people, with the licence of the weights.
        film: weights of its modulation by text, as a file of this package; None if it has none.
    """

    name: str
    build: Callable[[], Sam]
    checkpoint: CheckpointFile | Path
    description: str
    film: Path | None = None


def _meta(filename: str, size: int, sha256: str) -> CheckpointFile:
    return CheckpointFile(f"https://dl.fbaipublicfiles.com/segment_anything/{filename}", filename, size, sha256)


# The publishers give no SHA-256. These digests and sizes are recorded by several independent public projects, which
# agree. MedSAM's weights are its authors' deposit at Zenodo, doi:10.5281/zenodo.10689643.
MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            "compact",
            build_compact,
            COMPACT_WEIGHTS,
            "Small SAM trained on generated CT-like and MR-like images; comes with this package (Apache-2.0).",
            COMPACT_FILM,
        ),
        ModelSpec(
            "vit_b",
            sam_model_registry["vit_b"],
            _meta(
                "sam_vit_b_01ec64.pth",
                375_042_383,
                "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            ),
            "Segment Anything with ViT-B by Meta (Apache-2.0).",
        ),
        ModelSpec(
            "vit_l",
            sam_model_registry["vit_l"],
            _meta(
                "sam_vit_l_0b3195.pth",
                1_249_524_607,
                "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
            ),
            "Segment Anything with ViT-L by Meta (Apache-2.0).",
        ),
        ModelSpec(
            "vit_h",
            sam_model_registry["vit_h"],
            _meta(
                "sam_vit_h_4b8939.pth",
                2_564_550_879,
                "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
            ),
            "Segment Anything with ViT-H by Meta (Apache-2.0).",
        ),
        ModelSpec(
            "medsam",
            sam_model_registry["vit_b"],
            CheckpointFile(
                "https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
                "medsam_vit_b.pth",
                375_049_145,
                "34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
            ),
            "MedSAM: ViT-B tuned on medical images by Ma et al. 2024, for boxes (CC BY 4.0).",
        ),
    )
}


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
    """Make a model with its weights, ready for inference.

    Args:
        name: one of `MODELS`.
        checkpoint: weights to use instead of the published ones; same names and shapes.
        image_size: side of the input in pixels; by default that of the weights.
        device: default the first GPU if there is one, else the CPU.
        cache_dir: folder of downloaded checkpoints; default `causal_sam.sam.checkpoints.checkpoint_dir`.
        download: whether weights that are not there may be downloaded.
        progress: where to show the download; by default a bar on the standard error stream.

    Returns:
        The model in evaluation mode, its encoder frozen.

    Raises:
        InputError: there is no model of this name, or it does not take images of this size.
        CheckpointError: the weights cannot be had, are damaged, or are another model's.
    """
    spec = MODELS.get(name)
    if spec is None:
        raise InputError(f"There is no model '{name}': choose one of {', '.join(MODELS)}.")
    if image_size is not None and (name != "compact" or image_size % 16 or image_size < 64):
        raise InputError(f"Only compact takes images of another size, a multiple of 16 from 64 on, not {image_size}.")
    if checkpoint is not None:
        path = Path(checkpoint)
    elif isinstance(spec.checkpoint, Path):
        path = spec.checkpoint
    else:
        path = fetch_checkpoint(spec.checkpoint, cache_dir, progress, download=download)
    weights = load_state_dict(path)
    sam = spec.build()
    fit_state_dict(sam, weights, name, path)
    if image_size is not None:
        set_image_size(sam, image_size)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = CausalSam(sam, name).to(device).eval()
    if model.device.type == "cpu":
        # A tenth faster here, and the same to the last digits of float32.
        model.to(memory_format=torch.channels_last)
        model.encodes_in_bfloat16 = has_bfloat16_units()
    return model


def checked_device(value: str) -> str | None:
    """Return the device that a person asks for; None for ``auto``, which is a GPU if there is one.

    Raises:
        InputError: there is no such device here.
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
    """Whether the processor multiplies bfloat16 numbers itself.

    Others emulate it, PyTorch says nothing about that, and it takes several times as long as float32.
    """
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
