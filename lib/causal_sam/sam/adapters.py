"""Adapters: low-rank changes (LoRA, Hu et al. 2022) of a frozen model."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass

from torch import Tensor, nn

from causal_sam.errors import CheckpointError, InputError
from causal_sam.sam.causal_sam import CausalSam, weights_hash

# Attention and neck of the image encoder, in both kinds of model, and attention of the mask decoder.
TARGETS = (
    r"image_encoder\.blocks\.\d+\.attn\.(qkv|proj)"
    r"|image_encoder\.(neck\.(0|2)|lateral8|lateral16)"
    r"|mask_decoder\.transformer\..*\.(q_proj|k_proj|v_proj|out_proj)"
)
# Limit of the trainable share of the parameters.
MAX_SHARE = 0.09
_NAME = "causal_sam"


@dataclass(frozen=True)
class AdapterConfig:
    """Size of the adapters.

    Attributes:
        rank: rank of each low-rank change.
        alpha: the change is scaled by alpha / rank.
        dropout: dropout rate of the input of each change, while training.

    Raises:
        InputError: a number is out of range.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or not 0 <= self.dropout < 1:
            raise InputError(
                f"Adapters need a rank of at least 1, alpha above 0 and dropout in [0, 1), not {self.rank}, "
                f"{self.alpha} and {self.dropout}."
            )


def add_adapters(model: CausalSam, config: AdapterConfig) -> list[nn.Parameter]:
    """Add adapters that change nothing yet to a model, in place, and freeze all else.

    Args:
        model: without adapters.
        config: size of the adapters.

    Returns:
        The parameters of the adapters.

    Raises:
        InputError: the model has adapters already.
    """
    if has_adapters(model):
        raise InputError(f"The model {model.name} has adapters already: load it anew to give it others.")
    # The import takes seconds, for which a click should not wait.
    from peft import LoraConfig, inject_adapter_in_model

    model.requires_grad_(False)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft only divides it by the rank
        lora_dropout=config.dropout,
        target_modules=TARGETS,
    )
    inject_adapter_in_model(lora, model.sam, adapter_name=_NAME)
    return [parameter for name, parameter in model.named_parameters() if "lora_" in name]


def has_adapters(model: CausalSam) -> bool:
    """Return True if a model has adapters."""
    return any("lora_" in name for name, _ in model.named_parameters())


def adapter_weights(model: CausalSam) -> dict[str, Tensor]:
    """Return the weights of a model's adapters by name."""
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model.sam, adapter_name=_NAME)


def load_adapters(model: CausalSam, weights: dict[str, Tensor]) -> None:
    """Load weights into the adapters of a model, in place.

    Args:
        model: model with adapters.
        weights: result of `adapter_weights`.

    Raises:
        CheckpointError: the weights are not those of such adapters of this model.
    """
    from peft import set_peft_model_state_dict

    own = adapter_weights(model)
    wrong = own.keys() ^ weights.keys() | {k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape}
    if wrong:
        raise CheckpointError(f"These adapters belong to another model than {model.name}: {min(wrong)} does not fit.")
    set_peft_model_state_dict(model.sam, weights, adapter_name=_NAME)


def adapted_copy(model: CausalSam, config: AdapterConfig, weights: dict[str, Tensor]) -> CausalSam:
    """Return a copy of a model with trained adapters; both share the frozen weights.

    Args:
        model: without adapters; it stays as it is.
        config: size of the trained adapters.
        weights: result of `adapter_weights`.

    Raises:
        CheckpointError: the weights are not those of such adapters of this model.
    """
    shared = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
    adapted = copy.deepcopy(model, shared)
    add_adapters(adapted, config)
    load_adapters(adapted, weights)
    adapted.requires_grad_(False)
    adapted.adapter_version = weights_hash(weights)
    return adapted.eval()
