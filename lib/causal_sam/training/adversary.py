"""Steps of LAD's adversary alone, so that it keeps up with the features."""

from __future__ import annotations

import ignite.distributed as idist
import torch

from causal_sam.style.lad import LadLoss
from causal_sam.training.processes import summed

# Remembered features in each step.
REMEMBERED_BATCH = 64


def train_adversary(lad: LadLoss, optimizer: torch.optim.Optimizer) -> None:
    """Make the steps that the configuration of LAD wants, on features of earlier batches; all processes take part."""
    adversary = lad.adversary_parameters
    for _ in range(lad.config.adversary_steps if adversary else 0):
        loss = lad.adversary_loss(REMEMBERED_BATCH)
        if loss is None:
            return
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for parameter in adversary:  # this is outside of what averages the gradients of all processes by itself
            assert parameter.grad is not None
            parameter.grad = summed(parameter.grad) / idist.get_world_size()
        optimizer.step()
