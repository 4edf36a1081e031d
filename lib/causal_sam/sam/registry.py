"""Models by name. A new model is one entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from causal_sam.sam.checkpoints import CheckpointFile
from causal_sam.sam.compact import SKIP_CHANNELS, build_compact, set_image_size

WEIGHTS = Path(__file__).parent / "weights"
COMPACT_WEIGHTS = WEIGHTS / "compact.safetensors"
COMPACT_BUNDLE = WEIGHTS / "compact_bundle.safetensors"


@dataclass(frozen=True)
class ModelSpec:
    """Constructor and capabilities of a model. The defaults are those of the original SAM.

    Attributes:
        name: key in the registry.
        build: builds the network with random weights.
        checkpoint: its weights, as a `CheckpointFile` to download or as a file of this package.
        description: one sentence for people, with the licence of the weights.
        bundle: file of the adapter bundle that is shipped with the model; None if there is none.
        film_levels: submodules of the mask decoder whose outputs are modulated, coarsest first, each with the submodule
            whose ``out_channels`` are the channels of that output.
        mask_alone: True if a mask without points and boxes is a prompt; SAM was trained on masks beside them only.
        skip_channels: channels of the embedding's skips, finest first; () if it has none.
        zoom: True if small structures are decoded again on a crop around them. A model with a large input sees them on
            the whole slice, and takes long to encode a crop.
        set_image_size: changes the input size of the network in place; None if it has only one.
    """

    name: str
    build: Callable[[], Sam]
    checkpoint: CheckpointFile | Path
    description: str
    bundle: Path | None = None
    film_levels: tuple[tuple[str, str], ...] = (
        ("output_upscaling.1", "output_upscaling.0"),
        ("output_upscaling.4", "output_upscaling.3"),
    )
    mask_alone: bool = False
    skip_channels: tuple[int, ...] = ()
    zoom: bool = False
    set_image_size: Callable[[Sam, int], None] | None = None


def _meta(filename: str, size: int, sha256: str) -> CheckpointFile:
    return CheckpointFile(f"https://dl.fbaipublicfiles.com/segment_anything/{filename}", filename, size, sha256)


# The publishers give no SHA-256; several independent public projects record these digests and sizes. MedSAM's weights
# are its authors' deposit at Zenodo, doi:10.5281/zenodo.10689643.
MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            "compact",
            build_compact,
            COMPACT_WEIGHTS,
            "Small SAM trained on generated CT-like and MR-like images; comes with this package (Apache-2.0).",
            COMPACT_BUNDLE,
            film_levels=(("refine8", "refine8.conv2"), ("refine4", "refine4.conv2"), ("polish2", "polish2.conv2")),
            mask_alone=True,
            skip_channels=SKIP_CHANNELS,
            zoom=True,
            set_image_size=set_image_size,
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
