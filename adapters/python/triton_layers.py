#!/usr/bin/env python3
"""Triton kernels that people run, as a subject: the norms of Liger, flash-attention and flash-linear-attention, and the
layer norm of Triton's tutorial.

    python3 -m venv --system-site-packages venv        # beside PyTorch 2.15.0 with triton 3.9.0
    venv/bin/pip install --no-deps liger-kernel==0.8.5 fla-core==0.6.0 flash-linear-attention==0.6.0
    venv/bin/pip install packaging==26.3 einops==0.8.2 wheel
    FLASH_ATTENTION_SKIP_CUDA_BUILD=TRUE venv/bin/pip install --no-deps --no-build-isolation flash-attn==2.8.3.post2
    normative check --subject 'venv/bin/python adapters/python/triton_layers.py --library liger'

The tutorial is in no package: get python/tutorials/05-layer-norm.py from Triton's repository, and name that file with
--library tutorial --tutorial FILE.

Where there is a GPU the kernels run on it. Where there is none they run in Triton's interpreter, which executes the
kernel's source with numpy: the real algorithm, but not a GPU's order of summation, fused products or approximations. Its
answers are `interpreted` and say nothing about a GPU's bits.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib.util
import math
import os
import sys
import types
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import normative

INTERPRETED = not torch.cuda.is_available()
if INTERPRETED:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import triton
import triton.language as tl

Layer = Callable[..., torch.Tensor]

#: Not BF16 in the interpreter: it truncates where a GPU rounds.
DTYPES = ["F32", "F16"] if INTERPRETED else ["F32", "F16", "BF16"]


# --- what the interpreter lacks ---------------------------------------------------------------------------------------


@triton.jit
def _rsqrt(x):
    return 1.0 / tl.sqrt(x)


@triton.jit
def _isnan(x):
    return x != x


@triton.jit
def _isinf(x):
    return tl.abs(x) == float("inf")


def patch_interpreter() -> None:
    """Three things that a kernel may use on a GPU and that the interpreter of Triton 3.9 does not have."""
    import triton.runtime.interpreter as interpreter
    from triton.language.extra import libdevice
    from triton.runtime.autotuner import Autotuner

    # These are calls into a library of machine code.
    libdevice.rsqrt, libdevice.isnan, libdevice.isinf = _rsqrt, _isnan, _isinf

    # A float argument arrives as a Python float, where a launch makes it a float32 value, with methods.
    convert = interpreter._implicit_cvt

    def with_floats(argument: Any) -> Any:
        if isinstance(argument, float):
            handle = interpreter.TensorHandle(np.array([argument], np.float32), tl.float32)
            return tl.tensor(handle, tl.float32)
        return convert(argument)

    interpreter._implicit_cvt = with_floats

    # Tuning measures time on a driver that is not there. Of the configurations, which differ in speed, the first is taken.
    build = Autotuner.__init__

    def first_alone(self: Any, function: Any, names: Any, configurations: Any, *rest: Any, **options: Any) -> None:
        build(self, function, names, configurations[:1], *rest, **options)

    Autotuner.__init__ = first_alone


# --- the layers -------------------------------------------------------------------------------------------------------


def affine(x: Any, size: int, weight: Any, bias: Any) -> tuple[Any, Any]:
    return x.new_ones(size) if weight is None else weight, x.new_zeros(size) if bias is None else bias


def liger() -> dict[str, Layer]:
    from liger_kernel.ops.group_norm import LigerGroupNormFunction
    from liger_kernel.ops.layer_norm import LigerLayerNormFunction
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction

    # Its layer and group norm always have a weight and a bias; what is not sent has the value that the module starts with.

    def layer_norm(request: normative.Request, x: Any, weight: Any, bias: Any) -> Any:
        weight, bias = affine(x, x.shape[-1], weight, bias)
        return LigerLayerNormFunction.apply(x, weight, bias, request.parameters["eps"])

    def rms_norm(request: normative.Request, x: Any, weight: Any, bias: Any) -> Any:
        # The dialects are its casting modes; "gemma" casts last, as PyTorch does, and Gemma adds 1 to the weight.
        mode = "llama" if request.dialect == "llama" else "gemma"
        offset = 1.0 if request.dialect == "gemma" else 0.0
        return LigerRMSNormFunction.apply(x, weight, request.parameters["eps"], offset, mode, False)

    def group_norm(request: normative.Request, x: Any, weight: Any, bias: Any) -> Any:
        if x.dim() < 3:
            raise normative.Unsupported("Liger's group norm is for inputs of rank 3 and up")
        groups, channels = request.parameters["num_groups"], x.shape[1]
        if channels % groups:  # what its module asserts, before the kernel
            raise normative.Refusal("parameter", f"{channels} channels cannot be split into {groups} groups")
        weight, bias = affine(x, channels, weight, bias)
        return LigerGroupNormFunction.apply(x, weight, bias, channels, groups, request.parameters["eps"])

    return {"layer_norm": layer_norm, "rms_norm": rms_norm, "group_norm": group_norm}


def fla() -> dict[str, Layer]:
    from fla.modules.norm import layernorm

    def layer_norm(request: normative.Request, x: Any, weight: Any, bias: Any) -> Any:
        return layernorm.layer_norm(x, weight, bias, eps=request.parameters["eps"])

    def rms_norm(request: normative.Request, x: Any, weight: Any, bias: Any) -> Any:
        return layernorm.rms_norm(x, weight, None, eps=request.parameters["eps"])

    return {"layer_norm": layer_norm, "rms_norm": rms_norm}


def flash_attn() -> dict[str, Layer]:
    # The package itself wants its compiled extension; the file with these kernels does not.
    package = types.ModuleType("flash_attn")
    spec = importlib.util.find_spec("flash_attn")
    if spec is None:
        raise ImportError("flash-attn is not installed")
    package.__path__ = list(spec.submodule_search_locations or [])
    sys.modules["flash_attn"] = package
    if INTERPRETED:
        # It asks the GPU for its size before it launches.
        size = types.SimpleNamespace(warp_size=32, multi_processor_count=1)
        torch.cuda.get_device_properties = lambda device=None: size
        torch.cuda.current_device = lambda: 0
        torch.cuda.device = lambda index: contextlib.nullcontext()
    from flash_attn.ops.triton import layer_norm as kernels

    def layer_norm(request: normative.Request, x: Any, weight: Any, bias: Any) -> Any:
        weight = x.new_ones(x.shape[-1]) if weight is None else weight  # its module always has one
        return kernels.layer_norm_fn(x, weight, bias, eps=request.parameters["eps"])

    def rms_norm(request: normative.Request, x: Any, weight: Any, bias: Any) -> Any:
        weight = x.new_ones(x.shape[-1]) if weight is None else weight
        return kernels.rms_norm_fn(x, weight, None, eps=request.parameters["eps"])

    return {"layer_norm": layer_norm, "rms_norm": rms_norm}


def tutorial(file: Path) -> dict[str, Layer]:
    # Its kernels and the function that launches them. The rest of the file compares and times them, on a GPU.
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [
        node
        for node in tree.body
        if (isinstance(node, ast.ClassDef) and node.name == "LayerNorm")
        or (isinstance(node, ast.FunctionDef) and "triton.jit" in map(ast.unparse, node.decorator_list))
    ]
    names: dict[str, Any] = {"__name__": "tutorial", "torch": torch, "triton": triton, "tl": tl}
    exec(compile(tree, file, "exec"), names)
    if "LayerNorm" not in names:
        raise ImportError(f"{file} has no class LayerNorm")

    def layer_norm(request: normative.Request, x: Any, weight: Any, bias: Any) -> Any:
        if x.reshape(-1, x.shape[-1]).stride(0) != x.shape[-1]:
            raise normative.Unsupported("it writes beyond its output, which has no gaps between rows as the input has")
        weight, bias = affine(x, x.shape[-1], weight, bias)  # it always has both
        return names["LayerNorm"].apply(x, x.shape[-1:], weight, bias, request.parameters["eps"])

    return {"layer_norm": layer_norm}


#: The function that imports a library, the packages that it consists of, and the dialects of its RMS norm.
LIBRARIES = {
    "liger": (liger, ("liger-kernel",), ("pytorch", "llama", "gemma")),
    "flash-attn": (flash_attn, ("flash-attn",), ("pytorch",)),
    "fla": (fla, ("flash-linear-attention", "fla-core"), ("pytorch",)),
    "tutorial": (tutorial, ("triton",), ("pytorch",)),
}


def answer(layer: Layer, request: normative.Request) -> dict[str, Any]:
    """Calls a layer with leaves of a graph, and differentiates it."""
    sent = request.tensors
    if request.parameters["eps"] is None:
        raise normative.Unsupported("it has no eps of None")
    leaves = {name: sent[name].requires_grad_(request.gradients) for name in request.differentiable}
    x, weight, bias = (leaves.get(name) for name in ("input", "weight", "bias"))
    shape = request.parameters.get("normalized_shape")
    if shape is not None:
        # Rows are the last dimension alone, so others that are normalized are joined. This is where a module that knows
        # its size looks at the input; the sizes of weight and bias are for the library to look at.
        if not shape or list(x.shape[-len(shape) :]) != shape:
            raise normative.Refusal("shape", f"an input of shape {list(x.shape)} does not end in {shape}")
        if len(shape) > 1:
            rows = x.reshape(*x.shape[: -len(shape)], math.prod(shape))
            vectors = [None if t is None else t.reshape(-1) for t in (weight, bias)]
            output = layer(request, rows, *vectors).reshape(x.shape)
        else:
            output = layer(request, x, weight, bias)
    else:
        output = layer(request, x, weight, bias).reshape(x.shape)
    found = {"output": output}
    if request.gradients:
        given = torch.autograd.grad(output, list(leaves.values()), sent["grad_output.output"])
        found |= {f"grad_{name}": gradient for name, gradient in zip(leaves, given)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve normalization kernels written in Triton to normative.")
    parser.add_argument("--library", choices=list(LIBRARIES), required=True)
    parser.add_argument("--tutorial", type=Path, metavar="FILE", help="the tutorial's source, for --library tutorial")
    arguments = parser.parse_args()
    library, file = arguments.library, arguments.tutorial
    if (library == "tutorial") != (file is not None):
        parser.error("--library tutorial goes with --tutorial FILE")
    normative.take_pipe()  # the libraries print while they are imported
    if INTERPRETED:
        patch_interpreter()
    build, packages, dialects = LIBRARIES[library]
    try:
        layers = build(file) if file else build()
    except (ImportError, OSError) as error:
        print(f"triton_layers.py: {library} cannot be imported: {error}", file=sys.stderr)
        sys.exit(3)
    for name, layer in layers.items():

        def handler(request: normative.Request, layer: Layer = layer) -> dict[str, Any]:
            return answer(layer, request)

        normative.operation(name, dtypes=DTYPES, dialects=dialects if name == "rms_norm" else ("pytorch",))(handler)
    versions = {name: version(name) for name in (*packages, "triton", "torch")}
    if file:
        versions["tutorial"] = f"sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}"
    normative.serve(
        library,
        version(packages[0]),
        device="cpu" if INTERPRETED else "cuda",
        framework="torch",
        options=["gradients", "channels_last", "strided"],
        details={"provenance": "interpreted" if INTERPRETED else "device", **versions},
    )


if __name__ == "__main__":
    main()
