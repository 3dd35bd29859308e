#!/usr/bin/env python3
"""A Triton kernel of a layer norm, served to normative from Triton's interpreter: no GPU is needed.

Judge it with: normative check --subject 'python3 adapters/python/examples/triton_layer_norm.py'
"""

import math
import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported; 0 and serve(device="cuda") on a GPU

import torch
import triton
import triton.language as tl

import normative


@triton.jit
def kernel(x, weight, bias, y, columns, eps, WEIGHT: tl.constexpr, BIAS: tl.constexpr, BLOCK: tl.constexpr):
    """One program a row: the mean, then the mean square of what is left, then the result, block by block in float32."""
    row = tl.program_id(0) * columns
    sums = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        at = start + tl.arange(0, BLOCK)
        sums += tl.load(x + row + at, at < columns, 0).to(tl.float32)
    mean = tl.sum(sums) / columns
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, columns, BLOCK):
        at = start + tl.arange(0, BLOCK)
        deviation = tl.load(x + row + at, at < columns, 0).to(tl.float32) - mean
        squares += tl.where(at < columns, deviation * deviation, 0)
    root = tl.sqrt(tl.sum(squares) / columns + eps)
    for start in range(0, columns, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = (tl.load(x + row + at, at < columns, 0).to(tl.float32) - mean) / root
        value = value * tl.load(weight + at, at < columns, 0).to(tl.float32) if WEIGHT else value
        value = value + tl.load(bias + at, at < columns, 0).to(tl.float32) if BIAS else value
        tl.store(y + row + at, value.to(y.dtype.element_ty), at < columns)


# Not BF16: the interpreter of Triton 3.9 truncates to it where a GPU rounds, and normative says so.
@normative.operation("layer_norm", dtypes=["F32", "F16"])
def layer_norm(request):
    x, weight, bias = (request.tensors.get(name) for name in ("input", "weight", "bias"))
    shape, y = request.parameters["normalized_shape"], torch.empty_like(x)
    if not shape or list(x.shape[-len(shape) :]) != shape:
        raise normative.Refusal("shape", f"an input of shape {list(x.shape)} does not end in {shape}")
    for parameter in (weight, bias):
        if parameter is not None and list(parameter.shape) != shape:
            raise normative.Refusal("shape", f"a parameter has shape {list(parameter.shape)}, not {shape}")
        if parameter is not None and parameter.dtype not in (x.dtype, torch.float32):
            raise normative.Refusal("dtype", f"a {x.dtype} input with a {parameter.dtype} parameter")
    if x.numel() > 0:
        columns, given = math.prod(shape), (weight is not None, bias is not None)
        block = min(triton.next_power_of_2(columns), 1024)
        grid, pointers = (x.numel() // columns,), (x, weight if given[0] else x, bias if given[1] else x, y)
        kernel[grid](*pointers, columns, request.parameters["eps"], *given, block)
    return {"output": y}


if __name__ == "__main__":
    normative.serve("triton layer norm", "1", framework="torch")
