"""Finds values of a policy that float16 can't hold.

ONNX Runtime's CPU computes the products of an fp16 graph in float32, so it never overflows where a
GPU does. So PyTorch runs the graph's stage, and each operand and result of a product is compared
with float16's range. This sees the values of the example inputs only: pictures and states of a real
task may reach further.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

from export.pipeline.split import Graph, Split, Stage
from v2a.errors import BundleError

FP16_MAX = float(torch.finfo(torch.float16).max)  # 65504

# ATen's operators that become ONNX's Conv, Gemm and MatMul; the index of the bias, if any.
_BIAS_OF = {
    "mm": None, "bmm": None, "mv": None, "dot": None, "matmul": None,
    "addmm": 0, "addmv": 0, "baddbmm": 0, "linear": 2, "convolution": None,
}  # fmt: skip


class Largest(NamedTuple):
    """The largest magnitude of a graph's narrow tensors, and the module that it belongs to."""

    value: float
    module: str


def largest_narrow(split: Split, graph: Graph, tensors: Mapping[str, Tensor]) -> Largest:
    """Return the largest magnitude that `graph` computes in float16.

    `tensors` are the PyTorch chain's, key -> tensor in the shape of its spec. Raises BundleError if
    it is beyond float16's range; the error names the module.
    """
    stage = Stage(split.policy, graph)
    products = _Products()
    with _named(stage, products.inside), products:
        outputs = stage.outputs(dict(tensors))
    found: Largest = products.largest
    for key, value in outputs.items():
        if split.specs[key].dtype == "float16":
            found = _larger(found, value, f"output {key}")
    if not found.value <= FP16_MAX:
        raise BundleError(
            f"graph {graph.name}: {found.module or 'a product'} reaches {found.value:.3g}, but "
            f"fp16 ends at {FP16_MAX:.0f}; {fix_of(graph.name)}"
        )
    return found


def fix_of(graph: str) -> str:
    """Return what to write into the policy's file to keep `graph` out of fp16."""
    component = {"vae": "vae", "vdm": "dit"}.get(graph.partition("_")[0], "core")
    other = "fp32" if component == "vae" else "fp32 (or bf16)"
    return f"set precision.{component} to {other} in the policy's file"


class _Products(TorchDispatchMode):
    """Notes the largest operand or result of every product that PyTorch computes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there
        self.inside = [""]  # the names of the modules that are running, from outside in
        self.largest = Largest(0.0, "")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in _BIAS_OF:
            self._note(args, out, _BIAS_OF[name])
        return out

    def _note(self, args: tuple[Any, ...], out: Tensor, bias_at: int | None) -> None:
        values = [arg for arg in args if isinstance(arg, Tensor)] + [out]
        if bias_at is not None and len(args) > bias_at and args[bias_at] is not None:
            values.append(out - args[bias_at])  # ONNX may add the bias after the product
        for value in values:
            if value.is_floating_point():
                self.largest = _larger(self.largest, value, self.inside[-1])


def _larger(before: Largest, value: Tensor, module: str) -> Largest:
    found = float(value.abs().max()) if value.numel() else 0.0
    return before if found <= before.value else Largest(found, module)  # NaN is the larger


@contextmanager
def _named(root: nn.Module, inside: list[str]) -> Iterator[None]:
    """Push the name of each module below `root` onto `inside` while it runs."""
    names = {module: name for name, module in root.named_modules()}

    def enter(module: nn.Module, _args: Any) -> None:
        inside.append(names.get(module, inside[-1]))

    def leave(_module: nn.Module, _args: Any, _out: Any) -> None:
        inside.pop()

    with register_module_forward_pre_hook(enter), register_module_forward_hook(leave):
        yield
