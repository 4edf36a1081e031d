"""A device that stands in for a GPU where there is none: what would fail on a GPU for where tensors are fails here too.

Its tensors hold their values in a tensor of the CPU, and every operation on them is done there. But they say that they
are on another device; an operation on tensors of both kinds is refused, as CUDA refuses it, and so is what needs the
memory of the CPU, such as `Tensor.numpy`. PyTorch knows one such device for a whole process, so use it in a process of
its own.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "stubgpu"


class _Backend(_DummyBackendModule):
    """What PyTorch asks a device for."""

    device = staticmethod(nullcontext)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


_setup_privateuseone_for_python_backend(NAME, _Backend())
# `torch.tensor` makes its tensors on the CPU and then brings them to the device, where this can see it.
torch._C._set_only_lift_cpu_tensors(True)
# Tensors of this kind cannot be made in inference mode; import this before what uses it.
torch.inference_mode = torch.no_grad
# Modules that are brought to the device keep their parameters, as they do on a GPU.
torch.__future__.set_swap_module_params_on_conversion(True)
DEVICE = torch.device(NAME, 0)

_aten = torch.ops.aten
# CUDA copies between devices in these; and it takes indices that are on the CPU.
_COPIES = {_aten._to_copy.default, _aten.copy_.default}
_INDEXING = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}


class MixedDevicesError(RuntimeError):
    """An operation got tensors of two devices."""


class StubTensor(Tensor):
    """A tensor on the device.

    Args:
        values: on the CPU.
    """

    @staticmethod
    def __new__(cls, values: Tensor) -> StubTensor:
        return Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=DEVICE,
        )

    def __init__(self, values: Tensor) -> None:
        self.values_on_cpu = values

    def tolist(self) -> Any:
        return self.values_on_cpu.tolist()

    def __repr__(self) -> str:
        return f"{NAME}: {self.values_on_cpu}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class StubGpu(TorchDispatchMode):
    """Within the block the device is there, for this thread."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    on_device = [each for each in given if isinstance(each, StubTensor)]
    if func not in _COPIES:
        _check(func, args, given)
    wanted = kwargs.get("device")
    is_stub = bool(on_device) if wanted is None else torch.device(wanted).type == NAME
    if func is _aten.copy_.default:
        is_stub = isinstance(args[0], StubTensor)
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map_only(StubTensor, lambda each: each.values_on_cpu, (args, kwargs))
    result = func(*args, **kwargs)
    if not is_stub:
        return result
    # What is changed in place stays the same object.
    same = {id(each.values_on_cpu): each for each in on_device}
    return tree_map_only(Tensor, lambda each: same[id(each)] if id(each) in same else StubTensor(each), result)


def _check(func: Any, args: tuple[Any, ...], given: list[Tensor]) -> None:
    """Refuse tensors of two devices, but for numbers and indices that are on the CPU."""
    if func in _INDEXING and isinstance(args[0], StubTensor):
        indices = {id(index) for index in args[1] if index is not None}
        given = [each for each in given if id(each) not in indices]
    kinds = {isinstance(each, StubTensor) for each in given if each.dim() or isinstance(each, StubTensor)}
    if len(kinds) > 1:
        raise MixedDevicesError(f"Expected all tensors to be on the same device, but {func} got some of two devices.")


_save, _load = torch.save, torch.load


def _save_from_device(obj: Any, *args: Any, **options: Any) -> None:
    _save(tree_map_only(StubTensor, lambda each: each.values_on_cpu, obj), *args, **options)


def _load_to_device(*args: Any, map_location: Any = None, **options: Any) -> Any:
    is_stub = map_location is not None and torch.device(map_location).type == NAME
    content = _load(*args, map_location="cpu" if is_stub else map_location, **options)
    return tree_map_only(Tensor, lambda each: each.to(DEVICE), content) if is_stub else content


# There is no memory of the device that storages could be restored to.
torch.save, torch.load = _save_from_device, _load_to_device
