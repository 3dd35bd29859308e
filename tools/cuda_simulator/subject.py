#!/usr/bin/env python3
"""PyTorch's normalization on a GPU as a subject, simulated: ATen's own kernels, run instruction by instruction on a CPU.

    python tools/cuda_simulator/extract.py --architecture sm_80      # once
    normative record --subject 'python tools/cuda_simulator/subject.py --architecture sm_80' --provenance simulated \\
        --into golden/pytorch-2.15-cuda-sm80-simulated --replace --jobs 2

What the modules of torch.nn do before they launch a kernel (checks, counters, momentum) is written out here; batch norm
is PyTorch's native one, as with cuDNN switched off. What is not simulated is answered with "unsupported".
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "adapters/python"))

import normative
from normative import Refusal, Request, Unsupported

from simulator import extract, group_norm, kernels
from simulator.errors import NotExtracted, SimulationError
from simulator.kernels import Array, Device

#: The most values of an input: with it a whole recording takes minutes, and the catalogue's largest case is below it.
LIMIT = 65_536

Answer = dict[str, Any]


# --- layer norm and RMS norm ------------------------------------------------------------------------------------------


def row_norm(request: Request, device: Device) -> Answer:
    p, x, weight, bias = request.parameters, *(request.tensors.get(n) for n in ("input", "weight", "bias"))
    shape = list(p["normalized_shape"])
    if not shape:
        raise Refusal("parameter", "Expected normalized_shape to be at least 1-dimensional")
    if list(x.shape[-len(shape) :]) != shape or x.ndim < len(shape):
        raise Refusal("shape", f"Given normalized_shape={shape}, expected input with shape [*, {shape}]")
    for parameter in (weight, bias):
        if parameter is not None and list(parameter.shape) != shape:
            raise Refusal("shape", f"Expected weight and bias to be of same shape as normalized_shape, got {shape}")
    same_type(request, "weight", "bias")
    if request.name == "rms_norm" and is_channels_last(request):
        raise Unsupported("RMS norm of channels-last input is a composite of other kernels")
    eps = float(np.finfo(np.float32).eps) if p["eps"] is None else p["eps"]
    if x.size == 0:
        return empty_answer(request)
    rows = np.ascontiguousarray(x).reshape(-1, math.prod(shape))
    vectors = [None if t is None else t.reshape(-1) for t in (weight, bias)]
    y, mean, rstd = kernels.row_norm(device, request.name, rows, *vectors, eps, aligned(request))
    answer = {"output": y.reshape(x.shape)}
    if request.gradients:
        dy = np.ascontiguousarray(request.tensors["grad_output.output"]).reshape(rows.shape)
        found = kernels.row_norm_gradients(device, request.name, dy, rows, mean, rstd, vectors[0], aligned(request))
        answer |= gradients(request, *found)
    return answer


# --- batch norm and instance norm -------------------------------------------------------------------------------------

RANKS = {1: (2, 3), 2: (4,), 3: (5,)}


def batch_norm(request: Request, device: Device) -> Answer:
    p, x = request.parameters, request.tensors["input"]
    ranks = RANKS.get(p["spatial_dims"])
    if x.ndim < 2 or (ranks is not None and x.ndim not in ranks):
        raise Refusal("shape", f"expected {ranks or 'at least 2'}D input (got {x.ndim}D input)")
    state = dict(request.state)
    running = pair(state.get("running_mean"), state.get("running_var"))
    tracked = "running_mean" in state or "running_var" in state
    training = request.mode == "train" or not tracked
    momentum = 0.0 if p["momentum"] is None else p["momentum"]
    if request.mode == "train" and tracked and "num_batches_tracked" in state:
        state["num_batches_tracked"] = state["num_batches_tracked"] + 1
        if p["momentum"] is None:
            momentum = 1 / float(state["num_batches_tracked"])
    count = x.size // max(x.shape[1], 1)
    if training and count == 1:
        raise Refusal(
            "too_few_values", f"Expected more than 1 value per channel when training, got {list(x.shape)}", state
        )
    check_channels(request, x.shape[1], state)
    if tracked and running is None:
        raise Refusal("parameter", "running_mean and running_var must both be defined", state)
    if p["eps"] <= 0:
        raise Refusal("parameter", "eps must be positive", state)
    if x.size == 0:
        return empty_answer(request) | state

    last = is_channels_last(request) or (request.layout.format == "contiguous" and math.prod(x.shape[2:]) == 1)
    if not last and request.layout.format != "contiguous":
        raise Unsupported("batch norm of an input with these strides goes through a TensorIterator")
    weight, bias = request.tensors.get("weight"), request.tensors.get("bias")
    values = ChannelsLast(x, device) if last else Contiguous(x, device)
    if training:
        mean, var = values.statistics()
        if running is None:
            rstd = kernels.invert(device, var, p["eps"])
        else:
            new_mean, new_var, rstd = kernels.batch_update(device, mean, var, running, momentum, p["eps"], count)
            state |= {"running_mean": new_mean, "running_var": new_var} if request.mode == "train" else {}
    else:
        assert running is not None
        mean, rstd = running[0], kernels.invert(device, running[1], p["eps"])
    answer: Answer = {"output": values.transform(mean, rstd, weight, bias), **state}
    if request.gradients:
        saved = (mean, rstd) if training else None
        if saved is None and weight is None and bias is None:
            raise Unsupported("the gradient of an evaluation without weight and bias goes through a TensorIterator")
        answer |= gradients(
            request, *values.gradients(request.tensors["grad_output.output"], weight, running, saved, p["eps"])
        )
    return answer


class Contiguous:
    """An input as (N, C, L), and its kernels."""

    def __init__(self, x: Array, device: Device) -> None:
        self.shape, self.device = x.shape, device
        self.x = self.arranged(x)

    def arranged(self, x: Array) -> Array:
        return np.ascontiguousarray(x).reshape(*x.shape[:2], math.prod(x.shape[2:]))

    def statistics(self) -> tuple[Array, Array]:
        return kernels.batch_statistics(self.device, self.x)

    def transform(self, *arguments: Array | None) -> Array:
        return kernels.batch_transform(self.device, self.x, *arguments).reshape(self.shape)

    def gradients(
        self, dy: Array, weight: Array | None, running: tuple[Array, Array] | None,
        saved: tuple[Array, Array] | None, eps: float,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        dy = self.arranged(dy)
        dx, dw, db = kernels.batch_gradients(self.device, self.x, dy, weight, running, saved, eps)
        return dx.reshape(self.shape), dw, db


class ChannelsLast:
    """An input as (N·L, C)."""

    def __init__(self, x: Array, device: Device) -> None:
        self.shape, self.device = x.shape, device
        self.x = self.arranged(x)

    def arranged(self, x: Array) -> Array:
        return np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(-1, x.shape[1])

    def restored(self, rows: Array) -> Array:
        shape = (self.shape[0], *self.shape[2:], self.shape[1])
        return np.moveaxis(rows.reshape(shape), -1, 1)

    def statistics(self) -> tuple[Array, Array]:
        return kernels.batch_statistics_last(self.device, self.x)

    def transform(self, *arguments: Array | None) -> Array:
        return self.restored(kernels.batch_transform_last(self.device, self.x, *arguments))

    def gradients(
        self, dy: Array, weight: Array | None, running: tuple[Array, Array] | None,
        saved: tuple[Array, Array] | None, eps: float,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        if saved is None:
            raise Unsupported("the gradient of an evaluation with the channels last goes through a TensorIterator")
        dx, dw, db = kernels.batch_gradients_last(self.device, self.x, self.arranged(dy), *saved, weight)
        return self.restored(dx), dw, db


def instance_norm(request: Request, device: Device) -> Answer:
    """Batch norm of a batch of one with N·C channels, as ATen computes it."""
    p, x = request.parameters, request.tensors["input"]
    dims = p["spatial_dims"]
    if x.ndim not in (dims + 1, dims + 2):
        raise Refusal("shape", f"expected {dims + 1}D or {dims + 2}D input (got {x.ndim}D input)")
    batched = x if x.ndim == dims + 2 else x[None]
    n, c, *spatial = batched.shape
    check_channels(request, c, request.state)
    running = pair(request.state.get("running_mean"), request.state.get("running_var"))
    own = request.mode == "train" or running is None
    if own and math.prod(spatial) == 1:
        raise Refusal("too_few_values", f"Expected more than 1 spatial element when training, got {list(x.shape)}")
    if x.size == 0:
        raise Unsupported("an empty input")
    if own and running is not None:
        raise Unsupported("the running statistics of instance norm are averaged by a reduction kernel")
    weight, bias = request.tensors.get("weight"), request.tensors.get("bias")
    values = Contiguous(np.ascontiguousarray(batched).reshape(1, n * c, *spatial), device)
    repeated = [None if t is None else np.tile(t, n) for t in (weight, bias)]
    if own:
        mean, var = values.statistics()
    else:
        assert running is not None
        mean, var = (np.tile(t, n) for t in running)
    rstd = kernels.invert(device, var, p["eps"])
    if math.prod(spatial) == 1:
        raise Unsupported("one value per channel has the strides of a channels-last input")
    answer: Answer = {"output": values.transform(mean, rstd, *repeated).reshape(x.shape), **request.state}
    if request.gradients:
        if not own or (n > 1 and (weight is not None or bias is not None)):
            raise Unsupported("the gradients of repeated vectors are added up by a reduction kernel")
        dy = request.tensors["grad_output.output"].reshape(1, n * c, *spatial)
        dx, dw, db = values.gradients(dy, repeated[0], None, (mean, rstd), p["eps"])
        answer |= gradients(request, dx.reshape(x.shape), dw, db)
    return answer


# --- group norm -------------------------------------------------------------------------------------------------------


def group_norm_of(request: Request, device: Device) -> Answer:
    p, x, weight, bias = request.parameters, *(request.tensors.get(n) for n in ("input", "weight", "bias"))
    groups = p["num_groups"]
    if x.ndim < 2:
        raise Refusal("shape", f"Expected at least 2 dimensions for input tensor but received {x.ndim}")
    n, c = x.shape[:2]
    if groups <= 0 or c % groups:
        raise Refusal("parameter", f"num_channels {c} must be divisible by num_groups {groups}")
    check_channels(request, c, {})
    if math.prod(x.shape[2:]) == 0:
        raise Refusal("empty", "Expected HxW to be greater than 0, got 0")
    if n * c // groups * math.prod(x.shape[2:]) == 1:
        raise Refusal("too_few_values", f"Expected more than 1 value per channel when training, got {list(x.shape)}")
    if x.size == 0:
        return empty_answer(request)
    if is_channels_last(request):
        raise Unsupported("group norm of channels-last input is not simulated")
    values = np.ascontiguousarray(x).reshape(n, c, -1)
    y, mean, rstd = group_norm.forward(device, values, groups, weight, bias, p["eps"], aligned(request))
    answer: Answer = {"output": y.reshape(x.shape)}
    if request.gradients:
        dy = np.ascontiguousarray(request.tensors["grad_output.output"]).reshape(values.shape)
        dx, dw, db = group_norm.backward(device, dy, values, groups, mean, rstd, weight, aligned(request))
        answer |= gradients(request, dx, dw, db)
    return answer


# --- what they share --------------------------------------------------------------------------------------------------


def pair(mean: Array | None, var: Array | None) -> tuple[Array, Array] | None:
    return None if mean is None or var is None else (mean, var)


def aligned(request: Request) -> bool:
    """Whether the kernels find the input at 16 bytes. What is not contiguous is copied first, to an aligned buffer."""
    return request.layout.format != "contiguous" or request.layout.offset % 4 == 0


def is_channels_last(request: Request) -> bool:
    """Whether PyTorch calls it so, which it does for two and three spatial dimensions."""
    return request.layout.format == "channels_last" and request.tensors["input"].ndim in (4, 5)


def same_type(request: Request, *names: str) -> None:
    for name in names:
        if request.dtypes.get(name, "F32") != "F32":
            raise Refusal("dtype", f"expected scalar type Float but found {request.dtypes[name]} in {name}")


def check_channels(request: Request, channels: int, state: Answer) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = request.tensors.get(name)
        if tensor is not None and tensor.shape != (channels,):
            raise Refusal("shape", f"{name} should contain {channels} elements not {tensor.size}", state)
    same_type(request, "weight", "bias", "running_mean", "running_var")


def gradients(request: Request, dx: Array, dw: Array, db: Array) -> Answer:
    """Those that were asked for, in the shapes of their tensors."""
    found = {"input": dx, "weight": dw, "bias": db}
    return {f"grad_{name}": found[name].reshape(request.tensors[name].shape) for name in request.differentiable}


def empty_answer(request: Request) -> Answer:
    """Nothing is launched for an input without values; gradients of parameters are zeros."""
    answer: Answer = {"output": request.tensors["input"]}
    if request.gradients:
        answer |= {f"grad_{name}": np.zeros_like(request.tensors[name]) for name in request.differentiable}
    return answer


OPERATIONS: dict[str, Callable[[Request, Device], Answer]] = {
    "layer_norm": row_norm,
    "rms_norm": row_norm,
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "group_norm": group_norm_of,
}


def answer(architecture: str, request: Request) -> Answer:
    size = request.tensors["input"].size
    if size > LIMIT:
        raise Unsupported(f"{size} values are more than are simulated, {LIMIT}")
    try:
        return OPERATIONS[request.name](request, Device(architecture))
    except group_norm.BatchTooLarge as error:
        raise Unsupported(f"so many samples are added up by a kernel that is not simulated: {error}") from error
    except kernels.BlocksCooperate as error:
        raise Unsupported(f"blocks that merge their results are not simulated: {error}") from error
    except SimulationError as error:
        # No word about the layer: it is this simulator that cannot go on.
        print(f"subject.py: {request.name}, request {request.id}: {error}", file=sys.stderr)
        raise Unsupported(f"{type(error).__name__}: {error}") from error


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve ATen's CUDA normalization kernels, simulated, to normative.")
    parser.add_argument("--architecture", choices=extract.ARCHITECTURES, default="sm_80")
    architecture = parser.parse_args().architecture
    try:
        code = extract.digest(architecture)
    except NotExtracted as error:
        print(f"subject.py: {error}", file=sys.stderr)
        sys.exit(3)
    details = {
        "provenance": "simulated",
        "kernels": f"ATen's machine code for {architecture}, from PyTorch's wheel; no GPU",
        "code": code,
        "rsqrt": "correctly rounded; a GPU's may differ in the last bits",
        "cudnn": "off",
    }
    for name in OPERATIONS:
        normative.operation(name)(functools.partial(answer, architecture))
    normative.serve(
        "pytorch",
        extract.torch_version(),
        device=f"{architecture}, simulated",
        options=["gradients", "channels_last", "strided"],
        details=details,
    )


if __name__ == "__main__":
    main()
