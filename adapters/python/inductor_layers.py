#!/usr/bin/env python3
"""What torch.compile makes of PyTorch's norms for a GPU, as a subject: the Triton kernels that TorchInductor generates.

    normative check --subject 'python3 adapters/python/inductor_layers.py'

It needs PyTorch 2.15.0 with triton 3.9.0, as the wheels with CUDA bring it. Where there is a GPU the modules go through
torch.compile as they are. Where there is none Inductor is told of one (an A100), generates its kernels and the program
around them, forward and backward, and that program runs on the CPU with its kernels in Triton's interpreter. The
algorithm, the fusion and the block sizes are Inductor's; order of summation, fused products and approximations are not
a GPU's. Its answers are `interpreted` and say nothing about a GPU's bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import triton_layers  # first: it sets the interpreter's mode, which must be known before anything imports Triton

import torch
import triton
from torch import Tensor, nn
from torch._C._dynamo import guards
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.device_interface import CudaInterface
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.utils import counters
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor import config
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes import joint_graph
from torch._inductor.runtime import triton_helpers
from torch._inductor.virtualized import V
from torch._prims_common import suggest_memory_format
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils._triton import has_triton
from triton.backends.compiler import GPUTarget

import normative
import normative_torch
import pytorch
from triton_layers import INTERPRETED

OPERATIONS = ["batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm"]

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


# --- the GPU that is not there ----------------------------------------------------------------------------------------

#: What Inductor asks about a GPU when it chooses block sizes.
A100 = SimpleNamespace(
    name="a pretended A100",
    major=8,
    minor=0,
    multi_processor_count=108,
    warp_size=32,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    regs_per_multiprocessor=65536,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=166912,
    total_memory=40 << 30,
    L2_cache_size=40 << 20,
    is_integrated=0,
)


class Driver:
    """Triton's driver, as far as a generator of code asks for it."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 80, A100.warp_size)

    def get_current_device(self) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return CUDA


def run_on_cpu() -> None:
    """Replaces what a generated program calls of a GPU, for as long as this process lives."""
    triton_layers.patch_interpreter()
    # Neither another process nor one that comes later may take these kernels for a GPU's.
    config.compile_threads, config.force_disable_caches = 1, True
    config.joint_graph_constant_folding = False  # it computes constants where the graph has them: on the GPU
    triton.runtime.driver.set_active(Driver())
    triton_helpers.set_driver_to_gpu = lambda: None
    guards._empty_strided_cuda = lambda shape, stride, dtype: torch.empty_strided(shape, stride, dtype=dtype)
    torch._C._cuda_getCurrentRawStream = lambda index: 0
    torch.cuda._exchange_device = lambda index: 0
    torch.cuda._maybe_exchange_device = lambda index: 0
    torch.cuda.set_device = lambda index: None
    joint_graph.lazy_init(CPU)  # it computes patterns of attention, once for each device
    with pretended_gpu():
        has_triton()  # it remembers its answer


@contextlib.contextmanager
def pretended_gpu() -> Iterator[None]:
    """Only while code is generated: all else, such as autograd, must know that there is no GPU."""
    answers = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_properties": lambda device=None: A100,
        "get_device_capability": lambda device=None: (A100.major, A100.minor),
        "get_rng_state": lambda device=None: torch.empty(0, dtype=torch.uint8),
        "set_rng_state": lambda state, device=None: None,
        "_lazy_init": lambda: None,
    }
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
            if hasattr(CudaInterface, name):  # it keeps the functions as they were when it was imported
                stack.enter_context(mock.patch.object(CudaInterface, name, staticmethod(answer)))
        yield


# --- the compiler -----------------------------------------------------------------------------------------------------
# Autograd cannot differentiate on a device that is not there. So the graph of a module and of its gradients is recorded
# on the CPU, of whole operations. Then it is recorded again on the pretended GPU, where the operations fall apart into
# what Inductor has for a GPU; the steps that follow are those of torch.compile.


def gpu_graph(graph: GraphModule, inputs: Sequence[Any]) -> GraphModule:
    """The graph with its operations decomposed as on a GPU."""
    for node in graph.graph.nodes:
        if "device" in node.kwargs:
            node.update_kwarg("device", CUDA)
    graph.recompile()
    mode = torch._guards.detect_fake_mode(tree_leaves(inputs))
    with mode, pretended_gpu():
        found = make_fx(graph, {**select_decomp_table(), **ON_GPU})(*tree_map(on_gpu, inputs))
    ends = ("placeholder", "output")
    for old, new in zip(*([node for node in g.graph.nodes if node.op in ends] for g in (graph, found)), strict=True):
        # The division into forward and backward goes by these names and descriptions.
        if old.op == "placeholder":
            new._rename(old.name)
            new.target = old.target
        new.meta |= {key: value for key, value in old.meta.items() if key == "desc"}
    found.recompile()
    with mode, V.set_fake_mode(mode), pretended_gpu():
        joint_graph.joint_graph_passes(found, CPU)  # as in run_on_cpu
    return found


def on_gpu(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=CUDA)


def partition(graph: GraphModule, inputs: Sequence[Any], **options: Any) -> tuple[GraphModule, GraphModule]:
    return min_cut_rematerialization_partition(gpu_graph(graph, inputs), inputs, compiler="inductor", **options)


def forward(graph: GraphModule, inputs: Sequence[Any]) -> Any:
    return generate(graph)


def backward(graph: GraphModule, inputs: Sequence[Any]) -> Any:
    return generate(graph, is_backward=True)


def inference(graph: GraphModule, inputs: Sequence[Any]) -> Any:
    return generate(gpu_graph(graph, inputs), is_inference=True)


def generate(graph: GraphModule, **options: Any) -> Any:
    inputs = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    with pretended_gpu():
        return compile_fx_inner(graph, inputs, **options)


compile_for_gpu = aot_autograd(
    fw_compiler=forward,
    bw_compiler=backward,
    inference_compiler=inference,
    partition_fn=partition,
    decompositions={},
    keep_inference_input_mutations=True,
)


def backend(graph: GraphModule, inputs: Sequence[Any]) -> Any:
    """A backend of torch.compile."""
    for node in graph.graph.nodes:
        if node.target in (torch.rms_norm, nn.functional.rms_norm) and is_fused(**arguments_of(node)):
            node.args, node.kwargs = tuple(arguments_of(node).values()), {}
            node.target = rms_norm
    graph.recompile()
    return compile_for_gpu(graph, inputs)


# --- RMS norm ---------------------------------------------------------------------------------------------------------
# On a GPU it is an operation with a gradient of its own, on a CPU it falls apart as soon as it is recorded. What stays
# whole on a CPU are these two operations, which are never computed, only recorded, and become the GPU's afterwards.

FUSED = torch.library.Library("normative", "DEF")
FUSED.define("rms_norm(Tensor x, SymInt[] shape, Tensor? weight, float? eps) -> (Tensor, Tensor)")
FUSED.define("rms_norm_backward(Tensor dy, Tensor x, SymInt[] shape, Tensor rstd, Tensor? weight) -> (Tensor, Tensor)")


def arguments_of(node: torch.fx.Node) -> dict[str, Any]:
    names = ("input", "normalized_shape", "weight", "eps")
    return dict.fromkeys(names) | dict(zip(names, node.args)) | node.kwargs


def is_fused(input: torch.fx.Node, normalized_shape: Any, weight: torch.fx.Node | None, eps: float | None) -> bool:
    """Whether the operation, on a GPU, is the fused one: as PyTorch's dispatcher decides."""
    x, *others = [node.meta["example_value"] for node in (input, weight) if node is not None]
    return suggest_memory_format(x) is torch.contiguous_format and all(other.dtype == x.dtype for other in others)


def rms_norm(x: Tensor, shape: Any, weight: Tensor | None, eps: float | None) -> Any:
    return torch.ops.normative.rms_norm(x, shape, weight, eps)[0]


@torch.library.register_fake("normative::rms_norm", lib=FUSED)
def _(x: Tensor, shape: Any, weight: Tensor | None, eps: float | None) -> tuple[Tensor, Tensor]:
    rows = x.shape[: x.dim() - len(shape)]
    return torch.empty_like(x), x.new_empty([*rows, *[1] * len(shape)], dtype=torch.float32)


@torch.library.register_fake("normative::rms_norm_backward", lib=FUSED)
def _(dy: Tensor, x: Tensor, shape: Any, rstd: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(shape if weight is not None else [0])


def keep(ctx: Any, inputs: Any, output: Any) -> None:
    x, ctx.shape, weight, _ = inputs
    ctx.save_for_backward(x, output[1], weight)


def differentiate(ctx: Any, dy: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    x, rstd, weight = ctx.saved_tensors
    dx, dw = torch.ops.normative.rms_norm_backward(dy, x, ctx.shape, rstd, weight)
    return dx, None, dw if weight is not None else None, None


torch.library.register_autograd("normative::rms_norm", differentiate, setup_context=keep, lib=FUSED)


def fused_backward(dy: Tensor, x: Tensor, shape: Any, rstd: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    mask = [True, weight is not None]
    dx, dw = torch.ops.aten._fused_rms_norm_backward(dy, x, shape, rstd, weight, mask)
    return dx, x.new_empty([0]) if dw is None else dw


ON_GPU = {
    torch.ops.normative.rms_norm.default: torch.ops.aten._fused_rms_norm,
    torch.ops.normative.rms_norm_backward.default: fused_backward,
}


# --- the subject ------------------------------------------------------------------------------------------------------


class Caller(pytorch.Caller):
    """Answers requests with compiled modules of torch.nn."""

    def __call__(self, request: normative.Request) -> Mapping[str, Any]:
        torch.compiler.reset()  # what was compiled for the request before
        counters.clear()
        module = normative_torch.build(pytorch.OPERATIONS[request.name], request)
        module.compile(dynamic=False, backend=backend if INTERPRETED else "inductor")
        try:
            answer = normative_torch.call(module, request)
        except normative.Unsupported as error:
            if isinstance(error.__cause__, BackendCompilerFailed):  # an operation refused the case as it was recorded
                raise normative_torch.outcome(error.__cause__.inner_exception, request) from error
            raise
        if counters["graph_break"]:
            raise normative.Unsupported("torch.compile leaves the module in between, and computes without Inductor")
        self._check(request, answer)
        return answer


def main() -> None:
    torch.set_num_threads(1)
    if INTERPRETED:
        run_on_cpu()
    device = "cpu" if INTERPRETED else "cuda"
    for name in OPERATIONS:
        normative.operation(name, dtypes=triton_layers.DTYPES)(Caller(device))
    details = {"torch": torch.__version__, "triton": triton.__version__}
    if INTERPRETED:
        details |= {"provenance": "interpreted", "generated_for": "sm_80, without a GPU"}
    else:
        details |= {"provenance": "device"}
    normative.serve(
        "inductor",
        torch.__version__.split("+")[0],
        device=device,
        framework="torch",
        options=["gradients", "channels_last", "strided"],
        arithmetic={"accumulate": "F32", "depth": "any"},
        details=details,
    )


if __name__ == "__main__":
    main()
