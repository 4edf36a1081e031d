"""Collective operations of processes that train together: they gather tensors for one loss over one joint batch.

They pass gradients on. A loss of gathered tensors is the same in every process. Each process receives the whole
gradient with respect to its own tensors; averaged over the processes afterwards, these are the gradient of one loss of
one batch.
"""

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor


def fitting_backend(device: str | None) -> str:
    """Return the communication backend: nccl on GPUs, else gloo.

    Args:
        device: cpu, cuda, or None or auto for a GPU if there is one.
    """
    return "nccl" if torch.cuda.is_available() and device in (None, "auto", "cuda") else "gloo"


def torchrun_backend(requested: str | None, device: str | None) -> str | None:
    """Return the communication backend of processes that torchrun started.

    Args:
        requested: gloo or nccl; None for the default of the device.
        device: see `fitting_backend`.

    Returns:
        gloo or nccl; None if this process is alone.
    """
    if not torch.distributed.is_torchelastic_launched():
        return None
    return requested or fitting_backend(device)


def _all_reduce(x: Tensor) -> Tensor:
    total = idist.all_reduce(x.clone())
    assert isinstance(total, Tensor)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _all_reduce(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _all_reduce(gradient)


def summed(x: Tensor) -> Tensor:
    """Sum of a tensor over all processes."""
    return x if idist.get_world_size() == 1 else _Sum.apply(x)


def gathered(x: Tensor) -> Tensor:
    """Rows of all processes: the first of each process, then the second of each, and so on.

    Args:
        x: Bx..., the same shape in all W processes.

    Returns:
        WBx...
    """
    processes = idist.get_world_size()
    if processes == 1:
        return x
    # All but the own part are 0, so the sum is what a gathering would give, and its gradient is right.
    parts = [x if rank == idist.get_rank() else torch.zeros_like(x) for rank in range(processes)]
    return summed(torch.stack(parts, 1)).flatten(0, 1)
